"""Files that appear whole or not at all, and what to do when they cannot be written."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import WriteError

__all__ = ["UNFINISHED", "atomic_path", "translate_os_errors"]

UNFINISHED = ".*.part"
"""Pattern of the names of files that are not finished."""

_HINTS = {
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "your quota is used up; free some space and run again",
    errno.EFBIG: "larger than a file may be here (ulimit -f)",
    errno.EIO: "the disk reports an error",
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
    WriteError
        If the file cannot be written, or stands for something else: a link or a device is not
        replaced.
    """
    path = Path(path)
    _refuse_special(path)
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
    WriteError
        For missing permission, a read-only or full disk, a file where a folder should be; other
        errors pass.
    """
    try:
        yield
    except OSError as err:
        if err.errno not in _HINTS:
            raise
        raise _unwritable(err, err.filename or path) from err


def _refuse_special(path: Path) -> None:
    """Refuse what renaming would replace although it is more than a file."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # not there; writing will say what else is wrong
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise WriteError(f"is {what} and not replaced", path=path, hint="choose another name")


def _unwritable(err: OSError, path: str | Path) -> WriteError:
    what = os.strerror(err.errno) if err.errno else str(err)
    hint = _HINTS.get(err.errno or 0, "permissions, free space?")
    return WriteError(f"cannot be written: {what}", path=path, hint=hint)
