"""The compiled loop against a slow reference, and the stage on frames with known content."""

import dataclasses

import numpy as np
import pytest

from pipeline import isr
from pipeline.isr import overscan
from pipeline.isr.config import Config
from pipeline.isr.correct import correct
from pipeline.isr.crosstalk import ghosts


def _reference(data, detector, amp, level, bias, flat, partners):
    """Every step with numpy, in float64 and one after the other."""
    count = data[amp.data.slices].astype(float) - level[amp.name][:, None]
    saturated = (count >= amp.saturation) | (data[amp.data.slices] >= 65535)
    for entry in detector.crosstalk:
        if entry.victim_amp != amp.name or entry.source not in partners:
            continue
        source = detector.amplifier(entry.source_amp)
        s = partners[entry.source][source.data.slices].astype(float)
        s = s - level[source.name][:, None]
        over = s - entry.onset
        high = entry.coefficient * entry.onset + entry.p1 * over
        high = high + entry.p2 * over**2 + entry.p3 * over**3
        ghost = np.where(over > 0, high, entry.coefficient * s)
        ghost = ghost[::-1] if source.at_top != amp.at_top else ghost
        ghost = ghost[:, ::-1] if source.at_right != amp.at_right else ghost
        count = count - ghost
    last = int(np.flatnonzero(amp.linearity)[-1])
    nodes, values = amp.linearity_nodes, amp.linearity.copy()
    limit = np.inf
    if last + 1 < len(nodes):
        slope = (values[last] - values[last - 1]) / (nodes[last] - nodes[last - 1])
        limit = nodes[last + 1]
        values[last + 1 :] = values[last] + slope * (limit - nodes[last])
    saturated |= count > limit
    count = count + np.interp(count, nodes, values)
    electrons = (count - bias[amp.trimmed.slices]) * amp.gain
    variance = np.maximum(electrons, 0) + amp.read_noise**2
    f = flat[amp.trimmed.slices].astype(float)
    return electrons / f, variance / f**2, saturated


def test_loop_equals_the_slow_reference(tools, detector):
    rng = np.random.default_rng(4)
    electrons = 10 ** rng.uniform(1, 5.4, detector.shape)
    scene = tools.build(detector, electrons)
    config = Config()
    data = scene.raw.data
    frames = {detector.number: data}
    levels = {
        (detector.number, a.name): overscan.measure(data, a, detector.bias_step_row, config)
        for a in detector.amplifiers
    }
    plain = {name: level.rows for (_, name), level in levels.items()}
    planes = (
        np.zeros(detector.shape, np.float32),
        np.zeros(detector.shape, np.float32),
        np.zeros(detector.shape, np.uint32),
    )
    for amp in detector.amplifiers:
        ghost, _, _ = ghosts(detector, amp, frames, levels, 1e9)
        level = levels[detector.number, amp.name]
        correct(data, amp, level, ghost, scene.bias, scene.flat, planes, config)
        image, variance, saturated = _reference(
            data, detector, amp, plain, scene.bias, scene.flat, frames
        )
        where = amp.trimmed.slices
        np.testing.assert_allclose(planes[0][where], image, rtol=1e-6, atol=2e-5)
        np.testing.assert_allclose(planes[1][where], variance, rtol=1e-6)
        np.testing.assert_array_equal(planes[2][where] != 0, saturated)


def test_sky_comes_back_with_the_right_noise(tools, detector):
    detector = detector.replace(defects=())
    scene = tools.build(detector, np.full(detector.shape, 420.0))
    result = isr.run(scene.raw, detector, isr.Calibs(scene.bias, scene.flat))
    good = result.exposure.mask == 0
    assert good.mean() > 0.85
    image, variance = result.exposure.image[good], result.exposure.variance[good]
    error = np.std(image) / np.sqrt(good.sum())
    assert abs(image.mean() - 420.0) < 3 * error + 0.5
    assert np.var(image) / variance.mean() == pytest.approx(1.0, abs=0.02)
    levels = [
        np.mean(result.exposure.image[a.trimmed.slices][good[a.trimmed.slices]])
        for a in detector.amplifiers
    ]
    assert np.ptp(levels) < 0.003 * 420 + 6 * np.std(image) / np.sqrt(good.sum() / len(levels))


def test_what_is_missing_is_noted(tools, detector):
    scene = tools.build(detector, np.full(detector.shape, 420.0))
    elsewhere = dataclasses.replace(detector.crosstalk[0], source=77)
    notes = isr.run(scene.raw, detector.replace(crosstalk=(elsewhere,))).notes
    assert "inter-CCD crosstalk from 77 not applied: frame absent" in notes
    assert "bias not subtracted: no frame given" in notes
    assert "flat not applied: no frame given" in notes


def test_wrong_shapes_are_refused(tools, detector):
    scene = tools.build(detector, np.full(detector.shape, 420.0))
    with pytest.raises(ValueError, match="flat is"):
        isr.run(scene.raw, detector, isr.Calibs(flat=np.ones((3, 3), np.float32)))
    with pytest.raises(ValueError, match="raw frame is"):
        isr.run(tools.raw_frame(scene.raw.data[:5]), detector)
