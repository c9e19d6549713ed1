"""Alert packets of a unit, with what was known at its visit: the stage ``alerts``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from harness.campaign.context import Context
from harness.campaign.task import Notes, Phase, Stage, Task, WorkItem
from harness.catalog import Catalog
from harness.ledger import Outcome, Target, now_mjd_tai
from harness.plan import Frame, Unit
from harness.system.hashes import combine, table_hash
from harness.tasks.association import phase_per_unit, units_with_sources
from harness.tasks.fingerprints import KnownRows
from harness.tasks.tables import by_item, optional_table, units_table
from harness.tasks.versions import as_of
from harness.workspace import Workspace
from pipeline import alerts, diaobject, io
from pipeline.exposure import NJY_ZERO_POINT
from pipeline.schema import DIA_OBJECT, SS_SOURCE, TABLES, to_numpy
from pipeline.sphere import project

__all__ = ["TASK", "images_with_noise", "make_items", "noise_limits"]

_CORNERS = ("llc", "lrc", "urc", "ulc")
_READ: Mapping[str, Sequence[str]] = dict.fromkeys(
    (
        "DiaForcedSource", "DiaObject", "DiaObjectHistory", "DiaSource", "SSSource",
        "difference_image", "visit_image",
    ), (),
)  # fmt: skip
_UNITS_AT_A_TIME = 16  # all rows of so many are held at once

_ASKED = ("item", "visit", "detector", "mjd", "diaObjectId", "diaSourceId")
_SAME_IMAGE = "t.visit = b.visit AND t.detector = b.detector"
_SAME_SOURCE = "t.diaSourceId = b.diaSourceId"
_FORCED = """t.diaObjectId = b.diaObjectId AND t.midpointMjdTai <= b.mjd
ORDER BY item, diaForcedSourceId"""
_EARLIER = " UNION ".join(
    f"""SELECT b.item, t.diaSourceId FROM {{batch}} b JOIN DiaSource t USING ({thing})
    WHERE t.midpointMjdTai <= b.mjd AND NOT ({_SAME_IMAGE})"""
    for thing in ("diaObjectId", "ssObjectId")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item(WorkItem):
    """One unit, its exposure, and its tables as known at the visit."""

    tables: Mapping[str, pa.Table] | None  # none where their hash is known already
    frame: Frame


def _phases(context: Context) -> Iterator[Phase]:
    known = KnownRows(context, "alerts", _READ, ("alerts", "diaobject"))
    yield phase_per_unit(TASK, context, partial(_items, known=known), _UNITS_AT_A_TIME)


def make_items(context: Context, units: Sequence[Unit]) -> Iterator[_Item]:
    """Make the work items of the alerts of units.

    Parameters
    ----------
    context : Context
        The campaign.
    units : sequence of Unit
        Visits and detectors.

    Yields
    ------
    WorkItem
        What is to be done.
    """
    for unit, tables in zip(units, _tables(context, units), strict=True):
        yield _item(context, unit, _hashed(tables), tables)


def _items(context: Context, units: Sequence[Unit], known: KnownRows) -> Iterator[_Item]:
    """Make the work items of units, without the tables of those whose hashes are known."""
    unknown = [unit for unit in units if known.of(unit) is None]
    made = _tables(context, unknown) if unknown else iter(())
    for unit in units:
        hashes, tables = known.of(unit), None
        if hashes is None:
            tables = next(made)
            hashes = _hashed(tables)
            known.keep(unit, hashes)
        yield _item(context, unit, hashes, tables)


def _prepared(context: Context, item: _Item) -> _Item:
    return item if item.tables is not None else next(make_items(context, [item.unit]))


def _hashed(tables: Mapping[str, pa.Table]) -> str:
    """Names and hashes of tables, a line each."""
    return "\n".join(f"{key} {table_hash(table)}" for key, table in sorted(tables.items()))


@cache
def _no_bodies() -> str:
    """Line of `_hashed` of a unit that saw no known body."""
    return f"ss_sources {table_hash(SS_SOURCE.empty())}"


def _item(
    context: Context, unit: Unit, hashes: str, tables: Mapping[str, pa.Table] | None
) -> _Item:
    space = context.space
    files = [space.staging("cutout", *unit), space.objects]
    content = [context.state.hashes.of(path) for path in files]
    content += [context.settings.section_hash("diaobject"), hashes]
    frame = context.frames[unit]
    content += [frame.field_name, frame.reason]
    if _no_bodies() not in hashes:
        content += [context.state.hashes.of(space.orbits)]
    return _Item(
        task=TASK,
        target=Target(*unit),
        keys=TASK.keys(context.settings, combine(content)),
        tables=tables,
        frame=frame,
        **context.common(),
    )


def _tables(context: Context, units: Sequence[Unit]) -> Iterator[dict[str, pa.Table]]:
    """Everything that may stand in the alerts of each unit, as known at its visit."""
    catalog, number = context.state.catalog, len(units)
    mjd = np.array([context.frames[unit].mjd for unit in units], float)
    asked = units_table(units).append_column("mjd", pa.array(mjd))
    sources = _rows(catalog, "DiaSource", asked, f"{_SAME_IMAGE} ORDER BY item, diaSourceId")
    things = _things(sources, mjd)
    earlier = catalog.query_with(things, _EARLIER)
    history = _rows(catalog, "DiaSource", earlier, f"{_SAME_SOURCE} ORDER BY item, diaSourceId")
    theirs = things.select(["item", "diaObjectId", "mjd"]).drop_null()
    theirs = theirs.group_by(theirs.column_names).aggregate([])
    known = (
        _declared(as_of(catalog, theirs, DIA_OBJECT.names), "DiaObject"),
        _rows(catalog, "DiaForcedSource", theirs, _FORCED),
        sources,
        history,
        *(_rows(catalog, "SSSource", rows, f"{_SAME_SOURCE} ORDER BY item, diaSourceId")
          for rows in (sources, history)),
    )  # fmt: skip
    images = images_with_noise(catalog)
    names = ("objects", "forced", "sources", "history", "ss_sources", "ss_history")
    for at, divided in zip(
        mjd, zip(*(by_item(t, number) for t in known), strict=True), strict=True
    ):
        tables = dict(zip(names, divided, strict=True))
        window = at - context.settings.alerts.history, at
        tables["limits"] = noise_limits(images, tables["objects"], window)
        tables["objects"] = diaobject.with_forced(tables["objects"], tables["forced"])
        yield tables


def _rows(catalog: Catalog, name: str, asked: pa.Table, condition: str) -> pa.Table:
    """Rows ``t`` of a table that items ``b`` ask for, after the column ``item``."""
    declared = TABLES[name]
    columns = ", ".join(f't."{c}"' for c in declared.names)
    ids = asked.select([c for c in asked.column_names if c in _ASKED])
    sql = f'SELECT b.item, {columns} FROM {{batch}} b JOIN "{name}" t ON {condition}'
    return _declared(catalog.query_with(ids, sql), name)


def _declared(rows: pa.Table, name: str) -> pa.Table:
    """Rows of a table, after the column ``item``, with the types and metadata that it declares."""
    declared = TABLES[name].arrow_schema
    return rows.cast(pa.schema([rows.schema.field("item"), *declared], declared.metadata))


def _things(sources: pa.Table, mjd: npt.NDArray[np.float64]) -> pa.Table:
    """Objects and bodies of the sources of each item, with the time of its visit."""
    things = sources.select(["item", "visit", "detector", "diaObjectId", "ssObjectId"])
    things = things.append_column("mjd", pa.array(mjd[to_numpy(things, "item")]))
    return things.group_by(things.column_names).aggregate([])


def images_with_noise(catalog: Catalog) -> pa.Table:
    """Corners, time and depth of all differences whose depth is known.

    Parameters
    ----------
    catalog : Catalog
        With ``difference_image`` and ``visit_image``.

    Returns
    -------
    pyarrow.Table
        Ordered by visit and detector; ``limit`` is five σ of a point source of no flux, nJy.
    """
    return catalog.query(
        """SELECT visit, detector, d.band, midpointMjdTai, 10 ** (0.4 * (? - d.depth5)) AS "limit",
          llcra, llcdec, lrcra, lrcdec, urcra, urcdec, ulcra, ulcdec
        FROM difference_image d JOIN visit_image v USING (visit, detector)
        WHERE d.depth5 IS NOT NULL ORDER BY visit, detector""",
        [NJY_ZERO_POINT],
    )


def noise_limits(images: pa.Table, objects: pa.Table, window: tuple[float, float]) -> pa.Table:
    """Depth of the differences that show the place of each object.

    Parameters
    ----------
    images : pyarrow.Table
        From `images_with_noise`.
    objects : pyarrow.Table
        Columns ``diaObjectId ra dec``.
    window : tuple of float, d
        First epoch, and the one before which they were taken, MJD TAI.

    Returns
    -------
    pyarrow.Table
        `pipeline.alerts.NOISE_LIMIT`: five σ of a point source of no flux, nJy.
    """
    taken = to_numpy(images, "midpointMjdTai")
    images = images.filter(pa.array((taken >= window[0]) & (taken < window[1])))
    image, row = np.nonzero(_covered(images, objects))
    columns = {name: images[name].take(image) for name in alerts.NOISE_LIMIT.names[1:]}
    return alerts.NOISE_LIMIT.to_arrow({"diaObjectId": objects["diaObjectId"].take(row)} | columns)


def _covered(images: pa.Table, objects: pa.Table) -> npt.NDArray[np.bool_]:
    """Which image shows which object, ``(images, objects)``, by the images' corners."""
    ra, dec = to_numpy(objects, "ra")[None], to_numpy(objects, "dec")[None]
    corners = [(to_numpy(images, f"{c}ra"), to_numpy(images, f"{c}dec")) for c in _CORNERS]
    places = np.array([project(*corner, (ra.T, dec.T)) for corner in corners])
    x, y = np.moveaxis(places, -1, 0)
    side = x * np.roll(y, -1, axis=0) - y * np.roll(x, -1, axis=0)  # of the origin, the object
    return np.asarray(np.all(side > 0, axis=0) | np.all(side < 0, axis=0)).T


