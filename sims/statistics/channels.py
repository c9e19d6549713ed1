"""Laboratory measurements of a simulated detector: gain, noise, linearity, crosstalk.

Frames of known illumination go through the electronics that all frames go through; the analysis
sees raw pixels and the sections of the header, never the parts they were made of.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline.camera import Amplifier, Camera, Crosstalk, Detector
from pipeline.exposure import FloatArray
from sims import electronics
from sims.electronics import Pedestal, linearised, read_out, spill
from sims.statistics.rows import Curve, Row, Statistics
from sims.streams import stream

__all__ = ["laboratory"]

_LEVELS = (0.0, 20_000.0, 60_000.0)  # electrons of the flat fields
_VARIANCE_ERROR = 0.0015  # several standard errors of a gain fit into a percent
_MEAN_ERROR = 0.0025  # of a pixel's noise, with which the mean of a channel is known
_BLOCK = 16  # pixels on a side of the patches that leak
_PATCH = 35_000.0  # ADU of the brightest, below the onset of the nonlinear branch
_FULL = 0.95  # of the saturation level, end of the ramp
_RAMP_ROWS = 16  # rows averaged: the overscan knows a single one to 0.2 ADU only
_WEAKEST = 1e-4  # smallest coefficient with a bound
_LIT = tuple[Detector, FloatArray]


def laboratory(camera: Camera, number: int, *, seed: int) -> Statistics:
    """Measure a detector on frames of the laboratory.

    Gain and read noise come from the photon transfer of pairs of flat fields (Janesick 2001), the
    linearity curve from a ramp of injected charge, crosstalk from a regression of what one channel
    shows upon what another holds.

    Parameters
    ----------
    camera : Camera
        The true camera.
    number : int
        One of its detectors.
    seed : int
        Seed of the frames.

    Returns
    -------
    Statistics
        For every channel gain and read noise within 1 %, the linearity curve within 1 ADU; every
        crosstalk coefficient beyond 10⁻⁴ within 5 %.
    """
    bench = _Bench(camera, camera.detector(number), seed)
    amps = bench.detector.amplifiers
    dark = bench.counts(np.zeros(bench.detector.shape))
    curves = [_linearity(bench, amp, dark) for amp in amps]
    return Statistics.join([_photon_transfer(bench), *curves, _crosstalk(bench, dark)])


class _Bench:
    """A detector in the laboratory: exposes frames, each with noise of its own.

    Small channels are exposed often enough to be known as well as large ones.
    """

    def __init__(self, camera: Camera, detector: Detector, seed: int) -> None:
        self.camera, self.detector, self.seed, self.shots = camera, detector, seed, 0
        self.pixels = math.prod(detector.amplifiers[0].trimmed.shape)
        self.pairs = math.ceil(2.0 / (self.pixels * _VARIANCE_ERROR**2))
        self.repeats = math.ceil(1.0 / (self.pixels * _MEAN_ERROR**2))

    def expose(self, charge: FloatArray, *others: _LIT) -> npt.NDArray[np.uint16]:
        """Read out the detector holding a charge (electron) while others hold theirs."""
        self.shots += 1
        return _expose(self.seed, self.shots, (self.detector, charge), *others)

    def counts(self, charge: FloatArray, *others: _LIT) -> dict[str, FloatArray]:
        """Return mean counts of all channels above their overscan, in the order of the readout."""
        frames = [self.expose(charge, *others) for _ in range(self.repeats)]
        amps = self.detector.amplifiers
        return {a.name: np.mean([_counts(raw, a) for raw in frames], axis=0) for a in amps}


def _expose(seed: int, shot: int, first: _LIT, *others: _LIT) -> npt.NDArray[np.uint16]:
    detector = first[0]
    lit = [first, *others]
    planes = np.stack([charge.astype(np.float32) for _, charge in lit])
    for (d, _), plane in zip(lit, planes, strict=True):
        electronics.to_counts(d, plane)
    dry = np.zeros((len(detector.amplifiers), detector.shape[1]))
    return read_out(
        stream(seed, shot, detector.number, "laboratory"),
        detector,
        planes,
        [d.number for d, _ in lit],
        Pedestal.draw(seed, shot, detector),
        spill(detector, dry),
        np.zeros(detector.shape, np.uint32),
    )


def _counts(raw: npt.NDArray[np.uint16], amp: Amplifier) -> FloatArray:
    level = raw[amp.data.y0 : amp.data.y1, amp.overscan.x0 : amp.overscan.x1].mean(axis=1)
    counts = raw[amp.data.slices] - level[:, None]
    counts = counts[::-1] if amp.at_top else counts
    return np.asarray(counts[:, ::-1] if amp.at_right else counts)


def _photon_transfer(bench: _Bench) -> Statistics:
    detector = bench.detector
    amps = detector.amplifiers
    rng = stream(bench.seed, 0, detector.number, "flat fields")
    sums = np.zeros((len(_LEVELS), len(amps), 2))
    for i, level in enumerate(_LEVELS):
        for _ in range(bench.pairs):
            one, two = (
                bench.expose(rng.poisson(level, detector.shape).astype(float)) for _ in range(2)
            )
            sums[i] += [_mean_and_variance(one, two, amp) for amp in amps]
    points, n = sums / bench.pairs, bench.pairs * bench.pixels
    return Statistics.join(_transfer_of(detector, a, points[:, k], n) for k, a in enumerate(amps))


def _mean_and_variance(
    one: npt.NDArray[np.uint16], two: npt.NDArray[np.uint16], amp: Amplifier
) -> tuple[float, float]:
    a, b = (linearised(amp, _counts(raw, amp)) for raw in (one, two))
    return 0.5 * float(a.mean() + b.mean()), 0.5 * float((a - b).var())


def _transfer_of(detector: Detector, amp: Amplifier, points: FloatArray, pixels: int) -> Statistics:
    subject = f"CCD {detector.number} {amp.name}"
    mean, variance = (points - points[0]).T
    gain = float(np.mean(mean[1:] / variance[1:]))
    # The mean of the overscan columns and the rounding have their own variance.
    columns = amp.overscan.x1 - amp.overscan.x0
    noise = gain * math.sqrt(points[0, 1] / (1 + 1 / columns) - 1 / 12)
    rows = (
        Row("gain", subject, gain, amp.gain, 0.01, "electron/ADU", pixels, relative=True),
        Row("read noise", subject, noise, amp.read_noise, 0.01, "electron", pixels, relative=True),
    )
    curve = Curve(
        f"photon transfer, {subject}", "signal, ADU", "variance, ADU²",
        mean, variance, mean / amp.gain,
    )  # fmt: skip
    return Statistics(rows, (curve,))


def _linearity(bench: _Bench, amp: Amplifier, dark: dict[str, FloatArray]) -> Statistics:
    # Charge in one channel only, rising from row to row in the order of the readout.
    detector = bench.detector
    ny = amp.trimmed.shape[0]
    top = amp.gain * linearised(amp, _FULL * amp.saturation)
    ramp = np.linspace(0.0, top, ny)
    charge = np.zeros(detector.shape)
    charge[amp.trimmed.slices] = (ramp[::-1] if amp.at_top else ramp)[:, None]
    rows = (bench.counts(charge)[amp.name] - dark[amp.name]).mean(axis=1)
    measured = _averaged(rows)
    found = _averaged(ramp / amp.gain - rows)
    true = _averaged(linearised(amp, rows) - rows)
    subject = f"CCD {detector.number} {amp.name}"
    worst = int(np.argmax(np.abs(found - true)))
    row = Row("linearity", subject, float(found[worst]), float(true[worst]), 1.0, "ADU", len(rows))
    curve = Curve(
        f"linearity, {subject}", "measured, ADU", "correction, ADU", measured, found, true
    )
    return Statistics((row,), (curve,))


def _averaged(rows: FloatArray) -> FloatArray:
    whole = len(rows) // _RAMP_ROWS * _RAMP_ROWS
    return np.asarray(rows[:whole].reshape(-1, _RAMP_ROWS).mean(axis=1))


def _crosstalk(bench: _Bench, dark: dict[str, FloatArray]) -> Statistics:
    detector = bench.detector
    strong = [c for c in detector.crosstalk if abs(c.coefficient) > _WEAKEST]
    rows: list[Row] = []
    for source, name in sorted({(c.source, c.source_amp) for c in strong}):
        here = [c for c in strong if (c.source, c.source_amp) == (source, name)]
        rows += _leaks_of(bench, dark, here)
    return Statistics(tuple(rows))


def _leaks_of(bench: _Bench, dark: dict[str, FloatArray], leaks: list[Crosstalk]) -> list[Row]:
    """Light one channel with patches and look at all channels it leaks into."""
    own = bench.detector
    partner = bench.camera.detector(leaks[0].source)
    source = partner.amplifier(leaks[0].source_amp)
    rng = stream(bench.seed, partner.number, own.number, f"patches {source.name}")
    charge = np.zeros(partner.shape)
    charge[source.trimmed.slices] = source.gain * _patches(rng, source.trimmed.shape)
    if partner is own:
        seen = bench.counts(charge)
        x = seen[source.name] - dark[source.name]
    else:
        seen = bench.counts(np.zeros(own.shape), (partner, charge))
        x = _counts(_expose(bench.seed, bench.shots, (partner, charge)), source)
    x = x - x.mean()
    rows = []
    for leak in leaks:
        victim = own.amplifier(leak.victim_amp)
        ghost = seen[victim.name] - dark[victim.name]
        found = float((x * ghost).sum() / (x * x).sum())
        subject = f"CCD {leak.source} {leak.source_amp} to CCD {own.number} {leak.victim_amp}"
        rows.append(
            Row("crosstalk", subject, found, leak.coefficient, 0.05, "", x.size, relative=True)
        )
    return rows


def _patches(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    coarse = rng.uniform(0.0, _PATCH, (-(-shape[0] // _BLOCK), -(-shape[1] // _BLOCK)))
    return np.asarray(np.kron(coarse, np.ones((_BLOCK, _BLOCK)))[: shape[0], : shape[1]])
