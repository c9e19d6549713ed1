"""Masks that follow from the pixels and from the list of defects."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pipeline.camera import Box
from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, Mask
from pipeline.isr.config import Config
from pipeline.masks import bits

__all__ = ["flag_bleeds", "flag_defects", "flag_edges", "grow_saturation", "has_any"]

_SAT, _BLEED = int(bits("SAT")), int(bits("BLEED"))


def has_any(mask: Mask, planes: np.uint32) -> npt.NDArray[np.bool_]:
    """Where any of the planes is set, ``(ny, nx)``, in one pass.

    Parameters
    ----------
    mask : ndarray, (ny, nx), uint32
        Mask.
    planes : uint32
        Bits of the planes, see `pipeline.masks.bits`.

    Returns
    -------
    ndarray of bool, (ny, nx)
        True where one of them is set.
    """
    return np.asarray(_has_any(mask.ravel(), planes)).reshape(mask.shape)


@compiled
def _has_any(mask: Mask, planes: np.uint32) -> npt.NDArray[np.bool_]:
    out = np.empty(mask.size, np.bool_)
    for i in range(mask.size):
        out[i] = mask[i] & planes != 0
    return out


def flag_defects(mask: Mask, defects: Iterable[Box]) -> None:
    """Set BAD inside the listed boxes, in place.

    Parameters
    ----------
    mask : ndarray, (ny, nx), uint32
        Changed in place.
    defects : iterable of Box
        Boxes in pixels of the trimmed image.
    """
    for box in defects:
        mask[box.y0 : box.y0 + box.height, box.x0 : box.x0 + box.width] |= bits("BAD")


def flag_edges(mask: Mask, width: int) -> None:
    """Set SUSPECT along the border, in place; the field is distorted there.

    Parameters
    ----------
    mask : ndarray, (ny, nx), uint32
        Changed in place.
    width : int, pixel
        Width of the border.
    """
    if width == 0:
        return
    for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        mask[edge] |= bits("SUSPECT")


def flag_bleeds(image: Image, variance: Image, mask: Mask, config: Config) -> int:
    """Set BLEED where charge ran along a column from saturated pixels, in place.

    Runs of saturated pixels in a column are bleeds; from both ends the charge is followed as long
    as the pixel is higher than those three columns away on either side.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx), float32, electron
        Pixels.
    mask : ndarray, (ny, nx), uint32
        With SAT, not yet grown.
    config : Config
        ``bleed_*``.

    Returns
    -------
    int
        Pixels set.
    """
    limits = np.array([config.bleed_run, config.bleed_reach, config.bleed_excess**2], float)
    return int(_bleeds(image, variance, mask, limits))


@compiled
def _bleeds(image: Image, variance: Image, mask: Mask, limits: FloatArray) -> int:
    ny, nx = mask.shape
    shortest, reach, excess2 = int(limits[0]), int(limits[1]), limits[2]
    count = 0
    for start in range(ny):
        for x in range(nx):
            if not mask[start, x] & np.uint32(_SAT):
                continue
            if start > 0 and mask[start - 1, x] & np.uint32(_SAT):
                continue  # the run began higher up
            end = start
            while end + 1 < ny and mask[end + 1, x] & np.uint32(_SAT):
                end += 1
            if end - start + 1 < shortest:
                continue
            low = _follow(image, variance, start, x, -1, reach, excess2)
            high = _follow(image, variance, end, x, 1, reach, excess2)
            for j in range(low, high + 1):
                count += 0 if mask[j, x] & np.uint32(_BLEED) else 1
                mask[j, x] |= np.uint32(_BLEED)
    return count


@compiled
def _follow(
    image: Image, variance: Image, y: int, x: int, way: int, reach: int, excess2: float
) -> int:
    """Last row that charge from a saturated pixel has reached."""
    ny, nx = image.shape
    left, right = max(x - 3, 0), min(x + 3, nx - 1)
    for _ in range(reach):
        j = y + way
        if j < 0 or j >= ny:
            break
        beside = max(image[j, left], image[j, right])
        above = np.float64(image[j, x]) - np.float64(beside)
        if not (above > 0.0 and above * above > excess2 * np.float64(variance[j, x])):
            break
        y = j
    return int(min(max(y + way, 0), ny - 1))


def grow_saturation(mask: Mask, pixels: int) -> None:
    """Widen SAT by some pixels in all directions, in place.

    Parameters
    ----------
    mask : ndarray, (ny, nx), uint32
        Changed in place.
    pixels : int, pixel
        How far; 0 changes nothing.
    """
    if pixels:
        _grow(mask, np.argwhere(has_any(mask, bits("SAT"))), pixels)


@compiled
def _grow(mask: Mask, places: npt.NDArray[np.int64], pixels: int) -> None:
    ny, nx = mask.shape
    for k in range(len(places)):
        y, x = places[k]
        for j in range(max(y - pixels, 0), min(y + pixels + 1, ny)):
            for i in range(max(x - pixels, 0), min(x + pixels + 1, nx)):
                mask[j, i] |= np.uint32(_SAT)
