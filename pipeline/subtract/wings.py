"""Wings of bright stars beyond the reach of the matching kernel.

Atmospheric turbulence gives every PSF a wing that falls as r^(-11/3), scaled by the power 5/3 of
the seeing (Racine 1996, PASP 108, 699).  The kernel ends where its stamps end, so a ring is left
round the brightest stars, the difference of two wings.  Its shape is known; its height is measured
star by star in the ring itself, which works for saturated stars too, and it is taken off as far as
it stands out of the noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled, pixel
from pipeline.exposure import FloatArray, Image
from pipeline.subtract.prepare import WorkingImage
from pipeline.subtract.saturated import groups
from pipeline.subtract.stamps import peaks

__all__ = ["bright_stars", "remove_wings"]

_POWER = -11.0 / 3.0
_REACH = 4
"""How far a wing is fitted, in half widths of the kernel."""

_FARTHEST = 10
"""How far it is followed at most, in the same."""

_LEAST = 0.03
"""Height over the noise of a pixel at which a wing ends: a fifth of the noise of a source."""

_STEPS = 8
_BRIGHT = 300.0
"""Peak over noise of unsaturated stars whose wings may show."""

_SIGNIFICANT = 3.0
_PASSES = 2
_MOST = 2000


def bright_stars(
    science: WorkingImage, template: WorkingImage, saturated: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Find the stars whose wings may show: saturated ones, then the brightest of the others.

    Parameters
    ----------
    science, template : WorkingImage
        The two images.
    saturated : ndarray of bool, (ny, nx)
        Pixels saturated in one of them.

    Returns
    -------
    x, y : ndarray, (n,), pixel
        Their centres.
    """
    x, y, snr = peaks(science, template, science.bad | template.bad, _BRIGHT, _MOST)
    order = np.lexsort((x, y, -snr))
    u, v = _cores(saturated)
    return np.concatenate([u, x[order]]), np.concatenate([v, y[order]])


def remove_wings(
    residual: Image, usable: npt.NDArray[np.uint8], x: FloatArray, y: FloatArray, half: int
) -> int:
    """Subtract what is left of the wings of bright stars.

    Parameters
    ----------
    residual : ndarray, (ny, nx)
        Target minus matched source, changed in place.
    usable : ndarray of uint8, (ny, nx)
        Zero where the residual says nothing.
    x, y : ndarray, (n,), pixel
        The stars.
    half : int, pixel
        Half width of the matching kernel.

    Returns
    -------
    int
        Number of wings that were significant.
    """
    heights = np.zeros(len(x))
    for _ in range(_PASSES if len(x) else 0):
        _fit(residual, usable, x, y, _profile(half), half, heights)
    return int(np.count_nonzero(heights))


def _profile(half: int) -> FloatArray:
    """Wing at radii in steps of 1/8 px: one at the edge of the kernel, nothing inside."""
    r = np.arange(_FARTHEST * half * _STEPS + 2) / _STEPS
    inside = 1.0 / (1.0 + np.exp(-(r - half - 0.4) / 1.1))
    return np.asarray(inside * (np.maximum(r, 1.0) / (half + 1.0)) ** _POWER)


def _cores(saturated: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Centres of saturated stars, the largest first, bleed trails set aside."""
    y, x = np.nonzero(saturated)
    label = groups(saturated.shape, y, x)
    size = np.bincount(label)
    found = []
    for k in np.argsort(-size, kind="stable"):
        rows, columns = y[label == k], x[label == k]
        width = np.bincount(rows - rows.min())
        wide = 2 * width[rows - rows.min()] >= width.max()
        found.append((float(columns[wide].mean()), float(rows[wide].mean())))
    centres = np.array(found).reshape(-1, 2)
    return centres[:, 0], centres[:, 1]


@compiled
def _fit(
    residual: Image,
    usable: npt.NDArray[np.uint8],
    xs: FloatArray,
    ys: FloatArray,
    profile: FloatArray,
    half: int,
    heights: FloatArray,
) -> None:
    """Fit and subtract one wing after the other; pixels that stand out are left aside."""
    ny, nx = residual.shape
    reach = _REACH * half
    for k in range(len(xs)):
        y0, y1 = max(0, pixel(ys[k] - reach)), min(ny, pixel(ys[k] + reach) + 2)
        x0, x1 = max(0, pixel(xs[k] - reach)), min(nx, pixel(xs[k] + reach) + 2)
        height, limit, rms, error = 0.0, np.inf, np.inf, np.inf
        for _ in range(3):
            product, norm, square, count = 0.0, 0.0, 0.0, 0
            for y in range(y0, y1):
                for x in range(x0, x1):
                    r = np.sqrt((x - xs[k]) ** 2 + (y - ys[k]) ** 2)
                    if not half + 2 <= r < reach or not usable[y, x]:
                        continue
                    w = profile[int(r * _STEPS + 0.5)]
                    left = residual[y, x] - height * w
                    if abs(left) > limit:
                        continue
                    product += w * residual[y, x]
                    norm += w * w
                    square += left * left
                    count += 1
            if count < 100 or norm < 10.0:
                break
            height = product / norm
            rms = np.sqrt(square / count)
            limit = 4.0 * rms
            error = rms / np.sqrt(norm)
        if abs(height) < _SIGNIFICANT * error:
            continue
        heights[k] += height
        end = _end(profile, _LEAST * rms, abs(heights[k]), reach)
        _subtract(residual, usable, xs[k], ys[k], height, profile, end)


@compiled
def _end(profile: FloatArray, least: float, height: float, reach: int) -> float:
    """Where a wing of a height falls below the least, pixel; not before `reach`."""
    k = _STEPS * reach
    while k < len(profile) - 2 and height * profile[k] > least:
        k += 1
    return k / _STEPS


@compiled
def _subtract(
    residual: Image,
    usable: npt.NDArray[np.uint8],
    u: float,
    v: float,
    height: float,
    profile: FloatArray,
    end: float,
) -> None:
    """Subtract one wing as far as its end."""
    ny, nx = residual.shape
    for y in range(max(0, pixel(v - end)), min(ny, pixel(v + end) + 2)):
        for x in range(max(0, pixel(u - end)), min(nx, pixel(u + end) + 2)):
            r = np.sqrt((x - u) ** 2 + (y - v) ** 2)
            if r < end and usable[y, x]:
                residual[y, x] -= np.float32(height * profile[int(r * _STEPS + 0.5)])
