"""What engines with workers share: attempts, and when an item is given up.

Every worker has one item at a time, so each death is held against the item that the worker had.
The last attempt at an item is made when nothing else is being done: then no other item can have
taken its memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Self, TypeVar

from harness.execute.executor import Work
from harness.execute.worker import Lost
from harness.execute.worker_wait import WorkerWait

__all__ = ["Engine"]

R = TypeVar("R")


class Engine(ABC):
    """An executor whose workers may die.

    Parameters
    ----------
    attempts : int
        How many workers an item may lose before it is given up.
    wait : WorkerWait, optional
        How long to wait for workers that others start; for ever by default.
    """

    look_s: float | None = None
    """How often `_places` is asked although nothing has ended, s."""

    def __init__(self, attempts: int, wait: WorkerWait | None = None) -> None:
        self._attempts = attempts
        self._wait = wait or WorkerWait()

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """End the workers, or their work."""

    @abstractmethod
    def _places(self) -> int:
        """Count the items that may be begun and not ended: at least one; looks after workers."""

    @abstractmethod
    def _submit(self, item: Work[R], attempt: int) -> Future[R | Lost]:
        """Begin an attempt at an item."""

    def map(self, items: Iterable[Work[R]]) -> Iterator[R]:
        """Perform items, one per worker at a time; the results come as they are ready."""
        self._wait.begin()
        coming = iter(items)
        again, last = deque[tuple[Work[R], int]](), deque[Work[R]]()
        waiting: dict[Future[R | Lost], tuple[Work[R], int]] = {}
        while True:
            while len(waiting) < self._places():
                item, attempt = again.popleft() if again else (next(coming, None), 1)
                if item is None and last and not waiting:
                    item, attempt = last.popleft(), self._attempts
                if item is None:
                    break
                waiting[self._submit(item, attempt)] = item, attempt
            if not waiting:
                return
            for future in wait(waiting, self.look_s, FIRST_COMPLETED).done:
                item, attempt = waiting.pop(future)
                result = future.result()
                if not isinstance(result, Lost):
                    yield result
                elif attempt >= self._attempts:
                    yield item.lost(attempt, result.how)
                elif attempt + 1 == self._attempts:
                    last.append(item)
                else:
                    again.append((item, attempt + 1))
