"""The bundled tables against what is published about the instrument."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.camera import Camera, Detector

DECAM = Camera.load("decam")
AMPS = [a for d in DECAM.detectors.values() for a in d.amplifiers]
CROSSTALK = [c for d in DECAM.detectors.values() for c in d.crosstalk]


def area(detector: Detector) -> int:
    bad = np.zeros(detector.shape, bool)
    for box in detector.defects:
        bad[box.y0 : box.y0 + box.height, box.x0 : box.x0 + box.width] = True
    return int(bad.sum())


def test_gain_noise_and_saturation() -> None:
    gain, noise, level = (
        np.array([getattr(a, n) for a in AMPS]) for n in ("gain", "read_noise", "saturation")
    )
    assert len(AMPS) == 124
    assert (gain.min(), gain.max()) == (
        pytest.approx(3.49, abs=0.01),
        pytest.approx(4.44, abs=0.01),
    )
    assert np.median(gain) == pytest.approx(4.00, abs=0.01)
    assert np.median(noise) == pytest.approx(6.05, abs=0.01)
    assert (level.min(), level.max()) == (
        pytest.approx(28_164, abs=1),
        pytest.approx(57_491, abs=1),
    )
    noisy = {d.number for d in DECAM.detectors.values() if d.amplifiers[0].read_noise > 9}
    assert noisy <= {*range(28, 32), *range(35, 39)}
    assert len(noisy) >= 7


def test_crosstalk_within_and_between_detectors() -> None:
    own = [c for c in CROSSTALK if c.source == c.victim]
    others = [c for c in CROSSTALK if c.source != c.victim]
    assert (len(own), len(others)) == (123, 126)
    assert sum(c.coefficient < 0 for c in CROSSTALK) == 62
    assert all(c.coefficient > 0 for c in own if c.victim_amp == "A")
    assert sum(abs(c.source - c.victim) == 1 for c in others) == 90
    onsets = np.array([c.onset for c in own])
    assert (onsets.min(), onsets.max()) == (
        pytest.approx(40_002, abs=1),
        pytest.approx(49_984, abs=1),
    )
    assert np.median([c.coefficient for c in others]) == pytest.approx(3.6e-5, abs=1e-6)
    # Amplifier A of CCD 55 shows nothing of its neighbour.
    assert not [c for c in own if c.victim == 55 and c.victim_amp == "A"]


@pytest.mark.parametrize(
    ("adu", "percent"), [(10_000.0, -0.41), (30_000.0, -1.6), (40_000.0, -2.0)]
)
def test_linearity_corrections(adu: float, percent: float) -> None:
    corrections = [np.interp(adu, a.linearity_nodes, a.linearity) for a in AMPS]
    assert 100 * np.median(corrections) / adu == pytest.approx(percent, abs=0.06)


def test_defects_of_january_2015() -> None:
    pixels = {d.number: area(d) for d in DECAM.detectors.values()}
    assert pixels[2] == pixels[61] == 0
    assert pixels[31] == pytest.approx(4.41e6, rel=0.01)
    good = [n for k, n in pixels.items() if k not in (2, 31, 61)]
    assert np.median(good) == pytest.approx(0.37e6, rel=0.05)
    assert max(good) == pytest.approx(1.21e6, rel=0.01)


def test_the_two_halves_are_read_towards_opposite_edges() -> None:
    for detector in DECAM.detectors.values():
        south = detector.number <= 31
        assert detector.name[0] == ("S" if south else "N")
        assert {a.at_top for a in detector.amplifiers} == {south}
        a, b = (detector.amplifier(n) for n in "AB")
        assert (a.data.x0 > b.data.x0) == south
        for amp in (a, b):  # the overscan is at the outer edge
            left = amp.data.x0 < 1000
            assert (amp.overscan.x1 <= amp.data.x0) == left


def test_sixteen_amplifiers_share_no_shape_with_decam() -> None:
    camera = Camera.load("lsstlike")
    (detector,) = camera.detectors.values()
    assert len(detector.amplifiers) == 16
    assert {(a.at_top, a.at_right) for a in detector.amplifiers} == {(False, False), (True, False)}
    # Every overscan lies behind its own data, none at an edge of the detector alone.
    assert all(a.overscan.x0 >= a.data.x1 for a in detector.amplifiers)
    assert detector.bias_step_row == 0
    assert camera.pixel_scale != DECAM.pixel_scale
