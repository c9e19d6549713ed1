"""Executors: a pool of processes, or this process.

When a worker dies, the orders it may have had are tried again one by one, until their attempts
are used up.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import TracebackType

from harness.execute.orders import Order
from harness.execute.work import perform
from harness.ledger import FAILED, Outcome, StageRecord
from harness.processes import new_pool

__all__ = ["Executor", "LocalExecutor", "SerialExecutor", "open_executor"]


class Executor(ABC):
    """Performs orders in any order and yields the outcomes as they come."""

    def __enter__(self) -> Executor:
        return self

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the workers go: in peace after a good end, at once after a bad one."""

    @abstractmethod
    def map(self, orders: Sequence[Order]) -> Iterator[Outcome]:
        """Perform orders; the outcomes come as they are ready."""


class SerialExecutor(Executor):
    """Performs orders one after the other in this process."""

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def map(self, orders: Sequence[Order]) -> Iterator[Outcome]:
        """Perform orders in their order."""
        return (perform(order) for order in orders)


class LocalExecutor(Executor):
    """A pool of processes on this machine.

    Parameters
    ----------
    jobs : int
        How many.
    attempts : int
        Attempts at an order whose worker died.
    """

    def __init__(self, jobs: int, attempts: int) -> None:
        self._jobs, self._attempts = jobs, attempts
        self._pool: ProcessPoolExecutor | None = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
        else:
            self._kill()

    def map(self, orders: Sequence[Order]) -> Iterator[Outcome]:
        """Perform orders; the outcomes come as they are ready."""
        waiting: dict[Future[Outcome], Order] = {}
        for order in orders:
            waiting[self._submit(order)] = order
        while waiting:
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            lost: list[Order] = []
            for future in ready:
                order = waiting.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    lost.append(order)
            if lost:
                lost += waiting.values()
                waiting.clear()
                yield from self._retry(lost)

    def _retry(self, lost: Sequence[Order]) -> Iterator[Outcome]:
        """Try orders one by one after a death, so that the guilty one is known."""
        for order in lost:
            tried = order
            while True:
                self._close()
                try:
                    yield self._submit(tried).result()
                    break
                except BrokenProcessPool:
                    tried = replace(tried, attempt=tried.attempt + 1)
                if tried.attempt > self._attempts:
                    yield _died(order, tried.attempt - 1)
                    break

    def _submit(self, order: Order) -> Future[Outcome]:
        if self._pool is None:
            self._pool = new_pool(self._jobs)
        return self._pool.submit(perform, order)

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _kill(self) -> None:
        """End the workers at once; their half-written files are swept by the coordinator."""
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(timeout=5)
        self._pool = None


def open_executor(kind: str, jobs: int, attempts: int) -> Executor:
    """Choose an executor.

    Parameters
    ----------
    kind : str
        ``local`` or ``serial``.
    jobs : int
        Processes; 0 for one per processor that this process may use.
    attempts : int
        Attempts at an order whose worker died.
    """
    if kind == "serial":
        return SerialExecutor()
    return LocalExecutor(jobs or len(os.sched_getaffinity(0)), attempts)


def _died(order: Order, attempts: int) -> Outcome:
    record = StageRecord(
        order.visit,
        order.detector,
        order.keys[0].stage,
        FAILED,
        "WORKER_DIED",
        "the worker process ended without a word: killed, or out of memory",
        attempts=attempts,
        template_id=order.template_id,
    )
    return Outcome(order.visit, order.detector, [record])
