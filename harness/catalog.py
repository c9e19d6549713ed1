"""The catalogue: one DuckDB file with every table of `pipeline.schema`.

Only the coordinator writes, one transaction at a time; rows of a visit and detector replace what
was there before, so that doing a unit again changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.schema import BANDS, TABLES

__all__ = ["Catalog"]

_BATCH = "__nightjar_batch"  # names are case-insensitive and tables win over variables

_MACRO = """CREATE OR REPLACE MACRO ab_mag(flux) AS
CASE WHEN flux > 0 THEN 31.4 - 2.5 * log10(flux) END"""

# Free parameters of the models: PSF x, y, flux; trail and length, angle; dipole two points.
_DERIVED = """CREATE OR REPLACE VIEW diasource_derived AS
SELECT diaSourceId, diaObjectId, ssObjectId, visit, detector, band, midpointMjdTai,
  psfChi2 / nullif(greatest(psfNdata - 3, 0), 0) AS psfReducedChi2,
  trailChi2 / nullif(greatest(trailNdata - 5, 0), 0) AS trailReducedChi2,
  dipoleChi2 / nullif(greatest(dipoleNdata - 6, 0), 0) AS dipoleReducedChi2,
  ab_mag(psfFlux) AS psfMag,
  CASE WHEN psfFlux > 0 THEN 1.0857362 * psfFluxErr / psfFlux END AS psfMagErr,
  ab_mag(apFlux) AS apMag, ab_mag(scienceFlux) AS scienceMag, ab_mag(templateFlux) AS templateMag
FROM DiaSource WHERE NOT coalesce(isSubThreshold, false)"""

_LIGHTCURVE = """CREATE OR REPLACE VIEW lightcurve AS
SELECT diaObjectId, midpointMjdTai, band, visit, detector, 'detection' AS kind,
  psfFlux, psfFluxErr, scienceFlux, scienceFluxErr, diaSourceId, reliability
FROM DiaSource WHERE diaObjectId IS NOT NULL AND NOT coalesce(isSubThreshold, false)
UNION ALL
SELECT diaObjectId, midpointMjdTai, band, visit, detector, 'forced',
  psfFlux, psfFluxErr, scienceFlux, scienceFluxErr, NULL, NULL
FROM DiaForcedSource"""

_MATCH = """CREATE OR REPLACE VIEW diasource_object_match AS
SELECT s.diaSourceId, s.diaObjectId, s.visit, s.detector, m.objectId, m.objectType, m.rank,
  m.dist, m.lnP
FROM DiaSource s JOIN DiaObject_To_Object_Match m USING (diaObjectId)
WHERE NOT coalesce(s.isSubThreshold, false)"""


def _colour_view() -> str:
    columns = []
    for a, b in pairwise(BANDS):
        for kind in ("science", "psf"):
            first, second = f"{a}_{kind}FluxMean", f"{b}_{kind}FluxMean"
            columns.append(f"ab_mag({first}) - ab_mag({second}) AS {a}_{b}_{kind}Colour")
            columns.append(
                f"CASE WHEN {first} > 0 AND {second} > 0 THEN 1.0857362 * sqrt("
                f"({first}Err / {first}) ** 2 + ({second}Err / {second}) ** 2) END "
                f"AS {a}_{b}_{kind}ColourErr"
            )
    body = ",\n  ".join(columns)
    return (
        f"CREATE OR REPLACE VIEW diaobject_colour AS\nSELECT diaObjectId,\n  {body}\nFROM DiaObject"
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C during a query be what it is; DuckDB makes a RuntimeError of it."""
    try:
        yield
    except RuntimeError as err:
        if str(err) == "Query interrupted":
            raise KeyboardInterrupt from err
        raise


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
        If it is not there yet, or another process has it.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.exists():
            raise ConfigError("there is no catalogue yet", path=path, hint="nightjar run")
        try:
            self._connection = duckdb.connect(str(path), read_only=read_only)
        except duckdb.IOException as err:
            if "lock" not in str(err).lower():
                raise ConfigError(f"cannot be opened: {err}", path=path) from err
            raise ConfigError(
                "is in use by another process", path=path, hint="wait for it to end"
            ) from err
        if not read_only:
            self._create()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _create(self) -> None:
        for table in TABLES.values():
            self._run(table.ddl())
        for statement in (_MACRO, _DERIVED, _LIGHTCURVE, _MATCH, _colour_view()):
            self._run(statement)

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        # Always drained: DuckDB 2 refuses other work while a result is open.
        with _interruptible():
            rows: list[tuple[Any, ...]] = self._connection.execute(sql, list(parameters)).fetchall()
        return rows

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of the block or nothing of it."""
        self._run("BEGIN")
        try:
            yield
        except BaseException:
            self._run("ROLLBACK")
            raise
        self._run("COMMIT")

    def delete(self, table: str, **where: Any) -> None:
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
        with _interruptible():
            self._connection.register(_BATCH, rows)
            try:
                yield
            except BaseException:
                # An aborted transaction lets nothing go; what aborted it is what matters.
                with contextlib.suppress(duckdb.Error):
                    self._connection.unregister(_BATCH)
                raise
            self._connection.unregister(_BATCH)

    def replace(self, table: str, rows: pa.Table, **where: Any) -> None:
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

    def insert_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows given as mappings."""
        self.insert(table, TABLES[table].from_rows(rows))

    def record(self, table: str, row: Mapping[str, Any], **where: Any) -> None:
        """Replace one row, given as a mapping."""
        self.replace(table, TABLES[table].from_rows([row]), **where)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
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
        with _interruptible():
            return self._connection.sql(sql, params=list(parameters) or None).to_arrow_table()

    def table(self, name: str, condition: str = "true", parameters: Sequence[Any] = ()) -> pa.Table:
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
        schema = TABLES[name].arrow_schema
        return self.query(f'SELECT * FROM "{name}" WHERE {condition}', parameters).cast(schema)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run a query and return its rows as dictionaries."""
        rows: list[dict[str, Any]] = self.query(sql, parameters).to_pylist()
        return rows

    def value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Run a query and return its single value, None if there is no row."""
        rows = self._run(sql, parameters)
        return rows[0][0] if rows else None

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(self.value(f'SELECT count(*) FROM "{table}"'))

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file."""
        self._run("CHECKPOINT")
