"""A second, independent way to measure stars: plain NumPy stamps, for checking the pipeline's own.

Nothing here is shared with the photometry of the pipeline: the PSF is shifted by a cubic spline,
fluxes are weighted least squares over a small disc.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.exposure import FloatArray, Psf

__all__ = ["StarFit", "cut", "isolated", "psf_at", "star_fits"]

_Pixel = TypeVar("_Pixel", bound=np.generic)
_DEGREE = 5


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


def psf_at(psf: Psf, x: float, y: float, half: int) -> tuple[FloatArray, int, int]:
    """PSF of a source at a position, sampled on the pixels round it.

    Parameters
    ----------
    psf : Psf
        The model.
    x, y : float, pixel
        Position.
    half : int, pixel
        Half size of the stamp.

    Returns
    -------
    stamp : ndarray, (2 half + 1, 2 half + 1)
        Pixel values of a source of unit flux.
    column, row : int
        Pixel under the middle of the stamp.
    """
    column, row = round(x), round(y)
    centred = psf.at(x, y)
    shifted = ndimage.shift(centred, (y - row, x - column), order=_DEGREE, mode="constant")
    middle = centred.shape[0] // 2
    return (
        shifted[middle - half : middle + half + 1, middle - half : middle + half + 1],
        column,
        row,
    )


def cut(image: npt.NDArray[_Pixel], column: int, row: int, half: int) -> npt.NDArray[_Pixel] | None:
    """Return a square of pixels, None where it reaches over the edge.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        The image.
    column, row : int, pixel
        Middle of the square.
    half : int, pixel
        Half size.

    Returns
    -------
    ndarray, (2 half + 1, 2 half + 1), optional
        A view.
    """
    ny, nx = image.shape
    if not (half <= column < nx - half and half <= row < ny - half):
        return None
    return image[row - half : row + half + 1, column - half : column + half + 1]


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
        None where a stamp touches bad pixels or the edge.
    """
    return [_fit(image, variance, bad, psf, x, y, half) for x, y in positions]


def _fit(
    image: npt.NDArray[np.floating],
    variance: npt.NDArray[np.floating],
    bad: npt.NDArray[np.bool_],
    psf: Psf,
    x: float,
    y: float,
    half: int,
) -> StarFit | None:
    for _ in range(2):  # the second time at the improved position
        stamp, column, row = psf_at(psf, x, y, half + 1)
        data, noise, mask = (cut(a, column, row, half) for a in (image, variance, bad))
        if data is None or noise is None or mask is None or mask.any():
            return None
        inner = stamp[1:-1, 1:-1]
        gx = 0.5 * (stamp[1:-1, 2:] - stamp[1:-1, :-2])
        gy = 0.5 * (stamp[2:, 1:-1] - stamp[:-2, 1:-1])
        design = np.stack([inner, -gx, -gy, np.ones_like(inner)]).reshape(4, -1).T
        weight = 1.0 / np.sqrt(noise.astype(float).ravel())
        normal = design * weight[:, None]
        solution, *_ = np.linalg.lstsq(normal, data.astype(float).ravel() * weight, rcond=None)
        residual = data.astype(float).ravel() * weight - normal @ solution
        flux = float(solution[0])
        if flux <= 0:
            return None
        x += float(np.clip(solution[1] / flux, -0.5, 0.5))
        y += float(np.clip(solution[2] / flux, -0.5, 0.5))
    error = float(np.sqrt(np.linalg.inv(normal.T @ normal)[0, 0]))
    modes = _distortions(inner, gx, gy, x - column, y - row) * weight[:, None]
    shape, shape_err = _excess(normal, modes, residual, flux)
    chi2 = float(residual @ residual) / (residual.size - 4)
    return StarFit(flux, error, chi2, shape, shape_err)


def _distortions(
    profile: FloatArray, gx: FloatArray, gy: FloatArray, dx: float, dy: float
) -> FloatArray:
    """Change of a profile, ``(n, 3)``, with T and both ellipticities of a source at (dx, dy)."""
    half = profile.shape[0] // 2
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    u, v = u - dx, v - dy
    fields = [-(2 * profile + u * gx + v * gy), v * gy - u * gx, -(v * gx + u * gy)]
    return 0.5 * np.stack([f.ravel() for f in fields], axis=1)


def _excess(
    normal: FloatArray, modes: FloatArray, residual: FloatArray, flux: float
) -> tuple[tuple[float, float, float], float]:
    """Fit distortions to the residuals, all else left free; relative to the flux."""
    modes = modes - normal @ np.linalg.lstsq(normal, modes, rcond=None)[0]
    covariance = np.linalg.inv(modes.T @ modes)
    size, e1, e2 = (covariance @ (modes.T @ residual) / flux).tolist()
    return (size, e1, e2), float(np.sqrt(covariance[0, 0])) / flux


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
