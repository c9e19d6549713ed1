"""Engines: the same results whatever the engine, the order and the deaths on the way."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.execute import Executor, LocalExecutor, SerialExecutor


@dataclass(frozen=True)
class Cube:
    """Work that leaves a mark at each attempt, and dies at the first `deaths` of them."""

    number: int
    folder: Path
    deaths: int = 0

    def perform(self, attempt: int = 1) -> tuple[int, int]:
        marks = len(list(self.folder.glob(f"{self.number}.*")))
        (self.folder / f"{self.number}.{marks}").touch()
        if marks < self.deaths:
            os._exit(1)
        return self.number, self.number**3

    def lost(self, attempts: int, how: str) -> tuple[int, int]:
        return self.number, -attempts


def marks(folder: Path, number: int) -> int:
    return len(list(folder.glob(f"{number}.*")))


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


@pytest.mark.parametrize(
    ("deaths", "attempts", "done"), [(1, 1, True), (2, 1, False), (2, 2, True)]
)
def test_attempts_are_counted_alone(deaths: int, attempts: int, done: bool, tmp_path: Path) -> None:
    # The death among others is not held against an item: who was guilty is not known then.
    items = [Cube(n, tmp_path, deaths if n == 3 else 0) for n in range(4)]

    with LocalExecutor(1, attempts) as workers:
        results = dict(workers.map(items))

    assert results[3] == (27 if done else -attempts)
    assert marks(tmp_path, 3) == 1 + attempts
    assert {n: r for n, r in results.items() if n != 3} == {0: 0, 1: 1, 2: 8}


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
