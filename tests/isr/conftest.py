"""Synthetic raw frames, made with numpy alone from a camera definition."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.camera import Camera
from pipeline.exposure import RawFrame, VisitInfo


@dataclass
class Scene:
    """A raw frame and what went into it."""

    raw: RawFrame
    detector: object
    electrons: np.ndarray
    bias: np.ndarray
    flat: np.ndarray
    frames: dict = field(default_factory=dict)


def leak(entry, source):
    over = np.maximum(source - entry.onset, 0)
    above = entry.coefficient * entry.onset + entry.p1 * over + entry.p2 * over**2
    above = above + entry.p3 * over**3
    return np.where(source < entry.onset, entry.coefficient * source, above)


def oriented(plane, amp):
    """Pixels in the order of their readout."""
    return plane[:: -1 if amp.at_top else 1, :: -1 if amp.at_right else 1]


def measured(amp, linear):
    """Invert count + correction(count)."""
    last = int(np.flatnonzero(amp.linearity)[-1]) if amp.linearity.any() else 0
    nodes, values = amp.linearity_nodes[: last + 1], amp.linearity[: last + 1]
    return linear - np.interp(linear, nodes + values, values)


def raw_frame(data, number=1, header=None):
    info = VisitInfo(100, number, "g", 86.0, 57070.0)
    return RawFrame(np.ascontiguousarray(data), header or {}, info)


def build(detector, electrons, *, seed=1, noise=True, partners=None, level=2000.0, step=3.0):
    """Raw frame of a detector from expected electrons, trimmed; partners give counts in ADU."""
    rng = np.random.default_rng(seed)
    ny, nx = detector.shape
    yy, xx = np.mgrid[:ny, :nx]
    bias = (3 * np.exp(-yy / 40.0)).astype(np.float32)
    flat = (1 + 0.03 * np.sin(xx / 90.0) * np.cos(yy / 70.0)).astype(np.float32)
    charge = electrons * flat
    if noise:
        charge = rng.poisson(np.maximum(charge, 0)).astype(float)
    counts = {}
    for amp in detector.amplifiers:
        linear = charge[amp.trimmed.slices] / amp.gain
        counts[detector.number, amp.name] = measured(amp, linear)
    counts |= partners or {}
    data = np.zeros(detector.raw_shape)
    rows = np.arange(detector.raw_shape[0])
    for amp in detector.amplifiers:
        drift = level + 0.5 * np.sin(rows / 80.0)
        if detector.bias_step_row:
            drift[detector.bias_step_row :] += step
        drift = drift[::-1] if amp.at_top else drift
        own = counts[detector.number, amp.name]
        ghost = np.zeros(own.shape)
        for entry in detector.crosstalk:
            key = (entry.source, entry.source_amp)
            if entry.victim_amp != amp.name or key not in counts:
                continue
            source = detector.amplifier(entry.source_amp)
            ghost += oriented(oriented(leak(entry, counts[key]), source), amp)
        y0, y1 = amp.data.y0, amp.data.y1
        data[amp.data.slices] = drift[y0:y1, None] + own + ghost + bias[amp.trimmed.slices]
        data[y0:y1, amp.overscan.x0 : amp.overscan.x1] = drift[y0:y1, None]
        sigma = amp.read_noise / amp.gain if noise else 0.0
        for box in (amp.data, amp.overscan):
            part = data[y0:y1, box.x0 : box.x1]
            part += rng.normal(0, sigma, part.shape) if noise else 0.0
    data = np.clip(np.rint(data), 0, 65535).astype(np.uint16)
    return Scene(raw_frame(data, detector.number), detector, electrons, bias, flat)


@pytest.fixture
def tools():
    """The functions above, for tests that cannot import this file."""

    class Tools:
        pass

    for function in (build, leak, oriented, measured, raw_frame):
        setattr(Tools, function.__name__, staticmethod(function))
    return Tools


@pytest.fixture(params=["testcam-S", "testcam-N", "lsstlike"])
def detector(request):
    name, _, half = request.param.partition("-")
    camera = Camera.load(name)
    return camera.detector({"S": 1, "N": 2, "": 1}[half])
