"""Fits of the three models to all sources of an image.

A flux at a *fitted* position is biased high near the threshold, because the fit climbs onto the
noise: by 4.8 % at a signal-to-noise ratio of 5, 0.6 % at 10.  Nothing is corrected for it; light
curves use forced fluxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled, pixel
from pipeline.diasource import models
from pipeline.diasource.models import DIPOLE, POINT, TRAIL, beside, cut, fit_many
from pipeline.diasource.planes import Planes
from pipeline.exposure import FloatArray, Image
from pipeline.psfphot import SplinePsf, psf_box

__all__ = [
    "Fits",
    "fit_dipoles",
    "fit_doubles",
    "fit_lines",
    "fit_points",
    "fit_trails",
    "left_over",
]

_SIZE = {POINT: 3, TRAIL: 5, DIPOLE: 6}
_MIN_TRAIL = 3.0
_LARGEST_BOX = 45.0
_DEBLEND_ROUNDS = 30
_SETTLED = 0.01
_VAGUE = 4.0
_OVERLAP = 5.0
_KNOWN_TO = 0.1
_RESPONSE = 0.75  # of a matched filter to a line, 1.5 FWHM long, in corridors of two


@dataclass(frozen=True, slots=True, eq=False)
class Fits:
    """One model fitted to n sources.

    Attributes
    ----------
    theta : ndarray, (n, k)
        Parameters; positions in pixels of the image.
    cov : ndarray, (n, k, k)
        Covariances.
    chi2, ln_likelihood : ndarray, (n,)
        χ² and ln likelihood with the total variance.
    cost, gain : ndarray, (n,)
        χ² with the weights of the fit, and by how much it is below that of a point source on
        the same pixels.
    ndata : ndarray, (n,), int32
        Pixels.
    good : ndarray, (n,)
        Usable part of Σ P².
    converged : ndarray, (n,), bool
        Whether the fit came to rest within its bounds.
    """

    theta: FloatArray
    cov: FloatArray
    chi2: FloatArray
    ln_likelihood: FloatArray
    cost: FloatArray
    gain: FloatArray
    ndata: npt.NDArray[np.int32]
    good: FloatArray
    converged: npt.NDArray[np.bool_]

    @classmethod
    def none(cls, n: int, k: int) -> Fits:
        """Return n fits of k parameters that were not made."""
        nothing = np.full(n, np.nan)
        return cls(
            theta=np.full((n, k), np.nan), cov=np.full((n, k, k), np.nan), chi2=nothing,
            ln_likelihood=nothing, cost=nothing, gain=nothing, ndata=np.zeros(n, np.int32),
            good=nothing, converged=np.zeros(n, bool),
        )  # fmt: skip

    @property
    def errors(self) -> FloatArray:
        """Square roots of the covariances' diagonals, ``(n, k)``."""
        diagonal = np.diagonal(self.cov, axis1=1, axis2=2)
        return np.sqrt(np.where(diagonal > 0, diagonal, np.nan))

    def take(self, keep: npt.NDArray[np.bool_ | np.integer]) -> Fits:
        """Return the entries of a Boolean or integer index."""
        return Fits(**{name: getattr(self, name)[keep] for name in self.__slots__})

    def replace_at(self, index: npt.NDArray[np.intp], other: Fits) -> Fits:
        """Return a copy whose entries `index` come from another set of fits."""
        merged = {}
        for name in self.__slots__:
            values = getattr(self, name).copy()
            values[index] = getattr(other, name)
            merged[name] = values
        return Fits(**merged)


def _run(
    kind: int,
    planes: Planes,
    psf: SplinePsf,
    at: FloatArray,
    theta: FloatArray,
    radius: FloatArray,
    reach: float,
    own: FloatArray,
    prior: FloatArray | None = None,
    corridor: float = np.inf,
) -> Fits:
    """Fit sources whose boxes are centred on the pixels `at`, ``(n, 2)``.

    `own` holds x, y, the flux to put back and the flux to compare with, ``(n, 4)``; `prior`
    what is known of the first parameter, its value and one over its variance, ``(n, 2)``;
    `corridor` how far from where a trail starts its pixels may lie.
    """
    n, k = len(at), _SIZE[kind]
    middle = np.rint(at).astype(float)
    position = 2 if kind == DIPOLE else 1
    theta, own = np.array(theta, float), np.array(own, float)
    prior = np.zeros((n, 2)) if prior is None else np.ascontiguousarray(prior)
    theta[:, position : position + 2] -= middle
    own[:, :2] -= middle
    cov, stats = np.full((n, k, k), np.nan), np.full((n, 8), np.nan)
    for start in range(0, n, 64):
        s = slice(start, start + 64)
        coef = psf.coefficients(middle[s, 0], middle[s, 1])
        x, y = np.ascontiguousarray(middle[s, 0]), np.ascontiguousarray(middle[s, 1])
        fit_many(
            kind, planes, coef, psf.order, x, y, own[s], radius[s], float(reach),
            prior[s], float(corridor), theta[s], cov[s], stats[s],
        )  # fmt: skip
    theta[:, position : position + 2] += middle
    return Fits(
        theta=theta,
        cov=cov,
        chi2=stats[:, models.CHI2],
        ln_likelihood=stats[:, models.LN_LIKELIHOOD],
        cost=stats[:, models.COST],
        gain=stats[:, models.GAIN],
        ndata=np.nan_to_num(stats[:, models.N_PIXELS]).astype(np.int32),
        good=stats[:, models.USABLE],
        converged=stats[:, models.CONVERGED] > 0,
    )


