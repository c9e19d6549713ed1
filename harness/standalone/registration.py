"""Whether two images on the same pixels show their stars at the same places."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.standalone.estimate import flattened
from harness.standalone.pair import Pair
from pipeline.exposure import FloatArray

__all__ = ["measured_shift", "misregistration"]

_BRIGHTEST = 100
_FARTHEST = 60.0
_BIN = 2.0
_FEWEST, _SHARE = 6, 0.3
_NOTABLE, _LEFT = 0.5, 1.5
"""Shift in pixels that is said; χ² per pixel of stars from which on it is looked for."""


def misregistration(pair: Pair, metrics: Mapping[str, float]) -> list[str]:
    """Say how far the template is off, if stars leave residuals or no source defines the kernel.

    Parameters
    ----------
    pair : Pair
        The images, on the same pixels.
    metrics : mapping
        `Difference.metrics`.

    Returns
    -------
    list of str
        One note, or none.
    """
    from pipeline.calibrate.psfmodel import find_sources

    few = metrics.get("nStampsUsed", _FEWEST) < _FEWEST
    if not few and not metrics.get("starChi2Mean", 0.0) > _LEFT:
        return []
    places = []
    for exposure in (pair.science, pair.template):
        found = find_sources(flattened(exposure)).moments
        places.append(np.stack([found.x, found.y], axis=1)[found.ok][:_BRIGHTEST])
    shift = measured_shift(*places)
    if shift is None or np.hypot(*shift) < _NOTABLE:
        return []
    return [f"misregistered: stars of the template lie {shift[0]:+.1f}, {shift[1]:+.1f} pixels off"
            " (x, y); correct its coordinates, or align it"]  # fmt: skip


def measured_shift(first: FloatArray, second: FloatArray) -> FloatArray | None:
    """Measure the shift that most pairs of two lists of places share.

    Parameters
    ----------
    first, second : ndarray, (n, 2) and (m, 2), pixel
        Places of sources.

    Returns
    -------
    ndarray, (2,), pixel, optional
        Second minus first; None where fewer than 30 per cent of the shorter list agree.
    """
    from scipy.spatial import cKDTree

    offsets = (second[None] - first[:, None]).reshape(-1, 2)
    offsets = offsets[np.hypot(*offsets.T) < _FARTHEST]
    if not len(offsets):
        return None
    near = max(cKDTree(offsets).query_ball_point(offsets, _BIN), key=len)
    if len(near) < max(_FEWEST, _SHARE * min(len(first), len(second))):
        return None
    return np.asarray(np.median(offsets[near], axis=0))
