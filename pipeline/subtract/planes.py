"""Working copies of the two images: finite everywhere, with coarse skies and noise models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.errors import PixelError
from pipeline.exposure import Exposure, FloatArray, Image, bits

__all__ = ["Layer", "coarse_median", "prepare"]

UNUSABLE = bits(
    "BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN", "BLEED", "EDGEBLEED", "STREAK", "UNLISTED"
)
"""Pixels with one of these planes say nothing about the sky."""

_BLOCK = 128
_THIN = 4


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One of the two images, ready for arithmetic.

    Attributes
    ----------
    image : ndarray, (ny, nx)
        Pixels minus `level`, unusable ones filled from their neighbours.
    variance : ndarray, (ny, nx)
        Finite and positive.
    bad : ndarray of bool, (ny, nx)
        Unusable pixels.
    level : float
        Median of the image.
    sky, noise : ndarray, (ty, tx)
        Median minus `level`, and root of the median variance, of blocks that divide the image.
    slope : float
        Increase of the variance per unit of flux: the inverse gain.
    correlation : ndarray, (cy, cx, k, k), optional
        Autocovariance of the noise, see `Exposure.noise_correlation`.
    """

    image: Image
    variance: Image
    bad: npt.NDArray[np.bool_]
    level: float
    sky: Image
    noise: Image
    slope: float
    correlation: FloatArray | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (int(self.image.shape[0]), int(self.image.shape[1]))


def prepare(exposure: Exposure, name: str) -> Layer:
    """Make the working copy of an exposure.

    Parameters
    ----------
    exposure : Exposure
        Science or template.
    name : str
        Which of the two, for the error message.

    Returns
    -------
    Layer
        The working copy.

    Raises
    ------
    PixelError
        If no pixel is usable, or the image is constant.
    """
    image, variance = exposure.image, exposure.variance
    bad = (exposure.mask & UNUSABLE) != 0
    hole = ~(np.isfinite(image) & (variance > 0) & np.isfinite(variance))
    bad |= hole
    good = int(bad.size - np.count_nonzero(bad))
    if good < 100:
        raise PixelError(f"the {name} has no usable pixels", usable=good, of=int(bad.size))
    sky = coarse_median(image, bad)
    power = coarse_median(variance, bad)
    level = float(np.median(sky))
    filled = image - np.float32(level)
    spread = np.array(variance, np.float32)
    if not np.ptp(filled[~bad][:: max(1, good // 100000)]) > 0:
        raise PixelError(f"the {name} is constant", value=level)
    _patch(filled, spread, bad, hole, sky - np.float32(level), power)
    sky = sky - np.float32(level)
    noise = np.sqrt(power)
    slope = _slope(filled, spread, bad.view(np.uint8), sky, power)
    return Layer(filled, spread, bad, level, sky, noise, slope, exposure.noise_correlation)


def coarse_median(plane: Image, bad: npt.NDArray[np.bool_]) -> Image:
    """Medians of blocks of some 128 px, from every fourth good pixel of every fourth row.

    Parameters
    ----------
    plane : ndarray, (ny, nx)
        Image or variance.
    bad : ndarray of bool, (ny, nx)
        Pixels left out.

    Returns
    -------
    ndarray, (ty, tx)
        The medians; blocks with few good pixels take the median of the others.
    """
    ny, nx = plane.shape
    tiles = max(1, round(ny / _BLOCK)), max(1, round(nx / _BLOCK))
    out = np.full(tiles, np.nan, np.float32)
    rows = np.arange(tiles[0] + 1) * ny // tiles[0]
    columns = np.arange(tiles[1] + 1) * nx // tiles[1]
    for j in range(tiles[0]):
        for i in range(tiles[1]):
            block = np.s_[rows[j] : rows[j + 1] : _THIN, columns[i] : columns[i + 1] : _THIN]
            values = plane[block][~bad[block]]
            if values.size > 30:
                out[j, i] = np.median(values)
    if np.isnan(out).all():
        out[:] = np.median(plane[~bad])
    out[np.isnan(out)] = np.nanmedian(out)
    return out


def _patch(
    image: Image,
    variance: Image,
    bad: npt.NDArray[np.bool_],
    hole: npt.NDArray[np.bool_],
    sky: Image,
    power: Image,
) -> None:
    """Fill unusable pixels in place."""
    y, x = np.nonzero(bad)
    _fill(image, variance, bad.view(np.uint8), hole.view(np.uint8), y, x, sky, power)


@compiled
def _fill(
    image: Image,
    variance: Image,
    bad: npt.NDArray[np.uint8],
    hole: npt.NDArray[np.uint8],
    ys: npt.NDArray[np.int64],
    xs: npt.NDArray[np.int64],
    sky: Image,
    power: Image,
) -> None:
    """Distance-weighted mean of the good pixels within 3 px; the sky where there are none."""
    ny, nx = image.shape
    ty, tx = sky.shape
    for k in range(len(ys)):
        y, x = ys[k], xs[k]
        total, norm = 0.0, 0.0
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                v, u = y + dy, x + dx
                if 0 <= v < ny and 0 <= u < nx and not bad[v, u]:
                    w = 1.0 / (dx * dx + dy * dy) ** 2
                    total += w * image[v, u]
                    norm += w
        j, i = min(y * ty // ny, ty - 1), min(x * tx // nx, tx - 1)
        image[y, x] = total / norm if norm > 0.0 else sky[j, i]
        if hole[y, x]:
            variance[y, x] = power[j, i]


@compiled
def _bright(
    image: Image,
    variance: Image,
    bad: npt.NDArray[np.uint8],
    sky: Image,
    power: Image,
    threshold: float,
    most: int,
) -> Image:
    """Excess variance per excess flux of bright pixels."""
    ny, nx = image.shape
    ty, tx = sky.shape
    out = np.empty(most, np.float32)
    n = 0
    for y in range(ny):
        j = min(y * ty // ny, ty - 1)
        for x in range(nx):
            i = min(x * tx // nx, tx - 1)
            d = image[y, x] - sky[j, i]
            if (
                not bad[y, x]
                and d * d > threshold * threshold * power[j, i]
                and d > 0.0
                and n < most
            ):
                out[n] = (variance[y, x] - power[j, i]) / d
                n += 1
    return out[:n]


def _slope(
    image: Image, variance: Image, bad: npt.NDArray[np.uint8], sky: Image, power: Image
) -> float:
    for threshold in (20.0, 8.0):
        ratios = _bright(image, variance, bad, sky, power, threshold, 100_000)
        if len(ratios) >= 20:
            return max(0.0, float(np.median(ratios)))
    return 0.0
