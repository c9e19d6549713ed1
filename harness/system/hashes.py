"""Content hashes of files, computed once per version of a file."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.workspace import atomic
from pipeline.errors import InputError
from pipeline.io import read_parquet
from pipeline.io.sizes import largest

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Hashes", "combine", "file_hash", "is_volatile", "join_hashes", "stamp_of", "table_hash"]

_VOLATILE = ("timeprocessed", "timewithdrawn", "validity")
_BLOCK = 1 << 22


def file_hash(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        Hexadecimal digits
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def is_volatile(name: str) -> bool:
    """Whether a column says when its row was made, not what it says.

    Parameters
    ----------
    name : str
        Of the column.

    Returns
    -------
    bool
        True for times of processing and of validity.
    """
    return name.lower().startswith(_VOLATILE)


def combine(parts: Iterable[str]) -> str:
    """Join hashes or words, order included, into 16 hex digits.

    Parameters
    ----------
    parts : iterable of str
        Hashes or words.

    Returns
    -------
    str
        Hexadecimal digits
    """
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def join_hashes(hashes: Iterable[str]) -> str | None:
    """Shorten hashes to 16 digits each and put them side by side.

    Parameters
    ----------
    hashes : iterable of str
        Hashes of files.

    Returns
    -------
    str or None
        Joined by +; None without any.
    """
    return "+".join(h[:16] for h in hashes) or None


def table_hash(table: pa.Table) -> str:
    """Hash of the rows of a table, 16 hex digits.

    Columns that say when a row was made are left out; names, types, values and order count.

    Parameters
    ----------
    table : pyarrow.Table
        The table.

    Returns
    -------
    str
        Hexadecimal digits
    """
    return _hash_without_rows(table.schema) if not table.num_rows else _hash_of_rows(table)


@lru_cache(maxsize=64)  # most units lack rows of most tables
def _hash_without_rows(schema: pa.Schema) -> str:
    return _hash_of_rows(schema.empty_table())


def _hash_of_rows(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for name in table.column_names:
        if is_volatile(name):
            continue
        column = table.column(name).combine_chunks()
        digest.update(f"{name}:{column.type}:{len(column)}".encode())
        digest.update(_missing(column))
        digest.update(_values(column))
    return digest.hexdigest()[:16]


def _missing(column: pa.Array) -> bytes:
    """One bit per row; most columns lack nothing."""
    if not column.null_count:
        return bytes(-(-len(column) // 8))
    return np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes()


def _values(column: pa.Array) -> bytes:
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        known = column.fill_null(0) if column.null_count else column
        return bytes(known.to_numpy(zero_copy_only=False).tobytes())
    return "\x1f".join(str(v) for v in column.to_pylist()).encode()


def stamp_of(path: Path) -> tuple[int, int]:
    """Size and time of change of a file: while they are the same, so is its hash.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    size, time : int, byte and ns
        As the file system says.
    """
    return _stamp(path.stat())


def _stamp(entry: os.stat_result) -> tuple[int, int]:
    return entry.st_size, entry.st_mtime_ns


class Hashes:
    """Remembers the hash of every file by its size and time of change.

    Parameters
    ----------
    path : Path
        Where the memory is kept between invocations.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        self._folders: dict[str, str] = {}
        if path.is_file():
            try:
                self._known = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:  # only a memory: start anew
                self._known = {}

    def of(self, path: Path) -> str:
        """Hash of a file, or the words ``absent`` or ``unreadable``."""
        return self._remembered(path, "", file_hash)

    def of_rows(self, path: Path) -> str:
        """Hash of the rows of a Parquet file, whenever they were made; or as `of`."""
        return self._remembered(path, "#rows", lambda p: table_hash(read_parquet(p)))

    def learn(self, path: Path, sha256: str, stamp: tuple[int, int]) -> None:
        """Remember a hash that another process took of a file when it had this `stamp_of`."""
        self._known[self._name(path)] = [*stamp, sha256]

    def _remembered(self, path: Path, what: str, compute: Callable[[Path], str]) -> str:
        try:
            entry = path.stat()
            key, stamp = self._name(path) + what, [*_stamp(entry)]
            known = self._known.get(key)
            if known is None or known[:2] != stamp:
                if not stat.S_ISREG(entry.st_mode) or entry.st_size > largest(path):
                    return "unreadable"  # a pipe is waited for, a device and a hole never end
                known = [*stamp, compute(path)]
                self._known[key] = known
            return str(known[2])
        except (FileNotFoundError, NotADirectoryError):
            return "absent"
        except (OSError, InputError):  # whoever needs the file will say what is wrong with it
            return "unreadable"

    def _name(self, path: Path) -> str:
        """Absolute name of a file; its folder is looked up on the disk once."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return f"{self._folders[folder]}/{name}"

    def kept(self, name: str, stamp: str) -> str | None:
        """Return the hash that was kept under a name, None if that was under another stamp."""
        known = self._known.get(name)
        return str(known[2]) if known is not None and known[:2] == [stamp, 0] else None

    def keep(self, name: str, stamp: str, value: str) -> None:
        """Remember a hash that is no file's, under a name that is no path."""
        self._known[name] = [stamp, 0, value]

    def save(self) -> None:
        """Keep the memory for the next invocation."""
        with atomic(self._path) as partial:
            partial.write_text(json.dumps(self._known), encoding="utf-8")
