"""A second, independent way to measure stars: plain NumPy stamps, for checking the pipeline's own.

Nothing here is shared with the photometry of the pipeline: the PSF is shifted by a cubic spline,
fluxes are weighted least squares over a small disc.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.exposure import FloatArray, Psf

__all__ = ["StarFit", "isolated", "psf_at", "star_fits"]

Indices = npt.NDArray[np.int_]
_Pixel = TypeVar("_Pixel", bound=np.generic)
_DEGREE = 5
_TAPS = np.arange(-3, 4)
"""Coefficients that a spline of degree 5 within half a pixel needs on either side."""


@dataclass(frozen=True, slots=True)
class StarFit:
    """One PSF fit with free flux and a free shift of up to a pixel.

    Attributes
    ----------
    flux, flux_err : float
        Unit of the image.
    chi2 : float
        Per degree of freedom.
    shape : tuple of float
        Relative excess of the star's size T over the model's and of its two ellipticities, by
        first-order distortions of the model.
    shape_err : float
        Error of the size, and nearly that of the others.
    """

    flux: float
    flux_err: float
    chi2: float
    shape: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shape_err: float = float("inf")


def psf_at(
    psf: Psf, x: npt.ArrayLike, y: npt.ArrayLike, half: int
) -> tuple[FloatArray, Indices, Indices]:
    """PSF of sources at positions, sampled on the pixels round each.

    Parameters
    ----------
    psf : Psf
        The model.
    x, y : array-like, (n,), pixel
        Positions.
    half : int, pixel
        Half size of the stamps.

    Returns
    -------
    stamps : ndarray, (n, 2 half + 1, 2 half + 1)
        Pixel values of sources of unit flux.
    columns, rows : ndarray, (n,)
        Pixels under the middles of the stamps.
    """
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    columns, rows = np.rint(x).astype(int), np.rint(y).astype(int)
    coefficients = psf.stamps(x, y)
    for axis in (1, 2):
        coefficients = ndimage.spline_filter1d(coefficients, _DEGREE, axis)
    edge = half + _TAPS[-1] - coefficients.shape[-1] // 2
    beyond = (max(edge, 0),) * 2
    coefficients = np.pad(coefficients, ((0, 0), beyond, beyond))
    shifted = _shifted(_shifted(coefficients, y - rows, half).swapaxes(1, 2), x - columns, half)
    return shifted.swapaxes(1, 2), columns, rows


def _shifted(coefficients: FloatArray, by: FloatArray, half: int) -> FloatArray:
    """Move splines (n, ny, nx) along their rows by up to a pixel; the rows round the middle."""
    weights = _b_spline(-by[:, None] - _TAPS)
    middle = coefficients.shape[1] // 2
    moved = np.zeros((len(coefficients), 2 * half + 1, coefficients.shape[2]))
    for tap, weight in zip(_TAPS, weights.T, strict=True):
        first = middle - half + tap
        moved += weight[:, None, None] * coefficients[:, first : first + 2 * half + 1]
    return moved


def _b_spline(at: FloatArray) -> FloatArray:
    """Evaluate the B-spline of degree 5, by truncated powers (Unser 1999, eq. 2)."""
    half = 0.5 * (_DEGREE + 1)
    terms = [
        (-1.0) ** k * math.comb(_DEGREE + 1, k) * np.maximum(at + half - k, 0.0) ** _DEGREE
        for k in range(_DEGREE + 2)
    ]
    return np.asarray(np.where(np.abs(at) < half, sum(terms), 0.0) / math.factorial(_DEGREE))


def star_fits(
    image: npt.NDArray[np.floating],
    variance: npt.NDArray[np.floating],
    bad: npt.NDArray[np.bool_],
    psf: Psf,
    positions: FloatArray,
    half: int = 6,
) -> list[StarFit | None]:
    """Fit flux, shift and local level of isolated stars.

    Parameters
    ----------
    image, variance, bad : ndarray, (ny, nx)
        Pixels, their variance, and those not to be used.
    psf : Psf
        The model under test.
    positions : ndarray, (n, 2), pixel
        x and y, good to half a pixel.
    half : int, pixel
        Half size of the fitted square.

    Returns
    -------
    list of StarFit or None
        None where a stamp touches bad pixels or the edge, or the flux is not positive.
    """
    x, y = np.array(positions, float).reshape(-1, 2).T
    found: list[StarFit | None] = [None] * len(x)
    left = np.arange(len(x))
    for again in (True, False):  # the second time at the improved position
        left = left[_clean(bad, x[left], y[left], half)]
        if not len(left):
            break
        fits = _Fits.of(image, variance, psf, x[left], y[left], half)
        shining = fits.solution[:, 0] > 0
        left, steps = left[shining], fits.solution[shining, 1:3] / fits.solution[shining, :1]
        x[left] += np.clip(steps[:, 0], -0.5, 0.5)
        y[left] += np.clip(steps[:, 1], -0.5, 0.5)
        if not again:
            for k, fit in zip(left, fits.results(shining, x[left], y[left]), strict=True):
                found[k] = fit
    return found


def _clean(
    bad: npt.NDArray[np.bool_], x: FloatArray, y: FloatArray, half: int
) -> npt.NDArray[np.bool_]:
    """Whether the squares round positions lie on the image and have no bad pixel."""
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    ny, nx = bad.shape
    good = (half <= column) & (column < nx - half) & (half <= row) & (row < ny - half)
    good[good] = ~_squares(bad, column[good], row[good], half).any(axis=1)
    return np.asarray(good)


def _squares(
    image: npt.NDArray[_Pixel], column: Indices, row: Indices, half: int
) -> npt.NDArray[_Pixel]:
    """Pixels of the squares round some, (n, (2 half + 1)²)."""
    grid = np.arange(-half, half + 1)
    rows, columns = row[:, None, None] + grid[:, None], column[:, None, None] + grid
    squares: npt.NDArray[_Pixel] = image[rows, columns].reshape(len(row), len(grid) ** 2)
    return squares


@dataclass(frozen=True, slots=True)
class _Fits:
    """Weighted least squares of profiles, their slopes along x and y and a level to n stars.

    Attributes
    ----------
    stamps : ndarray, (n, 2 half + 3, 2 half + 3)
        The profiles, a pixel wider than what is fitted.
    columns, rows : ndarray, (n,)
        Their middles.
    weight, residual : ndarray, (n, pixels)
        One over the noise, and data less model in units of it.
    normal : ndarray, (n, pixels, 4)
        Weighted columns of the model.
    solution : ndarray, (n, 4)
        Flux, flux times shift along x and y, level.
    """

    stamps: FloatArray
    columns: Indices
    rows: Indices
    weight: FloatArray
    residual: FloatArray
    normal: FloatArray
    solution: FloatArray

    @classmethod
    def of(
        cls,
        image: npt.NDArray[np.floating],
        variance: npt.NDArray[np.floating],
        psf: Psf,
        x: FloatArray,
        y: FloatArray,
        half: int,
    ) -> _Fits:
        stamps, columns, rows = psf_at(psf, x, y, half + 1)
        data = _squares(image, columns, rows, half).astype(float)
        weight = 1.0 / np.sqrt(_squares(variance, columns, rows, half).astype(float))
        inner, gx, gy = _profile(stamps)
        design = np.stack([inner, -gx, -gy, np.ones_like(inner)], axis=-1)
        normal = design.reshape(*weight.shape, 4) * weight[..., None]
        solution = _solved(normal, (data * weight)[..., None])[..., 0]
        residual = data * weight - (normal @ solution[..., None])[..., 0]
        return cls(stamps, columns, rows, weight, residual, normal, solution)

    def results(self, chosen: npt.NDArray[np.bool_], x: FloatArray, y: FloatArray) -> list[StarFit]:
        """Return the fits of chosen stars, which are at x and y."""
        normal, residual, flux = (
            a[chosen] for a in (self.normal, self.residual, self.solution[:, 0])
        )
        error = np.sqrt(np.linalg.inv(normal.swapaxes(1, 2) @ normal)[:, 0, 0])
        chi2 = (residual**2).sum(axis=1) / (residual.shape[1] - 4)
        modes = _distortions(self.stamps[chosen], x - self.columns[chosen], y - self.rows[chosen])
        modes *= self.weight[chosen][..., None]
        shape, shape_err = _excess(normal, modes, residual, flux)
        numbers = (flux, error, chi2, shape, shape_err)
        return [
            StarFit(f, e, c, (s[0], s[1], s[2]), se)
            for f, e, c, s, se in zip(*(n.tolist() for n in numbers), strict=True)
        ]


def _solved(normal: FloatArray, data: FloatArray) -> FloatArray:
    """Solve n systems of least squares by their normal equations."""
    turned = normal.swapaxes(1, 2)
    return np.asarray(np.linalg.solve(turned @ normal, turned @ data))


def _profile(stamps: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Profiles without their rims, and their slopes along x and y."""
    gx = 0.5 * (stamps[:, 1:-1, 2:] - stamps[:, 1:-1, :-2])
    gy = 0.5 * (stamps[:, 2:, 1:-1] - stamps[:, :-2, 1:-1])
    return stamps[:, 1:-1, 1:-1], gx, gy


