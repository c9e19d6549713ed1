"""Products that nobody here made, as a campaign that the test cases can judge.

An adapter reads a folder and makes a workspace of it: a catalogue with what tables there are, and
containers of alerts by visit and detector.  Whatever the products do not hold is absent there too,
and what rests on it is not applicable; nothing is filled in but what holds by the definition of the
layout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import fastavro
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.catalog import connect, versions, views
from harness.plan import Frame
from harness.settings import Campaign, Settings
from harness.verify.context import Context, Unit
from harness.verify.packets import quoted_sources, table_of
from harness.workspace import Workspace
from pipeline.alerts import read
from pipeline.errors import FileFormatError, InputError

__all__ = ["ADAPTERS", "ForeignContext", "rubin"]

_TABLES = ("DiaSource", "DiaForcedSource", "DiaObject", "SSObject", "SSSource")
_RENAMED = {
    "decl": "dec",
    "declErr": "decErr",
    "midPointTai": "midpointMjdTai",
    "midPointMjdTai": "midpointMjdTai",
    "psFlux": "psfFlux",
    "psFluxErr": "psfFluxErr",
    "totFlux": "scienceFlux",
    "totFluxErr": "scienceFluxErr",
    "filterName": "band",
}
"""Columns of earlier editions of the layout (LSE-163) by their names of today."""
_IDENTIFIERS = ("diaObjectId", "ssObjectId", "parentDiaSourceId")
"""Identifiers that are zero where there is nothing to identify."""
_BY_DEFINITION = {"isSubThreshold": False, "isDeblendParent": False}
"""What holds of every row of an APDB: it keeps detections, and of blends the children."""
_JUDGED = ("sql", "schema", "alert", "staged", "curve")
_QUOTED = "these tables were taken from the packets themselves"
_PARTS = {
    "image": "there are no images in this layout but the cut-outs in packets",
    "inspect": "there are no images in this layout but the cut-outs in packets",
    "header": "there are no images in this layout but the cut-outs in packets",
}


@dataclass
class ForeignContext(Context):
    """A campaign of products that were made elsewhere.

    Attributes
    ----------
    tables : frozenset of str
        Tables that came as tables, and not in packets alone.
    """

    tables: frozenset[str] = field(default_factory=frozenset)
    foreign: ClassVar[bool] = True

    @cached_property
    def frames(self) -> dict[tuple[int, int], Frame]:
        """None: nothing is known of the exposures."""
        return {}

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Visits and detectors that have sources."""
        with connect(self.space.catalog, read_only=True) as catalog:
            rows = catalog.sql("select distinct visit, detector, band from DiaSource").fetchall()
        return tuple(sorted(Unit(int(v), int(d), str(b or "")) for v, d, b in rows))

    @cached_property
    def runs(self) -> list[dict[str, Any]]:
        """None are recorded."""
        return []

    def excluded(self, kind: str, parameters: Mapping[str, object]) -> str:
        """Say why a check has no meaning here, nothing where it has."""
        if kind not in _JUDGED:
            return _PARTS.get(kind, f"these products come without what a check of {kind} examines")
        if kind == "staged" and parameters["of"] == "staging":
            return "these products come without staging tables"
        if kind == "staged" and parameters["table"] not in self.tables:
            return _QUOTED
        if kind == "alert" and not any(self.product("alerts", u).is_file() for u in self.units):
            return "these products come without alert packets"
        return ""

    def unanswerable(self, err: duckdb.Error) -> str:
        """Say what the products lack for a query, nothing where they do not."""
        if isinstance(err, duckdb.CatalogException | duckdb.BinderException):
            return f"these products lack what is asked for: {str(err).splitlines()[0]}"
        return ""


