"""Work done in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from harness.execute.executor import Work

__all__ = ["SerialExecutor"]

R = TypeVar("R")


class SerialExecutor:
    """Performs one item after the other, each when the result of the former has been used."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def map(self, items: Iterable[Work[R]]) -> Iterator[R]:
        """Perform items in their order."""
        return (item.perform() for item in items)