def _distortions(stamps: FloatArray, dx: FloatArray, dy: FloatArray) -> FloatArray:
    """Change of profiles, (n, pixels, 3), with T and both ellipticities of sources at (dx, dy)."""
    profile, gx, gy = _profile(stamps)
    half = profile.shape[1] // 2
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    u, v = u - dx[:, None, None], v - dy[:, None, None]
    fields = [-(2 * profile + u * gx + v * gy), v * gy - u * gx, -(v * gx + u * gy)]
    return 0.5 * np.stack([f.reshape(len(f), -1) for f in fields], axis=-1)


def _excess(
    normal: FloatArray, modes: FloatArray, residual: FloatArray, flux: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fit distortions to the residuals, all else left free; relative to the flux."""
    modes = modes - normal @ _solved(normal, modes)
    turned = modes.swapaxes(1, 2)
    covariance = np.linalg.inv(turned @ modes)
    shape = (covariance @ (turned @ residual[..., None]))[..., 0] / flux[:, None]
    return shape, np.sqrt(covariance[:, 0, 0]) / flux


def isolated(positions: FloatArray, others: FloatArray, distance: float) -> npt.NDArray[np.bool_]:
    """Whether each position has no other neighbour than itself within a distance in pixels.

    Parameters
    ----------
    positions : ndarray, (n, 2), pixel
        Positions to judge.
    others : ndarray, (m, 2), pixel
        All positions, those included.
    distance : float, pixel
        Smallest distance.

    Returns
    -------
    ndarray of bool, (n,)
        True without a neighbour.
    """
    from scipy.spatial import cKDTree

    counts = cKDTree(others).query_ball_point(positions, distance, return_length=True)
    return np.asarray(counts <= 1)
