"""Processes by their ancestors."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> list[int]:
    """Processes that a process has started, gone ones left out."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, path.read_text(encoding="ascii").split())
        except OSError:  # the thread has ended meanwhile
            continue
    return found


def descendants(pid: int) -> list[int]:
    """Its children, and theirs."""
    found = children(pid)
    return found + [n for child in found for n in descendants(child)]
