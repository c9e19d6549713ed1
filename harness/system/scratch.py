"""Temporary files: they go with their process, or with the next one if it was killed.

A folder of ours holds a file that its owner has locked.  The system drops the lock when the owner
ends, however it ends, so a folder whose lock can be had is nobody's any more.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["adopt_folder", "scratch_folder", "sweep_scratch"]

_PREFIX = "nightjar-"
_LOCK = ".owner"
_LONGEST = 50  # characters; below it lie sockets, whose paths may have 107


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a temporary folder that is removed at the end of the block.

    Yields
    ------
    Path
        The folder.
    """
    folder, lock = _owned()
    try:
        yield folder
    finally:
        _remove(folder, lock)


def adopt_folder() -> None:
    """Let all temporary files of this process and its children lie in one such folder."""
    if len(tempfile.gettempdir()) > _LONGEST:
        return
    folder, lock = _owned()
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    atexit.register(_remove, folder, lock)


def sweep_scratch() -> int:
    """Remove the temporary folders of killed processes.

    Returns
    -------
    int
        How many there were.
    """
    place = Path(tempfile.gettempdir())
    if place.name.startswith(_PREFIX):  # our own
        place = place.parent
    return sum(_abandoned(folder) for folder in place.glob(f"{_PREFIX}*"))


def _owned() -> tuple[Path, IO[str]]:
    made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    lock = (made / _LOCK).open("w", encoding="ascii")
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = made.rename(made.with_name(made.name[1:]))  # visible only once it is locked
    return folder, lock


def _remove(folder: Path, lock: IO[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()


def _abandoned(folder: Path) -> bool:
    """Remove a folder whose owner is gone."""
    try:
        with (folder / _LOCK).open("r+", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except OSError:  # in use, another user's, or not one of ours
        return False
    return True
