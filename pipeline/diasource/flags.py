"""What the mask says about each source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.exposure import Mask
from pipeline.pixelflags import PIXEL_FLAGS, pixel_flags

__all__ = ["box_pixels", "source_flags", "square_sides"]

Ints = npt.NDArray[np.int32]

_CENTER = (
    "cr", "nodata", "interpolated", "saturated", "suspect", "streak", "injected",
    "injected_template", "saturated_template",
)  # fmt: skip


def box_pixels(shape: tuple[int, int], x: int, y: int, half: int) -> Ints:
    """Flat indices of the part of a square box that lies on the image.

    Parameters
    ----------
    shape : tuple of int, (ny, nx)
        Size of the image.
    x, y : int, pixel
        Middle of the box.
    half : int, pixel
        Half size; the side is ``2 half + 1``.

    Returns
    -------
    ndarray of int, (k,)
        ``y nx + x``.
    """
    rows = np.arange(max(0, y - half), min(shape[0], y + half + 1))
    columns = np.arange(max(0, x - half), min(shape[1], x + half + 1))
    return (rows[:, None] * shape[1] + columns).ravel().astype(np.int32)


def square_sides(shape: tuple[int, int], footprints: Sequence[Ints]) -> Ints:
    """Sides of the smallest upright squares that hold the footprints, ``(n,)``.

    Parameters
    ----------
    shape : tuple of int, (ny, nx)
        Size of the image.
    footprints : sequence of ndarray of int
        Flat indices of the pixels of n footprints.

    Returns
    -------
    ndarray of int, (n,), pixel
        Sides.
    """
    sides = np.empty(len(footprints), np.int32)
    for k, pixels in enumerate(footprints):
        y, x = np.divmod(pixels, shape[1])
        sides[k] = max(np.ptp(x), np.ptp(y)) + 1
    return sides


def source_flags(
    mask: Mask, footprints: Sequence[Ints], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Summarise the mask in each footprint and in the 3×3 pixels round each centre.

    Parameters
    ----------
    mask : ndarray, (ny, nx)
        Mask planes.
    footprints : sequence of ndarray
        Flat indices of each source's pixels.
    x, y : ndarray, (n,), pixel
        Centres.

    Returns
    -------
    dict
        The ``pixelFlags…`` columns.
    """
    flat = mask.ravel()
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    whole = np.array([_union(flat[pixels]) for pixels in footprints], np.uint32)
    core = np.array(
        [_union(flat[box_pixels(mask.shape, i, j, 1)]) for i, j in zip(column, row, strict=True)],
        np.uint32,
    )
    flags = pixel_flags(whole, PIXEL_FLAGS) | pixel_flags(core, _CENTER, "Center")
    outside = (column < 0) | (row < 0) | (column >= mask.shape[1]) | (row >= mask.shape[0])
    return flags | {"pixelFlags_offimage": outside, "pixelFlags": outside}


def _union(values: Mask) -> np.uint32:
    return np.uint32(np.bitwise_or.reduce(values)) if values.size else np.uint32(0)
