"""Positions, shapes and aperture fluxes of detections on the sky-subtracted image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sep

from pipeline.compiled import compiled, pixel
from pipeline.exposure import FloatArray, Image, Mask

__all__ = ["Moments", "aperture_flux", "windowed_moments"]

_ITERATIONS = 20
_CONVERGED = 1e-4
_LARGEST_STEP = 0.5
_FARTHEST = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Gaussian-windowed first and second moments.

    Attributes
    ----------
    x, y : ndarray, (n,), pixel
        Centroids.
    xx, yy, xy : ndarray, (n,), pixel²
        Second moments with the window taken out: those of the Gaussian that, seen through the
        window, has the moments measured.  NaN where the window could not be taken out.
    peak : ndarray, (n,), image unit
        Largest of the 3 × 3 pixels round the centroid.
    flags : ndarray of uint32, (n,)
        Mask bits within the inner radius, or-ed.
    ok : ndarray of bool, (n,)
        Whether the iteration converged within three pixels of its start, off the edge.
    """

    x: FloatArray
    y: FloatArray
    xx: FloatArray
    yy: FloatArray
    xy: FloatArray
    peak: FloatArray
    flags: Mask
    ok: npt.NDArray[np.bool_]

    @property
    def size(self) -> FloatArray:
        """Gaussian width in pixels, from half the trace."""
        return np.sqrt(np.maximum(0.5 * (self.xx + self.yy), 0.0))


def windowed_moments(
    image: Image, mask: Mask, x: npt.ArrayLike, y: npt.ArrayLike, sigma: float
) -> Moments:
    """Iterate centroids and moments with a round Gaussian window.

    The centroid step is twice the windowed mean offset (Bertin & Arnouts' XWIN), which for a
    Gaussian source as wide as the window is the Newton step of a least-squares fit.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Without sky.
    mask : ndarray, (ny, nx)
        Bits are collected, no pixel is left out.
    x, y : array-like, (n,), pixel
        Starting points.
    sigma : float, pixel
        Width of the window.

    Returns
    -------
    Moments
    """
    start = np.ascontiguousarray(np.stack([np.asarray(x), np.asarray(y)], axis=1), float)
    rows, flags = _moments(image, mask, start, float(sigma))
    xx, yy, xy = _unwindowed(rows[:, 2], rows[:, 3], rows[:, 4], sigma)
    return Moments(rows[:, 0], rows[:, 1], xx, yy, xy, rows[:, 5], flags, rows[:, 6] > 0)


def _unwindowed(
    xx: FloatArray, yy: FloatArray, xy: FloatArray, sigma: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Take the window out: the inverse covariance matrices of source and window add up."""
    det = xx * yy - xy**2
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b, c = yy / det - sigma**-2, xx / det - sigma**-2, -xy / det
        inverse = a * b - c**2
        good = (det > 0) & (a > 0) & (b > 0) & (inverse > 0)
        return (
            np.where(good, b / inverse, np.nan),
            np.where(good, a / inverse, np.nan),
            np.where(good, -c / inverse, np.nan),
        )


@compiled
def _moments(image: Image, mask: Mask, start: FloatArray, sigma: float) -> tuple[FloatArray, Mask]:
    n = len(start)
    rows = np.full((n, 7), np.nan)
    flags = np.zeros(n, np.uint32)
    for i in range(n):
        x, y, ok = _centroid(image, start[i, 0], start[i, 1], sigma)
        rows[i, 0], rows[i, 1], rows[i, 6] = x, y, ok
        sums = _sums(image, x, y, sigma)
        if sums[0] > 0:
            rows[i, 2] = sums[3] / sums[0]
            rows[i, 3] = sums[4] / sums[0]
            rows[i, 4] = sums[5] / sums[0]
        rows[i, 5], flags[i] = _core(image, mask, x, y, sigma)
    return rows, flags


@compiled
def _centroid(image: Image, x0: float, y0: float, sigma: float) -> tuple[float, float, float]:
    x, y = x0, y0
    for _ in range(_ITERATIONS):
        sums = _sums(image, x, y, sigma)
        if not sums[0] > 0:
            return x0, y0, 0.0
        dx = min(max(2.0 * sums[1] / sums[0], -_LARGEST_STEP), _LARGEST_STEP)
        dy = min(max(2.0 * sums[2] / sums[0], -_LARGEST_STEP), _LARGEST_STEP)
        x += dx
        y += dy
        if (x - x0) ** 2 + (y - y0) ** 2 > _FARTHEST**2:
            return x0, y0, 0.0
        if dx * dx + dy * dy < _CONVERGED**2:
            return x, y, 1.0
    return x, y, 1.0


@compiled
def _sums(
    image: Image, x: float, y: float, sigma: float
) -> tuple[float, float, float, float, float, float]:
    """Windowed sums of 1, dx, dy, dx², dy², dx dy over four window widths."""
    ny, nx = image.shape
    half = int(np.ceil(4.0 * sigma))
    ix, iy = pixel(np.round(x)), pixel(np.round(y))
    s0, sx, sy, sxx, syy, sxy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    window = np.exp(-0.5 * (np.arange(ix - half, ix + half + 1) - x) ** 2 / sigma**2)
    for q in range(max(iy - half, 0), min(iy + half + 1, ny)):
        dy = q - y
        wy = np.exp(-0.5 * dy * dy / sigma**2)
        for p in range(max(ix - half, 0), min(ix + half + 1, nx)):
            value = image[q, p]
            if not np.isfinite(value):
                continue
            dx = p - x
            w = wy * window[p - ix + half] * value
            s0 += w
            sx += w * dx
            sy += w * dy
            sxx += w * dx * dx
            syy += w * dy * dy
            sxy += w * dx * dy
    return s0, sx, sy, sxx, syy, sxy


@compiled
def _core(image: Image, mask: Mask, x: float, y: float, sigma: float) -> tuple[float, np.uint32]:
    """Largest value of the central 3 × 3 pixels, mask bits within two window widths."""
    ny, nx = image.shape
    half = int(np.ceil(2.0 * sigma))
    ix, iy = pixel(np.round(x)), pixel(np.round(y))
    peak, flags = -np.inf, np.uint32(0)
    for q in range(max(iy - half, 0), min(iy + half + 1, ny)):
        for p in range(max(ix - half, 0), min(ix + half + 1, nx)):
            flags |= mask[q, p]
            if abs(p - ix) <= 1 and abs(q - iy) <= 1 and image[q, p] > peak:
                peak = image[q, p]
    return peak, flags


def aperture_flux(image: Image, x: npt.ArrayLike, y: npt.ArrayLike, radius: float) -> FloatArray:
    """Sum within a circle; pixels on its rim count by the part of their area inside.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Without sky.
    x, y : array-like, (n,), pixel
        Centres.
    radius : float, pixel
        Radius.

    Returns
    -------
    ndarray, (n,)
        NaN where the circle leaves the image or meets a NaN.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    ny, nx = image.shape
    # The flag of truncation is not set where less than a pixel is cut off at the lower edges.
    nearest = np.minimum(np.minimum(x, nx - 1 - x), np.minimum(y, ny - 1 - y))
    inside = nearest >= radius - 0.5
    out = np.full(len(x), np.nan)
    if inside.any():
        pixels = np.ascontiguousarray(image, np.float32)
        out[inside], _, _ = sep.sum_circle(pixels, x[inside], y[inside], radius, subpix=0)
    return out
