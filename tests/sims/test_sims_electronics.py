"""What a laboratory would measure: gain, read noise, linearity, crosstalk, pedestal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.camera import Amplifier, Camera, Detector
from sims import electronics
from sims.artefacts import bit
from sims.electronics import Pedestal, linearised, measured, read_out, regions, spill
from sims.streams import stream


def frame(detector: Detector, charge: np.ndarray, visit: int, seed: int = 1, others=()) -> tuple:
    """Raw frame of given charge (and of other detectors' charge) and its artefacts."""
    planes = np.stack([charge.astype(np.float32), *(c.astype(np.float32) for _, c in others)])
    numbers = [detector.number, *(d.number for d, _ in others)]
    for d, plane in zip([detector, *(d for d, _ in others)], planes, strict=True):
        electronics.to_counts(d, plane)
    artefacts = np.zeros(detector.shape, np.uint32)
    raw = read_out(
        stream(seed, visit, detector.number, "test"),
        detector,
        planes,
        numbers,
        Pedestal.draw(seed, visit, detector),
        spill(detector, np.zeros((len(detector.amplifiers), detector.shape[1]))),
        artefacts,
    )
    return raw, artefacts


def pedestal(raw: np.ndarray, amp: Amplifier) -> np.ndarray:
    """Level of the rows of a channel's data from its overscan."""
    rows = slice(amp.data.y0, amp.data.y1)
    level = raw[rows, amp.overscan.x0 : amp.overscan.x1].mean(axis=1)
    return level[:, None]


@pytest.mark.parametrize(("camera", "number"), [("testcam", 1), ("testcam", 2), ("lsstlike", 1)])
def test_photon_transfer_gives_gain_and_read_noise_back(camera: str, number: int) -> None:
    detector = Camera.load(camera).detector(number).replace(crosstalk=())
    rng = np.random.default_rng(1)
    pairs = [0.0, 20_000.0, 50_000.0]
    results: dict[str, list[tuple[float, float]]] = {a.name: [] for a in detector.amplifiers}
    for k, level in enumerate(pairs):
        two = [frame(detector, rng.poisson(level, detector.shape), 10 * k + i)[0] for i in (0, 1)]
        for amp in detector.amplifiers:
            a, b = (linear(raw, amp) for raw in two)
            results[amp.name].append((0.5 * (a + b).mean(), (a - b).var() / 2))
    for amp in detector.amplifiers:
        mean, variance = np.array(results[amp.name]).T
        # Fewer pixels per channel make the sixteen-channel camera noisier than 1 %.
        tolerance = max(0.01, 4 * np.sqrt(1.0 / (amp.trimmed.shape[0] * amp.trimmed.shape[1])))
        gain = (mean[2] - mean[1]) / (variance[2] - variance[1])
        assert gain == pytest.approx(amp.gain, rel=2 * tolerance)
        assert (mean[1:] / (variance[1:] - variance[0])).mean() == pytest.approx(
            amp.gain, rel=tolerance
        )
        # The mean of the overscan columns and the rounding have their own variance.
        columns = amp.overscan.x1 - amp.overscan.x0
        noise = np.sqrt(variance[0] / (1 + 1 / columns) - 1 / 12)
        assert amp.gain * noise == pytest.approx(amp.read_noise, rel=tolerance)


def linear(raw: np.ndarray, amp: Amplifier) -> np.ndarray:
    counts = raw[amp.data.slices] - pedestal(raw, amp)
    return linearised(amp, counts)


@pytest.mark.parametrize("number", [10, 27, 56])
def test_linearity_tables_are_inverted_exactly(number: int) -> None:
    for amp in Camera.load("decam").detector(number).amplifiers:
        nodes = amp.linearity_nodes[amp.linearity != 0.0]
        adu = np.linspace(0.0, nodes[-1], 4001)
        np.testing.assert_allclose(measured(amp, linearised(amp, adu)), adu, atol=1e-8)


def test_the_linearity_curve_is_in_the_frames() -> None:
    detector = Camera.load("testcam").detector(1).replace(crosstalk=())
    electrons = np.tile(np.linspace(0, 150_000, detector.shape[0])[:, None], (1, detector.shape[1]))
    raw, _ = frame(detector, electrons, 1)
    structure = Pedestal.draw(1, 1, detector).structure
    for amp in detector.amplifiers:
        counts = (raw[amp.data.slices] - pedestal(raw, amp) - structure[amp.trimmed.slices]).mean(1)
        true = electrons[amp.trimmed.slices].mean(axis=1) / amp.gain
        keep = counts < 0.9 * amp.saturation
        found = np.interp(counts[keep], amp.linearity_nodes, amp.linearity)
        # One row of 256 pixels, and its overscan of 50, know the level to 0.25 ADU.
        assert np.abs(true[keep] - counts[keep] - found).max() < 1.0
        assert np.abs(true[keep] - counts[keep]).max() > 200.0


def blocks(shape: tuple[int, int], rng: np.random.Generator, top: float) -> np.ndarray:
    coarse = rng.uniform(0.0, top, (shape[0] // 16, shape[1] // 16))
    return np.kron(coarse, np.ones((16, 16)))


def test_crosstalk_within_a_detector_comes_back_by_regression() -> None:
    detector = Camera.load("testcam").detector(1)
    rng = np.random.default_rng(3)
    structure = Pedestal.draw(1, 1, detector).structure
    for entry in (c for c in detector.crosstalk if c.source == 1):
        source, victim = (detector.amplifier(n) for n in (entry.source_amp, entry.victim_amp))
        charge = np.zeros(detector.shape)
        charge[source.trimmed.slices] = blocks(source.trimmed.shape, rng, 35_000.0 * source.gain)
        raw, artefacts = frame(detector, charge, 1)
        bright = (raw[source.data.slices] - pedestal(raw, source))[:, ::-1]  # read at the same time
        ghost = raw[victim.data.slices] - pedestal(raw, victim) - structure[victim.trimmed.slices]
        x, y = bright.ravel() - bright.mean(), ghost.ravel() - ghost.mean()
        assert (x @ y) / (x @ x) == pytest.approx(entry.coefficient, rel=0.02)
        assert (artefacts[victim.trimmed.slices] & bit("CROSSTALK")).any()
        assert not (artefacts[source.trimmed.slices] & bit("CROSSTALK")).any()


def test_crosstalk_bends_above_its_onset() -> None:
    detector = Camera.load("testcam").detector(1)
    entry = next(c for c in detector.crosstalk if c.source == 1 and c.source_amp == "B")
    entry = replace(entry, p1=2e-3, p2=-1e-7, p3=5e-12)
    detector = detector.replace(crosstalk=(entry,))
    source, victim = (detector.amplifier(n) for n in (entry.source_amp, entry.victim_amp))
    charge = np.zeros(detector.shape)
    charge[source.trimmed.slices] = source.gain * linearised(source, 46_000.0)
    raw, _ = frame(detector, charge, 1)
    structure = Pedestal.draw(1, 1, detector).structure
    ghost = (
        raw[victim.data.slices] - pedestal(raw, victim) - structure[victim.trimmed.slices]
    ).mean()
    over = 46_000.0 - entry.onset
    expected = entry.coefficient * entry.onset
    expected += entry.p1 * over + entry.p2 * over**2 + entry.p3 * over**3
    assert ghost == pytest.approx(expected, abs=0.15)
    assert abs(expected - entry.coefficient * 46_000.0) > 1.0


def test_crosstalk_between_detectors_comes_back_by_regression() -> None:
    camera = Camera.load("decam")
    detector, partner = camera.detector(10), camera.detector(9)
    rng = np.random.default_rng(4)
    bright = blocks(partner.shape, rng, 30_000.0 * 4.0)
    raw, _ = frame(detector, np.zeros(detector.shape), 1, others=[(partner, bright)])
    counts = bright.astype(np.float32)
    electronics.to_counts(partner, counts)
    structure = Pedestal.draw(1, 1, detector).structure
    for amp in detector.amplifiers:
        entries = [c for c in detector.crosstalk if c.source == 9 and c.victim_amp == amp.name]
        planes = []
        for c in entries:
            source = partner.amplifier(c.source_amp)
            plane = counts[source.trimmed.slices]
            planes.append(plane[:, ::-1] if source.at_right != amp.at_right else plane)
        design = np.stack([p.ravel() - p.mean() for p in planes], axis=1)
        ghost = raw[amp.data.slices] - pedestal(raw, amp) - structure[amp.trimmed.slices]
        found = np.linalg.lstsq(design, ghost.ravel() - ghost.mean(), rcond=None)[0]
        np.testing.assert_allclose(found, [c.coefficient for c in entries], rtol=0.05)


@pytest.mark.parametrize(("camera", "number"), [("decam", 10), ("decam", 56), ("lsstlike", 1)])
def test_every_raw_pixel_has_one_reader(camera: str, number: int) -> None:
    detector = Camera.load(camera).detector(number)
    owners = np.zeros(detector.raw_shape, int)
    for amp, region in zip(detector.amplifiers, regions(detector), strict=True):
        owners[region.slices] += 1
        for part in (amp.data, amp.overscan):
            assert region.x0 <= part.x0 < part.x1 <= region.x1
            assert region.y0 <= part.y0 < part.y1 <= region.y1
    assert (owners == 1).all()


def test_the_level_steps_when_the_other_detectors_finish() -> None:
    detector = Camera.load("decam").detector(10)
    for i, amp in enumerate(detector.amplifiers):
        rows = Pedestal.draw(1, 7, detector).rows[i]
        read = rows[::-1] if amp.at_top else rows
        jumps = np.abs(np.diff(read))
        assert int(np.argmax(jumps)) == 2097
        assert jumps[2097] > 10 * np.median(jumps)


def test_a_spill_floods_the_first_rows_and_their_overscan() -> None:
    detector = Camera.load("testcam").detector(1)
    over = np.zeros((2, detector.shape[1]))
    over[0, 300] = 3.0e6
    spilled = spill(detector, over)
    assert spilled.image[0, 0] > 100.0
    assert (spilled.image[1] == 0.0).all()
    assert spilled.image[0].sum() * 256 * detector.amplifiers[0].gain == pytest.approx(3.0e6)
    artefacts = np.zeros(detector.shape, np.uint32)
    planes = np.zeros((1, *detector.shape), np.float32)
    pedestals = Pedestal.draw(1, 1, detector)
    raw = read_out(
        stream(1, 1, 1, "x"), detector, planes, [1], pedestals, spilled, artefacts
    ).astype(float)
    amp = detector.amplifiers[0]
    last = amp.data.y1 - 1  # read first, at the top
    overscan = raw[last, amp.overscan.x0 : amp.overscan.x1].mean()
    assert overscan - pedestals.rows[0][last] == pytest.approx(spilled.overscan[0, 0], rel=0.05)
    assert (artefacts[-1, 256:] & bit("EDGEBLEED")).all()
    assert not (artefacts[:, :256] & bit("EDGEBLEED")).any()