def fit_points(
    planes: Planes,
    psf: SplinePsf,
    at: FloatArray,
    flux: FloatArray,
    radius: float,
    reach: float,
    children: npt.NDArray[np.intp],
) -> tuple[Fits, Planes]:
    """Fit point sources; those split from a blend are fitted around each other.

    Parameters
    ----------
    planes : Planes
        Pixels.
    psf : SplinePsf
        The PSF.
    at : ndarray, (n, 2), pixel
        Starting positions.
    flux : ndarray, (n,)
        Starting fluxes.
    radius, reach : float, pixel
        Radius of the pixels; how far a position may move.
    children : ndarray of int
        Sources that were split from a blend.

    Returns
    -------
    fits : Fits
        Parameters F, x, y.
    without_children : Planes
        The pixels without the children, for further measurements of them.
    """
    size = np.full(len(at), float(radius))
    nothing = np.zeros((len(at), 2))
    own = np.column_stack([at, nothing])
    fits = _run(POINT, planes, psf, at, np.column_stack([flux, at]), size, reach, own)
    if len(children) == 0:
        return fits, planes
    apart = planes._replace(image=planes.image.copy())
    found = _finite(fits.theta[children])
    _take_out(apart.image, psf, found)
    for _ in range(_DEBLEND_ROUNDS):
        own = np.column_stack([found[:, 1:], found[:, 0], np.zeros(len(children))])
        begin = np.column_stack([found[:, 0], at[children]])
        again = _run(POINT, apart, psf, at[children], begin, size[children], reach, own)
        _take_out(apart.image, psf, found * [-1.0, 1.0, 1.0])
        moved = np.abs(again.theta[:, 0] - found[:, 0]) > _SETTLED * again.errors[:, 0]
        found = _finite(again.theta)
        _take_out(apart.image, psf, found)
        fits = fits.replace_at(children, again)
        if not moved.any():
            break
    return fits, apart


def _finite(theta: FloatArray) -> FloatArray:
    """Zero, and so nothing to take out, for what was not fitted."""
    return np.where(np.isfinite(theta).all(axis=1, keepdims=True), theta, 0.0)


def _take_out(image: Image, psf: SplinePsf, theta: FloatArray) -> None:
    """Subtract point sources ``(n, 3)`` of flux, x and y from an image, in place."""
    coef = psf.coefficients(theta[:, 1], theta[:, 2])
    _subtract(image, coef, psf.order, np.ascontiguousarray(theta))