def _run(item: _Item, outcome: Outcome) -> Iterator[Notes]:
    assert item.tables is not None, "an item is prepared before it is performed"
    tables, static = dict(item.tables), optional_table(item.space.objects)
    matches = static and diaobject.nearest_objects(
        tables["objects"], static, item.settings.diaobject
    )
    seen = tables.pop("ss_sources")
    surroundings = alerts.Surroundings(
        ss_sources=seen,
        ss_history=tables.pop("ss_history"),
        orbits=_orbits(item, seen),
        matches=matches,
        limits=tables.pop("limits"),
        observation_reason=item.frame.reason or None,
        target_name=item.frame.field_name or None,
        software=item.cards.get("SOFTVER"),
        run=item.cards.get("RUNID"),
    )
    result = alerts.run(
        **tables,
        cutouts=io.read_parquet(item.space.staging("cutout", *item.unit)),
        config=item.settings.alerts,
        surroundings=surroundings,
        processed_mjd_tai=now_mjd_tai(),
    )
    alerts.write(item.products[0], result.packets)
    outcome.wrote(item.products[0])
    ledger = _with_file(result.ledger, item.output.relative(item.products[0]))
    io.write_parquet(item.output.staging("alert", *item.unit), ledger)
    yield ()


def _orbits(item: _Item, seen: pa.Table) -> pa.Table | None:
    """Orbits of the bodies that were seen, where a table of orbits is given."""
    seen = seen["designation"].drop_null()
    path = item.space.orbits
    return io.read_orbits(path, seen.to_pylist()) if len(seen) and path.is_file() else None


def _with_file(ledger: pa.Table, name: str) -> pa.Table:
    """Say which file holds the alerts that were written."""
    at = ledger.schema.get_field_index("file")
    files = pc.if_else(ledger["emitted"], name, pa.scalar(None, pa.string()))
    return ledger.set_column(at, ledger.schema.field(at), files)


def _products(space: Workspace, target: Target) -> tuple[Path, ...]:
    return (space.alerts(*target[:2]),)


TASK = Task(
    name="alerts",
    label="alerts",
    stages=(Stage("alerts"),),
    phases=_phases,
    run=_run,
    products=_products,
    staged=("alert",),
    planned=units_with_sources,
    prepare=_prepared,
)
