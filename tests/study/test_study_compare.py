"""Planted changes are called, no change is not."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from scipy import special, stats

from harness.cli.main import execute
from harness.study.compare import Comparison, compare
from harness.workspace import Workspace
from pipeline.errors import ConfigError


def rows(
    seed: int,
    noise_seed: int,
    *,
    threshold: float = 5.0,
    bias: float = 0.0,
    error: float = 1.0,
    scatter: float = 1.0,
    cut: float = 7.0,
) -> pa.Table:
    """Two thousand sources whose score is their true SNR with noise."""
    rng = np.random.default_rng(seed)
    n = 2000
    snr = 3.0 * (50.0 / 3.0) ** rng.random(n)
    x, y = rng.uniform(0, 1000, (2, n))
    common = rng.normal(size=n)  # the noise of the image, the same on both sides
    own = np.random.default_rng(noise_seed).normal(size=n)
    noise = np.sqrt(0.98) * common + np.sqrt(0.02) * own
    score = snr + noise
    found = score >= threshold
    flux = 100.0 * snr
    reliable = found & (score >= cut)
    measured = np.where(found, flux * (1 + bias) + 100.0 * noise * scatter, np.nan)
    away = scatter * np.hypot(*(np.sqrt(0.98) * rng.normal(size=(2, n)) + 0.14 * own)) / snr
    return pa.table(
        {
            "injectionId": np.arange(n), "x": x, "y": y, "flux": flux, "trueSnr": snr,
            "kind": ["point"] * n, "outcome": np.where(found, "alerted", "lost"),
            "detected": found, "reliable": reliable, "alerted": found,
            "psfFlux": measured, "psfFluxErr": np.full(n, 100.0 * error),
            "sigmaNull": np.full(n, 100.0), "distance": away,
        }
    )  # fmt: skip


def detections(seed: int, *, common: int = 300, new: int = 0) -> pa.Table:
    """Detections of no injection on one image: those that stay, and others."""
    fixed, own = np.random.default_rng(1), np.random.default_rng(seed)
    n = common + new
    x = np.concatenate([fixed.uniform(0, 2000, common), own.uniform(0, 2000, new)])
    y = np.concatenate([fixed.uniform(0, 4000, common), own.uniform(0, 4000, new)])
    return pa.table(
        {
            "visit": np.ones(n, int), "detector": np.ones(n, int), "realisation": np.zeros(n, int),
            "injectionId": pa.nulls(n, pa.int64()), "x": x + own.normal(0, 0.1, n), "y": y,
            "snr": np.where(np.arange(n) % 3, 6.0, -6.0),
        }
    )  # fmt: skip


def test_false_detections_are_paired() -> None:
    one = rows(1, 2)
    reference = detections(2, new=12)
    same = compare(one, one, (reference, detections(3, new=14)))
    assert verdicts(same)["false detections"] == "same"
    worse = compare(one, one, (reference, detections(3, new=45)))
    found = {c.name: c for c in worse}["false detections"]
    assert (found.verdict, found.change) == ("worse", 33.0)
    assert found.error == pytest.approx((12 + 45) ** 0.5, abs=1.0)
    back = compare(one, one, (detections(3, new=45), reference))
    assert verdicts(back)["false detections"] == "better"


def verdicts(found: list[Comparison]) -> dict[str, str]:
    return {c.name: c.verdict for c in found}


def test_no_change_is_no_news() -> None:
    one = rows(1, 2)
    assert set(verdicts(compare(one, one)).values()) == {"same"}


@pytest.mark.slow
def test_false_alarms_are_rare() -> None:
    """Repeats in which one fiftieth of the noise is drawn anew: 5 % may be called."""
    called, repeats = 0, 40
    for k in range(repeats):
        others = detections(3 * k, new=15), detections(3 * k + 1, new=15)
        found = compare(rows(k, 1000 + k), rows(k, 2000 + k), others, seed=k)
        called += any(c.verdict != "same" for c in found)
    assert called <= stats.binom.ppf(0.99, repeats, 0.05)


@pytest.mark.parametrize(
    ("change", "metric"),
    [
        ({"threshold": 5.5}, "detected"),
        ({"threshold": 5.0 * 1.1**0.5}, "detected"),  # a variance 1.1 times too large
        ({"threshold": 5.5}, "m50 detected"),
        ({"bias": 0.02}, "flux bias"),
        ({"error": 1.3}, "flux pull width"),
        ({"scatter": 1.1}, "flux scatter"),
        ({"scatter": 1.1}, "position scatter"),
        ({"cut": 7.1}, "m50 reliable"),
    ],
)
def test_planted_changes_are_called(change: dict[str, float], metric: str) -> None:
    found = {c.name: c for c in compare(rows(1, 2), rows(1, 3, **change))}
    assert found[metric].verdict == "worse"
    back = {c.name: c for c in compare(rows(1, 3, **change), rows(1, 2))}
    assert back[metric].verdict == "better"


def test_the_change_of_depth_has_a_small_error() -> None:
    found = {c.name: c for c in compare(rows(1, 2), rows(1, 3, threshold=5.5))}["m50 detected"]
    expected = -2.5 * np.log10(5.5 / 5.0)
    assert found.change == pytest.approx(expected, abs=4 * found.error)
    small = {c.name: c for c in compare(rows(1, 2), rows(1, 3))}["m50 detected"]
    assert small.error < 0.01
    assert abs(small.change) < 4 * small.error


def test_only_the_same_injections_are_compared() -> None:
    with pytest.raises(ConfigError, match="same injections"):
        compare(rows(1, 2), rows(2, 2))


def test_against_settings(space: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", str(space.root), "--sources", "40", "--realisations", "2",
               "--negative", "0", "--hosted", "0", "--snr", "3.5:9", "--json"]  # fmt: skip
    assert execute([*command, "--against", "diasource.threshold=7.0"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["worse"]
    verdict = {m["name"]: m["verdict"] for m in document["metrics"]}
    assert verdict["detected"] == "worse"
    assert execute([*command, "--against", "diasource.sky_sources=19"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {m["verdict"] for m in document["metrics"]} == {"same"}
    folder = space.root / "studies"
    assert execute(["study", "compare", *(str(folder / document[k]) for k in ("first",) * 2)]) == 0
    assert execute(["study", "compare", str(folder)]) == 2


def test_curve_of_the_test_is_a_curve() -> None:
    table = rows(5, 6)
    snr, found = np.array(table["trueSnr"]), np.array(table["detected"])
    expected = special.ndtr(snr - 5.0)
    assert abs(found.sum() - expected.sum()) < 4 * np.sqrt((expected * (1 - expected)).sum())