@compiled
def _subtract(image: Image, coef: FloatArray, order: int, theta: FloatArray) -> None:
    n = coef.shape[1] - 8
    p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for s in range(theta.shape[0]):
        ix, iy = pixel(np.floor(theta[s, 1] + 0.5)), pixel(np.floor(theta[s, 2] + 0.5))
        psf_box(coef[s], theta[s, 1] - ix, theta[s, 2] - iy, order, p, px, py)
        for j in range(max(0, n // 2 - iy), min(n, image.shape[0] + n // 2 - iy)):
            for i in range(max(0, n // 2 - ix), min(n, image.shape[1] + n // 2 - ix)):
                image[iy + j - n // 2, ix + i - n // 2] -= np.float32(theta[s, 0] * p[j, i])


def fit_trails(
    planes: Planes,
    psf: SplinePsf,
    points: FloatArray,
    added: FloatArray,
    extent: FloatArray,
    room: FloatArray,
    width: float,
) -> Fits:
    """Fit trails, starting from point sources and an estimate of their extent.

    Parameters
    ----------
    planes : Planes
        Pixels.
    psf : SplinePsf
        The PSF.
    points : ndarray, (n, 3)
        Flux and position of point-source fits.
    added : ndarray, (n,)
        Flux of the point source to put back first (0 for none).
    extent : ndarray, (n, 2), pixel
        Guess of the trail as a vector.
    room : ndarray, (n,), pixel
        Side of the footprint; the pixels of the fit reach little farther.
    width : float, pixel
        FWHM of the PSF.

    Returns
    -------
    Fits
        Parameters F, x, y, a, b.
    """
    largest = np.clip(room, 5.0 * width, _LARGEST_BOX)
    length = np.hypot(*extent.T)
    stretch = np.clip(length, _MIN_TRAIL, 1.5 * largest) / np.maximum(length, 1e-9)
    vector = np.where(length[:, None] > 0, extent * stretch[:, None], [[_MIN_TRAIL, 0.0]])
    # a point fit catches only part of a trail's flux
    theta = np.column_stack([points, vector])
    theta[:, 0] *= 1.0 + np.hypot(*vector.T) / (2.0 * width)
    own = np.column_stack([points[:, 1:], added, points[:, 0]])
    size = np.clip(2.0 * width + np.hypot(*vector.T) / 2.0, 10.0, largest)
    fits = _run(TRAIL, planes, psf, points[:, 1:], theta, size, 6.0, own)
    reach = np.hypot(*np.nan_to_num(fits.theta[:, 3:]).T) / 2.0 + 1.5 * width
    again = np.flatnonzero((reach > size) & (size < largest))
    if len(again):
        larger = np.minimum(reach[again] + width, largest[again])
        restart = fits.theta[again]
        second = _run(TRAIL, planes, psf, points[again, 1:], restart, larger, 12.0, own[again])
        fits = fits.replace_at(again, second)
    return fits


def fit_lines(
    planes: Planes,
    psf: SplinePsf,
    flux: FloatArray,
    middle: FloatArray,
    extent: FloatArray,
    corridor: float,
) -> Fits:
    """Fit trails that are longer than the PSF, with nothing but their own pixels.

    Parameters
    ----------
    planes : Planes
        Pixels.
    psf : SplinePsf
        The PSF.
    flux : ndarray, (n,)
        Flux of a point in the middle.
    middle, extent : ndarray, (n, 2), pixel
        Where each trail seems to be, and from where to where as a vector.
    corridor : float, pixel
        How far from there its pixels reach.

    Returns
    -------
    Fits
        Parameters F, x, y, a, b.
    """
    length = np.hypot(*extent.T)
    total = flux * np.maximum(1.0, length / (_RESPONSE * corridor))
    theta = np.column_stack([total, middle, extent])
    own = np.column_stack([middle, np.zeros(len(flux)), flux])
    reach = float(np.max(0.2 * length, initial=corridor))
    radius = length / 2.0 + corridor
    return _run(TRAIL, planes, psf, middle, theta, radius, reach, own, None, corridor)


def left_over(
    planes: Planes, middle: FloatArray, extent: FloatArray, corridor: float
) -> FloatArray:
    """χ² of the pixels on which `fit_lines` fits trails, with the weights of the fit, ``(n,)``.

    Parameters
    ----------
    planes : Planes
        Pixels without the sources of another model.
    middle, extent : ndarray, (n, 2), pixel
        Trails.
    corridor : float, pixel
        How far from there the pixels reach.

    Returns
    -------
    ndarray, (n,)
        Σ w r².
    """
    out = np.empty(len(middle))
    _left_over(planes, np.ascontiguousarray(np.hstack([middle, extent])), float(corridor), out)
    return out


@compiled
def _left_over(planes: Planes, lines: FloatArray, corridor: float, out: FloatArray) -> None:
    for k in range(len(lines)):
        x, y, a, b = lines[k]
        radius = np.hypot(a, b) / 2.0 + corridor
        n = 2 * int(np.ceil(radius)) + 1
        d, w, v = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
        ix, iy = pixel(np.rint(x)), pixel(np.rint(y))
        cut(planes, ix, iy, radius, d, w, v)
        beside(x - ix, y - iy, a, b, corridor, w, v)
        out[k] = (w * d * d).sum()


def fit_doubles(
    planes: Planes, psf: SplinePsf, points: FloatArray, arm: float, radius: float
) -> tuple[Fits, Fits]:
    """Fit two points, and for comparison a trail, to the same pixels round one source.

    Parameters
    ----------
    planes : Planes
        Pixels.
    psf : SplinePsf
        The PSF.
    points : ndarray, (n, 3)
        Flux and position of point-source fits.
    arm : float, pixel
        Half the separation to start with, in four directions.
    radius : float, pixel
        Radius of the pixels.

    Returns
    -------
    pairs : Fits
        Parameters of a dipole, F, Δ, x, y, a, b: the points have the fluxes Δ/2 ± F.
    trails : Fits
        Parameters F, x, y, a, b.
    """
    flux, at, none = points[:, 0], points[:, 1:], np.zeros(len(points))
    size = np.full(len(points), radius)
    own = np.column_stack([at, none, flux])
    best = Fits.none(len(points), _SIZE[DIPOLE])
    for angle in np.pi * np.arange(4) / 4.0:
        vector = 2.0 * arm * np.tile([np.cos(angle), np.sin(angle)], (len(points), 1))
        theta = np.column_stack([none, 1.3 * flux, at, vector])
        fits = _run(DIPOLE, planes, psf, at, theta, size, radius / 2.0, own)
        better = fits.converged & ~(best.cost <= fits.cost)
        best = best.replace_at(np.flatnonzero(better), fits.take(better))
    vector = np.sqrt(3.0) * np.nan_to_num(best.theta[:, 4:], nan=arm)  # of the same second moment
    theta = np.column_stack([1.3 * flux, at, vector])
    return best, _run(TRAIL, planes, psf, at, theta, size, radius / 2.0, own)


def fit_dipoles(
    planes: Planes,
    psf: SplinePsf,
    plus: FloatArray,
    minus: FloatArray,
    points: FloatArray,
    known: FloatArray,
    radius: float,
) -> Fits:
    """Fit dipoles, starting from the peaks of their lobes.

    Parameters
    ----------
    planes : Planes
        Pixels.
    psf : SplinePsf
        The PSF.
    plus, minus : ndarray, (n, 2), pixel
        Positive and negative peak.
    points : ndarray, (n, 3)
        Flux and position of the stronger lobe as a point source.
    known : ndarray, (n,)
        Flux of the star on science image and template, NaN where there is none.  It serves
        where the lobes overlap so much that their fluxes cannot be told from their separation.
    radius : float, pixel
        Radius of the pixels round the middle, without half the separation.

    Returns
    -------
    Fits
        Parameters F, Δ, x, y, a, b; the better of two starts, since the peaks of a matched
        filter lie farther apart than narrow lobes do.
    """
    best = Fits.none(len(points), _SIZE[DIPOLE])
    merged = known > _OVERLAP * np.abs(points[:, 0])
    alone = np.flatnonzero(~merged)
    free = _free_dipoles(planes, psf, plus[alone], minus[alone], points[alone], radius)
    best = best.replace_at(alone, free)
    vague = ~best.converged | ~(best.theta[:, 0] > _VAGUE * best.errors[:, 0])
    again = np.flatnonzero(merged | (vague & (known > 0)))
    informed = _informed_dipoles(
        planes, psf, plus[again], minus[again], points[again], known[again], radius
    )
    return best.replace_at(again, informed)


def _free_dipoles(
    planes: Planes,
    psf: SplinePsf,
    plus: FloatArray,
    minus: FloatArray,
    points: FloatArray,
    radius: float,
) -> Fits:
    middle, arm = (plus + minus) / 2.0, plus - minus
    size = np.minimum(radius + np.hypot(*arm.T) / 2.0, _LARGEST_BOX)
    flux, none = np.abs(points[:, 0]), np.zeros(len(points))
    own = np.column_stack([points[:, 1:], none, points[:, 0]])
    wide, narrow = (
        _run(
            DIPOLE, planes, psf, middle,
            np.column_stack([strength * flux, none, middle, factor * arm]), size, 4.0, own,
        )
        for factor, strength in ((1.0, 1.0), (0.4, 1.6))
    )  # fmt: skip
    better = narrow.converged & ((narrow.cost < wide.cost) | ~wide.converged)
    return wide.replace_at(np.flatnonzero(better), narrow.take(better))


def _informed_dipoles(
    planes: Planes,
    psf: SplinePsf,
    plus: FloatArray,
    minus: FloatArray,
    points: FloatArray,
    known: FloatArray,
    radius: float,
) -> Fits:
    """Fit with the star's flux as a prior: then the separation is what the lobes measure."""
    middle, none = (plus + minus) / 2.0, np.zeros(len(points))
    arm = (plus - minus) * (np.abs(points[:, 0]) / known)[:, None]
    size = np.minimum(radius + np.hypot(*(plus - minus).T) / 2.0, _LARGEST_BOX)
    own = np.column_stack([points[:, 1:], none, points[:, 0]])
    guess = np.column_stack([known, none, middle, arm])
    prior = np.column_stack([known, 1.0 / (_KNOWN_TO * known) ** 2])
    return _run(DIPOLE, planes, psf, middle, guess, size, 4.0, own, prior)
