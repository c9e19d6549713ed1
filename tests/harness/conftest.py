from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli.main import execute


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny workspace with raw frames, not run; copy it before changing it."""
    root = tmp_path_factory.mktemp("campaign") / "tiny"
    assert execute(["init", str(root), "--profile", "tiny"]) == 0
    assert execute(["sim", str(root), "-q", "-j", "2"]) == 0
    return root


@pytest.fixture(scope="session")
def campaign(simulated: Path) -> Path:
    """The same workspace after a run."""
    assert execute(["run", str(simulated), "-q", "-j", "2"]) == 0
    return simulated


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Heed SIGINT, here and in new processes, where a shell's background job ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)
