"""Fault injection: a stage that fails in a chosen way, for tests of the campaign.

``NIGHTJAR_FAULT=STAGE:KIND`` in the environment, or ``STAGE:KIND:TARGET`` to meet one unit or
template by its name, and several of them with commas.  The limits that make a disk or the memory
look full are those of the system, so what follows is what would follow.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError

__all__ = ["KINDS", "VARIABLE", "planted", "verify_faults"]

VARIABLE = "NIGHTJAR_FAULT"
"""Variable of the environment that asks for a fault."""

_ROOM = 16 << 20  # bytes of memory that are left


@contextmanager
def planted(stage: str, target: str, files: Sequence[Path]) -> Iterator[None]:
    """Do the work of the block, with a fault if one is asked for.

    Parameters
    ----------
    stage, target : str
        What is being done.
    files : sequence of Path
        What it writes.

    Yields
    ------
    None
        Once.
    """
    kind = _wanted(stage, target)
    before, limit = KINDS[kind] if kind else (None, None)
    if before is not None:
        before()
    with _limited(*limit()) if limit is not None else _limited():
        yield
    if kind == "garbage":
        _spoil(files)


def verify_faults() -> None:
    """Refuse words in the environment that ask for no fault.

    Raises
    ------
    ConfigError
        If one is not understood.
    """
    for words in _asked():
        if len(words) not in (2, 3) or words[1] not in KINDS:
            raise ConfigError(
                f"unknown fault {':'.join(words)!r}", key=VARIABLE,
                expected=f"STAGE:KIND or STAGE:KIND:TARGET, KIND one of {', '.join(KINDS)}",
            )  # fmt: skip


def _asked() -> list[list[str]]:
    return [text.split(":") for text in os.environ.get(VARIABLE, "").split(",") if text]


def _wanted(stage: str, target: str) -> str:
    """Kind of the fault that is to happen here, empty for none."""
    kinds = (kind for where, kind, *name in _asked() if where == stage and name in ([], [target]))
    return next(kinds, "")


@contextmanager
def _limited(what: int | None = None, most: int = 0) -> Iterator[None]:
    """Let the system refuse more than so much of a resource."""
    if what is None:
        yield
        return
    former = resource.getrlimit(what)
    resource.setrlimit(what, (most, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, former)


def _raise() -> None:
    raise RuntimeError("planted fault")


def _hang() -> None:
    while True:
        time.sleep(3600.0)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _starve() -> None:
    """Ask for more memory than there is; what a stage needs may still lie free in the process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    with _limited(resource.RLIMIT_AS, pages * resource.getpagesize() + _ROOM):
        bytearray(64 * _ROOM)


def _spoil(files: Sequence[Path]) -> None:
    for path in files:
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))


KINDS: dict[str, tuple[Callable[[], None] | None, Callable[[], tuple[int, int]] | None]] = {
    "raise": (_raise, None),
    "hang": (_hang, None),
    "kill": (_kill, None),
    "disk": (None, lambda: (resource.RLIMIT_FSIZE, 0)),
    "memory": (_starve, None),
    "garbage": (None, None),
}
"""What can go wrong: what is done first, and which limit holds meanwhile."""
