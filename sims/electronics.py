"""From charge in pixels to numbers in a file: gain, linearity, crosstalk, pedestal, noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.camera import Amplifier, Detector, Section
from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image
from sims.artefacts import ARTEFACTS, Map
from sims.streams import stream

__all__ = ["Pedestal", "counts", "full_well", "linearised", "measured", "read_out", "regions"]

_OVER_SATURATION = 1.03  # full well over the published saturation level
_GHOST = 3.0  # ADU from which a ghost is marked, half a sigma of a dark g sky
_OU_ROWS = 150.0


def _calibrated(amp: Amplifier) -> tuple[FloatArray, FloatArray]:
    """Nodes and corrections within the calibrated range; the last correction holds beyond."""
    if len(amp.linearity_nodes) == 0:
        return np.array([0.0, 65535.0]), np.zeros(2)
    last = int(np.flatnonzero(amp.linearity != 0.0)[-1]) if amp.linearity.any() else 0
    return amp.linearity_nodes[: last + 1], amp.linearity[: last + 1]


def linearised(amp: Amplifier, adu: npt.ArrayLike) -> FloatArray:
    """Linear counts (ADU) of measured ones; the table is continued by its last value."""
    nodes, correction = _calibrated(amp)
    return np.asarray(adu, float) + np.interp(adu, nodes, correction)


def measured(amp: Amplifier, adu: npt.ArrayLike) -> FloatArray:
    """Measured counts (ADU) of linear ones: the exact inverse of `linearised`."""
    nodes, correction = _calibrated(amp)
    linear = np.asarray(adu, float)
    return linear - np.interp(linear, nodes + correction, correction)


def full_well(detector: Detector) -> Image:
    """Capacity in electrons of the pixels of each trimmed column and row half, ``(ny, nx)``."""
    out = np.empty(detector.shape, np.float32)
    for amp in detector.amplifiers:
        level = _OVER_SATURATION * amp.saturation
        out[amp.trimmed.slices] = amp.gain * linearised(amp, level)
    return out


def counts(detector: Detector, charge: Image) -> Image:
    """Measured counts of every trimmed pixel, ADU above the pedestal, without crosstalk."""
    out = np.empty(detector.shape, np.float32)
    for amp in detector.amplifiers:
        nodes, correction = _calibrated(amp)
        box = amp.trimmed
        _to_counts(
            charge,
            out,
            np.array([box.x0, box.x1, box.y0, box.y1]),
            1.0 / amp.gain,
            nodes + correction,
            correction,
        )
    return out


@compiled
def _to_counts(
    charge: Image,
    out: Image,
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
            if linear <= nodes[0] or last == 0:
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
            out[y, x] = np.float32(linear - c)


def regions(detector: Detector) -> list[Section]:
    """Which raw pixels each amplifier reads, prescans and postscans included.

    The frame is cut half-way between the hulls of data and overscan of neighbouring channels.
    """
    hulls = [_hull(a.data, a.overscan) for a in detector.amplifiers]
    xs = _cuts([(h.x0, h.x1) for h in hulls], detector.raw_shape[1])
    ys = _cuts([(h.y0, h.y1) for h in hulls], detector.raw_shape[0])
    return [Section(*xs[h.x0, h.x1], *ys[h.y0, h.y1]) for h in hulls]


def _hull(a: Section, b: Section) -> Section:
    return Section(min(a.x0, b.x0), max(a.x1, b.x1), min(a.y0, b.y0), max(a.y1, b.y1))


def _cuts(spans: list[tuple[int, int]], size: int) -> dict[tuple[int, int], tuple[int, int]]:
    ordered = sorted(set(spans))
    edges = [0, *((a[1] + b[0]) // 2 for a, b in zip(ordered, ordered[1:], strict=False)), size]
    return {span: (edges[i], edges[i + 1]) for i, span in enumerate(ordered)}


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
    return out


def read_out(
    rng: np.random.Generator,
    detector: Detector,
    planes: Mapping[int, Image],
    pedestal: Pedestal,
    artefacts: Map,
) -> npt.NDArray[np.uint16]:
    """Read a detector out.

    Parameters
    ----------
    rng : numpy.random.Generator
        Read noise.
    detector : Detector
        The detector.
    planes : mapping of int to ndarray, (ny, nx), ADU
        `counts` of the detector and of those that leak into it; absent ones leak nothing.
    pedestal : Pedestal
        What is there without light.
    artefacts : ndarray, (ny, nx), uint32
        Gets the bit of crosstalk ghosts.

    Returns
    -------
    ndarray, raw_shape, uint16, ADU
        The raw frame.
    """
    numbers = [detector.number, *sorted(set(planes) - {detector.number})]
    stack = np.stack([planes[n] for n in numbers])
    noise = rng.standard_normal(detector.raw_shape, dtype=np.float32)
    raw = np.empty(detector.raw_shape, np.uint16)
    bit = 1 << list(ARTEFACTS).index("CROSSTALK")
    for i, (amp, region) in enumerate(zip(detector.amplifiers, regions(detector), strict=True)):
        where, strength = _leaks(detector, amp, numbers)
        _digitise(
            raw,
            noise,
            np.float32(amp.read_noise / amp.gain),
            pedestal.rows[i],
            pedestal.structure,
            stack,
            _box(region),
            _box(amp.data),
            _box(amp.trimmed),
            np.array([amp.at_top, amp.at_right], np.int64),
            where,
            strength,
            artefacts,
            bit,
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
    corner: npt.NDArray[np.int64],
    where: npt.NDArray[np.int64],
    strength: FloatArray,
    artefacts: Map,
    bit: int,
) -> None:
    for y in range(region[2], region[3]):
        for x in range(region[0], region[1]):
            value = rows[y] + sigma * noise[y, x]
            if data[0] <= x < data[1] and data[2] <= y < data[3]:
                dx, dy = x - data[0], y - data[2]
                tx, ty = trimmed[0] + dx, trimmed[2] + dy
                value += structure[ty, tx] + stack[0, ty, tx]
                if corner[0]:
                    dy = data[3] - data[2] - 1 - dy
                if corner[1]:
                    dx = data[1] - data[0] - 1 - dx
                ghost = 0.0
                for k in range(len(where)):
                    w = where[k]
                    sy = w[4] - 1 - dy if w[5] else w[3] + dy
                    sx = w[2] - 1 - dx if w[6] else w[1] + dx
                    ghost += _leak(stack[w[0], sy, sx], strength[k])
                if abs(ghost) > _GHOST:
                    artefacts[ty, tx] |= np.uint32(bit)
                value += ghost
            raw[y, x] = np.uint16(min(max(np.floor(value + 0.5), 0.0), 65535.0))
