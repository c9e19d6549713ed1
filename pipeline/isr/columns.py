"""Bad columns that are on no list of defects, found from the pixels.

A bad column is narrow, straight and long; stars are round and galaxies smooth.  The mean of a
column over a block of rows is therefore compared with those of the columns beside it: a
block that departs from *both* sides by many σ, and again in the next blocks, is a bad column.
Columns often begin at a trap and run to the far end of the readout, so each block is judged for
itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, Mask
from pipeline.isr.config import Config
from pipeline.masks import NO_SKY, bits

__all__ = ["find_columns"]

_Flags = npt.NDArray[np.bool_]
_WIDEST = 3  # columns that can be bad side by side
_REACH = 8  # columns on each side they are compared with
_WIDEST_GAP = 3  # blocks from one bad block to the next of the same column


def find_columns(image: Image, variance: Image, mask: Mask, config: Config) -> _Flags:
    """Find bad columns.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx), float32
        Pixels with the sky, flat-fielded.
    mask : ndarray, (ny, nx), uint32
        Bad and saturated pixels are left out.
    config : Config
        ``column_*``.

    Returns
    -------
    ndarray, (ny, nx), bool
        Pixels of bad columns, to the block.
    """
    block = min(config.column_block, image.shape[0])
    n_blocks = image.shape[0] // block
    means, errors = _block_means(image, variance, mask, bits(*NO_SKY), block, n_blocks)
    significance = _significance(means, errors)
    bad = _joined(significance, np.isfinite(means), config)
    rows = np.repeat(bad, block, axis=0)
    found = np.zeros(image.shape, bool)
    found[: len(rows)] = rows
    found[len(rows) :] = bad[-1]
    return found


@compiled
def _block_means(
    image: Image, variance: Image, mask: Mask, ignored: np.uint32, block: int, n_blocks: int
) -> tuple[FloatArray, FloatArray]:
    """Clamped mean of every column in every block, and its standard error.

    Values are clamped to 3σ round the level of the block: a star counts little, a bad column in
    every row.
    """
    ny, nx = image.shape
    means = np.full((n_blocks, nx), np.nan)
    errors = np.full((n_blocks, nx), np.nan)
    for b in range(n_blocks):
        start, stop = b * block, ny if b == n_blocks - 1 else (b + 1) * block
        level, spread = _level(image, variance, mask, ignored, start, stop)
        low, high = level - 3 * np.sqrt(spread), level + 3 * np.sqrt(spread)
        total, weight, count = np.zeros(nx), np.zeros(nx), np.zeros(nx)
        for y in range(start, stop):
            _add_row(image[y], variance[y], mask[y], ignored, low, high, total, weight, count)
        for x in range(nx):
            if 2 * count[x] >= block:
                means[b, x] = total[x] / count[x]
                errors[b, x] = np.sqrt(weight[x]) / count[x]
    return means, errors


@compiled
def _add_row(
    image: Image,
    variance: Image,
    mask: Mask,
    ignored: np.uint32,
    low: float,
    high: float,
    total: FloatArray,
    weight: FloatArray,
    count: FloatArray,
) -> None:
    """Add the good pixels of a row; selections, no branches, so that it becomes vectors."""
    for x in range(len(image)):
        good = mask[x] & ignored == 0
        clamped = image[x] if image[x] > low else low
        clamped = clamped if clamped < high else high
        total[x] += clamped if good else 0.0
        weight[x] += variance[x] if good else 0.0
        count[x] += 1.0 if good else 0.0


@compiled
def _level(
    image: Image, variance: Image, mask: Mask, ignored: np.uint32, start: int, stop: int
) -> tuple[float, float]:
    """Median of good pixels and of their variance, from a sample."""
    nx = image.shape[1]
    values = np.empty(((stop - start) // 4 + 1) * (nx // 4 + 1), np.float64)
    spreads = np.empty_like(values)
    n = 0
    for y in range(start, stop, 4):
        for x in range(0, nx, 4):
            if mask[y, x] & ignored == 0:
                values[n], spreads[n] = image[y, x], variance[y, x]
                n += 1
    if n == 0:
        return 0.0, 1.0
    return np.median(values[:n]), np.median(spreads[:n])


def _significance(means: FloatArray, errors: FloatArray) -> FloatArray:
    """Departure from both sides in σ, the smaller of the two; 0 where they disagree in sign."""
    nx = means.shape[1]
    left, right = np.full(means.shape, np.nan), np.full(means.shape, np.nan)
    for offset, side in ((-_WIDEST - _REACH, left), (_WIDEST, right)):
        windows = [_shifted(means, offset + k) for k in range(_REACH + 1) if abs(offset + k) < nx]
        if windows:  # none beside a column or two
            side[:] = _nanmedian(np.stack(windows))
    scale = np.sqrt(errors**2 * (1 + 1.5708 / _REACH))
    up, down = (means - left) / scale, (means - right) / scale
    up, down = np.where(np.isnan(up), down, up), np.where(np.isnan(down), up, down)
    agreed = np.where(up * down > 0, np.sign(up) * np.minimum(np.abs(up), np.abs(down)), 0.0)
    return np.asarray(np.nan_to_num(agreed))


def _shifted(values: FloatArray, offset: int) -> FloatArray:
    """Columns moved so that column x holds what was at x + offset; NaN beyond the edge."""
    out = np.full(values.shape, np.nan)
    if offset < 0:
        out[:, -offset:] = values[:, :offset]
    else:
        out[:, : values.shape[1] - offset] = values[:, offset:]
    return out


def _nanmedian(stack: FloatArray) -> FloatArray:
    """Median over the first axis without the warning about empty slices."""
    ordered = np.sort(stack, axis=0)  # NaN last
    count = np.isfinite(stack).sum(axis=0)
    middle = np.maximum(count - 1, 0)
    low = np.take_along_axis(ordered, (middle // 2)[None], axis=0)[0]
    high = np.take_along_axis(ordered, ((middle + 1) // 2)[None], axis=0)[0]
    return np.asarray(0.5 * (low + high))


def _joined(significance: FloatArray, judged: _Flags, config: Config) -> _Flags:
    """Keep runs of bad blocks that are long enough, with gaps and ends filled."""
    bad = np.abs(significance) > config.column_sigma
    out = np.zeros(bad.shape, bool)
    need = min(config.column_blocks, bad.shape[0])
    for x in np.flatnonzero(bad.sum(axis=0) >= need):
        blocks = np.flatnonzero(bad[:, x])
        sign = np.sign(significance[blocks, x].sum())
        blocks = blocks[np.sign(significance[blocks, x]) == sign]
        # Blocks that are masked for another reason, inside a large defect, are no gap.
        place = np.cumsum(judged[:, x])[blocks]
        for run in np.split(blocks, np.flatnonzero(np.diff(place) > _WIDEST_GAP) + 1):
            if len(run) >= need:
                # The block in which it begins is bad in part only.
                out[max(run[0] - 1, 0) : run[-1] + 2, x] = True
    return out
