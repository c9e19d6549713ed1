"""World coordinates: the header's, matched to reference stars and corrected.

The correction is folded into what the FITS standard already offers, so that any reader sees the
same sky: a rigid rotation of the sphere changes CRVAL; a linear correction multiplies the TPV
polynomials (or the CD matrix of TAN and TAN-SIP); quadratic and cubic corrections add to the TPV
coefficients of the same monomials.  No refit of a fit, no tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from pipeline.calibrate.match import Match, match, pair
from pipeline.calibrate.refcat import ReferenceStars
from pipeline.errors import AstrometryError
from pipeline.exposure import FloatArray
from pipeline.wcs import canonical, to_header

__all__ = ["Astrometry", "deproject", "fit_astrometry", "image_centre", "order_for", "project"]

_ARCSEC = 3600.0
_MAS = 3.6e6
_TURBULENCE_MAS = 8.0
_CLIP = 4.0
_FEWEST_COLOURS = 12
# TPV coefficients of axis 2 multiply the monomials of axis 1 with x and y exchanged.
_EXCHANGED: tuple[int, ...] = (0, 2, 1, 3, 6, 5, 4, 10, 9, 8, 7, 11)
_EXCHANGED += (16, 15, 14, 13, 12, 22, 21, 20, 19, 18, 17, 23)
_EXCHANGED += (30, 29, 28, 27, 26, 25, 24, 38, 37, 36, 35, 34, 33, 32, 31, 39)
# Number of the coefficient of x^i y^j on axis 1.
_MONOMIALS: tuple[tuple[int, int, int], ...] = (
    *((0, 0, 0), (1, 1, 0), (2, 0, 1), (4, 2, 0), (5, 1, 1), (6, 0, 2)),
    *((7, 3, 0), (8, 2, 1), (9, 1, 2), (10, 0, 3)),
)
_N_PV = 40


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
        Scatter of the pairs along east and north.
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
        coordinates are those of the median colour.  Zero where it was not fitted.
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
    """Order of the correction that a number of pairs can carry."""
    return 3 if n >= 200 else 2 if n >= 50 else 1 if n >= 10 else 0


def project(ra: npt.ArrayLike, dec: npt.ArrayLike, centre: tuple[float, float]) -> FloatArray:
    """Gnomonic projection.

    Parameters
    ----------
    ra, dec : array-like, (n,), deg
        Positions.
    centre : tuple of float, (ra, dec), deg
        Point of tangency.

    Returns
    -------
    ndarray, (n, 2), deg
        East and north.
    """
    a = np.radians(np.asarray(ra, float) - centre[0])
    d, d0 = np.radians(np.asarray(dec, float)), np.radians(centre[1])
    cosine = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    east = np.cos(d) * np.sin(a) / cosine
    north = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / cosine
    return np.asarray(np.degrees(np.stack([east, north], axis=-1)))


def deproject(plane: FloatArray, centre: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Inverse of `project`: right ascension and declination in degrees."""
    east, north = np.radians(plane[..., 0]), np.radians(plane[..., 1])
    d0 = np.radians(centre[1])
    along = np.cos(d0) - north * np.sin(d0)
    ra = centre[0] + np.degrees(np.arctan2(east, along))
    dec = np.degrees(np.arctan2(np.sin(d0) + north * np.cos(d0), np.hypot(east, along)))
    return np.asarray(ra % 360.0), np.asarray(dec)


