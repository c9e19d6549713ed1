"""SQL written by others, from a case file or a command line: it may read the catalogue, no more.

Such a statement has to be one SELECT.  It runs on a read-only connection that reaches no file, no
network and no extension and whose settings are locked, and it is interrupted when it takes too
long.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from harness.catalog.database import Catalog
from pipeline.errors import ConfigError

__all__ = ["TIME_LIMIT", "GuardedCatalog", "QueryError", "require_select"]

TIME_LIMIT = 300.0
"""Longest time one query may take, s."""

_LOCKS = (
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET lock_configuration = true",
)


class QueryError(ConfigError):
    """A query that may not be run, or was stopped."""


def require_select(sql: str) -> None:
    """Refuse anything but one SELECT.

    Parameters
    ----------
    sql : str
        DuckDB SQL.

    Raises
    ------
    QueryError
        For another statement, several of them, none, or text that is not SQL.
    """
    try:
        kinds = [statement.type.name for statement in duckdb.extract_statements(sql)]
    except duckdb.Error as err:
        raise QueryError(f"is not SQL: {err}", key=_short(sql)) from err
    if kinds != ["SELECT"]:
        raise QueryError(
            f"is {' and '.join(kinds) or 'empty'}", key=_short(sql), expected="one SELECT statement"
        )


def _short(sql: str) -> str:
    """Return the query on one line of at most 80 characters."""
    line = " ".join(sql.split())
    return f"query {line if len(line) <= 80 else line[:79] + '…'}"


class GuardedCatalog(Catalog):
    """A catalogue that answers queries nobody has to trust.

    Parameters
    ----------
    path : Path
        The DuckDB file; it must exist.
    files : mapping of str to Path
        Parquet files that queries see as tables; those that do not exist are left out.
    tables : mapping of str to pyarrow.Table
        Further tables that queries see.
    time_limit : float, s, optional
        Longest time one query may take, by default `TIME_LIMIT`.

    Raises
    ------
    ConfigError
        As `Catalog`.
    """

    def __init__(
        self,
        path: Path,
        *,
        files: Mapping[str, Path] | None = None,
        tables: Mapping[str, pa.Table] | None = None,
        time_limit: float | None = None,
    ) -> None:
        super().__init__(path, read_only=True)
        self._time_limit = TIME_LIMIT if time_limit is None else time_limit
        present = {name: str(file) for name, file in (files or {}).items() if file.is_file()}
        for name, file in present.items():
            self._run(f'CREATE TEMP VIEW "{name}" AS SELECT * FROM read_parquet({_text(file)})')
        for name, table in (tables or {}).items():
            self._connection.register(name, table)
        self._run(f"SET allowed_paths = [{', '.join(map(_text, present.values()))}]")
        for statement in _LOCKS:
            self._run(statement)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Run one SELECT.

        Raises
        ------
        QueryError
            If it is something else, reaches outside the catalogue or takes too long.
        """
        with self._guarded(sql):
            return super().query(sql, parameters)

    def fetch(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one SELECT and return its rows as tuples; raises as `query`."""
        with self._guarded(sql):
            return super().fetch(sql, parameters)

    @contextlib.contextmanager
    def _guarded(self, sql: str) -> Iterator[None]:
        require_select(sql)
        timer = threading.Timer(self._time_limit, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        except duckdb.InterruptException as err:
            raise QueryError(
                f"was stopped after {self._time_limit:g} s",
                key=_short(sql),
                hint="ask for less: does a join lack its condition?",
            ) from err
        except duckdb.PermissionException as err:
            raise QueryError(
                f"may read the tables of the catalogue and nothing else: {_cause(err)}",
                key=_short(sql),
            ) from err
        finally:
            timer.cancel()


def _text(value: str) -> str:
    """Quote a string for SQL."""
    escaped = value.replace("'", "''")
    return f"'{escaped}'"


def _cause(err: duckdb.Error) -> str:
    return str(err).splitlines()[0]
