"""Filling holes from the pixels round them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import Image

__all__ = ["fill_holes"]

_Flags = npt.NDArray[np.bool_]


def fill_holes(
    image: Image, variance: Image, holes: _Flags, unusable: _Flags, reach: int
) -> _Flags:
    """Interpolate flagged pixels, in place.

    In each of the four directions (row, column, two diagonals) the nearest good pixels on both
    sides give a linear interpolation; the directions are averaged with weights 1/gap², so that a
    bad column is bridged along the rows and a bad row along the columns.  Where no direction has
    two sides (edges), the nearest good pixels count alone.

    The variance becomes that of the neighbours, interpolated in the same way: what the pixel
    would have had if it had been good, and never the smaller scatter of an average, since the
    value is no measurement.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx), float32
        Changed where filled.
    holes : ndarray, (ny, nx), bool
        Pixels to fill.
    unusable : ndarray, (ny, nx), bool
        Further pixels that must not be used as neighbours.
    reach : int, pixel
        How far to look; wider holes keep their inner pixels as they are.

    Returns
    -------
    ndarray, (ny, nx), bool
        What was filled.
    """
    filled = np.zeros(holes.shape, np.bool_)
    _fill(image, variance, holes, holes | unusable, reach, filled)
    return filled


@compiled
def _fill(image: Any, variance: Any, holes: Any, bad: Any, reach: int, filled: Any) -> None:
    ny, nx = holes.shape
    for y in range(ny):
        for x in range(nx):
            if not holes[y, x]:
                continue
            value = spread = weight = 0.0
            near = lone_spread = lone_weight = 0.0
            for direction in range(4):
                dx = 0 if direction == 1 else 1
                dy = 0 if direction == 0 else (-1 if direction == 3 else 1)
                ahead = behind = 0
                for d in range(1, reach + 1):
                    i, j = y + d * dy, x + d * dx
                    if i < 0 or i >= ny or j >= nx:
                        break
                    if not bad[i, j]:
                        ahead = d
                        break
                for d in range(1, reach + 1):
                    i, j = y - d * dy, x - d * dx
                    if i < 0 or i >= ny or j < 0:
                        break
                    if not bad[i, j]:
                        behind = d
                        break
                length = 2.0 if direction > 1 else 1.0  # squared length of one step
                if ahead and behind:
                    w = 1.0 / (length * (ahead + behind) ** 2)
                    t = ahead / (ahead + behind)
                    i, j = y + ahead * dy, x + ahead * dx
                    k, m = y - behind * dy, x - behind * dx
                    value += w * ((1 - t) * image[i, j] + t * image[k, m])
                    spread += w * ((1 - t) * variance[i, j] + t * variance[k, m])
                    weight += w
                elif ahead or behind:
                    d = ahead if ahead else -behind
                    w = 1.0 / (length * d**2)
                    near += w * image[y + d * dy, x + d * dx]
                    lone_spread += w * variance[y + d * dy, x + d * dx]
                    lone_weight += w
            if weight == 0.0:
                value, spread, weight = near, lone_spread, lone_weight
            if weight > 0.0:
                image[y, x] = value / weight
                variance[y, x] = spread / weight
                filled[y, x] = True
