"""The same campaign however its work is spread: equal rows and products."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.catalog import Catalog
from tests.harness.family import descendants

pytestmark = pytest.mark.slow

Contents = Callable[[Path], dict[str, str]]

NIGHTJAR = [sys.executable, "-m", "harness.cli.main"]


@pytest.fixture
def begun(campaign: Path, tmp_path: Path) -> Path:
    """A copy of the campaign that stands where the templates are made and nothing is searched."""
    root = Path(shutil.copytree(campaign, tmp_path / "tiny"))
    for name in ("products/difference", "alerts"):
        shutil.rmtree(root / name)
    return root


def start(root: Path, *arguments: str, verb: str = "run") -> subprocess.Popen[bytes]:
    return subprocess.Popen([*NIGHTJAR, verb, str(root), *arguments], stdout=subprocess.DEVNULL)


def wait_until(condition: Callable[[], bool], limit_s: float = 600.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def differences(root: Path) -> int:
    return len(list(root.glob("products/difference/*.fits")))


def attempts(root: Path) -> list[int]:
    with Catalog(root / "catalog.duckdb", read_only=True) as catalog:
        assert catalog.value("SELECT count(*) FROM unit WHERE status <> 'done'") == 0
        return [n for (n,) in catalog.fetch("SELECT DISTINCT attempts FROM unit ORDER BY 1")]


def dask_workers(pid: int) -> list[int]:
    lines = {p: Path(f"/proc/{p}/cmdline").read_bytes() for p in descendants(pid)}
    return [p for p, line in lines.items() if b"spawn_main" in line]


def test_dask_with_one_of_two_workers_killed(
    campaign: Path, begun: Path, contents: Contents
) -> None:
    pytest.importorskip("distributed")
    run = start(begun, "-q", "--dask", "local:2")
    wait_until(lambda: differences(begun) >= 2)
    os.kill(dask_workers(run.pid)[0], signal.SIGKILL)

    assert run.wait(900) == 0
    assert contents(begun) == contents(campaign)
    assert attempts(begun) == [1, 2]


def test_claims_of_a_killed_worker_go_to_the_next(
    campaign: Path, begun: Path, contents: Contents
) -> None:
    run = start(begun, "-q", "--claims", "--set", "execution.lease=5")
    first = start(begun, verb="work")
    wait_until(lambda: differences(begun) >= 1)  # of an item that it has not handed back yet
    first.kill()
    second = start(begun, verb="work")

    assert run.wait(900) == 0
    assert second.wait(60) == 0
    assert first.wait() == -signal.SIGKILL
    assert contents(begun) == contents(campaign)
    assert attempts(begun) == [1, 2]
    assert not list((begun / "queue").iterdir())
