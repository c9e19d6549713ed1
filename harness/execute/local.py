"""A pool of processes on this machine.

When a worker dies, the items it may have had are tried again one by one, each alone in a process,
until their attempts are used up; so is the only item of a pool of one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Self, TypeVar

from harness.execute.executor import Work
from harness.system.processes import end_pool, new_pool

__all__ = ["LocalExecutor"]

R = TypeVar("R")

_IN_FLIGHT = 3  # items per worker: one at work, others on their way so that none has to wait


class LocalExecutor:
    """A pool of processes.

    Parameters
    ----------
    jobs : int
        How many.
    attempts : int
        Attempts at an item whose worker died, each alone with a worker: only then is it known to
        have killed it.
    """

    def __init__(self, jobs: int, attempts: int) -> None:
        self._jobs, self._attempts = jobs, attempts
        self._pool: ProcessPoolExecutor | None = None
        self._workers: dict[int, BaseProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
        else:
            self._kill()

    def map(self, items: Iterable[Work[R]]) -> Iterator[R]:
        """Perform items, a few per worker at a time; the results come as they are ready."""
        coming = iter(items)
        waiting: dict[Future[R], Work[R]] = {}
        while True:
            for item in islice(coming, self._jobs * _IN_FLIGHT - len(waiting)):
                waiting[self._submit(item, 1)] = item
            if not waiting:
                return
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            lost: list[Work[R]] = []
            for future in ready:
                item = waiting.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    lost.append(item)
            if lost:
                lost += waiting.values()
                waiting.clear()
                yield from self._retry(lost)

    def _retry(self, lost: Sequence[Work[R]]) -> Iterator[R]:
        """Try items one by one after a death, to learn which one killed its worker."""
        for item in lost:
            how = ""
            for attempt in range(1, self._attempts + 1):
                self._close()
                try:
                    yield self._submit(item, attempt).result()
                    break
                except BrokenProcessPool:
                    self._close()  # only one thread may ask for the exit code
                    how = _death(self._workers.values())
            else:
                yield item.lost(self._attempts, how)

    def _submit(self, item: Work[R], attempt: int) -> Future[R]:
        if self._pool is None:
            self._pool, self._workers = new_pool(self._jobs), {}
        try:
            future = self._pool.submit(item.perform, attempt)
            self._workers |= self._pool._processes or {}  # a broken pool forgets them
            return future
        except BrokenProcessPool as err:  # a worker died between two items
            lost: Future[R] = Future()
            lost.set_exception(err)
            return lost

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _kill(self) -> None:
        """End the workers at once; their half-written files are swept by the coordinator."""
        if self._pool is not None:
            end_pool(self._pool)
            self._pool = None


def _death(workers: Iterable[BaseProcess]) -> str:
    """Name of the signal, or the exit code, that ended a worker; the others are terminated."""
    codes = []
    for worker in workers:
        worker.join(timeout=5)
        codes.append(worker.exitcode or 0)
    own = [code for code in codes if code not in (0, -signal.SIGTERM)] or [-signal.SIGTERM]
    return signal.Signals(-own[0]).name if own[0] < 0 else f"exit code {own[0]}"
