"""From charge in pixels to numbers in a file: gain, linearity, crosstalk, pedestal, noise."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.camera import Amplifier, Detector, Section
from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image
from sims.artefacts import Map, bit
from sims.streams import stream

__all__ = [
    "Pedestal",
    "Spill",
    "full_well",
    "linearised",
    "measured",
    "read_out",
    "regions",
    "spill",
    "to_counts",
]

_OVER_SATURATION = 1.03  # full well over the published saturation level
_GHOST = 3.0  # ADU from which a ghost is marked, half a sigma of a dark g sky
_OU_ROWS = 150.0
_SPILL_ROWS = 48  # rows at most that a bleed into the serial register corrupts
_REGISTER_WELLS = 40.0  # capacity of the register in full wells of a pixel
_DEFERRED = 0.4  # fraction of the spilled level that is still there in the overscan


def _calibrated(amp: Amplifier) -> tuple[FloatArray, FloatArray]:
    """Nodes and corrections within the calibrated range; the last correction holds beyond."""
    if len(amp.linearity_nodes) == 0:
        return np.array([0.0, 65535.0]), np.zeros(2)
    last = int(np.flatnonzero(amp.linearity != 0.0)[-1]) if amp.linearity.any() else 0
    return amp.linearity_nodes[: last + 1], amp.linearity[: last + 1]


def linearised(amp: Amplifier, adu: float | FloatArray) -> FloatArray:
    """Linear counts (ADU) of measured ones; the table is continued by its last value.

    Parameters
    ----------
    amp : Amplifier
        Channel with its table of linearity.
    adu : float or ndarray, ADU
        Measured counts above the pedestal.

    Returns
    -------
    ndarray, same shape, ADU
        Linear counts.
    """
    nodes, correction = _calibrated(amp)
    return np.asarray(adu + np.interp(adu, nodes, correction))


def measured(amp: Amplifier, adu: float | FloatArray) -> FloatArray:
    """Measured counts (ADU) of linear ones: the exact inverse of `linearised`.

    Parameters
    ----------
    amp : Amplifier
        Channel with its table of linearity.
    adu : float or ndarray, ADU
        Linear counts above the pedestal.

    Returns
    -------
    ndarray, same shape, ADU
        Measured counts.
    """
    nodes, correction = _calibrated(amp)
    return np.asarray(adu - np.interp(adu, nodes + correction, correction))


def full_well(amp: Amplifier) -> float:
    """Return the capacity of a channel's pixels in electrons.

    Parameters
    ----------
    amp : Amplifier
        The channel.

    Returns
    -------
    float, electron
        Capacity of one pixel.
    """
    return float(amp.gain * linearised(amp, _OVER_SATURATION * amp.saturation))


def to_counts(detector: Detector, charge: Image) -> None:
    """Turn charge (electron) in place into measured counts (ADU) without pedestal or crosstalk.

    Parameters
    ----------
    detector : Detector
        Its channels have gain and linearity.
    charge : ndarray, (ny, nx), float32, electron
        Trimmed image; ADU afterwards.
    """
    for amp in detector.amplifiers:
        nodes, correction = _calibrated(amp)
        box = amp.trimmed
        _to_counts(
            charge,
            np.array([box.x0, box.x1, box.y0, box.y1]),
            1.0 / amp.gain,
            nodes + correction,
            correction,
        )


@compiled
def _to_counts(
    charge: Image,
    box: npt.NDArray[np.int64],
    per_electron: float,
    nodes: FloatArray,
    correction: FloatArray,
) -> None:
    # Nodes are nearly evenly spaced: guess the interval, then step to the right one.
    last = len(nodes) - 1
    pace = last / (nodes[last] - nodes[0]) if last > 0 else 0.0
    for y in range(box[2], box[3]):
        for x in range(box[0], box[1]):
            linear = charge[y, x] * per_electron
            if linear != linear:
                c = linear
            elif linear <= nodes[0] or last == 0:
                c = correction[0]
            elif linear >= nodes[last]:
                c = correction[last]
            else:
                i = min(int((linear - nodes[0]) * pace), last - 1)
                while nodes[i] > linear:
                    i -= 1
                while nodes[i + 1] < linear:
                    i += 1
                t = (linear - nodes[i]) / (nodes[i + 1] - nodes[i])
                c = correction[i] + t * (correction[i + 1] - correction[i])
            charge[y, x] = np.float32(linear - c)


def regions(detector: Detector) -> list[Section]:
    """Which raw pixels each amplifier reads, prescans and postscans included.

    The frame is cut half-way between the hulls of data and overscan of neighbouring channels.

    Parameters
    ----------
    detector : Detector
        The detector.

    Returns
    -------
    list of Section
        One per amplifier, in raw pixels.
    """
    hulls = [_hull(a.data, a.overscan) for a in detector.amplifiers]
    xs = _cuts([(h.x0, h.x1) for h in hulls], detector.raw_shape[1])
    ys = _cuts([(h.y0, h.y1) for h in hulls], detector.raw_shape[0])
    return [Section(*xs[h.x0, h.x1], *ys[h.y0, h.y1]) for h in hulls]


def _hull(a: Section, b: Section) -> Section:
    return Section(min(a.x0, b.x0), max(a.x1, b.x1), min(a.y0, b.y0), max(a.y1, b.y1))


def _cuts(spans: list[tuple[int, int]], size: int) -> dict[tuple[int, int], tuple[int, int]]:
    ordered = sorted(set(spans))
    edges = [0, *((a[1] + b[0]) // 2 for a, b in itertools.pairwise(ordered)), size]
    return {span: (edges[i], edges[i + 1]) for i, span in enumerate(ordered)}


@dataclass(frozen=True, slots=True, eq=False)
class Spill:
    """Charge that bleeding columns left in the serial registers.

    Attributes
    ----------
    image : ndarray, (n_amps, n_rows), ADU
        Level on the pixels of the first rows that each channel reads.
    overscan : ndarray, (n_amps, n_rows), ADU
        Level that is still there when the overscan of those rows is read.
    """

    image: FloatArray
    overscan: FloatArray


def spill(detector: Detector, over: FloatArray) -> Spill:
    """Spread charge that ran into the serial registers over the rows that are read first.

    A register holds `_REGISTER_WELLS` full wells of a pixel; what does not fit waits and comes
    out with the following rows.

    Parameters
    ----------
    detector : Detector
        The detector.
    over : ndarray, (n_amps, nx), electron
        Charge by column, zero outside a channel's columns.

    Returns
    -------
    Spill
        Levels on the image and on the overscan.
    """
    image = np.zeros((len(detector.amplifiers), _SPILL_ROWS))
    for i, amp in enumerate(detector.amplifiers):
        charge = float(over[i].sum()) / amp.gain
        if charge <= 0.0:
            continue
        width = amp.trimmed.x1 - amp.trimmed.x0
        full = _REGISTER_WELLS * amp.saturation * np.exp(-np.arange(_SPILL_ROWS) / 12.0)
        share = np.minimum(full, np.maximum(charge - np.cumsum(full) + full, 0.0))
        image[i] = share / width
    return Spill(image, _DEFERRED * image)


@dataclass(frozen=True, slots=True, eq=False)
class Pedestal:
    """What a frame holds without any light.

    Attributes
    ----------
    rows : ndarray, (n_amps, raw_ny), ADU
        Level of each raw row: mean, drift and step.
    structure : ndarray, (ny, nx), ADU
        Fixed pattern of the trimmed pixels, the true bias image.
    """

    rows: FloatArray
    structure: Image

    @classmethod
    def draw(cls, seed: int, visit: int, detector: Detector) -> Pedestal:
        """Draw the pedestal of one frame; the structure is the same in every visit."""
        rows = [_rows(seed, visit, detector, i) for i in range(len(detector.amplifiers))]
        return cls(np.array(rows), _structure(seed, detector))


def _rows(seed: int, visit: int, detector: Detector, i: int) -> FloatArray:
    fixed = stream(seed, 0, detector.number, f"bias level {i}")
    rng = stream(seed, visit, detector.number, f"bias drift {i}")
    n = detector.raw_shape[0]
    t = np.arange(n)
    level = fixed.uniform(1500.0, 2500.0) + rng.normal(0.0, 3.0)
    step = fixed.choice([-1.0, 1.0]) * fixed.uniform(0.8, 4.0) + rng.normal(0.0, 0.2)
    slow = rng.normal(0.0, 1.0, n // int(_OU_ROWS) + 3)
    drift = 0.8 * np.interp(t / _OU_ROWS, np.arange(len(slow)), slow)
    rows = level + drift + rng.uniform(-2.0, 2.0) * t / n
    if detector.bias_step_row:
        rows[detector.bias_step_row :] += step
    return rows[::-1] if detector.amplifiers[i].at_top else rows


@lru_cache(maxsize=1)
def _structure(seed: int, detector: Detector) -> Image:
    out = np.zeros(detector.shape, np.float32)
    for i, amp in enumerate(detector.amplifiers):
        rng = stream(seed, 0, detector.number, f"bias structure {i}")
        ny, nx = amp.trimmed.shape
        row = rng.uniform(2.0, 5.0) * np.exp(-np.arange(ny) / 60.0)
        column = rng.uniform(1.0, 4.0) * np.exp(-np.arange(nx) / 30.0) + rng.normal(0.0, 0.2, nx)
        row = row[::-1] if amp.at_top else row
        column = column[::-1] if amp.at_right else column
        out[amp.trimmed.slices] = row[:, None] + column[None, :]
    out.flags.writeable = False
    return out


def read_out(
    rng: np.random.Generator,
    detector: Detector,
    planes: npt.NDArray[np.float32],
    numbers: list[int],
    pedestal: Pedestal,
    spilled: Spill,
    artefacts: Map,
) -> npt.NDArray[np.uint16]:
    """Read a detector out.

    Parameters
    ----------
    rng : numpy.random.Generator
        Read noise.
    detector : Detector
        The detector.
    planes : ndarray, (n, ny, nx), float32, ADU
        Measured counts of the detector, first, and of those that leak into it.
    numbers : list of int
        Their CCD numbers.
    pedestal : Pedestal
        What is there without light.
    spilled : Spill
        Charge in the serial registers.
    artefacts : ndarray, (ny, nx), uint32
        Gets the bits of crosstalk ghosts and of rows with spilled charge.

    Returns
    -------
    ndarray, raw_shape, uint16, ADU
        The raw frame.
    """
    noise = rng.standard_normal(detector.raw_shape, dtype=np.float32)
    raw = np.empty(detector.raw_shape, np.uint16)
    bits = np.array([bit("CROSSTALK"), bit("EDGEBLEED")], np.int64)
    for i, (amp, region) in enumerate(zip(detector.amplifiers, regions(detector), strict=True)):
        where, strength = _leaks(detector, amp, numbers)
        _digitise(
            raw,
            noise,
            np.float32(amp.read_noise / amp.gain),
            pedestal.rows[i],
            pedestal.structure,
            planes,
            _box(region),
            _box(amp.data),
            _box(amp.trimmed),
            _box(amp.overscan),
            np.array([amp.at_top, amp.at_right], np.int64),
            where,
            strength,
            spilled.image[i],
            spilled.overscan[i],
            artefacts,
            bits,
        )
    return raw


def _box(section: Section) -> npt.NDArray[np.int64]:
    return np.array([section.x0, section.x1, section.y0, section.y1], np.int64)


def _leaks(
    detector: Detector, victim: Amplifier, numbers: list[int]
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    # All detectors of a camera have one layout of amplifiers per name, up to their own half.
    where, strength = [], []
    for c in detector.crosstalk:
        if c.victim_amp != victim.name or c.source not in numbers:
            continue
        source = detector.amplifier(c.source_amp)
        box = source.trimmed
        plane = numbers.index(c.source)
        where.append([plane, box.x0, box.x1, box.y0, box.y1, source.at_top, source.at_right])
        strength.append([c.coefficient, c.onset, c.p1, c.p2, c.p3])
    return (
        np.array(where, np.int64).reshape(-1, 7),
        np.array(strength, float).reshape(-1, 5),
    )


@compiled
def _leak(source: float, s: FloatArray) -> float:
    # Linear below the onset, a cubic in the excess above it.
    if source < s[1]:
        return float(s[0] * source)
    over = source - s[1]
    return float(s[0] * s[1] + over * (s[2] + over * (s[3] + over * s[4])))


@compiled
def _digitise(
    raw: npt.NDArray[np.uint16],
    noise: Image,
    sigma: np.float32,
    rows: FloatArray,
    structure: Image,
    stack: npt.NDArray[np.float32],
    region: npt.NDArray[np.int64],
    data: npt.NDArray[np.int64],
    trimmed: npt.NDArray[np.int64],
    overscan: npt.NDArray[np.int64],
    corner: npt.NDArray[np.int64],
    where: npt.NDArray[np.int64],
    strength: FloatArray,
    spilled: FloatArray,
    deferred: FloatArray,
    artefacts: Map,
    bits: npt.NDArray[np.int64],
) -> None:
    width = data[1] - data[0]
    value = np.empty(region[1] - region[0])
    ghost = np.empty(width)
    inside = value[data[0] - region[0] : data[1] - region[0]]
    for y in range(region[2], region[3]):
        read = data[3] - 1 - y if corner[0] else y - data[2]
        flooded = 0 <= read < len(spilled) and spilled[read] > 0.0
        for i in range(len(value)):
            value[i] = rows[y] + sigma * noise[y, region[0] + i]
        if flooded:
            value[overscan[0] - region[0] : overscan[1] - region[0]] += deferred[read]
        if data[2] <= y < data[3]:
            ty = trimmed[2] + y - data[2]
            fixed, charge = structure[ty, trimmed[0] :], stack[0, ty, trimmed[0] :]
            for i in range(width):
                inside[i] += fixed[i] + charge[i]
            _haunt(ghost, stack, read, corner[1], where, strength)
            marks = artefacts[ty, trimmed[0] :]
            for i in range(width):
                if abs(ghost[i]) > _GHOST:
                    marks[i] |= np.uint32(bits[0])
            if flooded:
                for i in range(width):
                    marks[i] |= np.uint32(bits[1])
                    inside[i] += spilled[read]
            for i in range(width):
                inside[i] += ghost[i]
        for i in range(len(value)):
            raw[y, region[0] + i] = np.uint16(min(max(np.floor(value[i] + 0.5), 0.0), 65535.0))


@compiled
def _haunt(
    ghost: FloatArray,
    stack: npt.NDArray[np.float32],
    read: int,
    from_right: int,
    where: npt.NDArray[np.int64],
    strength: FloatArray,
) -> None:
    # Ghosts on one row, the `read`-th after the start of the readout, of all that leaks into it:
    # what the sources' channels read at the same moment.
    n = len(ghost)
    ghost[:] = 0.0
    for k in range(len(where)):
        w = where[k]
        row = stack[w[0], w[4] - 1 - read if w[5] else w[3] + read, w[1] : w[2]]
        mirrored = w[6] != from_right
        for i in range(n):
            ghost[i] += _leak(row[n - 1 - i] if mirrored else row[i], strength[k])
