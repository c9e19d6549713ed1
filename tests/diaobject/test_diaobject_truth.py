"""Two years of a catalogue with known identities, associated visit by visit."""

from __future__ import annotations

import numpy as np
import pytest

from bench import bench_objects as bench


def test_objects_are_pure_and_whole_and_bodies_are_none() -> None:
    truth = bench.associate(7301, n=200, sigma=0.1, transients=100, bodies=6)
    assert truth.pure >= 0.995
    assert truth.whole >= 0.99
    assert truth.bodies == 360
    assert truth.lost_bodies <= 0.01 * truth.bodies


def test_rough_positions_split_few_objects() -> None:
    assert bench.associate(7302, n=200, sigma=0.4).whole > 0.95


def test_fast_stars_stay_whole_with_honest_motions() -> None:
    truth = bench.associate(7303, n=300, sigma=0.1, speed=800.0)
    assert truth.whole > 0.98
    for name in ("pmRa", "pmDec", "parallax"):
        pulls = truth.pulls(name)
        assert len(pulls) > 280
        assert np.std(pulls) == pytest.approx(1.0, abs=0.1)
        assert abs(np.mean(pulls)) < 4 / np.sqrt(len(pulls))
