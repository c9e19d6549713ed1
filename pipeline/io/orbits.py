"""Orbits in the columns of the Minor Planet Center's table ``mpc_orbits``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import FileFormatError
from pipeline.schema import MPC_ORBITS

__all__ = ["read_orbits"]

_NAME = "unpacked_primary_provisional_designation"


def read_orbits(path: str | Path, designations: Collection[str]) -> pa.Table:
    """Read the orbits of some bodies.

    Parameters
    ----------
    path : path-like
        A Parquet file with the columns of the Minor Planet Center; others are left out.  Without
        ``designation`` the unpacked provisional designation names a body.
    designations : collection of str
        The bodies.

    Returns
    -------
    pyarrow.Table
        `pipeline.schema.MPC_ORBITS`, at most one row per body; columns that the file lacks are
        NULL.

    Raises
    ------
    FileFormatError
        If the file cannot be read, lacks a column that every orbit must have, or holds values
        that do not fit theirs.
    """
    try:
        names = pq.read_schema(path).names
        key = "designation" if "designation" in names else _NAME
        columns = [name for name in MPC_ORBITS.names if name in names]
        missing = [
            c.name for c in MPC_ORBITS.columns
            if not c.nullable and c.name not in (*columns, "designation")
        ]  # fmt: skip
        if missing:
            raise FileFormatError(
                "no such column", path=path, key=missing[0],
                expected="the columns of the Minor Planet Center's table mpc_orbits",
            )  # fmt: skip
        table = pq.read_table(path, columns=columns, filters=pc.field(key).isin(designations))
    except (OSError, pa.ArrowException) as err:
        raise FileFormatError(f"cannot be read: {err}", path=path, expected="Parquet") from err
    return _declared(table, key, path)


def _declared(table: pa.Table, key: str, path: str | Path) -> pa.Table:
    """Rows with the declared types, the first of each body."""
    columns = {name: table[name] for name in table.column_names} | {"designation": table[key]}
    try:
        orbits = MPC_ORBITS.to_arrow(columns)
    except (ValueError, pa.ArrowException) as err:
        raise FileFormatError(str(err), path=path, expected="the types of mpc_orbits") from err
    seen: dict[str, int] = {}
    for row, name in enumerate(orbits["designation"].to_pylist()):
        seen.setdefault(name, row)
    return orbits.take(pa.array(seen.values(), pa.int64()))