def _sky(wcs: WCS, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    ra, dec = wcs.all_pix2world(x, y, 0)
    return np.asarray(ra), np.asarray(dec)


def image_centre(wcs: WCS, shape: tuple[int, int]) -> tuple[float, float]:
    """Sky position (deg) of the middle of an image."""
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
    detected = project(*_sky(wcs, x, y), centre) * _ARCSEC
    found = _search(detected, reference, max_offset, max_rotation, max_chance, min_pairs)
    angle = float(np.arctan2(found.matrix[1, 0], found.matrix[0, 0]))
    moved = _turned(wcs, centre, found.offset / _ARCSEC, angle)
    fitted = _Fit(moved, shape, x, y, err, stars).run(found)
    return Astrometry(
        wcs=canonical(fitted.wcs),
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
        wcs: WCS,
        shape: tuple[int, int],
        x: FloatArray,
        y: FloatArray,
        err: FloatArray,
        stars: ReferenceStars,
    ) -> None:
        self.wcs, self.shape, self.x, self.y, self.err, self.stars = wcs, shape, x, y, err, stars
        self.i = self.j = np.zeros(0, np.int64)
        self.order = 0
        self.colour = _colours(stars)
        self.chromatic = np.zeros(2)  # mas / mag

    def run(self, found: Match) -> _Fit:
        """Fold in corrections of growing order, pairing anew after each."""
        self.i, self.j = found.detection, found.reference
        self._fold(0 if len(self.i) < 10 else 1)
        for _ in range(4):
            self._pair()
            self._fold(order_for(len(self.i)))
            self._fit_chromatic()
        return self

    def _fold(self, order: int) -> None:
        self.order = order
        at = self.x[self.i], self.y[self.i]
        self.wcs = _corrected(
            self.wcs, self.shape, *at, self._residuals(), self._weights(), order
        )

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
        centre = image_centre(self.wcs, self.shape)
        a = project(*_sky(self.wcs, self.x, self.y), centre) * _ARCSEC
        b = project(self.stars.ra, self.stars.dec, centre) * _ARCSEC
        i, j = pair(a, b, reach)
        off = (b[j] - a[i]) * 1000.0 + self.colour[j][:, None] * self.chromatic
        off /= np.sqrt(self._variance(i, j))[:, None]
        middle = np.median(off, axis=0) if len(off) else 0.0
        spread = max(1.0, 1.4826 * float(np.median(np.abs(off - middle)))) if len(off) else 1.0
        good = (np.abs(off - middle) < _CLIP * spread).all(axis=1)
        if int(good.sum()) >= min(len(self.i), 3):
            self.i, self.j = i[good], j[good]

    def _variance(self, i: npt.NDArray[np.int64], j: npt.NDArray[np.int64]) -> FloatArray:
        return np.asarray(self.err[i] ** 2 + self.stars.err[j] ** 2 + _TURBULENCE_MAS**2)

    def _weights(self) -> FloatArray:
        return 1.0 / self._variance(self.i, self.j)

    def _residuals(self) -> FloatArray:
        """Return reference minus model in the plane of projection, refraction undone, degrees."""
        crval = float(self.wcs.wcs.crval[0]), float(self.wcs.wcs.crval[1])
        model = project(*_sky(self.wcs, self.x[self.i], self.y[self.i]), crval)
        truth = project(self.stars.ra[self.j], self.stars.dec[self.j], crval)
        return truth + self.colour[self.j][:, None] * self.chromatic / _MAS - model

    def rms(self) -> tuple[float, float]:
        """Scatter along east and north, mas."""
        r = self._residuals() * _ARCSEC * 1000.0
        east, north = np.sqrt((r**2).mean(axis=0))
        return float(east), float(north)


def _colours(stars: ReferenceStars) -> FloatArray:
    """Colours of reference stars minus their median, mag; 0 where unknown."""
    for blue, red in (("g", "r"), ("r", "i"), ("g", "i"), ("i", "z")):
        if blue in stars.fluxes and red in stars.fluxes:
            with np.errstate(divide="ignore", invalid="ignore"):
                colour = -2.5 * np.log10(stars.fluxes[blue] / stars.fluxes[red])
            if np.isfinite(colour).sum() >= _FEWEST_COLOURS:
                return np.nan_to_num(colour - np.median(colour[np.isfinite(colour)]), posinf=0.0,
                                     neginf=0.0)  # fmt: skip
    return np.zeros(len(stars))


def _turned(wcs: WCS, centre: tuple[float, float], offset: FloatArray, angle: float) -> WCS:
    """Rotate the whole sky rigidly: the image's centre moves by `offset` and turns by `angle`."""
    ra, dec = deproject(np.asarray(offset), centre)
    start, goal = _frame(*centre), _frame(float(ra), float(dec))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    rotation = goal @ turn @ start.T
    east, north, pole = (rotation @ _frame(*wcs.wcs.crval)).T
    crval = np.degrees([np.arctan2(pole[1], pole[0]) % (2 * np.pi), np.arcsin(pole[2])])
    e, n, _ = _frame(*crval).T
    linear = np.array([[e @ east, e @ north], [n @ east, n @ north]])
    return _rebuilt(wcs, crval, linear, np.zeros(2))


def _frame(ra: float, dec: float) -> FloatArray:
    """Return unit vectors of east, north and the position itself, as columns."""
    a, d = np.radians(ra), np.radians(dec)
    east = [-np.sin(a), np.cos(a), 0.0]
    north = [-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)]
    return np.array([east, north, [np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)]]).T


