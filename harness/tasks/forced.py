"""Forced photometry of known objects on every difference image: the stage ``forced``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.campaign.context import Context
from harness.campaign.task import Notes, Phase, Stage, Task, WorkItem
from harness.catalog import Catalog
from harness.ledger import Outcome, Target, now_mjd_tai
from harness.plan import Unit
from harness.system.hashes import combine, table_hash
from harness.tasks.association import phase_per_unit, units_with_sources
from harness.tasks.tables import by_item, units_table
from harness.tasks.versions import as_of, forget_forced_means, refresh_forced_means
from harness.workspace import Workspace
from pipeline import diaobject, io
from pipeline.schema import to_numpy
from pipeline.sphere import unit_vectors

__all__ = ["TASK"]

_COLUMNS = ("diaObjectId", "ra", "dec", "firstDiaSourceMjdTai", "lastDiaSourceMjdTai")
_MARGIN = np.deg2rad(0.05)  # an object's versions lie closer to one another than this
_UNITS_AT_A_TIME = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item(WorkItem):
    """One unit, with the objects as they were known and the time at which each became so."""

    objects: pa.Table


def _phases(context: Context) -> Iterator[Phase]:
    yield phase_per_unit(TASK, context, _items, _UNITS_AT_A_TIME)
    if context.performing:
        refresh_forced_means(context.state.catalog)


def _items(context: Context, units: Sequence[Unit]) -> Iterator[_Item]:
    for unit, objects in zip(units, _known_objects(context, units), strict=True):
        difference = context.state.hashes.of(context.space.difference(*unit))
        yield _Item(
            task=TASK,
            target=Target(*unit),
            keys=TASK.keys(context.settings, combine([difference, table_hash(objects)])),
            objects=objects,
            **context.common(),
        )


def _known_objects(context: Context, units: Sequence[Unit]) -> list[pa.Table]:
    """Objects that each unit may know: those within the circle round its image."""
    from scipy.spatial import cKDTree  # large

    catalog, window = context.state.catalog, context.settings.diaobject.precovery_window
    centres, reach = _circles(catalog, units)
    places = catalog.query("SELECT diaObjectId, ra, dec FROM DiaObject")
    sky = cKDTree(unit_vectors(to_numpy(places, "ra"), to_numpy(places, "dec")))
    near = sky.query_ball_point(centres, 2.0 * np.sin(0.5 * (reach + _MARGIN)))
    item = np.repeat(np.arange(len(units)), [len(rows) for rows in near])
    mjd = np.array([context.frames[unit].mjd for unit in units])
    ids = places["diaObjectId"].take(np.concatenate([*near, []]).astype(np.int64))
    asked = pa.table({"item": item, "diaObjectId": ids, "mjd": mjd[item]})
    known = as_of(catalog, asked, _COLUMNS, window)
    item = to_numpy(known, "item")
    directions = unit_vectors(to_numpy(known, "ra"), to_numpy(known, "dec"))
    inside = np.sum(directions * centres[item], axis=1) >= np.cos(reach)[item]
    return by_item(known.filter(pa.array(inside)), len(units))


def _circles(
    catalog: Catalog, units: Sequence[Unit]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Directions ``(n, 3)`` and radii (rad) of the circles round the images of units."""
    images = catalog.query_with(
        units_table(units),
        """SELECT ra, dec, llcra, llcdec FROM {batch} JOIN visit_image USING (visit, detector)
        ORDER BY item""",
    )
    centres = unit_vectors(to_numpy(images, "ra"), to_numpy(images, "dec"))
    corners = unit_vectors(to_numpy(images, "llcra"), to_numpy(images, "llcdec"))
    return centres, np.arccos(np.clip(np.sum(centres * corners, axis=1), -1, 1)) * 1.05


def _run(item: _Item, _outcome: Outcome) -> Iterator[Notes]:
    near = to_numpy(item.objects, "ra"), to_numpy(item.objects, "dec")
    table = diaobject.force(
        item.objects,
        io.read_difference(item.space.difference(*item.unit), near),
        io.read_exposure(item.space.visit_image(*item.unit), near),
        item.settings.diaobject,
        processed_mjd_tai=now_mjd_tai(),
    )
    io.write_parquet(item.products[0], table)
    yield ()


def _products(space: Workspace, target: Target) -> tuple[Path, ...]:
    return (space.staging("DiaForcedSource", *target[:2]),)


TASK = Task(
    name="forced",
    label="forced",
    stages=(Stage("forced", "diaobject"),),
    phases=_phases,
    run=_run,
    products=_products,
    staged=("DiaForcedSource",),
    planned=units_with_sources,
    outdate=forget_forced_means,
)
