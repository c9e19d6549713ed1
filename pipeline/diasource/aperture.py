"""Aperture fluxes with exact pixel overlaps at the rim."""

from __future__ import annotations

import numpy as np

from pipeline.compiled import compiled, pixel
from pipeline.diasource.planes import Planes
from pipeline.exposure import FloatArray
from pipeline.psfphot import psf_box

__all__ = ["aperture_flux"]

FLUX, VARIANCE, USABLE, BEYOND = range(4)  # columns of `aperture_flux`


@compiled
def _overlap(dx: float, dy: float, radius: float) -> float:
    """Part of the unit pixel at (dx, dy) within a circle round the origin."""
    distance = np.hypot(dx, dy)
    if distance < radius - 0.71:
        return 1.0
    if distance > radius + 0.71:
        return 0.0
    west, east, south, north = dx - 0.5, dx + 0.5, dy - 0.5, dy + 0.5
    return float(
        _quadrant(east, north, radius)
        - _quadrant(west, north, radius)
        - _quadrant(east, south, radius)
        + _quadrant(west, south, radius)
    )


@compiled
def _quadrant(x: float, y: float, radius: float) -> float:
    """Area within a circle of the rectangle from the centre to (x, y), signed by its quadrant."""
    sign = float(np.sign(x) * np.sign(y))
    x, y = min(abs(x), radius), min(abs(y), radius)
    if x * x + y * y <= radius * radius:
        return sign * x * y
    corner = np.sqrt(radius * radius - y * y)
    return sign * float(y * corner + _below(x, radius) - _below(corner, radius))


@compiled
def _below(x: float, radius: float) -> float:
    """Area between the axis and the circle from the centre to x."""
    part = min(x / radius, 1.0)
    return float(0.5 * radius**2 * (part * np.sqrt(1.0 - part**2) + np.arcsin(part)))


@compiled
def aperture_flux(
    planes: Planes,
    coef: FloatArray,
    order: int,
    own: FloatArray,
    ix: FloatArray,
    iy: FloatArray,
    added: FloatArray,
    radius: float,
    out: FloatArray,
) -> None:
    """Sum of the pixels within a circle.

    Bad pixels, and pixels beyond the edge, are replaced by the fitted point source.

    Parameters
    ----------
    planes : Planes
        Pixels.
    coef, order : ndarray (n, side, side) and int
        The PSF.
    own : ndarray, (n, 3)
        Fitted PSF flux and position (from the middle pixel).
    ix, iy : ndarray, (n,)
        Middle pixels.
    added : ndarray, (n,)
        PSF flux to add at the fitted position.
    radius : float, pixel
        Radius of the aperture.
    out : ndarray, (n, 4)
        Flux, its variance, part of the area that was usable, part beyond the edge.
    """
    ny, nx = planes.image.shape
    r = int(np.ceil(radius + 1.0))
    n = 2 * r + 1
    p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for s in range(ix.shape[0]):
        psf_box(coef[s], own[s, 1], own[s, 2], order, p, px, py)
        model = own[s, 0] if np.isfinite(own[s, 0]) else 0.0
        flux, variance, area, good, beyond = 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(n):
            for i in range(n):
                part = _overlap(i - r - own[s, 1], j - r - own[s, 2], radius)
                if part == 0.0:
                    continue
                area += part
                x, y = pixel(ix[s]) + i - r, pixel(iy[s]) + j - r
                if x < 0 or y < 0 or x >= nx or y >= ny:
                    beyond += part
                    flux += part * model * p[j, i]
                    continue
                d, v = planes.image[y, x], planes.variance[y, x]
                if (planes.mask[y, x] & planes.bad) != 0 or not (np.isfinite(d) and v > 0.0):
                    flux += part * model * p[j, i]
                    continue
                good += part
                flux += part * (d + added[s] * p[j, i])
                variance += part * part * v
        out[s, FLUX], out[s, VARIANCE] = flux, variance
        out[s, USABLE], out[s, BEYOND] = good / area, beyond / area