def _corrected(
    wcs: WCS,
    shape: tuple[int, int],
    x: FloatArray,
    y: FloatArray,
    residual: FloatArray,
    weight: FloatArray,
    order: int,
) -> WCS:
    """Fit the residuals and fold the fit into the coordinates."""
    if order >= 2 and wcs.sip is None:
        plane = _linear_plane(wcs, x, y)
        return _with_polynomial(wcs, plane, residual, weight, order, _reach(wcs, shape))
    crval = float(wcs.wcs.crval[0]), float(wcs.wcs.crval[1])
    plane = project(*_sky(wcs, x, y), crval)
    middle = plane.mean(axis=0)
    u = plane - middle
    fit = _fit_affine(u, residual, weight) if order else _fit_similarity(u, residual, weight)
    constant, gradient = fit
    return _rebuilt(wcs, wcs.wcs.crval, np.eye(2) + gradient, constant - gradient @ middle)


def _fit_similarity(u: FloatArray, r: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    n = len(u)
    design = np.zeros((2 * n, 4))
    design[:n, 0], design[n:, 1] = 1.0, 1.0
    design[:n, 2], design[n:, 2] = u[:, 0], u[:, 1]
    design[:n, 3], design[n:, 3] = -u[:, 1], u[:, 0]
    root = np.sqrt(np.concatenate([w, w]) / w.max())
    a, b, s, t = _least_squares(design, r.T.ravel(), root)
    return np.array([a, b]), np.array([[s, -t], [t, s]])


def _fit_affine(u: FloatArray, r: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    design = np.column_stack([np.ones(len(u)), u])
    solution = _least_squares(design, r, np.sqrt(w / w.max()))
    return solution[0], solution[1:].T


def _least_squares(design: FloatArray, values: FloatArray, root: FloatArray) -> FloatArray:
    scale = np.maximum(np.abs(design).max(axis=0), 1e-30)
    weighted = values * (root if values.ndim == 1 else root[:, None])
    solution = np.linalg.lstsq(design / scale * root[:, None], weighted, rcond=None)[0]
    return np.asarray((solution.T / scale).T)


def _linear_plane(wcs: WCS, x: FloatArray, y: FloatArray) -> FloatArray:
    """Intermediate coordinates before any distortion, degrees."""
    pixel = np.stack([x, y], axis=1) + 1.0 - wcs.wcs.crpix
    return np.asarray(pixel @ wcs.pixel_scale_matrix.T)


def _reach(wcs: WCS, shape: tuple[int, int]) -> tuple[FloatArray, float]:
    """Middle and half diagonal of the image in intermediate coordinates."""
    x, y = np.array([0.0, shape[1] - 1.0]), np.array([0.0, shape[0] - 1.0])
    corners = _linear_plane(wcs, x, y)
    return corners.mean(axis=0), float(np.hypot(*(corners[1] - corners[0]))) / 2.0


def _with_polynomial(
    wcs: WCS,
    plane: FloatArray,
    residual: FloatArray,
    weight: FloatArray,
    order: int,
    reach: tuple[FloatArray, float],
) -> WCS:
    """Add a polynomial of the intermediate coordinates to the TPV terms.

    It is fitted in coordinates scaled to the image, then expanded into TPV's monomials, which
    count from CRPIX, by an exact change of basis.
    """
    middle, half = reach
    terms = [(k, i, j) for k, i, j in _MONOMIALS if i + j <= order]

    def design(points: FloatArray) -> FloatArray:
        return np.stack([points[:, 0] ** i * points[:, 1] ** j for _, i, j in terms], axis=1)

    local = _least_squares(
        design((plane - middle) / half), residual, np.sqrt(weight / weight.max())
    )
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 6)] * 2), axis=-1).reshape(-1, 2)
    unit = np.ones(len(grid))
    expanded = _least_squares(design(middle + half * grid), design(grid) @ local, unit)
    pv = _pv(wcs)
    for (k, _, _), (east, north) in zip(terms, expanded, strict=True):
        pv[0, k] += east
        pv[1, _EXCHANGED[k]] += north
    return _make(wcs, wcs.wcs.crval, wcs.wcs.crpix, wcs.pixel_scale_matrix, pv)


