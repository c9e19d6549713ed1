"""Engines: what they are given is taken lazily, and a dying worker costs no other item."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info

from harness.execute import (
    ClaimExecutor,
    Config,
    Executor,
    LocalExecutor,
    SerialExecutor,
    open_executor,
)
from harness.execute.capacity import workers_here
from harness.system.threads import one_thread


@dataclass(frozen=True)
class Square:
    """Work that may end its process at its first attempts."""

    number: int
    deaths: int = 0
    folder: Path = Path()

    def perform(self, attempt: int = 1) -> tuple[int, int]:
        if self.deaths:
            (self.folder / f"{self.number}-{os.getpid()}").touch()
            if len(list(self.folder.glob(f"{self.number}-*"))) <= self.deaths:
                os._exit(1)
        return self.number**2, attempt

    def lost(self, attempts: int, how: str) -> tuple[int, int]:
        assert how == "exit code 1"
        return -self.number, attempts


@pytest.mark.parametrize("executor", [SerialExecutor(), LocalExecutor(2, 2)])
def test_every_item_has_its_result(executor: Executor) -> None:
    with executor as workers:
        results = {square for square, _ in workers.map(Square(n) for n in range(40))}
    assert results == {n**2 for n in range(40)}


@pytest.mark.parametrize(("executor", "most"), [(SerialExecutor(), 1), (LocalExecutor(2, 1), 4)])
def test_few_items_exist_at_a_time(executor: Executor, most: int) -> None:
    made = received = 0

    def items() -> Iterator[Square]:
        nonlocal made
        for n in range(50):
            made += 1
            assert made - received <= most
            yield Square(n)

    with executor as workers:
        for _ in workers.map(items()):
            received += 1
    assert made == received == 50


def test_items_whose_worker_died_are_tried_again_and_then_given_up(tmp_path: Path) -> None:
    once, always = Square(3, 1, tmp_path), Square(5, 99, tmp_path)
    work = [Square(n) for n in range(3)] + [once, always] + [Square(n) for n in range(6, 20)]
    with LocalExecutor(2, 2) as workers:
        results = [square for square, _ in workers.map(iter(work))]
    assert sorted(results) == sorted([-5, *(n**2 for n in range(20) if n not in (4, 5))])


@dataclass(frozen=True)
class Killed:
    """Work whose process ends by a signal, at every attempt or at the first."""

    number: int
    signal: int = 0
    once: Path | None = None

    def perform(self, attempt: int = 1) -> tuple[int, int, str]:
        if self.signal and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            os.kill(os.getpid(), self.signal)
        return self.number, attempt, ""

    def lost(self, attempts: int, how: str) -> tuple[int, int, str]:
        return self.number, attempts, how


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
def test_the_signal_that_ended_a_worker_is_named(
    jobs: int, number: signal.Signals, tmp_path: Path
) -> None:
    work = [Killed(n) for n in range(6)]
    work[1], work[4] = Killed(1, number), Killed(4, number, tmp_path / "once")
    with open_executor(Config(attempts=2), jobs, tmp_path) as workers:
        results = sorted(workers.map(work))

    assert [n for n, _, _ in results] == list(range(6))
    assert results[1] == (1, 2, number.name)
    assert [how for _, _, how in results] == ["", number.name, "", "", "", ""]


def test_engine_is_chosen_by_its_name(tmp_path: Path) -> None:
    for name, kind in {
        "serial": SerialExecutor,
        "local": LocalExecutor,
        "claims": ClaimExecutor,
    }.items():
        assert isinstance(open_executor(Config(executor=name), None, tmp_path), kind)


_MEMINFO = "MemTotal: 64000000 kB\nMemFree: 1 kB\nMemAvailable: {} kB\n"


@pytest.mark.parametrize(
    ("free_mib", "limits", "expected"),
    [
        (100_000, {}, 64),
        (4_000, {}, 3),
        (100, {}, 1),
        (100_000, {"job": (4_000, 100)}, 3),
        (100_000, {"job/step": (None, 100), "job": (2_500, 50)}, 2),
        (100_000, {"job/step": (90_000, 0), "": (2_500, 50)}, 2),
    ],
)
def test_workers_fit_into_memory_and_its_limits(
    free_mib: int,
    limits: dict[str, tuple[int | None, int]],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(_MEMINFO.format(free_mib * 1024))
    (tmp_path / "proc/self/cgroup").write_text("0::/job/step\n")
    for name, (most, used) in limits.items():
        folder = tmp_path / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text("max\n" if most is None else f"{most * 2**20}\n")
        (folder / "memory.current").write_text(f"{used * 2**20}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))

    assert workers_here(tmp_path) == expected


@dataclass(frozen=True)
class Threads:
    """Work that says how many threads its libraries use."""

    def perform(self, attempt: int = 1) -> tuple[set[int], str]:
        return {p["num_threads"] for p in threadpool_info()}, os.environ["OMP_NUM_THREADS"]

    def lost(self, attempts: int, how: str) -> tuple[set[int], str]:
        raise AssertionError(how)


def test_workers_use_one_thread_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "4")
    with LocalExecutor(1, 1) as workers:
        assert list(workers.map([Threads()])) == [({1}, "1")]


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with one_thread():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "4"
    assert "MKL_NUM_THREADS" not in os.environ


def test_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from fractions import Fraction\n"
        "from harness.execute.local import LocalExecutor\n"
        "with LocalExecutor(1, 3) as executor:\n"
        "    list(executor.map([Fraction(1)]))\n"
    )
    made = subprocess.run(
        [sys.executable, str(script)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    last = made.stderr.splitlines()[-1]
    assert (made.returncode, "ConfigError" in last, "__main__" in last) == (1, True, True), last
