"""Peaks on trails of satellites and aircraft: many, often brighter than any star, and none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.calibrate.detect import Detections
from pipeline.exposure import FloatArray

__all__ = ["on_trails"]

_LENGTH, _SPACING, _HALF_WIDTH = 150.0, 6.0, 4.0
_FEWEST = int(_LENGTH / _SPACING)
_TRIALS, _MOST = 200, 4


def on_trails(found: Detections) -> npt.NDArray[np.bool_]:
    """Tell which peaks lie on a straight line of peaks of their footprint.

    Noise leaves a peak on a trail every few pixels.  Three thousand stars in 512 × 512 pixels, all
    of one footprint, leave a third of that within any line as wide.

    Parameters
    ----------
    found : Detections
        n peaks.

    Returns
    -------
    ndarray of bool, (n,)
        Whether at least 25 peaks of the footprint lie within four pixels of a line on which they
        span 150 pixels, one in every six on average; of up to four lines in a footprint.
    """
    out = np.zeros(len(found), dtype=bool)
    points = np.stack([found.x, found.y], axis=1).astype(float)
    for number in np.flatnonzero(np.bincount(found.footprint) >= _FEWEST):
        left = np.flatnonzero(found.footprint == number)
        for _ in range(_MOST):
            line = _fullest_line(points[left])
            if not line.any():
                break
            out[left[line]] = True
            left = left[~line]
    return out


def _fullest_line(points: FloatArray) -> npt.NDArray[np.bool_]:
    """Mark the points of the line that has the most of those tried; none if they are too few."""
    best = np.zeros(len(points), dtype=bool)
    if len(points) < _FEWEST:
        return best
    pairs = np.random.default_rng(1).integers(len(points), size=(_TRIALS, 2))
    for first, last in pairs[pairs[:, 0] != pairs[:, 1]]:
        along, across = _turned(points - points[first], points[last] - points[first])
        near = np.abs(across) < _HALF_WIDTH
        span = float(np.ptp(along[near]))
        full = span > _LENGTH and np.count_nonzero(near) * _SPACING > span
        if full and np.count_nonzero(near) > np.count_nonzero(best):
            best = near
    return best


def _turned(points: FloatArray, direction: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coordinates along a direction and across it."""
    u, v = direction / np.hypot(*direction)
    return points @ np.array([u, v]), points @ np.array([-v, u])
