"""Tables of the catalogue as files that other tools read."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.catalog import GuardedCatalog
from harness.export.regions import write_regions
from harness.export.sky import write_hats, write_moc
from harness.system.text import in_cell
from harness.workspace import atomic
from pipeline.errors import ConfigError
from pipeline.schema import TABLES

if TYPE_CHECKING:
    from astropy.io.votable.tree import VOTableFile
    from astropy.table import Table
    from astropy.units import UnitBase

__all__ = ["export_table", "write_table"]

_FORMATS = {
    ".parquet": "parquet",
    ".vot": "votable",
    ".xml": "votable",
    ".votable": "votable",
    ".csv": "csv",
    ".reg": "regions",
    ".fits": "moc",
}

_WITH_CURVES = ("DiaObject",)
_CURVES = """SELECT diaObjectId, list({'midpointMjdTai': midpointMjdTai, 'band': band,
  'kind': kind, 'visit': visit, 'detector': detector, 'psfFlux': psfFlux,
  'psfFluxErr': psfFluxErr, 'scienceFlux': scienceFlux, 'scienceFluxErr': scienceFluxErr,
  'diaSourceId': diaSourceId} ORDER BY midpointMjdTai, kind, detector) AS lightcurve
FROM lightcurve GROUP BY diaObjectId
HAVING diaObjectId IN (SELECT diaObjectId FROM DiaObject WHERE"""


def export_table(
    catalog: GuardedCatalog,
    name: str,
    output: Path,
    kind: str | None = None,
    where: str | None = None,
    *,
    lightcurves: bool = False,
    hats: bool = False,
) -> int:
    """Write a table or view.

    Parameters
    ----------
    catalog : GuardedCatalog
        Open catalogue.
    name : str
        Table or view.
    output : Path
        The file.
    kind : str, optional
        ``parquet``, ``votable``, ``csv``, ``regions`` or ``moc``; by default what the suffix says.
    where : str, optional
        SQL condition.
    lightcurves : bool
        Whether each object gets its epochs, in a nested column.
    hats : bool
        Whether to make a folder, a HATS catalogue of the objects with their light curves.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    ConfigError
        For an unknown table or format, or a condition that is not SQL.
    """
    import duckdb

    kind = "parquet" if hats else _format_of(output, kind)
    if (hats or lightcurves) and (name not in _WITH_CURVES or kind != "parquet"):
        key = "--hats" if hats else "--lightcurves"
        raise ConfigError("light curves go with DiaObject, as Parquet", key=key)
    known = [
        r["table_name"] for r in catalog.rows("SELECT table_name FROM information_schema.tables")
    ]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else None
        raise ConfigError(f"no table {name!r}", expected=", ".join(sorted(known)), hint=hint)
    try:
        table = catalog.query(f'SELECT * FROM "{name}" WHERE {where or "true"}')
        wanted = lightcurves or hats
        curves = catalog.query(f"{_CURVES} {where or 'true'})") if wanted else None
    except duckdb.Error as err:
        raise ConfigError(f"condition {where!r} fails: {err}") from err
    if curves is not None:
        table = _with_curves(_described(name, table), curves)
    if hats:
        write_hats(table, output, f"{name} of {catalog.path.parent.name}")
    else:
        write_table(name, table, output, kind)
    return int(table.num_rows)


def _with_curves(objects: pa.Table, curves: pa.Table) -> pa.Table:
    """Append the column ``lightcurve``, empty for objects without a single flux."""
    found = dict(zip(curves["diaObjectId"].to_pylist(), range(curves.num_rows), strict=True))
    rows = pa.array([found.get(i) for i in objects["diaObjectId"].to_pylist()], pa.int64())
    return objects.append_column("lightcurve", curves["lightcurve"].take(rows))


def write_table(name: str, table: pa.Table, output: Path, kind: str | None = None) -> None:
    """Write rows to a file, with units and meanings of the columns.

    Parameters
    ----------
    name : str
        Table whose columns they have.
    table : pyarrow.Table
        The rows.
    output : Path
        The file.
    kind : str, optional
        As in `export_table`.

    Raises
    ------
    ConfigError
        For an unknown format.
    """
    writer = _WRITERS[_format_of(output, kind)]
    with atomic(output) as partial:
        writer(_described(name, table), partial)


def _format_of(output: Path, kind: str | None) -> str:
    kind = kind or _FORMATS.get(output.suffix.lower())
    if kind not in _WRITERS:
        raise ConfigError(
            f"no format known for {output.name!r}", expected=f"--format {', '.join(_WRITERS)}"
        )
    return kind


def _described(name: str, table: pa.Table) -> pa.Table:
    """Give the columns their units and meanings."""
    declared = TABLES.get(name)
    if declared is None or not set(declared.names) >= set(table.column_names):
        return table
    return table.select(declared.names).cast(declared.arrow_schema)


def _parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


def _csv(table: pa.Table, path: Path) -> None:
    import pyarrow.csv

    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = [v if v is None else in_cell(v) for v in table.column(index).to_pylist()]
            table = table.set_column(index, field, pa.array(cells, field.type))
    pyarrow.csv.write_csv(table, path)


def _votable(table: pa.Table, path: Path) -> None:
    """Write a VOTable whose NULLs stay NULL."""
    document = _votable_document(table)
    document.to_xml(str(path), tabledata_format="binary2")


def _votable_document(table: pa.Table) -> VOTableFile:
    from astropy.io.votable import from_table

    document = from_table(_astropy(table))
    fields = {f.name: f for f in document.get_first_table().fields}
    for field in table.schema:
        metadata = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        target = fields[field.name]
        target.description = metadata.get("description") or None
        target.ucd = metadata.get("ucd") or None
    return document


def _astropy(table: pa.Table) -> Table:
    from astropy.table import MaskedColumn, Table

    columns = []
    for field in table.schema:
        values = table.column(field.name).combine_chunks()
        missing = values.is_null().to_numpy(zero_copy_only=False)
        columns.append(
            MaskedColumn(_plain(values), name=field.name, mask=missing, unit=_unit(field))
        )
    return Table(columns)


def _unit(field: pa.Field) -> UnitBase | None:
    from astropy.units import Unit

    text = (field.metadata or {}).get(b"unit", b"").decode()
    return Unit(text, format="vounit") if text else None


def _plain(values: pa.Array) -> npt.NDArray[np.generic]:
    if pa.types.is_string(values.type) or pa.types.is_timestamp(values.type):
        return np.array(["" if v is None else str(v) for v in values.to_pylist()], dtype=str)
    filler = False if pa.types.is_boolean(values.type) else 0
    return np.asarray(values.fill_null(filler).to_numpy(zero_copy_only=False))


_WRITERS = {
    "parquet": _parquet,
    "votable": _votable,
    "csv": _csv,
    "regions": write_regions,
    "moc": write_moc,
}
