"""Forced photometry at places that the user names, in every difference image of a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from harness.catalog import Catalog
from harness.ledger import now_mjd_tai
from harness.workspace import Workspace
from pipeline import diaobject, io
from pipeline.errors import InputError
from pipeline.schema import to_numpy
from pipeline.sphere import separation

__all__ = ["ForcedFluxes", "force_at"]

_UNITS = """SELECT d.visit, d.detector, d.templateId, t.firstMjdTai, t.lastMjdTai,
  v.ra, v.dec, v.llcra, v.llcdec
FROM difference_image d JOIN visit_image v USING (visit, detector)
LEFT JOIN template t USING (templateId) ORDER BY v.midpointMjdTai, d.visit, d.detector"""
_DROPPED = ("diaForcedSourceId", "diaObjectId", "timeProcessedMjdTai", "isPrecovery")
_REACH = 1.05  # of half the diagonal of an image
_DAY = {b"unit": b"d"}


@dataclass(frozen=True, slots=True)
class ForcedFluxes:
    """What was measured.

    Attributes
    ----------
    table : pyarrow.Table
        One row per place and image that covers it, in the order of time: ``id``, ``ra`` and
        ``dec`` of the place, the columns of ``DiaForcedSource`` that do not concern objects, and of
        the template its name and its first and last input.
    images : int
        Number of images that cover a place.
    problems : list of str
        Images that could not be measured, one line each.
    """

    table: pa.Table
    images: int
    problems: list[str] = field(default_factory=list)


def force_at(space: Workspace, catalog: Catalog, places: pa.Table) -> ForcedFluxes:
    """Measure the flux on difference and visit image at given places.

    Parameters
    ----------
    space : Workspace
        The campaign.
    catalog : Catalog
        Its catalogue.
    places : pyarrow.Table
        As `pipeline.io.read_places` returns it.

    Returns
    -------
    ForcedFluxes
        A place that no image covers has no row.
    """
    ra, dec = to_numpy(places, "ra"), to_numpy(places, "dec")
    parts, problems, images = [], list[str](), 0
    for unit in catalog.rows(_UNITS):
        reach = separation(unit["ra"], unit["dec"], unit["llcra"], unit["llcdec"]) * _REACH
        near = np.flatnonzero(separation(ra, dec, unit["ra"], unit["dec"]) < reach)
        if not near.size:
            continue
        try:
            rows = _measured(space, unit, places.take(near))
        except InputError as err:
            problems.append(str(err))
            continue
        parts.append(rows)
        images += rows.num_rows > 0
    table = pa.concat_tables(parts) if parts else None
    return ForcedFluxes(table if table is not None else places.slice(0, 0), images, problems)


def _measured(space: Workspace, unit: Mapping[str, Any], places: pa.Table) -> pa.Table:
    """Rows of one image."""
    at = unit["visit"], unit["detector"]
    near = to_numpy(places, "ra"), to_numpy(places, "dec")
    objects = pa.table({
        "diaObjectId": np.arange(places.num_rows),
        "ra": near[0],
        "dec": near[1],
        "firstDiaSourceMjdTai": np.full(places.num_rows, -np.inf),  # known from the beginning
    })  # fmt: skip
    rows = diaobject.force(
        objects,
        io.read_difference(space.difference(*at), near),
        io.read_exposure(space.visit_image(*at), near),
        processed_mjd_tai=now_mjd_tai(),
    )
    names = places["id"].take(rows["diaObjectId"])
    rows = rows.drop_columns(list(_DROPPED)).add_column(0, "id", names)
    n = rows.num_rows
    rows = rows.append_column("templateId", pa.array([unit["templateId"]] * n, pa.string()))
    for ours, theirs in (
        ("templateFirstMjdTai", "firstMjdTai"),
        ("templateLastMjdTai", "lastMjdTai"),
    ):
        column = pa.field(ours, pa.float64(), metadata=_DAY)
        rows = rows.append_column(column, pa.array([unit[theirs]] * n, pa.float64()))
    return rows
