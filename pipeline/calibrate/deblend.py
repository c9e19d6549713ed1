"""Taking the light of neighbours away: simultaneous PSF fits by sweeps over the sources.

Every source in turn is put back, refitted for flux and position, and taken out again, brightest
first, until all agree: Gauss–Seidel on the normal equations of the joint fit, which converges
whatever the overlap as long as the PSF is positive.  Where it is not, fluxes could grow without
end: one that exceeds several times what all the light under the source would give is refused, and
the source counts as not fitted.  What remains is an image without point sources, in which each
source can be looked at as if it were alone (Stetson 1987, PASP 99, 191, does the same in groups).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibrate.stars import pairs_within
from pipeline.compiled import compiled, pixel
from pipeline.exposure import FloatArray, Image, Mask, Psf
from pipeline.masks import NO_FLUX, bits
from pipeline.psfphot import SplinePsf, psf_box

__all__ = ["Separated", "close_neighbours", "separate"]

_FIT_RADIUS = 7.0
_LARGEST_STEP = 0.3
_FARTHEST = 1.5
_MOST_LIGHT = 3.0  # times the flux a source would have if it had no neighbours
_MOST_NOISE = 30.0
_CHUNK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Separated:
    """Sources fitted together.

    Attributes
    ----------
    residual : ndarray, (ny, nx)
        The image without the sources that were fitted.
    x, y : ndarray, (n,), pixel
        Positions of all sources; those that were not fitted keep theirs.
    flux : ndarray, (n,), image unit
        Flux of each source in the model, 0 where it was not fitted.
    """

    residual: Image
    x: FloatArray
    y: FloatArray
    flux: FloatArray


def close_neighbours(
    x: FloatArray, y: FloatArray, brightness: FloatArray, size: float, *, limit: float = 0.002
) -> npt.NDArray[np.bool_]:
    """Find sources that take part in a blend which matters.

    Parameters
    ----------
    x, y : ndarray, (n,), pixel
        Positions.
    brightness : ndarray, (n,)
        Signal-to-noise ratios.
    size : float, pixel
        Gaussian width of a star.
    limit : float
        Light of a neighbour, relative to a source, that matters.

    Returns
    -------
    ndarray of bool, (n,)
        Both partners of every pair in which one disturbs the other by more than the limit and by
        more than a tenth of its noise.
    """
    i, j, reach = pairs_within(x, y, size, 12.0 * size)
    harm = np.maximum(
        reach * np.minimum(brightness[j] / brightness[i] / limit, brightness[j] / 0.1),
        reach * np.minimum(brightness[i] / brightness[j] / limit, brightness[i] / 0.1),
    )
    out = np.zeros(len(x), bool)
    out[i[harm > 1.0]] = True
    out[j[harm > 1.0]] = True
    return out


def separate(
    image: Image,
    noise: Image,
    mask: Mask,
    psf: Psf,
    x: FloatArray,
    y: FloatArray,
    which: npt.NDArray[np.bool_],
    *,
    sweeps: int = 3,
) -> Separated:
    """Fit sources together.

    Parameters
    ----------
    image, noise : ndarray, (ny, nx)
        Image without sky, and its source-free variance.
    mask : ndarray, (ny, nx)
        Saturated and bad pixels do not enter the fits.
    psf : Psf
        Point spread function.
    x, y : ndarray, (n,), pixel
        Positions to start from, brightest source first.
    which : ndarray of bool, (n,)
        Sources to fit.
    sweeps : int
        How many times to go over all of them.

    Returns
    -------
    Separated
    """
    spline = SplinePsf.of(psf)
    index = np.flatnonzero(which)
    state = np.zeros((len(index), 3))
    state[:, 0], state[:, 1] = x[index], y[index]
    start = state.copy()
    residual, unusable = _prepared(image, mask, bits(*NO_FLUX))
    for sweep in range(sweeps):
        for first in range(0, len(index), _CHUNK):
            s = slice(first, first + _CHUNK)
            coef = spline.coefficients(state[s, 0], state[s, 1])
            _sweep(residual, image, noise, unusable, coef, spline.order, psf.side // 2, state[s],
                   start[s], sweep > 0)  # fmt: skip
    out = [x.astype(float), y.astype(float), np.zeros(len(x))]
    for column, values in enumerate(out):
        values[index] = state[:, column]
    return Separated(residual, *out)


@compiled
def _prepared(image: Image, mask: Mask, bad: np.uint32) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Copy of the image without what is not a number, and which pixels not to use."""
    ny, nx = image.shape
    residual, unusable = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.bool_)
    for v in range(ny):
        for u in range(nx):
            finite = np.isfinite(image[v, u])
            residual[v, u] = image[v, u] if finite else np.float32(0)
            unusable[v, u] = not finite or mask[v, u] & bad != 0
    return residual, unusable


