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

pytestmark = pytest.mark.slow

Contents = Callable[[Path], dict[str, str]]

NIGHTJAR = [sys.executable, "-m", "harness.cli.main"]


@pytest.fixture
def raw(campaign: Path, tmp_path: Path) -> Path:
    """A copy of the campaign's inputs, with nothing done."""
    made = {"catalog.duckdb", "products", "staging", "alerts", "logs"}
    ignore = shutil.ignore_patterns(*made)
    return Path(shutil.copytree(campaign, tmp_path / "tiny", ignore=ignore))


def start(root: Path, *arguments: str, verb: str = "run") -> subprocess.Popen[bytes]:
    return subprocess.Popen([*NIGHTJAR, verb, str(root), *arguments], stdout=subprocess.DEVNULL)


def wait_until(condition: Callable[[], bool], limit_s: float = 600.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def products(root: Path) -> int:
    return len(list(root.glob("products/*/*.fits")))


def attempts(root: Path) -> list[int]:
    with Catalog(root / "catalog.duckdb", read_only=True) as catalog:
        assert catalog.value("SELECT count(*) FROM unit WHERE status <> 'done'") == 0
        return [n for (n,) in catalog.fetch("SELECT DISTINCT attempts FROM unit ORDER BY 1")]


def test_threads_in_the_environment_change_nothing(
    campaign: Path, raw: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "4")
    assert start(raw, "-q", "-j", "2").wait(900) == 0
    assert contents(raw) == contents(campaign)


def descendants(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(n) for path in threads for n in path.read_text(encoding="ascii").split()]
    return found + [n for child in found for n in descendants(child)]


def dask_workers(pid: int) -> list[int]:
    lines = {p: Path(f"/proc/{p}/cmdline").read_bytes() for p in descendants(pid)}
    return [p for p, line in lines.items() if b"spawn_main" in line]


def test_dask_with_one_of_two_workers_killed(campaign: Path, raw: Path, contents: Contents) -> None:
    pytest.importorskip("distributed")
    run = start(raw, "-q", "--dask", "local:2")
    wait_until(lambda: products(raw) >= 3)
    os.kill(dask_workers(run.pid)[0], signal.SIGKILL)

    assert run.wait(900) == 0
    assert contents(raw) == contents(campaign)
    assert attempts(raw) == [1, 2]


def test_claims_with_one_of_two_workers_killed(
    campaign: Path, raw: Path, contents: Contents
) -> None:
    run = start(raw, "-q", "--claims", "--set", "execution.lease=5")
    first, second = start(raw, verb="work"), start(raw, verb="work")
    wait_until(lambda: products(raw) >= 3)
    first.kill()

    assert run.wait(900) == 0
    assert second.wait(60) == 0
    assert first.wait() == -signal.SIGKILL
    assert contents(raw) == contents(campaign)
    assert attempts(raw) == [1, 2]
    assert not list((raw / "queue").iterdir())
