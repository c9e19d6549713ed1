"""Worker processes on this machine."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from harness.execute.engine import Engine
from harness.execute.executor import Work
from harness.execute.worker import Lost, Worker
from harness.system.processes import server

__all__ = ["LocalExecutor"]

R = TypeVar("R")

_IN_FLIGHT = 2  # items per worker: one at work, one that waits here so that the worker need not


class LocalExecutor(Engine):
    """Processes, each with a thread here that hands it its items.

    Parameters
    ----------
    jobs : int
        How many.
    attempts : int
        How many workers an item may lose before it is given up.
    limit_s : float, s
        How long an item may take; 0 for any time.
    """

    def __init__(self, jobs: int, attempts: int, limit_s: float = 0.0) -> None:
        super().__init__(attempts)
        self._limit_s, self._in_flight = limit_s, jobs * _IN_FLIGHT
        self._workers = [Worker() for _ in range(jobs)]
        self._threads = ThreadPoolExecutor(jobs)
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _places(self) -> int:
        return self._in_flight

    def _submit(self, item: Work[R], attempt: int) -> Future[R | Lost]:
        server()  # from this thread, which is that of signals
        return self._threads.submit(self._perform, item, attempt)

    def _perform(self, item: Work[R], attempt: int) -> R | Lost:
        worker = self._idle.get()
        try:
            return worker.perform(item, attempt, self._limit_s)
        finally:
            self._idle.put(worker)
