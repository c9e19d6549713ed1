"""Choosing the stars that define the point spread function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibrate.measure import Moments
from pipeline.exposure import FloatArray, polynomial_terms
from pipeline.masks import NO_PSF_STAR, bits
from pipeline.statistics import mad_std

__all__ = [
    "StarSample",
    "contamination",
    "pairs_within",
    "select_stars",
    "sharpest_ridge",
    "star_size",
]

_SHORTEST = 0.35
_CLIP = 3.0
_SMALLEST_SPREAD = 0.01
_SIZE_FLOOR = 0.5
_RIDGE = 1.06  # width of a ridge, the ratio of its largest to its smallest size
_FEWEST_ON_RIDGE, _LEAST_ON_RIDGE = 4, 0.08
_RIDGE_SPREAD = 0.02
_HIGH, _CLEAR = 0.4, 1.0 / 3.0


@dataclass(frozen=True, slots=True, eq=False)
class StarSample:
    """Candidate stars.

    Attributes
    ----------
    index : ndarray of int, (n,)
        Which of the measured sources.
    size : float, pixel
        Mode of the stars' Gaussian widths.
    snr_floor : float
        Signal-to-noise ratio to which the selection had to go down.
    """

    index: npt.NDArray[np.int64]
    size: float
    snr_floor: float


def star_size(size: FloatArray) -> float:
    """Mode of the sizes: middle of the shortest interval with 35 per cent of them.

    Parameters
    ----------
    size : ndarray, (n,), pixel
        Sizes of bright sources; stars pile up where galaxies do not.

    Returns
    -------
    float, pixel
        NaN without any finite size.
    """
    s = np.sort(size[np.isfinite(size) & (size > _SIZE_FLOOR)])
    if len(s) < 3:
        return float(np.median(s)) if len(s) else float("nan")
    m = max(2, int(np.ceil(_SHORTEST * len(s))))
    widths = s[m - 1 :] - s[: len(s) - m + 1]
    i = int(np.argmin(widths))
    return float(np.median(s[i : i + m]))


def sharpest_ridge(size: FloatArray, mode: float) -> float:
    """Width of the sharpest pile of sources that stands apart, below the most frequent size.

    Sizes of stars differ by few per cent, those of galaxies by much.  A ridge is an interval of six
    per cent that holds at least two fifths of the sources that any such interval holds, and thrice
    as many as the interval below it.

    Parameters
    ----------
    size : ndarray, (n,), pixel
        Sizes of bright sources.
    mode : float, pixel
        The most frequent one, see `star_size`.

    Returns
    -------
    float, pixel
        Median of the ridge; NaN where there is none below the mode.
    """
    s = np.sort(size[np.isfinite(size) & (size > _SIZE_FLOOR)])
    first = np.arange(len(s))
    count = np.searchsorted(s, s * _RIDGE, side="right") - first
    below = first - np.searchsorted(s, s / _RIDGE)
    least = max(_FEWEST_ON_RIDGE, _LEAST_ON_RIDGE * len(s))
    ridge = (s * _RIDGE < mode) & (count >= max(least, _HIGH * count.max(initial=0)))
    ridge &= below <= _CLEAR * count
    if not ridge.any():
        return float("nan")
    i = int(np.flatnonzero(ridge)[0])
    i += int(np.argmax(np.where(ridge, count, 0)[i : i + count[i]]))  # the fullest that overlaps
    return float(np.median(s[i : i + count[i]]))


def contamination(
    x: FloatArray, y: FloatArray, flux: FloatArray, size: float, radius: float
) -> FloatArray:
    """Flux of neighbours that reaches a star's core, relative to the star.

    Parameters
    ----------
    x, y : ndarray, (n,), pixel
        All sources.
    flux : ndarray, (n,)
        Their fluxes or peaks.
    size : float, pixel
        Gaussian width of a star.
    radius : float, pixel
        Neighbours farther away do not count.

    Returns
    -------
    ndarray, (n,)
        Σ_j f_j / f_i of the neighbours, each weighted by a Moffat profile (β = 3) two widths
        nearer than it is.
    """
    i, j, reach = pairs_within(x, y, size, radius)
    total = np.zeros(len(x))
    np.add.at(total, i, reach * flux[j] / flux[i])
    np.add.at(total, j, reach * flux[i] / flux[j])
    return total


def pairs_within(
    x: FloatArray, y: FloatArray, size: float, radius: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """List pairs of sources and how far the light of one reaches into the core of the other.

    Parameters
    ----------
    x, y : ndarray, (n,), pixel
        Positions.
    size : float, pixel
        Gaussian width of a star.
    radius : float, pixel
        Largest distance.

    Returns
    -------
    tuple of ndarray
        First and second partner, and a Moffat profile (β = 3, unit peak) at two widths less than
        their distance.
    """
    from scipy.spatial import cKDTree

    at = np.stack([x, y], axis=1)
    pairs = cKDTree(at).query_pairs(radius, output_type="ndarray")
    i, j = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    nearest = np.maximum(np.hypot(*(at[i] - at[j]).T) - 2.0 * size, 0.0)
    return i, j, (1.0 + (nearest / (2.0 * size)) ** 2) ** -3.0


def select_stars(
    moments: Moments,
    snr: FloatArray,
    disturbed: FloatArray,
    shape: tuple[int, int],
    *,
    saturation: float = np.inf,
    size: float | None = None,
    snr_min: float = 50.0,
    enough: int = 40,
    max_disturbance: float = 0.02,
    max_stars: int = 200,
) -> StarSample:
    """Pick unsaturated, undisturbed sources of the size of a star.

    Where bright stars are scarce the limits on signal-to-noise ratio and on neighbours are relaxed
    step by step until `enough` stars are found or the last step is reached.

    Parameters
    ----------
    moments : Moments
        Of all sources.
    snr : ndarray, (n,)
        Their signal-to-noise ratios.
    disturbed : ndarray, (n,)
        Neighbours' light, see `contamination`.
    shape : tuple of int, (ny, nx)
        Size of the image, for the trend of the size over it.
    saturation : float, image unit
        Peaks above 0.85 of it are left out.
    size : float, optional, pixel
        Width of the stars, if it is known: only what is as wide within the noise is then taken, and
        the limit on the signal-to-noise ratio relaxed no further than to 20.
    snr_min : float
        Signal-to-noise ratio to begin with; ends at a fifth of it.
    enough : int
        Number of stars that ends the relaxing.
    max_disturbance : float
        Neighbours' light to begin with; ends at five times as much.
    max_stars : int
        At most as many, the brightest.

    Returns
    -------
    StarSample
        Possibly empty.
    """
    finite = moments.ok & np.isfinite(moments.size) & (moments.size > _SIZE_FLOOR)
    clean = (
        finite & ((moments.flags & bits(*NO_PSF_STAR)) == 0) & (moments.peak < 0.85 * saturation)
    )
    mode = size or star_size(moments.size[clean & (snr > snr_min / 2.5)])
    best = StarSample(np.zeros(0, np.int64), mode, snr_min)
    for relax in (1.0, 2.5, 5.0) if size is None else (1.0, 2.5):
        candidates = clean & (snr > snr_min / relax) & (disturbed < max_disturbance * relax)
        index = np.flatnonzero(candidates)
        if size is None:
            index = _on_locus(moments, index, mode, shape)
        else:
            index = _on_ridge(moments.size[index] / mode - 1.0, snr[index], index)
        if len(index) > 1.2 * len(best.index):
            index = np.sort(index[np.argsort(-snr[index], kind="stable")][:max_stars])
            best = StarSample(index, mode, snr_min / relax)
        if len(best.index) >= enough:
            break
    return best


def _on_locus(
    moments: Moments, index: npt.NDArray[np.int64], mode: float, shape: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Keep sources within 3 MAD of a smooth trend of the size over the image."""
    size = moments.size[index]
    keep = np.abs(size / mode - 1.0) < 0.25
    for _ in range(6):
        n = int(keep.sum())
        if n < 3:
            break
        order = 2 if n >= 30 else 1 if n >= 10 else 0
        terms = polynomial_terms(moments.x[index], moments.y[index], shape, order)
        trend = terms @ np.linalg.lstsq(terms[keep], size[keep], rcond=None)[0]
        off = size / trend - 1.0
        centre = float(np.median(off[keep]))
        spread = max(mad_std(off[keep], centre), _SMALLEST_SPREAD)
        new = np.abs(off - centre) < _CLIP * spread
        if (new == keep).all():
            break
        keep = new
    return np.asarray(index[keep])


def _on_ridge(
    off: FloatArray, snr: FloatArray, index: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Keep sources whose size is that of the stars within two per cent and the noise."""
    centre = 0.0
    for _ in range(3):
        keep = np.abs(off - centre) < _CLIP * np.hypot(_RIDGE_SPREAD, 1.0 / snr)
        if keep.any():
            centre = float(np.median(off[keep]))
    return np.asarray(index[keep])
