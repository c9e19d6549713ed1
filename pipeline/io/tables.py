"""Parquet tables, written at once or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.atomic import atomic_path
from pipeline.errors import FileFormatError, StorageError

if TYPE_CHECKING:  # Arrow is large, and images do without
    import pyarrow as pa

__all__ = ["count_rows", "read_parquet", "write_parquet"]


def write_parquet(path: str | Path, table: pa.Table) -> None:
    """Write a table; the same table gives the same bytes.

    Parameters
    ----------
    path : path-like
        The file.
    table : pyarrow.Table
        Any table; the metadata of its fields (units) are kept.
    """
    import pyarrow.parquet as pq

    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_parquet(path: str | Path) -> pa.Table:
    """Read a table.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    pyarrow.Table
        All columns and rows.

    Raises
    ------
    FileFormatError
        If there is no such file or it is not Parquet.
    StorageError
        If the system cannot read it.
    """
    import pyarrow.parquet as pq

    with _checked(path):
        return pq.read_table(path, partitioning=None)


def count_rows(path: str | Path) -> int:
    """Count the rows of a table without reading them.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    int
        From the end of the file.

    Raises
    ------
    FileFormatError
        If there is no such file or it is not Parquet.
    StorageError
        If the system cannot read it.
    """
    import pyarrow.parquet as pq

    with _checked(path):
        return int(pq.read_metadata(path).num_rows)


@contextmanager
def _checked(path: str | Path) -> Iterator[None]:
    """Say in one line why a table cannot be read."""
    import pyarrow as pa

    if not Path(path).is_file():
        raise FileFormatError("no such file", path=path, expected="a Parquet table")
    try:
        yield
    except (pa.ArrowInvalid, OSError) as err:
        if getattr(err, "errno", None):  # of the system, not of the format
            raise StorageError(f"cannot be read: {err}", path=path, hint="try again later") from err
        raise FileFormatError(
            f"damaged or not Parquet: {err}", path=path, expected="a Parquet table"
        ) from err
