"""Why a dipole may be there: refraction that depends on colour, and the error of the registration.

Air refracts blue light more.  A star bluer than those by which two images are registered lies
nearer to the zenith, the more so the larger the air mass (Filippenko 1982, PASP 94, 715), and where
air masses or directions differ the two images of it do not coincide.  The shift of constant stars
per magnitude of colour, which a difference tells by itself, contains both images, whatever the
template was made of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from pipeline.diasource.frame import Frame, segment
from pipeline.diasource.measure import Columns
from pipeline.exposure import FloatArray
from pipeline.statistics import GAUSS_MEDIAN, excess_scatter

__all__ = ["Colours", "Refraction", "expected_shifts"]

_FEWEST = 12
"""Stars by which refraction, or the registration near a place, is measured."""

_SPREAD = 0.1
"""Least scatter of their colours, mag."""

_CLIP = 4.0
_BISECTIONS = 30
_ROUNDS = 3
_OWN = 5.0
"""Distance, in pixels, up to which a star is the one that leaves a dipole."""

_SAME = 1.0
"""Farthest a star of known colour is from a source that may be its residual, arcsec."""


class Colours(NamedTuple):
    """Stars of known colour.

    Attributes
    ----------
    ra, dec : ndarray, (n,), deg
        At the epoch of the exposure.
    colour : ndarray, (n,), mag
        The same for all, such as g - i; NaN where unknown.
    """

    ra: FloatArray
    dec: FloatArray
    colour: FloatArray


class Refraction(NamedTuple):
    """How far stars are displaced on the science image against the template, by their colour.

    Attributes
    ----------
    slope : ndarray, (2,), pixel / mag
        Along x and y; NaN where too few stars tell.
    error : float, pixel / mag
        Standard error along either.
    colour : float, mag
        Of stars that are not displaced: the mean of those measured.
    """

    slope: FloatArray
    error: float
    colour: float

    @classmethod
    def measure(cls, shifts: FloatArray, colour: FloatArray) -> Refraction:
        """Fit shifts by colour, outliers left out.

        Parameters
        ----------
        shifts : ndarray, (n, 5), pixel
            See `pipeline.exposure.Difference.star_shifts`.
        colour : ndarray, (n,), mag
            Of the same stars; NaN where unknown.

        Returns
        -------
        Refraction
            Unknown where fewer than twelve stars of different colours tell.
        """
        known = np.isfinite(colour)
        shifts, colour = shifts[known], colour[known]
        keep = np.ones(len(colour), bool)
        found = cls(np.full(2, np.nan), np.nan, np.nan)
        for _ in range(_ROUNDS):
            if np.count_nonzero(keep) < _FEWEST or np.std(colour[keep]) < _SPREAD:
                return cls(np.full(2, np.nan), np.nan, np.nan)
            found, keep = _line(shifts, colour, keep)
        return found

    def shift(self, colour: FloatArray) -> FloatArray:
        """Displacement along x and y of sources of some colours, ``(n, 2)``, pixel."""
        return np.asarray((colour - self.colour)[:, None] * self.slope)


def _line(
    shifts: FloatArray, colour: FloatArray, keep: npt.NDArray[np.bool_]
) -> tuple[Refraction, npt.NDArray[np.bool_]]:
    """Weighted straight lines through the shifts kept along x and y, and which are near to them."""
    noise = shifts[:, 4]
    offset = shifts[:, 2:4] - np.median(shifts[keep, 2:4], axis=0)
    scatter = excess_scatter(offset[keep].ravel(), np.repeat(noise[keep], 2))
    weight = np.where(keep, 1.0 / (noise + scatter**2), 0.0)
    mean = float(weight @ colour / weight.sum())
    away = colour - mean
    power = float(weight @ away**2)
    slope = (weight * away) @ shifts[:, 2:4] / power
    left = shifts[:, 2:4] - weight @ shifts[:, 2:4] / weight.sum() - away[:, None] * slope
    scatter = excess_scatter(left[keep].ravel(), np.repeat(noise[keep], 2), fitted=4)
    near = (np.abs(left) < _CLIP * np.sqrt(noise + scatter**2)[:, None]).all(axis=1)
    error = float(np.sqrt((weight**2 * away**2) @ (noise + scatter**2)) / power)
    return Refraction(slope, error, mean), near


def expected_shifts(
    at: FloatArray,
    wcs: WCS,
    shifts: FloatArray,
    colours: Colours | None,
    registration: float,
) -> Columns:
    """Predict what moves a star at each source from the template to the science image.

    Parameters
    ----------
    at : ndarray, (n, 2), pixel
        Sources.
    wcs : WCS
        Of the image.
    shifts : ndarray, (m, 5), pixel
        See `pipeline.exposure.Difference.star_shifts`.
    colours : Colours, optional
        Stars of known colour.
    registration : float, arcsec
        Error of the registration along one axis where too few stars tell.

    Returns
    -------
    dict of ndarray, (n,)
        ``dipoleDcrLength`` (arcsec) and ``dipoleDcrAngle`` (deg), missing where no star of known
        colour is within an arcsecond or too few tell the refraction; ``dipoleRegistrationLength``
        (arcsec), the scatter along one axis of the nearest twelve stars' shifts beyond
        source-free noise and refraction: the photons of the stars count as scatter.
    """
    frame = Frame.at(wcs, *at.T)
    scale = frame.scale
    pixel = float(np.nanmedian(scale)) if np.isfinite(scale).any() else 1.0
    stars = np.full(len(shifts), np.nan)
    here = np.full(len(at), np.nan)
    if colours is not None and len(colours.ra):
        places = np.column_stack(wcs.all_world2pix(colours.ra, colours.dec, 0, quiet=True))
        stars, here = (
            _nearest(places, colours.colour, p, _SAME / pixel) for p in (shifts[:, :2], at)
        )
    refraction = Refraction.measure(shifts, stars)
    length, bearing, _ = segment(frame, *refraction.shift(here).T)
    known = np.isfinite(here) & np.isfinite(refraction.error)
    left = shifts.copy()
    left[:, 2:4] -= np.nan_to_num(refraction.shift(stars))
    return {
        "dipoleDcrLength": np.where(known, length, np.nan),
        "dipoleDcrAngle": np.where(known, bearing, np.nan),
        "dipoleRegistrationLength": _local_scatter(left, at, registration / pixel) * scale,
    }


def _nearest(places: FloatArray, values: FloatArray, at: FloatArray, radius: float) -> FloatArray:
    """Value of the nearest place within a radius in pixels, NaN where there is none."""
    good = np.isfinite(places).all(axis=1) & np.isfinite(values)
    out = np.full(len(at), np.nan)
    if good.any() and len(at):
        distance, k = cKDTree(places[good]).query(at, distance_upper_bound=radius)
        near = np.isfinite(distance)
        out[near] = values[good][k[near]]
    return out


def _local_scatter(shifts: FloatArray, at: FloatArray, default: float) -> FloatArray:
    """Scatter about zero, pixel, of the shifts of the nearest twelve stars, not of one itself."""
    if len(shifts) <= _FEWEST or not len(at):
        return np.full(len(at), default)
    distance, nearest = cKDTree(shifts[:, :2]).query(at, k=_FEWEST + 1)
    own = distance[:, 0] < _OWN
    chosen = np.where(own[:, None], nearest[:, 1:], nearest[:, :-1])
    values = np.abs(shifts[chosen, 2:4].reshape(len(at), -1))
    return _excess(values, np.repeat(shifts[chosen, 4], 2, axis=1))


def _excess(values: FloatArray, noise: FloatArray) -> FloatArray:
    """Scatter of rows ``(n, k)`` beyond their noise as `excess_scatter` defines it, ``(n,)``."""
    low = np.zeros(len(values))
    high = values.max(axis=1) / GAUSS_MEDIAN
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        half = np.median(values / np.sqrt(noise + middle[:, None] ** 2), axis=1)
        low, high = np.where(half > GAUSS_MEDIAN, [middle, high], [low, middle])
    return low
