"""Tables that many work items read, and tables of many work items divided among them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from harness.plan import Unit
from pipeline import io
from pipeline.schema import to_numpy

__all__ = ["by_item", "optional_table", "units_table"]


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


def units_table(units: Sequence[Unit]) -> pa.Table:
    """Build a table of units that queries can join.

    Parameters
    ----------
    units : sequence of Unit
        Visits and detectors.

    Returns
    -------
    pyarrow.Table
        Columns ``item visit detector``; the item is the place in the sequence.
    """
    visit, detector = np.array(units, np.int64).reshape(-1, 2).T
    return pa.table({"item": np.arange(len(units)), "visit": visit, "detector": detector})


def by_item(rows: pa.Table, number: int) -> list[pa.Table]:
    """Divide rows among work items.

    Parameters
    ----------
    rows : pyarrow.Table
        With a column ``item``, 0 to ``number - 1``, by which they are ordered.
    number : int
        How many items there are.

    Returns
    -------
    list of pyarrow.Table
        The rows of each item without that column, in memory of their own: a slice would be sent
        to a worker with all the rest.
    """
    ends = np.searchsorted(to_numpy(rows, "item"), np.arange(number + 1))
    rows = rows.drop_columns(["item"]).combine_chunks()
    nothing = rows.schema.empty_table()
    return [rows.take(np.arange(a, b)) if b > a else nothing for a, b in pairwise(ends)]