def rubin(folder: Path, root: Path, **context: Any) -> ForeignContext:
    """Read tables in the layout of the Rubin APDB and alert packets of LSST.

    Parameters
    ----------
    folder : Path
        Holds Parquet files named after their table, such as ``DiaSource.parquet`` or
        ``DiaSource/part-0.parquet``, Avro containers of alerts, or both.  Without a table of
        sources those are judged that the packets quote.
    root : Path
        Where the workspace is made.
    **context
        Further parameters of the context.

    Returns
    -------
    ForeignContext
        To be judged and closed.

    Raises
    ------
    InputError
        If there is nothing to judge.
    FileFormatError
        If a file cannot be read.
    """
    if not folder.is_dir():
        raise InputError("is no folder", path=folder, expected="one with tables or alert packets")
    tables = _tables(folder)
    space = Workspace.create(root)
    quoted = _alerts(sorted(folder.rglob("*.avro")), space)
    given = frozenset(tables)
    tables = quoted | tables
    if not tables:
        raise InputError(
            "holds neither tables nor alert packets", path=folder,
            expected="DiaSource.parquet and its like, or *.avro",
        )  # fmt: skip
    if "DiaSource" not in tables:
        raise InputError("holds no DiaSource", path=folder, expected="DiaSource.parquet")
    Settings(campaign=Campaign(name=folder.resolve().name)).save(space.config)
    with connect(space.catalog) as catalog:
        for name, table in tables.items():
            catalog.register("given", _named(name, table))
            catalog.execute(f'create table "{name}" as select * from given')
            catalog.unregister("given")
        for statement in versions.marking():
            catalog.execute(statement)
        for statement in views.statements():
            with suppress(duckdb.Error):  # of columns that are not there
                catalog.execute(statement)
    return ForeignContext(space, **context, tables=given)


ADAPTERS: dict[str, Callable[..., ForeignContext]] = {"rubin": rubin}
"""Adapters by the name of the layout."""


def _tables(folder: Path) -> dict[str, pa.Table]:
    """Read the Parquet files of every table; what is named after no table is left alone."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.parquet")):
        words = {p.partition(".")[0].lower() for p in path.relative_to(folder).parts}
        files[next((t for t in _TABLES if t.lower() in words), "")].append(path)
    return {name: _read(paths) for name, paths in files.items() if name}


def _read(paths: Iterable[Path]) -> pa.Table:
    parts = []
    for path in paths:
        try:
            parts.append(pq.read_table(path))
        except (pa.ArrowException, OSError) as err:
            raise FileFormatError(f"cannot be read: {err}", path=path) from err
    return pa.concat_tables(parts, promote_options="permissive")


def _named(name: str, table: pa.Table) -> pa.Table:
    """Give columns the names of today, NULL for what is missing, and what holds by definition."""
    table = table.rename_columns([_RENAMED.get(c, c) for c in table.column_names])
    for column in set(_IDENTIFIERS) & set(table.column_names):
        values = table.column(column)
        known = pc.if_else(pc.equal(values, 0), pa.scalar(None, values.type), values)
        table = table.set_column(table.column_names.index(column), column, known)
    for column, value in _BY_DEFINITION.items() if name == "DiaSource" else ():
        if column not in table.column_names:
            table = table.append_column(column, pa.array([value] * table.num_rows))
    return table


def _alerts(paths: Iterable[Path], space: Workspace) -> dict[str, pa.Table]:
    """Sort packets into one container per visit and detector; the sources that they quote.

    Objects and forced sources are not taken from packets: those hold no more than a year of them.
    """
    packets: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    schemas: dict[tuple[int, int], Any] = {}
    for path in paths:
        schema = _schema(path)
        for packet in read(path):
            source = packet.get("diaSource")
            if not isinstance(source, Mapping):
                raise FileFormatError("holds no alerts of LSST", path=path, key="diaSource")
            place = int(source["visit"]), int(source["detector"])
            if schemas.setdefault(place, schema) != schema:
                raise FileFormatError(
                    f"has another schema than other packets of visit {place[0]}", path=path
                )
            packets[place].append(packet)
    for place, own in packets.items():
        with space.alerts(*place).open("wb") as stream:
            fastavro.writer(stream, schemas[place], own)
    rows = quoted_sources(p for own in packets.values() for p in own)
    return {"DiaSource": table_of("DiaSource", rows)} if rows else {}


def _schema(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return fastavro.reader(stream).writer_schema
    except (OSError, ValueError, EOFError) as err:
        raise FileFormatError(f"is no Avro container: {err}", path=path) from err
