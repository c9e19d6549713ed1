"""Bad columns that no list knows, found from the pixels.

A bad column is narrow, straight and long; stars are round and galaxies smooth.  The median of a
column over a block of rows is therefore compared with the medians of the columns beside it: a
block that departs from *both* sides by many σ, and again in the next blocks, is a bad column.
Columns often begin at a trap and run to the far end of the readout, so each block is judged for
itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, Mask, bits
from pipeline.isr.config import Config

__all__ = ["find_columns"]

_Flags = npt.NDArray[np.bool_]
_IGNORED = bits("BAD", "SAT", "NO_DATA", "BLEED", "EDGEBLEED")
_WIDEST = 3  # columns that can be bad side by side
_REACH = 8  # columns on each side they are compared with


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
    good = ((mask & _IGNORED) == 0) & np.isfinite(image)
    medians, noise = _block_medians(image, variance, good, block, n_blocks)
    significance = _significance(medians, noise)
    bad = _joined(np.abs(significance) > config.column_sigma, significance, config)
    rows = np.repeat(bad, block, axis=0)
    found = np.zeros(image.shape, bool)
    found[: len(rows)] = rows
    found[len(rows) :] = bad[-1]
    return found


@compiled
def _block_medians(image: Any, variance: Any, good: Any, block: int, n_blocks: int) -> Any:
    """Median of every column in every block, and the standard error of that median."""
    nx = image.shape[1]
    medians = np.full((n_blocks, nx), np.nan)
    errors = np.full((n_blocks, nx), np.nan)
    values = np.empty(2 * block, np.float32)
    for b in range(n_blocks):
        stop = image.shape[0] if b == n_blocks - 1 else (b + 1) * block
        for x in range(nx):
            count = 0
            spread = 0.0
            for y in range(b * block, stop):
                if good[y, x]:
                    values[count] = image[y, x]
                    spread += variance[y, x]
                    count += 1
            if count >= block // 2:
                medians[b, x] = np.median(values[:count])
                errors[b, x] = 1.2533 * np.sqrt(spread) / count
    return medians, errors


def _significance(medians: FloatArray, errors: FloatArray) -> FloatArray:
    """Departure from both sides in σ, the smaller of the two; 0 where they disagree in sign."""
    nx = medians.shape[1]
    left, right = np.full(medians.shape, np.nan), np.full(medians.shape, np.nan)
    for offset, side in ((-_WIDEST - _REACH, left), (_WIDEST, right)):
        windows = [_shifted(medians, offset + k) for k in range(_REACH + 1) if abs(offset + k) < nx]
        side[:] = _nanmedian(np.stack(windows))
    scale = np.sqrt(errors**2 * (1 + 1.5708 / _REACH))
    up, down = (medians - left) / scale, (medians - right) / scale
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


def _joined(bad: _Flags, significance: FloatArray, config: Config) -> _Flags:
    """Keep runs of bad blocks that are long enough, with gaps and ends filled."""
    out = np.zeros(bad.shape, bool)
    need = min(config.column_blocks, bad.shape[0])
    for x in np.flatnonzero(bad.sum(axis=0) >= need):
        blocks = np.flatnonzero(bad[:, x])
        sign = np.sign(significance[blocks, x].sum())
        blocks = blocks[np.sign(significance[blocks, x]) == sign]
        for run in np.split(blocks, np.flatnonzero(np.diff(blocks) > 3) + 1):
            if len(run) >= need:
                # The block in which it begins is bad in part only.
                out[max(run[0] - 1, 0) : run[-1] + 2, x] = True
    return out