def _kind(wcs: WCS) -> list[str]:
    """CTYPE as a header would say; wcslib calls TPV in memory TAN with a distortion."""
    header = to_header(wcs)
    return [header["CTYPE1"], header["CTYPE2"]]


def _pv(wcs: WCS) -> FloatArray:
    """TPV coefficients ``(2, 40)``; those of no distortion for TAN."""
    pv = np.zeros((2, _N_PV))
    pv[:, 1] = 1.0
    if _kind(wcs)[0].endswith("TPV"):
        for key, value in to_header(wcs).items():
            if match_ := re.fullmatch(r"PV([12])_(\d+)", key):
                pv[int(match_[1]) - 1, int(match_[2])] = value
    return pv


def _rebuilt(wcs: WCS, crval: FloatArray, linear: FloatArray, constant: FloatArray) -> WCS:
    """Apply a linear map and a shift to the plane of projection."""
    crpix, cd = wcs.wcs.crpix, wcs.pixel_scale_matrix
    if _kind(wcs)[0].endswith("TPV"):
        pv = _pv(wcs)
        second = pv[1, list(_EXCHANGED)]
        mixed = linear @ np.stack([pv[0], second])
        mixed[:, 0] += constant
        return _make(wcs, crval, crpix, cd, np.stack([mixed[0], mixed[1, list(_EXCHANGED)]]))
    cd = linear @ cd
    if wcs.sip is None:
        return _make(wcs, crval, crpix - np.linalg.solve(cd, constant), cd, None)
    # The SIP polynomials count from CRPIX, which must stay: the point of tangency moves instead.
    ra, dec = deproject(constant, (float(crval[0]), float(crval[1])))
    return _make(wcs, np.array([ra, dec]), crpix, cd, None)


def _make(
    wcs: WCS, crval: FloatArray, crpix: FloatArray, cd: FloatArray, pv: FloatArray | None
) -> WCS:
    out = WCS(naxis=2)
    out.wcs.ctype = _kind(wcs) if pv is None else ["RA---TPV", "DEC--TPV"]
    out.wcs.cunit = ["deg", "deg"]
    out.wcs.crval, out.wcs.crpix, out.wcs.cd = crval, crpix, cd
    out.wcs.radesys = "ICRS"
    if pv is not None:
        cards = [(axis + 1, k, float(pv[axis, k])) for axis in (0, 1) for k in range(_N_PV)]
        out.wcs.set_pv([c for c in cards if c[2] != 0.0 or c[1] in (0, 1)])
    out.sip = wcs.sip
    out.wcs.set()
    return out