@compiled
def _sweep(
    residual: Image,
    image: Image,
    noise: Image,
    unusable: npt.NDArray[np.bool_],
    coef: FloatArray,
    order: int,
    half: int,
    state: FloatArray,
    start: FloatArray,
    move: bool,
) -> None:
    """Refit x, y and flux of each source on the residual of all others, in place."""
    n = 2 * half + 1
    p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for s in range(len(state)):
        x, y, flux = state[s]
        ix, iy = pixel(np.floor(x + 0.5)), pixel(np.floor(y + 0.5))
        psf_box(coef[s], x - ix, y - iy, order, p, px, py)
        _add(residual, p, ix, iy, half, flux)
        flux, dx, dy = _fit(residual, image, noise, unusable, p, px, py, ix, iy, half, move)
        if flux != flux:  # refused
            state[s, 0], state[s, 1], state[s, 2] = start[s, 0], start[s, 1], 0.0
            continue
        x = min(max(x + dx, start[s, 0] - _FARTHEST), start[s, 0] + _FARTHEST)
        y = min(max(y + dy, start[s, 1] - _FARTHEST), start[s, 1] + _FARTHEST)
        if move:
            ix, iy = pixel(np.floor(x + 0.5)), pixel(np.floor(y + 0.5))
            psf_box(coef[s], x - ix, y - iy, order, p, px, py)
        _add(residual, p, ix, iy, half, -flux)
        state[s, 0], state[s, 1], state[s, 2] = x, y, flux


@compiled
def _add(image: Image, p: FloatArray, ix: int, iy: int, half: int, flux: float) -> None:
    ny, nx = image.shape
    if flux == 0.0:
        return
    for v in range(max(iy - half, 0), min(iy + half + 1, ny)):
        for u in range(max(ix - half, 0), min(ix + half + 1, nx)):
            image[v, u] += np.float32(flux * p[v - iy + half, u - ix + half])


@compiled
def _fit(
    residual: Image,
    image: Image,
    noise: Image,
    unusable: npt.NDArray[np.bool_],
    p: FloatArray,
    px: FloatArray,
    py: FloatArray,
    ix: int,
    iy: int,
    half: int,
    move: bool,
) -> tuple[float, float, float]:
    """Weighted least squares for flux and, if wanted, a shift; never a negative flux.

    NaN for a flux that the pixels of the image cannot have.
    """
    ny, nx = image.shape
    r = min(int(_FIT_RADIUS), half)
    pp, pa, pb, aa, ab, bb, dp, da, db = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    whole = 0.0
    for v in range(max(iy - r, 0), min(iy + r + 1, ny)):
        for u in range(max(ix - r, 0), min(ix + r + 1, nx)):
            if unusable[v, u] or (u - ix) ** 2 + (v - iy) ** 2 > _FIT_RADIUS**2:
                continue
            w = 1.0 / noise[v, u]
            j, i = v - iy + half, u - ix + half
            m, a, b, d = p[j, i], -px[j, i], -py[j, i], residual[v, u]
            pp += w * m * m
            pa += w * m * a
            pb += w * m * b
            aa += w * a * a
            ab += w * a * b
            bb += w * b * b
            dp += w * m * d
            whole += w * m * image[v, u]
            da += w * a * d
            db += w * b * d
    if not pp > 0.0:
        return 0.0, 0.0, 0.0
    flux = max(dp / pp, 0.0)
    if not flux <= _MOST_LIGHT * max(whole / pp, 0.0) + _MOST_NOISE / np.sqrt(pp):
        return np.nan, 0.0, 0.0
    if not move or flux == 0.0:
        return flux, 0.0, 0.0
    # The shift solves the 2 x 2 system that is left after the flux has been projected out.
    caa, cab, cbb = aa - pa * pa / pp, ab - pa * pb / pp, bb - pb * pb / pp
    ra, rb = da - pa * dp / pp, db - pb * dp / pp
    det = caa * cbb - cab * cab
    if not det > 0.0:
        return flux, 0.0, 0.0
    dx = (cbb * ra - cab * rb) / det / flux
    dy = (caa * rb - cab * ra) / det / flux
    if dx != dx or dy != dy:
        return np.nan, 0.0, 0.0
    return (
        flux,
        min(max(dx, -_LARGEST_STEP), _LARGEST_STEP),
        min(max(dy, -_LARGEST_STEP), _LARGEST_STEP),
    )
