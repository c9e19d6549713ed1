"""A catalogue and the version of the software that opens it.

The declared tables of `pipeline.schema` are compared with those of the file.  A file opened for
writing is brought up to date: tables and columns are added, types widened.  A file that is only
read is shown as if it had been: temporary views add what it lacks.  What cannot be carried over,
and a file of a later version, is refused in one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog import views
from harness.ledger import now_mjd_tai
from harness.system.software import software_version
from pipeline.errors import ConfigError
from pipeline.schema import CATALOG_VERSION, SCHEMA_VERSION, TABLES, Column, Table

__all__ = ["adapting", "marking", "upgrading"]

Run = Callable[[str], list[tuple[Any, ...]]]

_WIDER = frozenset(
    {("SMALLINT", "INTEGER"), ("SMALLINT", "BIGINT"), ("INTEGER", "BIGINT"), ("FLOAT", "DOUBLE")}
)
_COLUMNS = """SELECT c.table_name, c.column_name, c.data_type, c.is_nullable
FROM duckdb_columns() c JOIN duckdb_tables() t USING (database_oid, schema_oid, table_oid)
WHERE NOT t.internal AND NOT t.temporary ORDER BY c.column_index"""
_KEYS = """SELECT table_name, constraint_column_names FROM duckdb_constraints()
WHERE constraint_type = 'PRIMARY KEY'"""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A table as the file has it: SQL types, columns that refuse NULL, and its key."""

    types: dict[str, str]
    required: set[str]
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Difference:
    """What sets a stored table apart from its declaration."""

    table: Table
    stored: _Stored

    @property
    def missing(self) -> list[Column]:
        """Declared columns that the file lacks."""
        return [c for c in self.table.columns if c.name not in self.stored.types]

    @property
    def retyped(self) -> list[Column]:
        """Columns whose type is another now."""
        types = self.stored.types
        return [c for c in self.table.columns if types.get(c.name, c.sql_type) != c.sql_type]

    @property
    def relaxed(self) -> list[str]:
        """Columns that may be NULL now and could not be."""
        declared = {c.name for c in self.table.columns if not c.nullable}
        return sorted(self.stored.required - declared)

    def fault(self, *, reading: bool) -> str:
        """Say why rows cannot be carried over, empty if they can."""
        types, key = self.stored.types, self.stored.key
        for column in self.retyped:
            change = (types[column.name], column.sql_type)
            if change not in _WIDER or (column.name in key and not reading):
                return f"column {column.name} is {change[0]} there and {change[1]} now"
        for column in self.missing:
            if not column.nullable:
                return f"column {column.name} is required now and not there"
        if key != self.table.key and not reading:
            return f"its key is ({', '.join(key)}) there and ({', '.join(self.table.key)}) now"
        return ""

    def alterations(self) -> Iterator[str]:
        """Statements that bring the table up to date and keep its rows."""
        head = f'ALTER TABLE "{self.table.name}"'
        for column in self.missing:
            yield f"{head} ADD COLUMN {column.sql}"
        for column in self.retyped:
            yield f'{head} ALTER COLUMN "{column.name}" SET DATA TYPE {column.sql_type}'
        for name in self.relaxed:
            yield f'{head} ALTER COLUMN "{name}" DROP NOT NULL'


def upgrading(run: Run, path: Path) -> list[str]:
    """Return the SQL that makes a new catalogue, or brings an older one up to date.

    Parameters
    ----------
    run : callable
        Runs a query on the catalogue and returns its rows.
    path : Path
        The file, for messages.

    Returns
    -------
    list of str
        Statements in the order in which they have to run; empty for a current one.

    Raises
    ------
    ConfigError
        If it is of a later version, or has rows that cannot be carried over.
    """
    stored = _stored(run)
    version, software = _written_by(run, stored)
    _refuse_later(version, software, path)
    changes: list[str] = []
    for table in TABLES.values():
        found = stored.get(table.name)
        if found is None:
            changes.append(table.ddl())
        else:
            changes += _changes(run, path, software, _Difference(table, found))
    if changes or version != SCHEMA_VERSION:
        changes.append(_record())
    return [*changes, *views.statements()]


