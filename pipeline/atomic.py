"""Files that appear whole or not at all, and what to do when they cannot be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import FileFormatError

__all__ = ["UNFINISHED", "atomic_path", "translate_os_errors"]

UNFINISHED = ".*.part"
"""Pattern of the names of files that are not finished."""

_HINTS = {
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.ENOTDIR: "a part of this path is a file",
    errno.EEXIST: "there is a file of this name",
    errno.EISDIR: "there is a folder of this name",
}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside a file and move it there when all went well.

    Parameters
    ----------
    path : path-like
        The file to be; its folder is made if need be.

    Yields
    ------
    Path
        Where to write; nothing remains of it after an exception.

    Raises
    ------
    FileFormatError
        If the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as err:
        raise _unwritable(err, path) from err
    finally:
        if partial.exists():
            partial.unlink()


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing below a path into one line.

    Parameters
    ----------
    path : Path
        File or folder that is written in the ``with`` block; the message names it.

    Yields
    ------
    None
        Once; the errors of the block are translated.

    Raises
    ------
    FileFormatError
        For missing permission, a read-only or full disk, a file where a folder should be; other
        errors pass.
    """
    try:
        yield
    except OSError as err:
        if err.errno not in _HINTS:
            raise
        raise _unwritable(err, err.filename or path) from err


def _unwritable(err: OSError, path: str | Path) -> FileFormatError:
    what = os.strerror(err.errno) if err.errno else str(err)
    hint = _HINTS.get(err.errno or 0, "permissions, free space?")
    return FileFormatError(f"cannot be written: {what}", path=path, hint=hint)
