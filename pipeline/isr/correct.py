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
    saturation, gain, noise, least_flat, limit = numbers
    ny, nx = raw.shape
    for y in range(ny):
        for x in range(nx):
            count = raw[y, x] - rows[y]
            if count >= saturation or raw[y, x] >= 65535:
                mask[y, x] |= np.uint32(_SAT)
            count -= np.float64(ghost[y, x])
            if count > limit:
                mask[y, x] |= np.uint32(_SAT)
            if count != count:
                image[y, x] = variance[y, x] = np.float32(np.nan)
                mask[y, x] |= np.uint32(_DEAD)
                continue
            place = int(min(max(count, 0.0), 65535.0))
            part = min(max(count - place, 0.0), 1.0)
            count += table[place] + part * (table[place + 1] - table[place])
            electrons = (count - np.float64(bias[y, x])) * gain
            spread = max(electrons, 0.0) + noise
            f = np.float64(flat[y, x])
            if f >= least_flat:
                inverse = 1.0 / f
                image[y, x] = np.float32(electrons * inverse)
                variance[y, x] = np.float32(spread * inverse * inverse)
            else:
                image[y, x] = np.float32(np.nan)
                variance[y, x] = np.float32(np.nan)
                mask[y, x] |= np.uint32(_DEAD)
