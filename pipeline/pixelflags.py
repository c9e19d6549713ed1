"""The columns ``pixelFlags_…``: one table of flags and planes for every kind of source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from pipeline.masks import bits

__all__ = ["PIXEL_FLAGS", "pixel_flags"]

PIXEL_FLAGS: Mapping[str, tuple[str, ...]] = {
    "bad": ("BAD", "UNLISTED"),
    "cr": ("CR",),
    "edge": ("EDGE",),
    "nodata": ("NO_DATA", "UNMASKEDNAN"),
    "interpolated": ("INTRP",),
    "saturated": ("SAT",),
    "suspect": ("SUSPECT",),
    "streak": ("STREAK",),
    "injected": ("INJECTED", "INJECTED_CORE"),
    "injected_template": ("INJECTED_TEMPLATE",),
    "bleed": ("BLEED", "EDGEBLEED"),
    "crosstalk": ("CROSSTALK",),
    "unlisted": ("UNLISTED",),
    "saturated_template": ("SAT_TEMPLATE",),
    "inexactPsf": ("INEXACT_PSF",),
}
"""Planes of which any one sets a flag."""


def pixel_flags(
    found: npt.NDArray[np.uint32], names: Iterable[str], suffix: str = ""
) -> dict[str, npt.NDArray[np.bool_]]:
    """Turn the planes that were found near each source into flags.

    Parameters
    ----------
    found : ndarray, (n,), uint32
        Planes of all pixels that count for a source, or-ed.
    names : iterable of str
        Keys of `PIXEL_FLAGS`.
    suffix : str
        Tells the pixels that count, such as ``Center``.

    Returns
    -------
    dict of str to ndarray of bool, (n,)
        Columns ``pixelFlags_{name}{suffix}``.
    """
    return {
        f"pixelFlags_{name}{suffix}": np.asarray((found & bits(*PIXEL_FLAGS[name])) != 0)
        for name in names
    }
