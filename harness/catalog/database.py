"""The catalogue: one DuckDB file with every table of `pipeline.schema`.

Only the coordinator writes, one transaction at a time; rows of a visit and detector replace what
was there before, so that doing a unit again changes nothing.  A transaction that a full disk ends
leaves the file as it was before.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from harness.catalog import versions
from pipeline.atomic import atomic_path
from pipeline.errors import ConfigError, WriteError
from pipeline.schema import TABLES

__all__ = ["Catalog", "connect"]

_BATCH = "__nightjar_batch"  # names are case-insensitive and tables win over variables


_FULL = [os.strerror(n) for n in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)]


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Make of the errors of DuckDB what they are: Ctrl-C during a query, or a disk that is full."""
    try:
        yield
    except RuntimeError as err:
        if str(err) == "Query interrupted":
            raise KeyboardInterrupt from err
        raise
    except duckdb.Error as err:
        reason = next((words for words in _FULL if words in str(err)), "")
        if not reason:
            raise
        raise WriteError(
            f"cannot be written: {reason}", path=path,
            hint="make room and give the same command again: what was recorded is kept",
        ) from err  # fmt: skip


def connect(path: Path, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file; no other place does.

    Parameters
    ----------
    path : Path
        The file, or ``:memory:``.
    read_only : bool
        Whether to leave it alone.

    Returns
    -------
    duckdb.DuckDBPyConnection
        To be closed by the caller.

    Raises
    ------
    ConfigError
        If another process has it, or it is no DuckDB file that this DuckDB can read.
    WriteError
        If there is no room for it.
    """
    try:
        with _translated(path):
            if not (read_only or path.exists() or str(path) == ":memory:"):
                with atomic_path(path) as partial:  # or a full disk would leave half a file
                    duckdb.connect(str(partial)).close()
            return duckdb.connect(str(path), read_only=read_only)
    except duckdb.Error as err:
        if "lock" not in str(err).lower():
            raise ConfigError(f"cannot be opened: {err}", path=path) from err
        raise ConfigError(
            "is in use by another process", path=path, hint="wait for it to end"
        ) from err


class Catalog:
    """The DuckDB file of a workspace, open for reading or for writing.

    Parameters
    ----------
    path : Path
        The file; made with all tables and views when opened for writing.
    read_only : bool
        Whether to leave it alone.

    Raises
    ------
    ConfigError
        If it is not there yet, another process has it, or it is of another version and cannot be
        carried over, see `harness.catalog.versions`.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.exists():
            raise ConfigError("there is no catalogue yet", path=path, hint="nightjar run")
        self.path = path
        self._connection = connect(path, read_only=read_only)
        try:
            self._prepare(read_only)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _prepare(self, read_only: bool) -> None:
        """Bring the file up to date, or show it as if it were."""
        plan = versions.adapting if read_only else versions.upgrading
        try:
            with contextlib.nullcontext() if read_only else self.transaction():
                for statement in plan(self._run, self.path):
                    self._run(statement)
        except duckdb.Error as err:
            raise ConfigError(
                f"cannot be brought up to date: {err}",
                path=self.path,
                hint="process the campaign again in a new workspace",
            ) from err

    def fetch(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run any statement and return its rows as tuples."""
        return self._run(sql, parameters)

    def _run(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        # Always drained: DuckDB 2 refuses other work while a result is open.
        with _translated(self.path):
            rows: list[tuple[Any, ...]] = self._connection.execute(sql, list(parameters)).fetchall()
        return rows

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of the block or nothing of it."""
        self._run("BEGIN")
        try:
            yield
        except BaseException:
            with contextlib.suppress(duckdb.Error, WriteError):  # what comes first is what matters
                self._run("ROLLBACK")
            raise
        self._run("COMMIT")

    def delete(self, table: str, **where: object) -> None:
        """Delete the rows in which every named column has the value given."""
        condition = " AND ".join(f'"{name}" IS NOT DISTINCT FROM ?' for name in where) or "true"
        self._run(f'DELETE FROM "{table}" WHERE {condition}', list(where.values()))

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append rows; columns are matched by name."""
        if not rows.num_rows:
            return
        with self._batch(rows):
            self._run(f'INSERT INTO "{table}" BY NAME SELECT * FROM "{_BATCH}"')

    @contextlib.contextmanager
    def _batch(self, rows: pa.Table) -> Iterator[None]:
        """Let queries see an Arrow table under the name of the batch."""
        with _translated(self.path):
            self._connection.register(_BATCH, rows)
            try:
                yield
            except BaseException:
                # An aborted transaction lets nothing go; what aborted it is what matters.
                with contextlib.suppress(duckdb.Error):
                    self._connection.unregister(_BATCH)
                raise
            self._connection.unregister(_BATCH)

    def replace(self, table: str, rows: pa.Table, **where: object) -> None:
        """Delete the rows selected by ``where`` and put the new ones in their place."""
        self.delete(table, **where)
        self.insert(table, rows)

    def delete_keys(self, table: str, rows: pa.Table, key: str) -> None:
        """Delete the rows whose key occurs in ``rows``."""
        with self._batch(rows.select([key])):
            self._run(f'DELETE FROM "{table}" WHERE "{key}" IN (SELECT "{key}" FROM "{_BATCH}")')

    def replace_keys(self, table: str, rows: pa.Table, key: str) -> None:
        """Put rows in the place of those with the same key."""
        self.delete_keys(table, rows, key)
        self.insert(table, rows)

    def update(self, table: str, rows: pa.Table, *key: str) -> None:
        """Set the columns of ``rows`` beside the key in the rows of the table with that key."""
        if not rows.num_rows:
            return
        values = ", ".join(f'"{c}" = b."{c}"' for c in rows.column_names if c not in key)
        same = " AND ".join(f't."{c}" = b."{c}"' for c in key)
        with self._batch(rows):
            self._run(f'UPDATE "{table}" t SET {values} FROM "{_BATCH}" b WHERE {same}')

    def insert_rows(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Append rows given as mappings."""
        self.insert(table, TABLES[table].from_rows(rows))

    def record(self, table: str, row: Mapping[str, object], **where: object) -> None:
        """Replace one row, given as a mapping."""
        self.replace(table, TABLES[table].from_rows([row]), **where)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Run a query.

        Parameters
        ----------
        sql : str
            DuckDB SQL; ``?`` stands for a parameter.
        parameters : sequence
            Their values.

        Returns
        -------
        pyarrow.Table
            The result.
        """
        with _translated(self.path):
            return self._connection.sql(sql, params=list(parameters) or None).to_arrow_table()

    def query_with(self, rows: pa.Table, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Run a query that sees an Arrow table under the name ``{batch}``, as `query`."""
        with self._batch(rows):
            return self.query(sql.replace("{batch}", f'"{_BATCH}"'), parameters)

    def table(
        self, name: str, condition: str = "true", parameters: Sequence[object] = ()
    ) -> pa.Table:
        """Return rows of a table with the schema it is declared with.

        Parameters
        ----------
        name : str
            Table.
        condition : str
            What follows WHERE; may hold ORDER BY.
        parameters : sequence
            Values of its ``?``.
        """
        declared = TABLES[name]
        # By name: columns that an upgrade added stand last in the file.
        columns = ", ".join(f'"{c}"' for c in declared.names)
        rows = self.query(f'SELECT {columns} FROM "{name}" WHERE {condition}', parameters)
        return rows.cast(declared.arrow_schema)

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Run a query and return its rows as dictionaries."""
        rows: list[dict[str, Any]] = self.query(sql, parameters).to_pylist()
        return rows

    def value(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """Run a query and return its single value, None if there is no row."""
        rows = self.fetch(sql, parameters)
        return rows[0][0] if rows else None

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(self.value(f'SELECT count(*) FROM "{table}"'))

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file."""
        self._run("CHECKPOINT")
