"""Two tables of the same rows: which values differ."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["unequal_rows"]

_Flags = npt.NDArray[np.bool_]


def unequal_rows(
    first: pa.Table, second: pa.Table, key: str, columns: Collection[str]
) -> tuple[pa.Table, dict[str, _Flags]]:
    """Compare the rows of two tables, NULL equal to NULL and NaN to NaN only.

    Parameters
    ----------
    first, second : pyarrow.Table
        Both with the key.
    key : str
        Column by which rows belong together; of type integer.
    columns : collection of str
        Columns to be compared; one that a table lacks differs in every row.

    Returns
    -------
    table : pyarrow.Table
        The rows of either table, those of the first before those that only the second has.
    flags : dict of str to ndarray, (rows,)
        By column, the rows that differ; under the key those that occur once in one table and
        not once in the other.
    """
    left, right, alone = _aligned(first.column(key), second.column(key))
    here, there = first.take(left), second.take(right)
    rows = pa.concat_tables(
        [here, first.take(alone[0]), second.take(alone[1])], promote_options="permissive"
    )
    rest = np.zeros(rows.num_rows - len(left), bool)
    flags = {
        name: np.concatenate([_unequal(here, there, name), rest]) for name in columns if name != key
    }
    return rows, {key: np.concatenate([np.zeros(len(left), bool), ~rest]), **flags}


def _aligned(
    first: pa.ChunkedArray, second: pa.ChunkedArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[Any, Any]]:
    """Find the keys that occur once in both tables, and of all others of either."""
    a, b = first.to_numpy(), second.to_numpy()
    once = [np.unique(k, return_counts=True) for k in (a, b)]
    first_once, second_once = (k[n == 1] for k, n in once)
    common = np.intersect1d(first_once, second_once, assume_unique=True)
    places = []
    for keys in (a, b):
        order = np.argsort(keys, kind="stable")
        places.append(order[np.searchsorted(keys, common, sorter=order)])
    alone = tuple(np.flatnonzero(~np.isin(k, common)) for k in (a, b))
    return places[0], places[1], (alone[0], alone[1])


def _unequal(first: pa.Table, second: pa.Table, name: str) -> _Flags:
    if name not in first.column_names or name not in second.column_names:
        return np.ones(first.num_rows, bool)
    (a, no_a), (b, no_b) = (_values(t.column(name)) for t in (first, second))
    same = np.asarray(a == b)
    if a.dtype.kind == b.dtype.kind == "f":
        same |= np.isnan(a) & np.isnan(b)
    return np.where(no_a | no_b, no_a != no_b, ~same)


def _values(column: pa.ChunkedArray) -> tuple[npt.NDArray[Any], _Flags]:
    """Values of a column, anything where they are NULL, and where they are."""
    null = column.is_null().to_numpy()
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), object), null
    if null.any():
        filler = False if pa.types.is_boolean(column.type) else 0
        column = column.fill_null(filler)
    return column.to_numpy(), null