def _changes(run: Run, path: Path, software: str, difference: _Difference) -> list[str]:
    name, fault = difference.table.name, difference.fault(reading=False)
    if not fault:
        return list(difference.alterations())
    if _has_rows(run, name):
        raise _refusal(path, name, fault, software)
    return [f'DROP TABLE "{name}"', difference.table.ddl()]


def marking() -> list[str]:
    """Return the SQL that marks a new file as of this version: what it lacks, it lacks.

    Returns
    -------
    list of str
        Statements in the order in which they have to run.
    """
    return [CATALOG_VERSION.ddl(), _record()]


def adapting(run: Run, path: Path) -> list[str]:
    """Return the SQL that shows an older catalogue, which is only read, as one of today.

    Parameters
    ----------
    run : callable
        Runs a query on the catalogue and returns its rows.
    path : Path
        The file, for messages.

    Returns
    -------
    list of str
        Nothing for a catalogue of this version: what it lacks, it lacks.

    Raises
    ------
    ConfigError
        As `upgrading`.
    """
    stored = _stored(run)
    version, software = _written_by(run, stored)
    _refuse_later(version, software, path)
    if version == SCHEMA_VERSION:
        return []
    database = str(run("SELECT current_database()")[0][0])
    shown: list[str] = []
    for table in TABLES.values():
        found = stored.get(table.name)
        if found is None:
            shown.append(_shadow(table, {}, "WHERE false"))
            continue
        difference = _Difference(table, found)
        fault = difference.fault(reading=True)
        if fault and _has_rows(run, table.name):
            raise _refusal(path, table.name, fault, software)
        if difference.missing or difference.retyped:
            source = f'FROM "{database}".main."{table.name}"'
            shown.append(_shadow(table, found.types, source))
    return [*shown, *views.statements(temporary=True)]


def _shadow(table: Table, types: Mapping[str, str], source: str) -> str:
    """Temporary view with every declared column; those without a stored type are NULL."""
    columns = ", ".join(
        f'CAST({_quoted(c.name) if c.name in types else "NULL"} AS {c.sql_type}) AS "{c.name}"'
        for c in table.columns
    )
    return f'CREATE TEMP VIEW "{table.name}" AS SELECT {columns} {source}'


def _quoted(name: str) -> str:
    return f'"{name}"'


def _stored(run: Run) -> dict[str, _Stored]:
    keys = {name: tuple(columns) for name, columns in run(_KEYS)}
    found: dict[str, _Stored] = {}
    for table, column, kind, nullable in run(_COLUMNS):
        entry = found.setdefault(table, _Stored({}, set(), keys.get(table, ())))
        entry.types[column] = kind
        if not nullable:
            entry.required.add(column)
    return found


def _written_by(run: Run, stored: Mapping[str, _Stored]) -> tuple[int, str]:
    """Version of the catalogue and of the software that wrote it; 0 for an empty file."""
    if not stored:
        return 0, ""
    if CATALOG_VERSION.name not in stored:  # introduced with version 2
        return 1, "0.1.0"
    rows = run(
        f"SELECT schemaVersion, softwareVersion FROM {CATALOG_VERSION.name} "
        "ORDER BY schemaVersion DESC, writtenMjdTai DESC LIMIT 1"
    )
    return (int(rows[0][0]), str(rows[0][1])) if rows else (1, "0.1.0")


def _record() -> str:
    values = f"{SCHEMA_VERSION}, '{software_version()}', {now_mjd_tai()!r}"
    names = ", ".join(CATALOG_VERSION.names)
    return f"INSERT INTO {CATALOG_VERSION.name} ({names}) VALUES ({values})"


def _has_rows(run: Run, name: str) -> bool:
    return bool(run(f'SELECT EXISTS (SELECT 1 FROM "{name}")')[0][0])


def _refuse_later(version: int, software: str, path: Path) -> None:
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"catalogue version {version}, written by nightjar {software}, is later than "
            f"version {SCHEMA_VERSION} of this nightjar",
            path=path,
            hint=f"use nightjar {software} or later",
        )


def _refusal(path: Path, table: str, fault: str, software: str) -> ConfigError:
    return ConfigError(
        f"table {table} is of an earlier version and cannot be brought up to date: {fault}",
        path=path,
        hint=f"process the campaign again in a new workspace, or use nightjar {software}",
    )
