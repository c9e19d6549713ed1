"""The one loop from raw counts to electrons."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.camera import Amplifier
from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, Mask
from pipeline.isr.config import Config
from pipeline.isr.overscan import Levels
from pipeline.masks import bits

__all__ = ["FULL_SCALE", "correct", "linearity_table"]

FULL_SCALE = 65535
"""Largest value of the converter: counts there are clipped, whatever their level."""

_SAT = int(bits("SAT"))
_DEAD = int(bits("BAD", "NO_DATA"))


def linearity_table(amp: Amplifier, *, apply: bool = True) -> tuple[FloatArray, float]:
    """Correction to add at every whole count, and the count up to which it is known.

    Published tables are zero beyond the calibrated range.  There the last slope is continued up
    to the next node, and everything beyond counts as saturated.

    Parameters
    ----------
    amp : Amplifier
        Its nodes and corrections.
    apply : bool
        False for a table of zeros.

    Returns
    -------
    table : ndarray, (65537,), ADU
        Linear in between whole counts.
    limit : float, ADU
        End of the range.
    """
    counts = np.arange(FULL_SCALE + 2, dtype=float)
    if not apply or not amp.linearity.any():
        return np.zeros(len(counts)), float("inf")
    last = int(np.flatnonzero(amp.linearity)[-1])
    nodes, values = amp.linearity_nodes, amp.linearity
    table = np.interp(counts, nodes[: last + 1], values[: last + 1])
    if last + 1 == len(nodes):
        return table, float("inf")
    slope = (values[last] - values[last - 1]) / (nodes[last] - nodes[last - 1]) if last else 0.0
    beyond = np.clip(counts, nodes[last], nodes[last + 1]) - nodes[last]
    return table + slope * beyond, float(nodes[last + 1])


def correct(
    data: npt.NDArray[np.uint16],
    amp: Amplifier,
    levels: Levels,
    ghost: Image,
    bias: Image,
    flat: Image,
    planes: tuple[Image, Image, Mask],
    config: Config,
) -> None:
    """Turn the raw counts of one amplifier into electrons, in place of the trimmed planes.

    In the order of the physics: overscan level, saturation on the amplifier's own counts,
    crosstalk, linearity, bias, gain, variance ``max(e, 0) + read noise²``, flat.

    Parameters
    ----------
    data : ndarray, raw_shape, uint16, ADU
        Raw frame.
    amp : Amplifier
        Sections and electronics.
    levels : Levels
        Overscan.
    ghost : ndarray, shape of the amplifier, float32, ADU
        Crosstalk to subtract.
    bias, flat : ndarray, shape of the detector, float32
        Trimmed calibration frames; ADU and pure number.
    planes : tuple of ndarray, shape of the detector
        Image and variance (electrons) and mask to write to.
    config : Config
        Switches.
    """
    table, limit = linearity_table(amp, apply=config.linearity)
    where = amp.trimmed.slices
    image, variance, mask = planes
    noise = amp.read_noise**2 + config.calibration_noise**2
    numbers = np.array([min(amp.saturation, limit), amp.gain, noise, config.least_flat, limit])
    _correct(
        data[amp.data.slices],
        levels.rows,
        ghost,
        table,
        bias[where],
        flat[where],
        numbers,
        image[where],
        variance[where],
        mask[where],
    )


@compiled
def _correct(
    raw: npt.NDArray[np.uint16],
    rows: FloatArray,
    ghost: Image,
    table: FloatArray,
    bias: Image,
    flat: Image,
    numbers: FloatArray,
    image: Image,
    variance: Image,
    mask: Mask,
) -> None:
    for y in range(len(raw)):
        _correct_row(
            raw[y],
            rows[y],
            ghost[y],
            table,
            bias[y],
            flat[y],
            numbers,
            image[y],
            variance[y],
            mask[y],
        )


@compiled
def _correct_row(
    raw: npt.NDArray[np.uint16],
    level: float,
    ghost: Image,
    table: FloatArray,
    bias: Image,
    flat: Image,
    numbers: FloatArray,
    image: Image,
    variance: Image,
    mask: Mask,
) -> None:
    saturation, gain, noise, least_flat, limit = numbers
    nan, none = np.float32(np.nan), np.uint32(0)
    for x in range(len(raw)):  # no branches: this becomes vectors
        count = raw[x] - level
        full = (count >= saturation) | (raw[x] >= 65535)
        count -= np.float64(ghost[x])
        full |= count > limit
        known = count == count
        inside = min(max(count, 0.0), 65535.0) if known else 0.0
        place = np.uint64(np.int64(inside))
        part = min(max(count - np.float64(np.int64(inside)), 0.0), 1.0)
        below, above = table[place], table[place + np.uint64(1)]
        electrons = (count + (below + part * (above - below)) - np.float64(bias[x])) * gain
        spread = max(electrons, 0.0) + noise
        f = np.float64(flat[x])
        inverse = 1.0 / f
        good = known & (f >= least_flat)
        image[x] = np.float32(electrons * inverse) if good else nan
        variance[x] = np.float32(spread * inverse * inverse) if good else nan
        mask[x] |= (np.uint32(_SAT) if full else none) | (none if good else np.uint32(_DEAD))
