"""Cut-outs of any place of a campaign, announced or not, as far as its files are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.dataset as ds

from harness.drawing.cutouts import STAMPS
from harness.settings import Settings
from harness.tasks.template import warped
from harness.workspace import Workspace
from pipeline import io, template
from pipeline.alerts.avro import CUTOUTS
from pipeline.alerts.cutouts import Cutter
from pipeline.exposure import Exposure

__all__ = ["Place", "cutouts_of"]

_SIDE = 63
"""Side, in pixels, of what is cut from images."""


class Place(NamedTuple):
    """A pixel of a difference image.

    Attributes
    ----------
    number : int
        Identifier of the source or candidate there.
    visit, detector : int
        The image.
    x, y : float, pixel
        Where in it.
    template : str
        Name of the template.
    is_source : bool
        Whether `number` is that of a source, which may have been cut out already.
    """

    number: int
    visit: int
    detector: int
    x: float
    y: float
    template: str
    is_source: bool


def cutouts_of(space: Workspace, place: Place) -> Mapping[str, Any]:
    """Return science, template and difference of a place in the layout of an alert.

    Those that were cut out for an alert are taken; else they are cut from the images.

    Parameters
    ----------
    space : Workspace
        The campaign.
    place : Place
        What to show.

    Returns
    -------
    mapping
        ``diaSourceId`` and the cut-outs by the names of `harness.drawing.cutouts.STAMPS`, without
        those whose image is no longer there.
    """
    found = _kept(space.staging("cutout", place.visit, place.detector), place)
    files = found or dict(_cut(space, place))
    return {"diaSourceId": place.number, **{STAMPS[kind]: data for kind, data in files.items()}}


def _kept(path: Path, place: Place) -> dict[str, bytes]:
    if not (place.is_source and path.is_file()):
        return {}
    rows = ds.dataset(path).to_table(filter=ds.field("diaSourceId") == place.number).to_pylist()
    return {kind: rows[0][kind] for kind in CUTOUTS} if rows else {}


def _cut(space: Workspace, place: Place) -> Iterator[tuple[str, bytes]]:
    settings = Settings.load(space.config)
    x, y = np.array([place.x]), np.array([place.y])
    for kind, image in _images(space, place, settings.template):
        if image.wcs is not None and image.psf is not None:
            cutter = Cutter(image, kind, settings.alerts)
            yield kind, cutter.cut(np.array([place.number]), x, y, np.array([_SIDE]))[0]


def _images(
    space: Workspace, place: Place, config: template.Config
) -> Iterator[tuple[str, Exposure]]:
    science = space.visit_image(place.visit, place.detector)
    if science.is_file():
        image = io.read_exposure(science)
        yield "science", image
        coadd = space.template(place.template)
        if coadd.is_file():
            yield "template", warped(coadd, image, config)
    difference = space.difference(place.visit, place.detector)
    if difference.is_file():
        yield "difference", io.read_exposure(difference)
