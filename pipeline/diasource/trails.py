"""Long trails: what moved by several widths of the PSF in one exposure is one source.

Noise splits the footprint of a trail, and the score has several peaks along it.  Peaks in a row are
joined where one trail describes their pixels better than as many points do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pipeline.diasource.detect import Footprints
from pipeline.diasource.fits import Fits, fit_lines, fit_points, left_over
from pipeline.diasource.planes import Planes
from pipeline.diasource.select import Peaks
from pipeline.exposure import FloatArray
from pipeline.psfphot import SplinePsf

__all__ = ["Trails", "find_trails"]

_GAP = 5.0
"""Peaks of one trail lie no farther apart, in FWHM."""

_ELONGATED = 1.7
_SHORTEST, _WIDEST = 2.0, 5.0
"""Least length and largest width of a footprint that is tried, in FWHM; what is shorter is
measured where it is one source anyhow."""

_LONGEST = 120.0
"""Longest trail, pixel: 24 arcsec or more on survey cameras.  What is longer is a satellite."""

_BESIDE = 2.0
"""How far beside a line its pixels are fitted, in FWHM."""

_MOST_PIXELS = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Trails:
    """Long trails.

    Attributes
    ----------
    peak : ndarray of int, (n,)
        The peak that stands for each.
    footprint : ndarray of int, (m,)
        The footprints that they lie in.
    fits : Fits
        Their fits: F, x, y, a, b.
    """

    peak: npt.NDArray[np.int64]
    footprint: npt.NDArray[np.int64]
    fits: Fits

    def rows(
        self, peak: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Rows whose peaks stand for trails, and the trails."""
        _, rows, trails = np.intersect1d(peak, self.peak, return_indices=True)
        return rows, trails


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """Footprints in a row: their numbers, middle and extent as a vector, pixel."""

    footprints: npt.NDArray[np.intp]
    middle: FloatArray
    extent: FloatArray


def find_trails(
    planes: Planes,
    psf: SplinePsf,
    peaks: Peaks,
    footprints: Footprints,
    width: float,
    radius: float,
) -> Trails:
    """Find long trails and join their peaks.

    A trail has the sign of its peaks: what lies between two peaks of the other sign, such as the
    sides of a satellite's trail, is none of theirs.  All peaks of a trail but the highest are
    recorded as ``trail`` (value: Δχ² between points and the trail; bound: what as many points have
    to gain for their parameters) and belong to it.

    Parameters
    ----------
    planes : Planes
        Whitened difference and its noise.
    psf : SplinePsf
        Matched to the planes.
    peaks : Peaks
        The ledger, judged; changed in place.
    footprints : Footprints
        Connected pixels above the threshold.
    width : float, pixel
        FWHM of the PSF.
    radius : float, pixel
        Radius of the pixels in fits of points.

    Returns
    -------
    Trails
        Those that were accepted.
    """
    nx = planes.image.shape[1]
    lines = _lines(peaks, footprints, width, nx)
    accepted = peaks.rule == ""
    members = [np.flatnonzero(accepted & np.isin(footprints.label, k.footprints)) for k in lines]
    nothing = np.empty(0, np.int64)
    if not lines:
        return Trails(nothing, nothing, Fits.none(0, 5))
    apart = _without_points(planes, psf, peaks, np.concatenate(members), radius)
    middle = np.array([k.middle for k in lines])
    extent = np.array([k.extent for k in lines])
    fits = fit_lines(planes, psf, _fluxes(planes, psf, middle), middle, extent, _BESIDE * width)
    gain = left_over(apart, middle, extent, _BESIDE * width) - fits.cost
    size = np.array([len(m) for m in members])
    bound = (5 - 3 * size) * np.log(np.maximum(fits.ndata, 2))  # Schwarz 1978, Ann. Stat. 6, 461
    length = np.hypot(*fits.theta[:, 3:].T)
    good = fits.converged & (gain > bound) & (length > _SHORTEST * width) & (length < _LONGEST)
    good &= _inside(fits.theta, planes.image.shape, width)
    good &= fits.theta[:, 0] * [peaks.score[m].sum() for m in members] > 0.0
    found = np.flatnonzero(good)
    heads = [_join(peaks, members[k], fits.theta[k], gain[k], bound[k]) for k in found]
    where = [lines[k].footprints for k in found]
    return Trails(np.array(heads, np.int64), np.concatenate([nothing, *where]), fits.take(found))


