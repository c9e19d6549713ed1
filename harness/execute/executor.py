"""What an engine is and what it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar

__all__ = ["Executor", "Work"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[R_co]):
    """Something that can be done in another process: a value that can be pickled."""

    def perform(self, attempt: int = 1) -> R_co:
        """Do it; whatever goes wrong is part of the result."""

    def lost(self, attempts: int, how: str) -> R_co:
        """Say what the result is where the process died at every attempt, and of what."""


class Executor(Protocol):
    """Performs work and yields the results as they come."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the workers go: in peace after a good end, at once after a bad one."""

    def map(self, items: Iterable[Work[R]]) -> Iterator[R]:
        """Perform work, in any order.

        Parameters
        ----------
        items : iterable of Work
            Taken only as workers become free, so that few of them exist at a time.

        Yields
        ------
        object
            The result of every item, as it is ready.
        """
