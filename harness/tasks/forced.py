"""Forced photometry of known objects on every difference image: the stage ``forced``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.campaign.context import Context
from harness.campaign.task import Notes, Phase, Stage, Task, WorkItem
from harness.ledger import Outcome, Target, now_mjd_tai
from harness.plan import Unit
from harness.system.hashes import combine, table_hash
from harness.tasks.association import phase_per_unit, units_with_sources
from harness.tasks.versions import as_of, forget_forced_means, refresh_forced_means
from harness.workspace import Workspace
from pipeline import diaobject, io
from pipeline.schema import to_numpy

__all__ = ["TASK"]

_COLUMNS = "diaObjectId, ra, dec, firstDiaSourceMjdTai, lastDiaSourceMjdTai"
_MARGIN = np.deg2rad(0.05)  # an object's versions lie closer to one another than this


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item(WorkItem):
    """One unit, with the objects as they were known and the time at which each became so."""

    objects: pa.Table


def _phases(context: Context) -> Iterator[Phase]:
    yield phase_per_unit(TASK, context, _item)
    if context.performing:
        refresh_forced_means(context.state.catalog)


def _item(context: Context, unit: Unit) -> _Item:
    objects = _known_objects(context, unit)
    difference = context.state.hashes.of(context.space.difference(*unit))
    return _Item(
        task=TASK,
        target=Target(*unit),
        keys=TASK.keys(context.settings, combine([difference, table_hash(objects)])),
        objects=objects,
        **context.common(),
    )


def _known_objects(context: Context, unit: Unit) -> pa.Table:
    """Objects that a unit may know: those within the circle round its image."""
    catalog, window = context.state.catalog, context.settings.diaobject.precovery_window
    corner = catalog.rows(
        "SELECT ra, dec, llcra, llcdec FROM visit_image WHERE visit = ? AND detector = ?", unit
    )[0]
    centre = _vector(corner["ra"], corner["dec"])
    reach = np.arccos(np.clip(centre @ _vector(corner["llcra"], corner["llcdec"]), -1, 1)) * 1.05
    near = "sin(radians(dec)) * ? + cos(radians(dec)) * ? * cos(radians(ra - ?)) >= ?"
    dec = np.deg2rad(corner["dec"])
    values = [float(np.sin(dec)), float(np.cos(dec)), corner["ra"], float(np.cos(reach + _MARGIN))]
    objects = as_of(catalog, context.frames[unit].mjd, _COLUMNS, near, values, window)
    vectors = _vector(to_numpy(objects, "ra"), to_numpy(objects, "dec"))
    return objects.filter(pa.array(np.tensordot(vectors, centre, axes=(0, 0)) >= np.cos(reach)))


def _vector(ra: npt.ArrayLike, dec: npt.ArrayLike) -> npt.NDArray[np.float64]:
    a, d = np.deg2rad(np.asarray(ra, float)), np.deg2rad(np.asarray(dec, float))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


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
