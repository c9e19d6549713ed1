"""Memory of large arrays: kept for the next one, or given back."""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["give_back_memory", "keep_memory", "turn_to"]

_doing = ""  # of this process
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_memory() -> None:
    """Let glibc reuse the memory of large arrays: a fifth of the time went into new pages."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def give_back_memory() -> None:
    """Return to the system what glibc holds of freed arrays, at the end of a step that had many."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def turn_to(work: str) -> None:
    """Give memory back if this process did another kind of work before.

    What does the same again needs pieces of the same sizes: giving them back and taking them anew
    cost a fifth of its time, and its peak was the same.

    Parameters
    ----------
    work : str
        Kind of work that begins.
    """
    global _doing  # a property of the process, as its memory is
    if work != _doing:
        give_back_memory()
    _doing = work
