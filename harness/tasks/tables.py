"""Tables that many work items of one process read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from pipeline import io

__all__ = ["optional_table"]


def optional_table(path: Path) -> pa.Table | None:
    """Read a Parquet file if it is there; kept until the file changes.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    pyarrow.Table, optional
        None without a file.
    """
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else None


@lru_cache(maxsize=4)
def _read(path: Path, _stamp: int) -> pa.Table:
    return io.read_parquet(path)
