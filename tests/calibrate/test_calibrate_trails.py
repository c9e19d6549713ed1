"""Trails of satellites brighter than the stars: their peaks are no stars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline import calibrate
from pipeline.calibrate.detect import detect
from pipeline.calibrate.trails import on_trails
from pipeline.exposure import Exposure
from pipeline.smooth import smooth_variance

Maker = Callable[..., Any]
ONE, TWO = [(-2.2, 780.0)], [(-2.2, 780.0), (0.7, 30.0)]


def crossed(exposure: Exposure, lines: list[tuple[float, float]], level: float) -> Exposure:
    """Add trails ``y = slope x + start`` as wide as a star, in electrons at their middles."""
    v, u = np.mgrid[: exposure.shape[0], : exposure.shape[1]].astype(float)
    light = np.zeros(exposure.shape)
    for slope, start in lines:
        across = (v - slope * u - start) / np.hypot(1.0, slope)
        light += level * np.exp(-0.5 * (across / 1.9) ** 2)
    noisy = np.random.default_rng(8).poisson(light) if level else light
    image, variance = exposure.image + noisy, exposure.variance + light
    return replace(exposure, image=image.astype("f4"), variance=variance.astype("f4"))


@pytest.mark.parametrize("lines", [ONE, TWO])
@pytest.mark.parametrize("level", [3e3, 3e4])
def test_a_frame_with_a_bright_trail_is_calibrated_as_without(
    scene: Maker, lines: list[tuple[float, float]], level: float
) -> None:
    frame = scene(3, n_faint=20, isolated=True)
    made = calibrate.run(crossed(frame.exposure, lines, level), frame.refcat, psf_fwhm_min=0.68)
    usual = calibrate.run(frame.exposure, frame.refcat, psf_fwhm_min=0.68)

    calib, known = made.visit_image.photo_calib, usual.visit_image.photo_calib
    assert calib is not None
    assert known is not None
    assert calib.zero_point == pytest.approx(known.zero_point, abs=0.003)
    widths = [result.visit_image.psf.at(255.5, 255.5).max() for result in (made, usual)]
    assert widths[0] == pytest.approx(widths[1], rel=0.01)
    stars = made.summary["nPsfStars"], usual.summary["nPsfStars"]
    assert stars[0] > 0.6 * stars[1]


def test_peaks_of_trails_and_no_others_are_marked(scene: Maker) -> None:
    frame = scene(3, n_faint=20, isolated=True)
    exposure = crossed(frame.exposure, TWO, 3e4)
    exposure = replace(exposure, image=exposure.image - 1200.0)
    found = detect(exposure, smooth_variance(exposure.variance, exposure.mask), sigma=1.8)
    marked = on_trails(found)
    across = [np.abs(found.y - s * found.x - c) / np.hypot(1.0, s) for s, c in TWO]
    near = np.min(across, axis=0)

    assert np.count_nonzero(marked) > 150
    assert near[marked].max() < 8.0
    assert np.count_nonzero(near[~marked] < 3.0) <= 0.05 * np.count_nonzero(marked)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_crowd_is_a_trail(scene: Maker, seed: int) -> None:
    frame = scene(seed, n_stars=3000, n_faint=0)
    exposure = replace(frame.exposure, image=frame.exposure.image - 1200.0)
    found = detect(exposure, smooth_variance(exposure.variance, exposure.mask), sigma=1.8)

    assert np.bincount(found.footprint).max() > 500
    assert not on_trails(found).any()
