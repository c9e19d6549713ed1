"""Engines: the same results whatever the engine, the order and the deaths on the way."""

from __future__ import annotations

import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.execute import Executor, LocalExecutor, SerialExecutor
from tests.harness.cubes import Cube, marks


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("make", [SerialExecutor, lambda: LocalExecutor(2, 1)])
def test_order_of_the_items_does_not_change_the_results(
    make: type[SerialExecutor], seed: int, tmp_path: Path
) -> None:
    items = [Cube(n, tmp_path) for n in range(20)]
    random.Random(seed).shuffle(items)

    with make() as workers:
        results = dict(workers.map(items))

    assert results == {n: n**3 for n in range(20)}
    assert [marks(tmp_path, n) for n in range(20)] == [1] * 20


def test_the_serial_engine_keeps_the_order_and_waits_for_its_consumer(tmp_path: Path) -> None:
    with SerialExecutor() as workers:
        for n, _ in workers.map(Cube(n, tmp_path) for n in (5, 3, 8)):
            later = {5: (3, 8), 3: (8,), 8: ()}[n]
            assert marks(tmp_path, n) == 1
            assert [marks(tmp_path, m) for m in later] == [0] * len(later)


@pytest.mark.parametrize("at", [0, 11])
def test_a_death_costs_no_other_item_its_result(at: int, tmp_path: Path) -> None:
    items = [Cube(n, tmp_path, deaths=99 if n == at else 0) for n in range(12)]

    with LocalExecutor(2, 2) as workers:
        results = list(workers.map(items))

    assert sorted(results) == [(n, -2 if n == at else n**3) for n in range(12)]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("deaths", "attempts", "done"), [(1, 1, False), (1, 2, True), (2, 2, False), (2, 3, True)]
)
def test_every_death_is_an_attempt_of_the_item_that_died_and_of_no_other(
    deaths: int, attempts: int, done: bool, jobs: int, tmp_path: Path
) -> None:
    items = [Cube(n, tmp_path, deaths if n == 3 else 0) for n in range(8)]

    with LocalExecutor(jobs, attempts) as workers:
        results = dict(workers.map(items))

    assert results.pop(3) == (27 if done else -attempts)
    assert marks(tmp_path, 3) == (deaths + 1 if done else attempts)
    assert results == {n: n**3 for n in range(8) if n != 3}
    assert [marks(tmp_path, n) for n in results] == [1] * 7


def test_a_death_costs_one_worker(tmp_path: Path) -> None:
    items = [Cube(n, tmp_path, deaths=1 if n == 5 else 0) for n in range(30)]

    with LocalExecutor(2, 3) as workers:
        list(workers.map(items))

    assert len({path.suffix for path in tmp_path.iterdir()}) <= 3  # process ids: two, and one more


def test_the_last_attempt_is_made_alone(tmp_path: Path) -> None:
    items = [Cube(n, tmp_path, deaths=1 if n == 0 else 0) for n in range(10)]

    with LocalExecutor(2, 2) as workers:
        order = [n for n, _ in workers.map(items)]

    assert order[-1] == 0
    assert sorted(order) == list(range(10))


@pytest.mark.parametrize("how", ["hang", "stop"])
@pytest.mark.parametrize("attempts", [1, 2])
def test_an_item_that_takes_too_long_is_ended_and_the_rest_goes_on(
    how: str, attempts: int, tmp_path: Path
) -> None:
    items = [Cube(n, tmp_path, int(n == 2), how) for n in range(6)]

    with LocalExecutor(2, attempts, limit_s=3.0) as workers:
        results = dict(workers.map(items))

    assert results == {n: n**3 for n in range(6)} | ({2: -1} if attempts == 1 else {})
    assert [marks(tmp_path, n) for n in range(6)] == [1, 1, attempts, 1, 1, 1]


_COORDINATOR = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from harness.execute import LocalExecutor
from harness.system.processes import heeded_termination
from tests.harness.cubes import Cube

if __name__ == "__main__":
    with heeded_termination(), LocalExecutor(2, 3) as workers:
        list(workers.map(Cube(n, Path({folder!r}), 9 if n else 0, {how!r}) for n in range(3)))
"""


@pytest.mark.parametrize("how", ["hang", "stop"])
def test_a_request_to_end_is_heeded_while_workers_hang(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "marks"
    folder.mkdir()
    script = tmp_path / "coordinator.py"
    root = str(Path(__file__).parents[2])
    text = _COORDINATOR.format(root=root, folder=str(folder), how=how)
    script.write_text(text, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while len(list(folder.iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, words = process.communicate(timeout=60)

    assert b"Terminated" in words
    workers = {int(path.suffix[1:]) for path in folder.iterdir()}
    assert len(workers) == 2
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_no_items_need_no_processes() -> None:
    before = set(multiprocessing.active_children())

    with LocalExecutor(2, 1) as workers:
        assert list(workers.map(iter([]))) == []
        assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize("make", [SerialExecutor, lambda: LocalExecutor(2, 1)])
def test_an_error_of_the_plan_reaches_the_caller(
    make: type[SerialExecutor], tmp_path: Path
) -> None:
    def items() -> Iterator[Cube]:
        yield Cube(1, tmp_path)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"), make() as workers:
        list(workers.map(items()))

    assert not multiprocessing.active_children()


def test_one_pool_serves_several_rounds(tmp_path: Path) -> None:
    # Phases of a task map one after the other; the second may need what the first has made.
    workers: Executor
    with LocalExecutor(2, 1) as workers:
        first = dict(workers.map(Cube(n, tmp_path) for n in range(4)))
        second = dict(workers.map(Cube(n, tmp_path) for n in first.values()))

    assert second == {n**3: n**9 for n in range(4)}
