"""Columns and tables: what a table is, and how it becomes Arrow and SQL.

Tables are written down as text blocks, one line per column::

    psfFlux   | f32 | nJy | phot.flux;em.opt | 0269 | flux of the PSF model on the difference
    visit*    | i64 |     | meta.id          | 0269 | exposure number

``*`` marks a column that is never NULL; ``{b}_`` in a name stands for one column per band of
`BANDS`; the fifth field is the number of the DMS requirement (LSE-61) that the column answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["BANDS", "Column", "Table", "parse", "to_numpy"]

BANDS = "ugrizy"
"""The bands for which ``{b}_`` columns exist."""

_ARROW = {
    "i64": pa.int64(),
    "i32": pa.int32(),
    "i16": pa.int16(),
    "f64": pa.float64(),
    "f32": pa.float32(),
    "bool": pa.bool_(),
    "str": pa.string(),
    "time": pa.timestamp("us"),
}
_NUMPY = {
    k: k.replace("i", "int").replace("f", "float") for k in ("i64", "i32", "i16", "f64", "f32")
}
_SQL = {
    "i64": "BIGINT",
    "i32": "INTEGER",
    "i16": "SMALLINT",
    "f64": "DOUBLE",
    "f32": "FLOAT",
    "bool": "BOOLEAN",
    "str": "VARCHAR",
    "time": "TIMESTAMP",
}
_EXACT_IN_FLOAT = 2.0**53


@dataclass(frozen=True, slots=True)
class Column:
    """One column, declared once.

    Attributes
    ----------
    name : str
        Its name; the APDB's where the APDB has it.
    dtype : str
        ``i64 i32 i16 f64 f32 bool str time`` (``time``: UTC to the microsecond).
    unit : str
        Unit in VOUnit spelling, empty for pure numbers.
    description : str
        What it means.
    ucd : str
        IVOA unified content descriptor, empty where none fits.
    nullable : bool
        Whether NULL is allowed.
    requirement : str
        The DMS requirement it answers, such as ``DMS-REQ-0269``; empty if none names it.
    added : bool
        Whether it is ours, beyond APDB 10.0.
    """

    name: str
    dtype: str
    unit: str = ""
    description: str = ""
    ucd: str = ""
    nullable: bool = True
    requirement: str = ""
    added: bool = False

    @property
    def arrow_field(self) -> pa.Field:
        """The Arrow field, with unit, meaning and UCD in its metadata."""
        metadata = {"unit": self.unit, "description": self.description, "ucd": self.ucd}
        return pa.field(self.name, _ARROW[self.dtype], self.nullable, metadata)

    @property
    def sql_type(self) -> str:
        """The column's type in DuckDB."""
        return _SQL[self.dtype]

    @property
    def sql(self) -> str:
        """The column's line in ``CREATE TABLE``."""
        return f'"{self.name}" {self.sql_type}{"" if self.nullable else " NOT NULL"}'

    def to_arrow(self, values: Any, length: int) -> pa.Array:
        """Convert values to the column's Arrow type.

        Parameters
        ----------
        values : array-like, Arrow array, scalar or None
            A scalar is repeated.  NaN, infinities and None become NULL.
        length : int
            Number of rows.

        Raises
        ------
        ValueError
            If the length is wrong, a value does not fit the type, or a NULL comes where none
            is allowed.
        """
        try:
            array = self._convert(values, length)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"column {self.name} ({self.dtype}): {error}") from error
        if len(array) != length:
            raise ValueError(f"column {self.name} has {len(array)} rows instead of {length}")
        if array.null_count and not self.nullable:
            raise ValueError(f"column {self.name} has {array.null_count} NULLs, none is allowed")
        return array

    def _convert(self, values: Any, length: int) -> pa.Array:
        kind = _ARROW[self.dtype]
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if isinstance(values, pa.Array):
            if pa.types.is_floating(values.type):
                values = values.to_numpy(zero_copy_only=False)
            else:
                return values.cast(kind)
        if values is None:
            return pa.nulls(length, kind)
        if isinstance(values, str) or np.ndim(values) == 0:
            # One row says all: it is converted once and repeated.
            row = self._convert([values], 1)
            return row if length == 1 else pa.repeat(row[0], length)
        array = np.asarray(values)
        if self.dtype in _NUMPY and array.dtype.kind in "fiub":
            return self._number(array, kind)
        if (self.dtype, array.dtype.kind) in (("bool", "b"), ("str", "U")):
            return pa.array(array, kind)
        return pa.array([_none_if_missing(v) for v in array.tolist()], kind)

    def _number(self, array: np.ndarray[Any, Any], kind: pa.DataType) -> pa.Array:
        if self.dtype[0] == "f":
            with np.errstate(over="ignore"):
                array = array.astype(_NUMPY[self.dtype])
            missing = ~np.isfinite(array)
        else:
            missing = (
                ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
            )
            if array.dtype.kind == "f":
                array = np.where(missing, 0.0, array)
                if np.any(array != np.rint(array)) or np.any(np.abs(array) > _EXACT_IN_FLOAT):
                    raise OverflowError("a floating-point value is not an exact integer")
            limits = np.iinfo(_NUMPY[self.dtype])
            if array.size and (array.min() < limits.min or array.max() > limits.max):
                raise OverflowError("an integer is out of range")
            array = array.astype(_NUMPY[self.dtype])
        return pa.array(array, kind, mask=missing if missing.any() else None)


