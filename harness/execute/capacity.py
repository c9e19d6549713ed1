"""How many workers this machine can take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["WORKER_MIB", "workers_here"]

WORKER_MIB = 1200.0
"""Memory of a worker, MiB: the largest peak of a stage on 4096 × 2048 pixels, and room."""


def workers_here(root: Path = Path("/")) -> int:
    """Count the workers for which there are processors and memory.

    Parameters
    ----------
    root : Path
        Where the system's files begin.

    Returns
    -------
    int
        At least one.
    """
    fitting = int(min(_free_mib(root), default=float("inf")) / WORKER_MIB)
    return max(1, min(len(os.sched_getaffinity(0)), fitting))


def _free_mib(root: Path) -> Iterator[float]:
    """Yield what the machine has free and what each control group of ours leaves, MiB."""
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) / 1024.0
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            group = base / line[3:].strip().lstrip("/")
            for folder in (group, *group.parents):
                limit, used = _text(folder / "memory.max"), _text(folder / "memory.current")
                if limit.strip().isdigit() and used.strip().isdigit():
                    yield (int(limit) - int(used)) / 2**20


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:  # not Linux, or no such limit
        return ""
