"""Colours of reference stars on an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.tasks.tables import optional_table
from pipeline.calibrate.astrometry import image_centre
from pipeline.calibrate.refcat import reference_stars
from pipeline.diasource import Colours
from pipeline.exposure import Exposure
from pipeline.wcs import pixel_scale

__all__ = ["star_colours"]

_PAIRS = (("g", "i"), ("g", "r"), ("r", "i"), ("i", "z"))


def star_colours(path: Path, image: Exposure) -> Colours | None:
    """Read the colours of the reference stars near an image.

    Parameters
    ----------
    path : Path
        The reference catalogue.
    image : Exposure
        With coordinates.

    Returns
    -------
    Colours, optional
        The longest colour there is; None without a catalogue or without two bands in it.
    """
    table = optional_table(path)
    if table is None or image.wcs is None:
        return None
    centre = image_centre(image.wcs, image.shape)
    radius = 0.52 * float(np.hypot(*image.shape)) * pixel_scale(image.wcs)
    stars = reference_stars(table, image.info.band, image.info.midpoint_mjd_tai, centre, radius)
    colour = stars.colour(_PAIRS)
    return None if colour is None else Colours(stars.ra, stars.dec, colour)
