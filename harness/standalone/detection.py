"""What has changed on a stand-alone difference."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from harness.standalone.estimate import flattened
from harness.standalone.pair import Pair
from pipeline import diasource
from pipeline.exposure import Difference

__all__ = ["detect"]


def detect(pair: Pair, difference: Difference) -> tuple[Difference, pa.Table]:
    """Detect and measure what has changed.

    Parameters
    ----------
    pair : Pair
        The images as they were subtracted, the template with its PSF.
    difference : Difference
        Theirs.

    Returns
    -------
    difference : Difference
        With the mask planes that detection sets, such as trails of satellites.
    sources : pyarrow.Table
        Rows of `pipeline.schema.DIA_SOURCE`; columns that need coordinates or a time are null
        where the images have none.

    Notes
    -----
    Fluxes on either image, and what a star of the template may leave in the error of a flux, are
    without the sky.
    """
    science, template = flattened(pair.science), flattened(pair.template)
    found = diasource.run(difference, science, template)
    exposure = difference.exposure.replace(mask=found.mask)
    difference = replace(difference, exposure=exposure, excluded=found.excluded)
    unknown = [] if pair.has_wcs else [n for n in found.sources.column_names if _of_sky(n)]
    if pair.science.info.midpoint_mjd_tai == 0.0:
        unknown.append("midpointMjdTai")
    return difference, _without(found.sources, unknown)


def _of_sky(name: str) -> bool:
    """Tell columns that need sky coordinates."""
    stem = name.lower()
    return stem in ("ra", "dec") or stem.endswith(("ra", "dec", "raerr", "decerr", "_dec_cov"))


def _without(table: pa.Table, names: list[str]) -> pa.Table:
    """Empty columns about which nothing is known."""
    for name in names:
        k = table.column_names.index(name)
        field = table.schema.field(k).with_nullable(True)
        table = table.set_column(k, field, pa.nulls(len(table), field.type))
    return table
