"""Weighted means of warped exposures, outliers rejected."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, Mask
from pipeline.masks import NO_SKY, bits
from pipeline.psfphot import middle_fwhm
from pipeline.statistics import GAUSS_FWHM
from pipeline.template.config import Config
from pipeline.template.warp import Warper

__all__ = ["Stack"]

_BLUR, _WIDE_BLUR, _NEAR, _GROWTH = 4, 7, 2, 3
"""Half widths of the blurs, how near light lies to count, and how far outliers grow, in pixels."""

_BLOCK = 4
"""Side in pixels of the blocks whose sums tell what is faint and wide."""

_SHARP, _WIDE = np.uint8(1), np.uint8(2)
"""What calls for a second look: a pixel, or a block of pixels."""

_HALO = _WIDE_BLUR + _NEAR + _GROWTH + _BLOCK

_MEDIAN_NOISE = np.pi / 2
"""Variance of a median over that of a mean."""


@dataclass(slots=True, eq=False)
class Stack:
    """Warped inputs, coadded band by band.

    Attributes
    ----------
    warpers : list of Warper
        The n inputs.
    weights : ndarray of float32, (n,)
        Their weights.
    config : Config
        When a pixel is an outlier, and how many rows make a band.
    clipped, covered : ndarray of int, (n,), optional
        Pixels rejected and used of each input, after `coadd`.
    """

    warpers: list[Warper]
    weights: npt.NDArray[np.float32]
    config: Config
    clipped: npt.NDArray[np.int64] | None = None
    covered: npt.NDArray[np.int64] | None = None

    def coadd(self, shape: tuple[int, int]) -> tuple[Image, Image, Mask]:
        """Average the inputs without their outliers.

        Parameters
        ----------
        shape : tuple of int, (ny, nx)
            Size of the patch.

        Returns
        -------
        image, variance, mask : ndarray, (ny, nx)
            Weighted mean, its variance, and the flags of what went into it.
        """
        n, limits = len(self.warpers), self.config
        image, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
        mask = np.empty(shape, np.uint32)
        self.clipped, self.covered = np.zeros(n, np.int64), np.zeros(n, np.int64)
        blurs = self._blurs(_BLUR, 0.0), self._blurs(_WIDE_BLUR, 1.0)
        # Memory that every band takes afresh would cost as much as averaging.
        pixels = n * (limits.band_rows + 2 * _HALO) * shape[1]
        values, noises = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
        flags, marks = np.empty(pixels, np.uint32), np.empty(pixels, np.uint8)
        for first in range(0, shape[0], limits.band_rows):
            last = min(first + limits.band_rows, shape[0])
            low, high = max(0, first - _HALO), min(shape[0], last + _HALO)
            size = (n, high - low, shape[1])
            taken = slice(math.prod(size))
            images, variances = values[taken].reshape(size), noises[taken].reshape(size)
            masks = flags[taken].reshape(size)
            for k, warper in enumerate(self.warpers):
                warper.fill(low, images[k], variances[k], masks[k])
            _combine(
                images,
                variances,
                masks,
                marks[taken].reshape(size),
                low,
                first - low,
                last - low,
                self.weights,
                blurs,
                (limits.suspect_sigma, limits.clip_sigma, limits.clip_mismatch),
                _FLAGS,
                self.covered,
                self.clipped,
                image[first:last],
                variance[first:last],
                mask[first:last],
            )
        return image, variance, mask

    def _blurs(self, half: int, wide: float) -> npt.NDArray[np.float32]:
        """1-D Gaussians that bring every input to the seeing of the softest.

        Parameters
        ----------
        half : int, pixel
            Half their length.
        wide : float
            How much wider they make them all, in widths of the softest PSF: with one, what looks
            like a star or a line stands out most from the noise.

        Returns
        -------
        ndarray, (n, 2 half + 1)
        """
        width = [middle_fwhm(w.exposure.psf, w.exposure.shape) for w in self.warpers]
        sigma = np.array(width) / GAUSS_FWHM
        softest = np.nanmax(sigma, initial=0.0) ** 2
        extra = np.sqrt(np.maximum((1.0 + wide**2) * softest - sigma**2, 0.0))
        extra = np.nan_to_num(extra)
        u = np.arange(-half, half + 1)
        g = np.exp(-0.5 * (u / np.maximum(extra, 1e-3)[:, None]) ** 2)
        return np.asarray(g / g.sum(1, keepdims=True), np.float32)


@compiled
def _combine(
    images: npt.NDArray[np.float32],
    variances: npt.NDArray[np.float32],
    masks: npt.NDArray[np.uint32],
    use: npt.NDArray[np.uint8],
    origin: int,
    first: int,
    last: int,
    weights: npt.NDArray[np.float32],
    blurs: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    limits: tuple[float, float, float],
    bits_of: tuple[np.uint32, ...],
    covered: npt.NDArray[np.int64],
    clipped: npt.NDArray[np.int64],
    out_image: Image,
    out_variance: Image,
    out_mask: Mask,
) -> None:
    """Coadd the rows `first` to `last` of a band; count pixels used and rejected per input.

    `origin` is the row of the patch that the band begins with.
    """
    for k in range(len(images)):
        for y in range(images.shape[1]):
            covered[k] += _usable(masks[k, y], bits_of[0], use[k, y], first <= y < last)
    if len(images) > 2:
        _reject(images, variances, use, weights, blurs, origin, first, last, limits, clipped)
    for y in range(first, last):
        _mean(
            images,
            variances,
            masks,
            use,
            y,
            weights,
            bits_of,
            out_image[y - first],
            out_variance[y - first],
            out_mask[y - first],
        )


@compiled
def _usable(
    mask: npt.NDArray[np.uint32],
    unusable: np.uint32,
    use: npt.NDArray[np.uint8],
    counts: bool,
) -> int:
    """Mark the pixels of a row that may be averaged: one, or zero.  Warps flag what is NaN."""
    for x in range(len(mask)):
        use[x] = np.uint8(1) if mask[x] & unusable == 0 else np.uint8(0)
    count = 0
    if counts:
        for x in range(len(mask)):
            count += use[x]
    return count


@compiled
def _reject(
    images: npt.NDArray[np.float32],
    variances: npt.NDArray[np.float32],
    use: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float32],
    blurs: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    origin: int,
    first: int,
    last: int,
    limits: tuple[float, float, float],
    clipped: npt.NDArray[np.int64],
) -> None:
    """Mark outliers and the pixels round them; count those in the rows `first` to `last`."""
    n, rows, columns = images.shape
    margin = _WIDE_BLUR + _NEAR
    low, high = max(first - _GROWTH, margin), min(last + _GROWTH, rows - margin)
    doubtful = np.zeros((n, rows, columns), np.uint8)
    far = np.zeros((rows, columns), np.uint8)
    # Blocks are those of the patch, whatever its bands.
    start = max(0, (origin + low) // _BLOCK * _BLOCK - origin)
    stop = min(rows, -(-(origin + high) // _BLOCK) * _BLOCK - origin)
    _suspect(images, variances, use, weights, start, stop, limits, far)
    for y in range(low, high):
        for x in range(margin, columns - margin):
            if far[y, x] & _SHARP:
                _doubt(images, variances, use, blurs[0], 1, limits, y, x, doubtful)
            if far[y, x] & _WIDE:
                _doubt(images, variances, use, blurs[1], _NEAR, limits, y, x, doubtful)
    for k in range(n):
        for y in range(max(first - _GROWTH, 0), min(last + _GROWTH, rows)):
            for x in range(margin, columns - margin):
                if doubtful[k, y, x]:
                    _clip(use, k, y, x, first, last, clipped)


@compiled
def _doubt(
    images: npt.NDArray[np.float32],
    variances: npt.NDArray[np.float32],
    use: npt.NDArray[np.uint8],
    blur: npt.NDArray[np.float32],
    step: int,
    limits: tuple[float, float, float],
    y: int,
    x: int,
    doubtful: npt.NDArray[np.uint8],
) -> None:
    """Mark the inputs that lie far from the median of all at a pixel, all brought to one seeing."""
    n, level = len(images), -1.0
    _, clip, mismatch = limits
    value, spread = np.empty(n), np.empty(n)
    if _smooth(images, variances, use, blur, y, x, value, spread) < 3:
        return
    middle = _median(value)
    noise = _MEDIAN_NOISE * np.nansum(spread) / np.sum(~np.isnan(spread)) ** 2
    for k in range(n):
        bound = clip * np.sqrt(spread[k] + noise)
        d = abs(value[k] - middle)
        if d > bound + mismatch * abs(middle):
            if level < 0.0:
                level = _level(images, variances, use, blur, step, y, x)
            if d > bound + mismatch * level:
                doubtful[k, y, x] = 1


@compiled
def _clip(
    use: npt.NDArray[np.uint8],
    k: int,
    y: int,
    x: int,
    first: int,
    last: int,
    clipped: npt.NDArray[np.int64],
) -> None:
    """Take an outlier and its surroundings out of one input, the latter while two others stay."""
    n, _, columns = use.shape
    for j in range(max(y - _GROWTH, first), min(y + _GROWTH + 1, last)):
        for i in range(max(x - _GROWTH, 0), min(x + _GROWTH + 1, columns)):
            if use[k, j, i] != 1:
                continue
            others = 0
            for m in range(n):
                others += m != k and use[m, j, i] == 1
            if others > 1 or (j == y and i == x):
                use[k, j, i] = 2  # still there, but not to be averaged
                clipped[k] += 1


@compiled
def _median(value: FloatArray) -> float:
    """Median of the inputs that are there."""
    there = np.sort(value[~np.isnan(value)])
    m = len(there)
    return float(0.5 * (there[(m - 1) // 2] + there[m // 2]))


@compiled
def _level(
    images: npt.NDArray[np.float32],
    variances: npt.NDArray[np.float32],
    use: npt.NDArray[np.uint8],
    blur: npt.NDArray[np.float32],
    step: int,
    y: int,
    x: int,
) -> float:
    """Largest median nearby: the light whose shape, place and brightness inputs differ in."""
    value, spread = np.empty(len(images)), np.empty(len(images))
    level = 0.0
    for j in range(y - _NEAR, y + _NEAR + 1, step):
        for i in range(x - _NEAR, x + _NEAR + 1, step):
            if _smooth(images, variances, use, blur, j, i, value, spread):
                level = max(level, abs(_median(value)))
    return level


@compiled
def _suspect(
    images: npt.NDArray[np.float32],
    variances: npt.NDArray[np.float32],
    use: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float32],
    start: int,
    stop: int,
    limits: tuple[float, float, float],
    far: npt.NDArray[np.uint8],
) -> None:
    """Mark pixels, and blocks of them, of which an input lies far from the mean of all."""
    n, _, columns = images.shape
    limit = limits[0] ** 2
    mean, norm = np.empty(columns), np.empty(columns)
    blocks = columns // _BLOCK
    sums = np.zeros((3, n, blocks))
    for y in range(start, stop):
        mean[:], norm[:] = 0.0, 0.0
        for k in range(n):
            image, used, w = images[k, y], use[k, y], float(weights[k])
            for x in range(columns):
                value = w * image[x]
                mean[x] += value if used[x] else 0.0
            for x in range(columns):
                norm[x] += w if used[x] else 0.0
        for x in range(columns):
            mean[x] /= norm[x]
        for k in range(n):
            image, variance, used = images[k, y], variances[k, y], use[k, y]
            for x in range(columns):
                d = image[x] - mean[x]
                far[y, x] |= used[x] if d * d > limit * variance[x] else np.uint8(0)
            for x in range(blocks * _BLOCK):
                if used[x]:
                    sums[0, k, x // _BLOCK] += image[x] - mean[x]
                    sums[1, k, x // _BLOCK] += variance[x]
                    sums[2, k, x // _BLOCK] += mean[x]
        if (y - start) % _BLOCK == _BLOCK - 1 or y == stop - 1:
            _mark_blocks(sums, limits, far[y - (y - start) % _BLOCK : y + 1])
            sums[:] = 0.0


@compiled
def _mark_blocks(
    sums: FloatArray, limits: tuple[float, float, float], far: npt.NDArray[np.uint8]
) -> None:
    """Mark the blocks of a strip in which an input lies far from the mean, for noise and light.

    `sums` are those of an input less the mean, of its variance and of the mean, ``(3, n, blocks)``.
    Of the light only half is allowed for, since the mean contains the outlier.
    """
    limit, _, mismatch = limits
    for k in range(sums.shape[1]):
        for b in range(sums.shape[2]):
            off, noise, light = sums[:, k, b]
            if abs(off) > limit * np.sqrt(noise) + 0.5 * mismatch * abs(light):
                far[:, b * _BLOCK : (b + 1) * _BLOCK] |= _WIDE


@compiled
def _smooth(
    images: npt.NDArray[np.float32],
    variances: npt.NDArray[np.float32],
    use: npt.NDArray[np.uint8],
    blur: npt.NDArray[np.float32],
    y: int,
    x: int,
    value: FloatArray,
    spread: FloatArray,
) -> int:
    """Bring a pixel of every input to one seeing, NaN where it is not usable; count the others."""
    half, count = blur.shape[1] // 2, 0
    for k in range(len(images)):
        value[k], spread[k] = np.nan, np.nan
        if not use[k, y, x]:
            continue
        total, noise, norm = 0.0, 0.0, 0.0
        for j in range(-half, half + 1):
            for i in range(-half, half + 1):
                w = blur[k, j + half] * blur[k, i + half]
                if w > 0.0 and use[k, y + j, x + i]:
                    total += w * images[k, y + j, x + i]
                    noise += w * w * variances[k, y + j, x + i]
                    norm += w
        value[k], spread[k] = total / norm, noise / (norm * norm)
        count += 1
    return count


_FLAGS = (
    bits(*NO_SKY),  # input pixels that do not enter the mean
    bits("NO_DATA"),
    bits("SAT"),
    bits("INEXACT_PSF", "REJECTED"),
    bits("INEXACT_PSF", "CLIPPED"),
    bits("INEXACT_PSF"),
)


@compiled
def _mean(
    images: npt.NDArray[np.float32],
    variances: npt.NDArray[np.float32],
    masks: npt.NDArray[np.uint32],
    use: npt.NDArray[np.uint8],
    y: int,
    weights: npt.NDArray[np.float32],
    bits_of: tuple[np.uint32, ...],
    out_image: npt.NDArray[np.float32],
    out_variance: npt.NDArray[np.float32],
    out_mask: npt.NDArray[np.uint32],
) -> None:
    """Average a row.  Loops that write one array each are what the compiler makes vectors of."""
    _, no_data, saturated, rejected, clipped, inexact = bits_of
    columns = len(out_image)
    total, spread, norm = np.zeros(columns), np.zeros(columns), np.zeros(columns)
    out_mask[:] = 0
    for k in range(len(images)):
        image, variance, mask, used = images[k, y], variances[k, y], masks[k, y], use[k, y]
        w = weights[k]
        for x in range(columns):
            value = w * image[x]
            total[x] += value if used[x] == 1 else np.float32(0.0)
        for x in range(columns):
            value = w * w * variance[x]
            spread[x] += value if used[x] == 1 else np.float32(0.0)
        for x in range(columns):
            norm[x] += w if used[x] == 1 else np.float32(0.0)
        for x in range(columns):
            lost = rejected | (mask[x] & saturated)
            lost = inexact if mask[x] & no_data else lost
            lost = clipped if used[x] == 2 else lost
            out_mask[x] |= mask[x] if used[x] == 1 else lost
    for x in range(columns):
        out_image[x] = total[x] / norm[x]
    for x in range(columns):
        out_variance[x] = spread[x] / (norm[x] * norm[x])
    for x in range(columns):
        if norm[x] == 0.0:
            sums = _masked_mean(images, variances, masks, weights, y, x, no_data)
            out_image[x] = sums[0] / sums[2]
            out_variance[x] = sums[1] / (sums[2] * sums[2])
            out_mask[x] = _masked_flags(masks, y, x, no_data)


@compiled
def _masked_flags(masks: npt.NDArray[np.uint32], y: int, x: int, no_data: np.uint32) -> np.uint32:
    """Bits of a pixel that no input can give: theirs, NO_DATA only if nobody was there."""
    flags, absent = np.uint32(0), True
    for k in range(masks.shape[0]):
        if not masks[k, y, x] & no_data:
            flags |= masks[k, y, x]
            absent = False
    return no_data if absent else flags


@compiled
def _masked_mean(
    images: npt.NDArray[np.float32],
    variances: npt.NDArray[np.float32],
    masks: npt.NDArray[np.uint32],
    weights: npt.NDArray[np.float32],
    y: int,
    x: int,
    no_data: np.uint32,
) -> tuple[float, float, float]:
    """Where all inputs are masked, their mean stays as the least bad value; NaN without any."""
    total, spread, norm = 0.0, 0.0, 0.0
    for k in range(images.shape[0]):
        if not masks[k, y, x] & no_data and np.isfinite(images[k, y, x]):
            total += weights[k] * images[k, y, x]
            spread += weights[k] * weights[k] * variances[k, y, x]
            norm += weights[k]
    if norm == 0.0:
        return np.nan, np.nan, 1.0
    return total, spread, norm
