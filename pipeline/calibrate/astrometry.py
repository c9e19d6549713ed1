"""World coordinates: the header's, matched to reference stars and corrected.

The order of the correction follows the number of stars.  Refraction spreads stars by colour, up to
0.1 arcsec per magnitude in blue bands at low altitude; where colours are known, this displacement
is fitted along with the coordinates, which then are those of the median colour of the reference
stars on the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from pipeline.calibrate.match import Match, match, pair
from pipeline.calibrate.refcat import ReferenceStars
from pipeline.calibrate.tpv import Coordinates
from pipeline.errors import AstrometryError
from pipeline.exposure import FloatArray
from pipeline.sphere import project
from pipeline.statistics import mad_std

__all__ = ["Astrometry", "fit_astrometry", "image_centre", "order_for"]

_ARCSEC = 3600.0
_MAS = 3.6e6
_TURBULENCE_MAS = 8.0
_CLIP = 4.0
_FEWEST_COLOURS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Astrometry:
    """Result of `fit_astrometry`.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        Corrected coordinates.
    detection, reference : ndarray of int, (n,)
        Indices of the pairs used.
    rms : tuple of float, mas
        Scatter of the pairs along east and north, weighted by the inverse variances that are
        expected of them: the noise of faint centroids says nothing about the coordinates.
    order : int
        0 for shift, rotation and scale; 1 linear, 2 quadratic, 3 cubic.
    offset : float, arcsec
        How far off the header was at the middle of the image.
    rotation : float, deg
        And by how much it was rotated.
    log_chance : float
        Logarithm of the expected number of chance matches as good.
    chromatic : tuple of float, mas / mag
        Shift east and north of a star with colour: refraction by the atmosphere.  The
        coordinates are those of the median colour of the reference stars on the image.  Zero
        where it was not fitted.
    """

    wcs: WCS
    detection: npt.NDArray[np.int64]
    reference: npt.NDArray[np.int64]
    rms: tuple[float, float]
    order: int
    offset: float
    rotation: float
    log_chance: float
    chromatic: tuple[float, float]

    def __len__(self) -> int:
        return len(self.detection)


def order_for(n: int) -> int:
    """Order of the correction that a number of pairs can carry.

    Parameters
    ----------
    n : int
        Number of pairs of detection and reference star.

    Returns
    -------
    int
        Order of the polynomial, 0 (a shift) to 3.
    """
    return 3 if n >= 200 else 2 if n >= 50 else 1 if n >= 10 else 0


def image_centre(wcs: WCS, shape: tuple[int, int]) -> tuple[float, float]:
    """Sky position (deg) of the middle of an image.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Coordinates of the image.
    shape : tuple of int, (ny, nx)
        Its size.

    Returns
    -------
    ra, dec : float, deg
        ICRS.
    """
    ra, dec = wcs.all_pix2world((shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0, 0)
    return float(ra), float(dec)


def fit_astrometry(
    wcs: WCS,
    shape: tuple[int, int],
    x: FloatArray,
    y: FloatArray,
    err: FloatArray,
    stars: ReferenceStars,
    *,
    max_offset: float = 60.0,
    max_rotation: float = 0.5,
    max_chance: float = 1e-4,
    min_pairs: int = 4,
) -> Astrometry:
    """Match detections to reference stars and correct the world coordinates.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        From the header: TAN, TPV or TAN-SIP.
    shape : tuple of int, (ny, nx)
        Size of the image.
    x, y : ndarray, (n,), pixel
        Centroids, brightest first.
    err : ndarray, (n,), mas
        Their errors per axis.
    stars : ReferenceStars
        Brightest first, at the epoch of the exposure.
    max_offset : float, arcsec
        Largest pointing error.
    max_rotation : float, deg
        Largest error of the position angle.
    max_chance : float
        Expected number of chance matches that is still acceptable.
    min_pairs : int
        Fewest pairs.

    Returns
    -------
    Astrometry

    Raises
    ------
    AstrometryError
        If no credible match is found.
    """
    centre = image_centre(wcs, shape)
    reference = project(stars.ra, stars.dec, centre) * _ARCSEC
    coordinates = Coordinates.of(wcs)
    detected = project(*coordinates.sky(x, y), centre) * _ARCSEC
    found = _search(detected, reference, max_offset, max_rotation, max_chance, min_pairs)
    angle = float(np.arctan2(found.matrix[1, 0], found.matrix[0, 0]))
    moved = coordinates.turned(centre, found.offset / _ARCSEC, angle)
    fitted = _Fit(moved, shape, x, y, err, stars).run(found)
    return Astrometry(
        wcs=fitted.at.canonical(),
        detection=fitted.i,
        reference=fitted.j,
        rms=fitted.rms(),
        order=fitted.order,
        offset=float(np.hypot(*found.offset)),
        rotation=float(np.degrees(angle)),
        log_chance=found.log_chance,
        chromatic=(float(fitted.chromatic[0]), float(fitted.chromatic[1])),
    )


def _search(
    detected: FloatArray,
    reference: FloatArray,
    max_offset: float,
    max_rotation: float,
    max_chance: float,
    min_pairs: int,
) -> Match:
    """Narrow search first, where few stars suffice; then the whole range, then more stars."""
    trials = [
        (min(5.0, max_offset), min(0.05, max_rotation), 60, 120),
        (max_offset, max_rotation, 60, 120),
        (max_offset, max_rotation, 200, 400),
    ]
    best: Match | None = None
    for offset, rotation, n_detections, n_references in trials:
        found = match(
            detected, reference, max_offset=offset, max_rotation=rotation,
            n_detections=n_detections, n_references=n_references,
        )  # fmt: skip
        if found is None:
            continue
        if found.log_chance < np.log(max_chance / len(trials)) and len(found) >= min_pairs:
            return found
        best = found if best is None or found.log_chance < best.log_chance else best
    raise AstrometryError(
        "no credible match to the reference catalogue",
        detections=len(detected),
        references=len(reference),
        pairs=0 if best is None else len(best),
        log_chance=float("nan") if best is None else best.log_chance,
        required=float(np.log(max_chance / len(trials))),
    )


class _Fit:
    """Alternates between pairing and folding the residuals into the coordinates."""

    def __init__(
        self,
        at: Coordinates,
        shape: tuple[int, int],
        x: FloatArray,
        y: FloatArray,
        err: FloatArray,
        stars: ReferenceStars,
    ) -> None:
        self.at, self.shape, self.x, self.y, self.err, self.stars = at, shape, x, y, err, stars
        self.i = self.j = np.zeros(0, np.int64)
        self.order = 0
        self.colour = _relative(_colours(stars), np.ones(len(stars), bool))
        self.chromatic = np.zeros(2)  # mas / mag

    def run(self, found: Match) -> _Fit:
        """Fold in corrections of growing order, pairing anew after each."""
        self.i, self.j = found.detection, found.reference
        self._fold(0 if len(self.i) < 10 else 1)
        self.colour = _relative(_colours(self.stars), self._on_image())
        for _ in range(4):
            self._pair()
            self._fold(order_for(len(self.i)))
            self._fit_chromatic()
        return self

    def _fold(self, order: int) -> None:
        self.order = order
        x, y = self.x[self.i], self.y[self.i]
        self.at = _corrected(self.at, self.shape, x, y, self._residuals(), self._weights(), order)

    def _on_image(self) -> npt.NDArray[np.bool_]:
        """Tell which of the reference stars, taken from around the image too, lie on it."""
        x, y = self.at.wcs.all_world2pix(self.stars.ra, self.stars.dec, 0, quiet=True)
        ny, nx = self.shape
        return np.asarray((x >= 0) & (x < nx) & (y >= 0) & (y < ny), bool)

    def _fit_chromatic(self) -> None:
        """Fit the displacement with colour that is left."""
        colour, weight = self.colour[self.j], self._weights()
        if len(colour) < _FEWEST_COLOURS or np.std(colour) < 0.1:
            return
        design = np.column_stack([np.ones(len(colour)), colour])
        slope = _least_squares(design, self._residuals(), np.sqrt(weight / weight.max()))[1]
        self.chromatic = self.chromatic - slope * _MAS

    def _pair(self) -> None:
        """Pair all stars within 4σ of the scatter so far, 0.1 to 1.5 arcsec."""
        reach = float(np.clip(5.0 * max(self.rms()) / 1000.0, 0.3, 1.5))
        centre = image_centre(self.at.wcs, self.shape)
        a = project(*self.at.sky(self.x, self.y), centre) * _ARCSEC
        b = project(self.stars.ra, self.stars.dec, centre) * _ARCSEC
        i, j = pair(a, b, reach)
        off = (b[j] - a[i]) * 1000.0 + self.colour[j][:, None] * self.chromatic
        off /= np.sqrt(self._variance(i, j))[:, None]
        middle = np.median(off, axis=0) if len(off) else 0.0
        spread = max(1.0, mad_std(off - middle, 0.0)) if len(off) else 1.0
        good = (np.abs(off - middle) < _CLIP * spread).all(axis=1)
        if int(good.sum()) >= min(len(self.i), 3):
            self.i, self.j = i[good], j[good]

    def _variance(self, i: npt.NDArray[np.int64], j: npt.NDArray[np.int64]) -> FloatArray:
        return np.asarray(self.err[i] ** 2 + self.stars.err[j] ** 2 + _TURBULENCE_MAS**2)

    def _weights(self) -> FloatArray:
        return 1.0 / self._variance(self.i, self.j)

    def _residuals(self) -> FloatArray:
        """Return reference minus model in the plane of projection, refraction undone, degrees."""
        model = self.at.plane(self.x[self.i], self.y[self.i])
        truth = project(self.stars.ra[self.j], self.stars.dec[self.j], self.at.tangent)
        return truth + self.colour[self.j][:, None] * self.chromatic / _MAS - model

    def rms(self) -> tuple[float, float]:
        """Weighted scatter along east and north, mas."""
        east, north = np.sqrt(np.average(self._residuals() ** 2, axis=0, weights=self._weights()))
        east, north = east * _MAS, north * _MAS
        return float(east), float(north)


def _colours(stars: ReferenceStars) -> FloatArray:
    """Colours of reference stars, mag; NaN where unknown."""
    colour = stars.colour((("g", "r"), ("r", "i"), ("g", "i"), ("i", "z")), _FEWEST_COLOURS)
    return np.full(len(stars), np.nan) if colour is None else colour


def _relative(colour: FloatArray, those: npt.NDArray[np.bool_]) -> FloatArray:
    """Measure colours from the median of some stars; 0 where unknown."""
    known = those & np.isfinite(colour)
    if not known.any():
        known = np.isfinite(colour)
    middle = np.median(colour[known]) if known.any() else 0.0
    return np.nan_to_num(colour - middle)


def _corrected(
    at: Coordinates,
    shape: tuple[int, int],
    x: FloatArray,
    y: FloatArray,
    residual: FloatArray,
    weight: FloatArray,
    order: int,
) -> Coordinates:
    """Fit the residuals (deg) and fold the fit into the coordinates."""
    root = np.sqrt(weight / weight.max())
    if order >= 2 and at.sip is None:
        corners = at.undistorted(np.array([0.0, shape[1] - 1.0]), np.array([0.0, shape[0] - 1.0]))
        middle, half = corners.mean(axis=0), float(np.hypot(*(corners[1] - corners[0]))) / 2.0
        design = at.bending_terms((at.undistorted(x, y) - middle) / half, order)
        return at.bent(_least_squares(design, residual, root), middle, half, order)
    plane = at.plane(x, y)
    middle = plane.mean(axis=0)
    fit = _fit_affine if order else _fit_similarity
    constant, gradient = fit(plane - middle, residual, root)
    return at.mapped(np.eye(2) + gradient, constant - gradient @ middle)


def _fit_similarity(
    u: FloatArray, r: FloatArray, root: FloatArray
) -> tuple[FloatArray, FloatArray]:
    n = len(u)
    design = np.zeros((2 * n, 4))
    design[:n, 0], design[n:, 1] = 1.0, 1.0
    design[:n, 2], design[n:, 2] = u[:, 0], u[:, 1]
    design[:n, 3], design[n:, 3] = -u[:, 1], u[:, 0]
    a, b, s, t = _least_squares(design, r.T.ravel(), np.concatenate([root, root]))
    return np.array([a, b]), np.array([[s, -t], [t, s]])


def _fit_affine(u: FloatArray, r: FloatArray, root: FloatArray) -> tuple[FloatArray, FloatArray]:
    solution = _least_squares(np.column_stack([np.ones(len(u)), u]), r, root)
    return solution[0], solution[1:].T


def _least_squares(design: FloatArray, values: FloatArray, root: FloatArray) -> FloatArray:
    """Solve with the square roots of the weights, columns scaled to a maximum of one."""
    scale = np.maximum(np.abs(design).max(axis=0), 1e-30)
    weighted = values * (root if values.ndim == 1 else root[:, None])
    solution = np.linalg.lstsq(design / scale * root[:, None], weighted, rcond=None)[0]
    return np.asarray((solution.T / scale).T)
