"""Pixels without data that nothing in the file marks: padding, sentinels, overflow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exposure import Image

__all__ = ["HUGE", "no_data", "plateau"]

HUGE = 1e29
"""Absolute values from here on stand for no data (SWarp writes 1e30), at any sensible unit."""

_RUN = 24
_SQUARE = 5
_REPEATED = 3
_APART = 8.0
"""A lowest value that repeats and lies that many times the noise below the next is a sentinel."""

_SENTINELS = 4
_SAMPLE = 1 << 20


def no_data(image: Image) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Find pixels that hold no measurement.

    Not-a-number, infinity and huge values hold none.  Zeros hold none where they are a border, a
    corner or a block: runs of 24 or squares of 5 with all that is connected to them; noise does
    not do that.  The lowest value of the image holds none if it repeats and lies far below the
    rest.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Pixels.

    Returns
    -------
    holes : ndarray of bool, (ny, nx)
        The pixels.
    notes : list of str
        What was found beyond not-a-number, once each.
    """
    holes = ~np.isfinite(image)
    notes: list[str] = []
    if not holes.all() and max(-_least(image, holes), _most(image, holes)) >= HUGE:
        huge = ~holes & (np.abs(np.where(holes, 0, image)) >= HUGE)
        notes.append(f"{_count(huge)} of 1e29 and beyond taken as no data")
        holes |= huge
    padding = _blocks(image == 0) & ~holes
    if padding.any() and not (padding | holes).all():
        notes.append(f"{_count(padding)} of value 0 in borders or blocks taken as no data")
        holes |= padding
    for _ in range(_SENTINELS):
        value = _sentinel(image, holes)
        if value is None:
            break
        same = (image == value) & ~holes
        notes.append(f"{_count(same)} of value {value:g}, far below the others, taken as no data")
        holes |= same
    return holes, notes


def _count(pixels: npt.NDArray[np.bool_]) -> str:
    return f"{np.count_nonzero(pixels)} pixels"


def _least(image: Image, holes: npt.NDArray[np.bool_]) -> float:
    return float(np.min(image, where=~holes, initial=np.inf))


def _most(image: Image, holes: npt.NDArray[np.bool_]) -> float:
    return float(np.max(image, where=~holes, initial=-np.inf))


def _blocks(zero: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Zeros connected with a run or a square of zeros."""
    from scipy.ndimage import binary_opening, binary_propagation

    if np.count_nonzero(zero) < _RUN:
        return np.zeros_like(zero)
    seeds = np.zeros_like(zero)
    for element in (np.ones((1, _RUN)), np.ones((_RUN, 1)), np.ones((_SQUARE, _SQUARE))):
        seeds |= binary_opening(zero, element)
    return np.asarray(binary_propagation(seeds, np.ones((3, 3)), mask=zero), bool)


def _sentinel(image: Image, holes: npt.NDArray[np.bool_]) -> float | None:
    """Lowest value, if it is one."""
    good = ~holes
    value = _least(image, holes)
    if not np.isfinite(value) or np.count_nonzero((image == value) & good) < _REPEATED:
        return None
    following = float(np.min(image, where=good & (image > value), initial=np.inf))
    if not np.isfinite(following):
        return None  # a constant image is the business of others
    thin = image.ravel()[:: max(1, image.size // _SAMPLE)]
    thin = thin[np.isfinite(thin) & (thin > value) & (np.abs(thin) < HUGE)]
    if not thin.size:
        return None
    low, middle = np.percentile(thin, [15.865, 50.0])
    return value if middle > low and following - value > _APART * (middle - low) else None


def plateau(image: Image) -> tuple[float, str]:
    """Level at which an image is clipped, if it is: its largest value, if three pixels have it.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Pixels.

    Returns
    -------
    level : float, image unit
        Infinite where there is no plateau.
    note : str
        What was found.
    """
    finite = image[np.isfinite(image)]
    largest = float(finite.max()) if finite.size else float("inf")
    if np.count_nonzero(finite == largest) >= _REPEATED:
        return largest, f"saturation: no keyword, {largest:g} from the plateau of the brightest"
    return float("inf"), "saturation: no keyword and no plateau, none assumed"
