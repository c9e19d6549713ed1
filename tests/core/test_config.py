from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.config import StageConfig, config_hash, param


class Inner(StageConfig):
    size: int = param(21, "Side.", unit="pixel", ge=3)


class Config(StageConfig):
    threshold: float = param(5.0, "Threshold.", gt=0)
    jobs: int = param(1, "Processes.", product=False)
    inner: Inner = param(Inner(), "Inner.")


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="treshold"):
        Config(treshold=4)


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().threshold = 4  # type: ignore[misc]


def test_hash_follows_what_affects_the_product() -> None:
    base = config_hash(Config())

    assert config_hash(Config(jobs=8)) == base
    assert config_hash(Config(threshold=4)) != base
    assert config_hash(Config(inner=Inner(size=23))) != base