def _none_if_missing(value: object) -> object:
    return None if isinstance(value, float) and not np.isfinite(value) else value


@dataclass(frozen=True)
class Table:
    """A table: its columns in order, its key and what a row is.

    Attributes
    ----------
    name : str
        Name in the catalogue.
    columns : tuple of Column
        In order.
    key : tuple of str
        Columns that identify a row.
    description : str
        What one row is.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a column that is declared twice and a key that is not a column."""
        names = [c.name for c in self.columns]
        twice = sorted({n for n in names if names.count(n) > 1})
        absent = sorted(set(self.key) - set(names))
        if twice or absent:
            raise ValueError(f"table {self.name}: declared twice {twice}, unknown keys {absent}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(c.name for c in self.columns)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by name."""
        return {c.name: c for c in self.columns}

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """Arrow schema with units, meanings and UCDs in the fields' metadata."""
        return pa.schema([c.arrow_field for c in self.columns], {"table": self.name})

    def __getitem__(self, name: str) -> Column:
        """Return the column of that name."""
        return self.by_name[name]

    def __contains__(self, name: str) -> bool:
        """Whether there is a column of that name."""
        return name in self.by_name

    def to_arrow(self, columns: Mapping[str, Any], **constants: Any) -> pa.Table:
        """Build a table with every declared column.

        Parameters
        ----------
        columns : mapping of str to array-like, (n,)
            Values by column name.  NaN, infinities and None become NULL; nullable columns that
            are left out are NULL throughout.
        **constants
            Further columns of one value each.

        Returns
        -------
        pyarrow.Table
            With `arrow_schema`.

        Raises
        ------
        ValueError
            For unknown names, missing required columns, unequal lengths, or values that do not
            fit their type.
        """
        given = {**columns, **constants}
        unknown = sorted(set(given) - set(self.names))
        missing = [c.name for c in self.columns if not c.nullable and c.name not in given]
        lengths = {len(v) for v in columns.values() if v is not None and _is_sequence(v)}
        if unknown or len(lengths) > 1:
            raise ValueError(f"table {self.name}: unknown columns {unknown}, lengths {lengths}")
        length = lengths.pop() if lengths else (1 if given else 0)
        if missing and length:
            raise ValueError(f"table {self.name}: required columns are missing: {missing}")
        arrays = [c.to_arrow(given.get(c.name), length) for c in self.columns]
        return pa.Table.from_arrays(arrays, schema=self.arrow_schema)

    def from_rows(self, rows: Iterable[Mapping[str, object]]) -> pa.Table:
        """Build a table from rows given as mappings; absent keys are NULL."""
        rows = list(rows)
        names = list(dict.fromkeys(k for row in rows for k in row))
        return self.to_arrow({n: [row.get(n) for row in rows] for n in names})

    def empty(self) -> pa.Table:
        """Return the table without rows."""
        return self.arrow_schema.empty_table()

    def ddl(self, *, primary_key: bool = True) -> str:
        """DuckDB statement that creates the table if it is not there.

        Parameters
        ----------
        primary_key : bool
            Whether the key is declared, and thereby enforced.
        """
        lines = [c.sql for c in self.columns]
        if primary_key and self.key:
            lines.append("PRIMARY KEY (" + ", ".join(f'"{k}"' for k in self.key) + ")")
        body = ",\n  ".join(lines)
        return f'CREATE TABLE IF NOT EXISTS "{self.name}" (\n  {body}\n)'


def _is_sequence(values: object) -> bool:
    return not isinstance(values, str) and hasattr(values, "__len__")


def parse(block: str, *, added: bool = False) -> tuple[Column, ...]:
    """Read a text block of columns.

    Parameters
    ----------
    block : str
        Lines ``name | dtype | unit | ucd | requirement | meaning``, as above.
    added : bool
        Whether these columns go beyond APDB 10.0.

    Returns
    -------
    tuple of Column
        In the order of the lines.

    Raises
    ------
    ValueError
        For a line of another shape.
    """
    lines = [line for line in block.splitlines() if line.strip()]
    columns: list[Column] = []
    while lines:
        perband = _leading(lines)
        if perband:
            columns += [_column(line, band, added) for band in BANDS for line in perband]
            del lines[: len(perband)]
        else:
            columns.append(_column(lines.pop(0), "", added))
    return tuple(columns)


def to_numpy(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """Take one column of an Arrow table out as an array.

    Parameters
    ----------
    table : pyarrow.Table
        Any table.
    name : str
        Column.

    Returns
    -------
    ndarray, (n,)
        NULL becomes NaN in floats, -1 in integers, False in booleans and None elsewhere.
    """
    column = table.column(name).combine_chunks()
    if pa.types.is_boolean(column.type):
        column = column.fill_null(False)
    elif pa.types.is_integer(column.type):
        column = column.fill_null(-1)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _leading(lines: Sequence[str]) -> list[str]:
    """Return the run of per-band lines at the beginning."""
    run: list[str] = []
    for line in lines:
        if not line.strip().startswith("{b}"):
            break
        run.append(line)
    return run


def _column(line: str, band: str, added: bool) -> Column:
    fields = [f.strip().replace("{b}", band) for f in line.split("|")]
    if len(fields) != 6 or fields[1] not in _ARROW:
        raise ValueError(f"not a column: {line!r}")
    name, dtype, unit, ucd, number, text = fields
    requirement = f"DMS-REQ-{number}" if number else ""
    return Column(name.rstrip("*"), dtype, unit, text, ucd, name[-1] != "*", requirement, added)
