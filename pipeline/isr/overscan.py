"""The level without light, row by row, from the serial overscan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.camera import Amplifier
from pipeline.compiled import compiled
from pipeline.exposure import FloatArray
from pipeline.isr.config import Config
from pipeline.statistics import mad_std

__all__ = ["Levels", "measure"]


_WIDE = 5  # half width of the window for gross errors, in units of the smoothing


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Bias level of one amplifier.

    Attributes
    ----------
    rows : ndarray, (n,), ADU
        Level of each row of the amplifier's data, in the order of the raw frame.
    corrupted : ndarray, (n,), bool
        Rows whose own overscan could not be used.
    scatter : float, ADU
        Robust scatter of the row means round the smoothed level.
    """

    rows: FloatArray
    corrupted: npt.NDArray[np.bool_]
    scatter: float


def measure(data: npt.NDArray[np.uint16], amp: Amplifier, step_row: int, config: Config) -> Levels:
    """Measure the level of every row of an amplifier.

    The clipped mean of a row follows the drift of the electronics but is noisy, and its noise
    would be common to the whole row; so means are smoothed along the rows.  Where the level is
    known to step, because other detectors on the same backplane finish their readout, the
    smoothing is broken.

    Parameters
    ----------
    data : ndarray, raw_shape, uint16, ADU
        Raw frame.
    amp : Amplifier
        Its sections, corner and read noise.
    step_row : int
        Row, counted from the start of the readout, at which the level steps; 0 for none.
    config : Config
        Clipping and smoothing.

    Returns
    -------
    Levels
        For the rows of ``amp.data``.
    """
    noise = max(amp.read_noise / amp.gain, 0.3)  # whole ADU: never below quantisation
    trim = config.overscan_trim if amp.overscan.shape[1] > 4 * config.overscan_trim else 0
    columns = slice(amp.overscan.x0 + trim, amp.overscan.x1 - trim)
    strip = np.ascontiguousarray(data[amp.data.y0 : amp.data.y1, columns], np.float64)
    means, shares = _clipped_means(strip, config.overscan_clip * noise)
    if amp.at_top:
        means, shares = means[::-1], shares[::-1]
    bounds = [0, *([step_row] if 0 < step_row < len(means) else []), len(means)]
    rows, corrupted = np.empty_like(means), np.zeros(len(means), bool)
    for low, high in pairwise(bounds):
        part = slice(low, high)
        corrupted[part] = _corrupted(means[part], shares[part], noise, config)
        rows[part] = _running_mean(means[part], ~corrupted[part], config.overscan_smooth)
    scatter = mad_std(means - rows, 0.0)
    if amp.at_top:
        rows, corrupted = rows[::-1].copy(), corrupted[::-1].copy()
    return Levels(rows, corrupted, scatter)


@compiled
def _clipped_means(strip: FloatArray, clip: float) -> tuple[FloatArray, FloatArray]:
    """Mean of the values near the median of each row, and their share."""
    rows, columns = strip.shape
    means, shares = np.empty(rows), np.empty(rows)
    for y in range(rows):
        centre = np.median(strip[y])
        total = count = 0.0
        for x in range(columns):
            if abs(strip[y, x] - centre) <= clip:
                total += strip[y, x]
                count += 1.0
        means[y] = total / count if count > 0 else centre
        shares[y] = count / columns
    return means, shares


def _corrupted(
    means: FloatArray, shares: FloatArray, noise: float, config: Config
) -> npt.NDArray[np.bool_]:
    """Rows that depart from their neighbours, or whose overscan is mostly clipped.

    A bleed into the serial register corrupts dozens of rows at the end that is read first, so a
    wide window with a generous bound goes before the narrow one with the tight bound.
    """
    bad = shares < 0.5
    for half, spare in ((_WIDE * config.overscan_smooth, noise), (config.overscan_smooth, 0.0)):
        if bad.all():
            break
        index = np.arange(len(means))
        filled = np.interp(index, index[~bad], means[~bad])
        residual = means - _running_median(filled, half)
        scatter = max(mad_std(residual, 0.0), 0.05 * noise)
        bad |= np.abs(residual) > config.overscan_reject * scatter + spare
    return bad if not bad.all() else np.zeros(len(means), bool)


def _running_median(values: FloatArray, half: int) -> FloatArray:
    from scipy.ndimage import median_filter

    # Repeating the last value, as other modes do, would give it half of the votes.
    half = min(half, len(values) - 1)
    return np.asarray(median_filter(values, 2 * half + 1, mode="mirror"))


def _running_mean(means: FloatArray, good: npt.NDArray[np.bool_], half: int) -> FloatArray:
    """Mean over the good rows within `half` rows; the nearest good ones where there are none."""
    n = len(means)
    index = np.arange(n)
    filled = np.interp(index, index[good], means[good])
    weight = np.where(good, 1.0, 1e-6)
    total = np.concatenate([[0.0], np.cumsum(weight * (filled - filled[0]))])
    norm = np.concatenate([[0.0], np.cumsum(weight)])
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, n)
    return np.asarray((total[high] - total[low]) / (norm[high] - norm[low]) + filled[0])
