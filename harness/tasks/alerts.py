"""Alert packets of a unit, with what was known at its visit: the stage ``alerts``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from harness.tasks.tables import optional_table
from harness.tasks.versions import as_of
from harness.workspace import Workspace
from pipeline import alerts, diaobject, io
from pipeline.exposure import NJY_ZERO_POINT
from pipeline.schema import DIA_OBJECT, to_numpy
from pipeline.sphere import project

__all__ = ["TASK", "make_item", "noise_limits"]

_CORNERS = ("llc", "lrc", "urc", "ulc")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item(WorkItem):
    """One unit, its exposure, and its tables as known at the visit."""

    tables: Mapping[str, pa.Table]
    frame: Frame


def _phases(context: Context) -> Iterator[Phase]:
    yield phase_per_unit(TASK, context, make_item)


def make_item(context: Context, unit: Unit) -> _Item:
    """Make the work item of the alerts of a unit.

    Parameters
    ----------
    context : Context
        The campaign.
    unit : Unit
        Visit and detector.

    Returns
    -------
    WorkItem
        What is to be done.
    """
    space, tables = context.space, _tables(context, unit)
    files = [space.staging("cutout", *unit), space.objects]
    content = [context.state.hashes.of(path) for path in files]
    content += [context.settings.section_hash("diaobject")]
    content += [f"{key} {table_hash(table)}" for key, table in sorted(tables.items())]
    frame = context.frames[unit]
    content += [frame.field_name, frame.reason]
    if tables["ss_sources"].num_rows:
        content += [context.state.hashes.of(space.orbits)]
    return _Item(
        task=TASK,
        target=Target(*unit),
        keys=TASK.keys(context.settings, combine(content)),
        tables=tables,
        frame=frame,
        **context.common(),
    )


def _tables(context: Context, unit: Unit) -> dict[str, pa.Table]:
    """Everything that may stand in the alerts of a unit, as known at its visit."""
    catalog, mjd = context.state.catalog, context.frames[unit].mjd
    here = "FROM DiaSource WHERE visit = ? AND detector = ?"
    its_objects = f"diaObjectId IN (SELECT diaObjectId {here})"
    its_bodies = f"ssObjectId IN (SELECT ssObjectId {here})"
    sources = catalog.table("DiaSource", "visit = ? AND detector = ? ORDER BY diaSourceId", unit)
    history = catalog.table(
        "DiaSource",
        f"({its_objects} OR {its_bodies}) AND midpointMjdTai <= ? "
        "AND NOT (visit = ? AND detector = ?) ORDER BY diaSourceId",
        [*unit, *unit, mjd, *unit],
    )
    forced = catalog.table(
        "DiaForcedSource",
        f"{its_objects} AND midpointMjdTai <= ? ORDER BY diaForcedSourceId",
        [*unit, mjd],
    )
    objects = as_of(catalog, mjd, "*", its_objects, unit).cast(DIA_OBJECT.arrow_schema)
    window = mjd - context.settings.alerts.history, mjd
    return {
        "limits": noise_limits(catalog, objects, window),
        "sources": sources,
        "objects": diaobject.with_forced(objects, forced),
        "history": history,
        "forced": forced,
        "ss_sources": _ss_sources(catalog, to_numpy(sources, "diaSourceId")),
        "ss_history": _ss_sources(catalog, to_numpy(history, "diaSourceId")),
    }


def noise_limits(catalog: Catalog, objects: pa.Table, window: tuple[float, float]) -> pa.Table:
    """Depth of the differences that show the place of each object.

    Parameters
    ----------
    catalog : Catalog
        With ``difference_image`` and ``visit_image``.
    objects : pyarrow.Table
        Columns ``diaObjectId ra dec``.
    window : tuple of float, d
        First epoch, and the one before which they were taken, MJD TAI.

    Returns
    -------
    pyarrow.Table
        `pipeline.alerts.NOISE_LIMIT`: five σ of a point source of no flux, nJy.
    """
    images = catalog.query(
        """SELECT visit, detector, d.band, midpointMjdTai, 10 ** (0.4 * (? - d.depth5)) AS "limit",
          llcra, llcdec, lrcra, lrcdec, urcra, urcdec, ulcra, ulcdec
        FROM difference_image d JOIN visit_image v USING (visit, detector)
        WHERE midpointMjdTai >= ? AND midpointMjdTai < ? AND d.depth5 IS NOT NULL
        ORDER BY visit, detector""",
        [NJY_ZERO_POINT, *window],
    )
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


def _ss_sources(catalog: Catalog, ids: npt.NDArray[np.int64]) -> pa.Table:
    wanted = [int(i) for i in ids]
    return catalog.table("SSSource", "list_contains(?, diaSourceId) ORDER BY diaSourceId", [wanted])


def _run(item: _Item, outcome: Outcome) -> Iterator[Notes]:
    tables, static = dict(item.tables), optional_table(item.space.objects)
    matches = static and diaobject.nearest_objects(
        tables["objects"], static, item.settings.diaobject
    )
    surroundings = alerts.Surroundings(
        ss_sources=tables.pop("ss_sources"),
        ss_history=tables.pop("ss_history"),
        orbits=_orbits(item),
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


def _orbits(item: _Item) -> pa.Table | None:
    """Orbits of the bodies that were seen, where a table of orbits is given."""
    seen = item.tables["ss_sources"]["designation"].drop_null()
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
)