def _inside(theta: FloatArray, shape: tuple[int, ...], rim: float) -> npt.NDArray[np.bool_]:
    """Trails that end on the image: what leaves it may be a satellite."""
    ends = theta[:, None, 1:3] + np.array([-0.5, 0.5])[:, None] * theta[:, None, 3:]
    low, high = ends.min(axis=1), ends.max(axis=1)
    return np.asarray((low > rim).all(axis=1) & (high < np.array(shape)[::-1] - rim).all(axis=1))


def _join(
    peaks: Peaks, members: npt.NDArray[np.intp], theta: FloatArray, gain: float, bound: float
) -> int:
    """Let the highest peak stand for all, at the middle of the trail."""
    head, *others = members[np.argsort(-np.abs(peaks.score[members]), kind="stable")].tolist()
    peaks.stop(np.array(others, np.intp), "trail", gain, bound)
    peaks.belongs_to |= dict.fromkeys(others, head)
    peaks.middle[head] = (float(theta[1]), float(theta[2]))
    return int(head)


def _lines(peaks: Peaks, footprints: Footprints, width: float, nx: int) -> list[_Line]:
    """Footprints that hang together in a row, else those that are rows themselves."""
    seen = np.flatnonzero((footprints.label >= 0) & (np.char.find(peaks.rule, "mask") < 0))
    accepted = np.unique(footprints.label[peaks.rule == ""])
    if not len(accepted):
        return []
    group = _groups(peaks, footprints, seen, _GAP * width)[accepted]
    lines: list[_Line | None] = []
    for label in np.unique(group):
        alike = accepted[group == label]
        whole = _line(footprints, alike, width, nx)
        single = [_line(footprints, alike[k : k + 1], width, nx) for k in range(len(alike))]
        lines += [whole] if whole or len(alike) == 1 else single
    return [line for line in lines if line is not None]


def _groups(
    peaks: Peaks, footprints: Footprints, seen: npt.NDArray[np.intp], gap: float
) -> npt.NDArray[np.int32]:
    """Group of each footprint: linked by peaks of the same sign that are near each other."""
    n = len(footprints.start) - 1
    at = np.column_stack([peaks.x[seen], peaks.y[seen]])
    i, j = seen[cKDTree(at).query_pairs(gap, output_type="ndarray")].T
    same = peaks.score[i] * peaks.score[j] > 0
    a, b = footprints.label[i[same]], footprints.label[j[same]]
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1])


def _line(
    footprints: Footprints, which: npt.NDArray[np.intp], width: float, nx: int
) -> _Line | None:
    """Middle and extent of the pixels of footprints, if they lie along a line."""
    pixels = np.concatenate([footprints.of(int(k)) for k in which])
    if not 4 < len(pixels) < _MOST_PIXELS:
        return None
    y, x = np.divmod(pixels, nx)
    values, axes = np.linalg.eigh(np.cov(x, y))
    across, along = np.sqrt(12.0 * np.maximum(values, 1.0 / 12.0))  # sides of a rectangle
    if not _SHORTEST * width < along < _LONGEST + 2.0 * across:
        return None
    if along < _ELONGATED * across or across > _WIDEST * width:
        return None
    direction, at = axes[:, 1], np.column_stack([x, y])
    place = at @ direction
    ends = (place.min() + place.max()) / 2.0
    middle = at.mean(axis=0)
    middle = middle + (ends - middle @ direction) * direction
    return _Line(which, middle, max(float(np.ptp(place)) - across, 1.0) * direction)


def _fluxes(planes: Planes, psf: SplinePsf, at: FloatArray) -> FloatArray:
    """Fluxes of points at the middles of trails, ``(n,)``."""
    return np.nan_to_num(planes.forced_flux(psf, at).flux)


def _without_points(
    planes: Planes, psf: SplinePsf, peaks: Peaks, index: npt.NDArray[np.intp], radius: float
) -> Planes:
    """Pixels without the point sources that peaks would be."""
    at = np.column_stack([peaks.x[index], peaks.y[index]]).astype(float)
    flux = _fluxes(planes, psf, at)
    return fit_points(planes, psf, at, flux, radius, 2.0, np.arange(len(index)))[1]
