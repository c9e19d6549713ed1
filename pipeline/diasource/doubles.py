"""Blends whose parts the matched filter, which is wider than the PSF, shows as one peak.

The score of two equal sources has two peaks from a separation of 1.2 FWHM on; their image has two
from 0.85 on.  Where a point does not describe a bright source, two points and a trail are tried.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.diasource.fits import Fits, fit_doubles
from pipeline.diasource.planes import Planes
from pipeline.diasource.rows import Targets
from pipeline.diasource.select import Peaks
from pipeline.exposure import FloatArray, Image
from pipeline.psfphot import SplinePsf

__all__ = ["split_doubles"]

_BRIGHT = 15.0
"""Signal to noise from which on the shape of a source can tell two from one."""

_MISFIT = 3.0
"""Excess of χ² over its number of pixels, in its own standard deviations."""

_GAIN = 40.0
"""Least Δχ² of two points against one."""

_TRAIL = 20.0
"""Least Δχ² of two points against a trail: what moved is more frequent."""

_FAINTER, _SIGNIFICANT = 0.25, 7.0
"""Least flux of the fainter part, of the brighter and in errors: errors of the PSF are smaller."""

_NEAREST, _FARTHEST = 0.8, 2.5
"""Separation in FWHM."""


def split_doubles(
    planes: Planes,
    psf: SplinePsf,
    score: Image,
    targets: Targets,
    points: Fits,
    peaks: Peaks,
    width: float,
    threshold: float,
) -> Targets:
    """Split sources that are two, each above the threshold of detection.

    Parameters
    ----------
    planes : Planes
        Whitened difference and its noise.
    psf : SplinePsf
        Matched to the planes.
    score : ndarray, (ny, nx)
        Score, of which the ledger gets the values at the fainter parts.
    targets : Targets
        n rows.
    points : Fits
        Point-source fits of these rows.
    peaks : Peaks
        The ledger; the second part of each source is added to it.
    width : float, pixel
        FWHM of the PSF.
    threshold : float
        Least |score| of a source: beside a bright star that of the fainter part can be below.

    Returns
    -------
    Targets
        With a parent and two children in place of each row that was split.
    """
    rows = _misfits(targets, points, peaks)
    if not len(rows):
        return targets
    pairs, trails = fit_doubles(planes, psf, points.theta[rows], 0.6 * width, 2.0 * width)
    found = np.flatnonzero(_are_two(pairs, trails, width))
    if not len(found):
        return targets
    at, flux = _parts(pairs.theta[found])
    brighter = np.argmax(np.abs(flux), axis=1)[:, None, None]
    first = np.take_along_axis(at, brighter, 1)[:, 0]
    second = np.take_along_axis(at, 1 - brighter, 1)[:, 0]
    pixel = np.rint(second).astype(np.int32)
    seen = np.asarray(((pixel >= 0) & (pixel < np.array(score.shape)[::-1])).all(axis=1))
    x, y = pixel[seen].T
    seen[seen] = np.abs(score[y, x]) > threshold
    added = peaks.add(score, pixel[seen])
    return targets.split(rows[found[seen]], first[seen], second[seen], peaks, added)


def _misfits(targets: Targets, points: Fits, peaks: Peaks) -> npt.NDArray[np.intp]:
    """Bright single detections that a point does not describe."""
    single = (targets.selection == 0) & ~targets.is_parent & (targets.parent < 0)
    single &= ~np.isin(targets.peak, list(peaks.middle))  # whether or not a point came to rest
    excess = (points.chi2 - points.ndata) / np.sqrt(2.0 * np.maximum(points.ndata, 1))
    bright = np.abs(points.theta[:, 0]) > _BRIGHT * points.errors[:, 0]
    return np.flatnonzero(single & bright & (excess > _MISFIT))


def _parts(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Places ``(n, 2, 2)`` and fluxes ``(n, 2)`` of the parts of a pair."""
    half = np.array([0.5, -0.5])
    at = theta[:, None, 2:4] + half[:, None] * theta[:, None, 4:]
    flux = 2.0 * half * theta[:, :1] + 0.5 * theta[:, 1:2]
    return at, flux


def _are_two(pairs: Fits, trails: Fits, width: float) -> npt.NDArray[np.bool_]:
    """Whether two points of one sign describe the pixels, and nothing simpler does."""
    _, flux = _parts(pairs.theta)
    sign = np.array([1.0, -1.0])
    cov = pairs.cov
    variance = cov[:, 0, 0, None] + cov[:, 1, 1, None] / 4.0 + sign * cov[:, 0, 1, None]
    size = np.abs(flux)
    good = pairs.converged & (flux[:, 0] * flux[:, 1] > 0.0) & (pairs.gain > _GAIN)
    good &= size.min(axis=1) > _FAINTER * size.max(axis=1)
    good &= (size > _SIGNIFICANT * np.sqrt(np.maximum(variance, 0.0))).all(axis=1)
    separation = np.hypot(*pairs.theta[:, 4:].T) / width
    good &= (separation > _NEAREST) & (separation < _FARTHEST)
    return np.asarray(good & ~(trails.converged & (trails.cost < pairs.cost + _TRAIL)))
