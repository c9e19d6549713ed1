"""Wings of bright stars below the threshold of detection: marked as far as they matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.calibrate.detect import detect, with_footprints, with_wings
from pipeline.exposure import Exposure, VisitInfo
from pipeline.masks import bits

SIGMA, THRESHOLD = 2.0, 5.0
INFO = VisitInfo(1, 1, "g", 86.0, 57000.0)


WING = 0.024 * (2.3548 * SIGMA) ** (5.0 / 3.0)


def _profile(x: int, y: int) -> Any:
    """Star of unit flux: a Gaussian with the wing of turbulence."""
    v, u = np.mgrid[:601, :601]
    r2 = (u - x) ** 2 + (v - y) ** 2
    core = np.exp(-0.5 * r2 / SIGMA**2) / (2.0 * np.pi * SIGMA**2)
    return np.maximum(core, WING * np.maximum(r2, 1.0) ** (-11.0 / 6.0) * (r2 > 9.0 * SIGMA**2))


def _star(height: float, x: int = 300, y: int = 300, *, saturated: float = np.inf) -> Any:
    """A star whose wing has a height at one pixel over the noise."""
    image = height / WING * _profile(x, y)
    return np.minimum(image, saturated).astype(np.float32)


def _marked(image: Any, saturated: float = np.inf) -> tuple[Any, Any]:
    mask = np.where(image >= saturated, bits("SAT"), np.uint32(0))
    exposure = Exposure(image, np.ones_like(image), mask, INFO)
    found = detect(exposure, exposure.variance, sigma=SIGMA, threshold=THRESHOLD)
    exposure = exposure.replace(mask=with_footprints(mask, found))
    out = with_wings(exposure, exposure.variance, found, SIGMA, THRESHOLD)
    return exposure.mask & bits("DETECTED"), out & bits("DETECTED")


@pytest.mark.parametrize("height", [1e5, 1e6, 1e7])
@pytest.mark.parametrize("saturated", [np.inf, 100.0])
def test_a_wing_ends_where_it_has_a_twentieth_of_the_noise(height, saturated):
    image = _star(height, saturated=saturated)
    plain, marked = _marked(image, saturated)
    assert image[plain == 0].max() > 0.5
    assert image[marked == 0].max() == pytest.approx(0.05, rel=0.35)
    assert np.sqrt((marked > 0).sum() / np.pi) == pytest.approx(
        (height / 0.05) ** (3 / 11), rel=0.08
    )


def test_faint_sources_and_blank_sky_stay_as_they_were():
    for image in (_star(3e3), np.zeros((601, 601), np.float32)):
        plain, marked = _marked(image)
        np.testing.assert_array_equal(plain, marked)


def test_an_image_full_of_light_stays_as_it_was():
    plain, marked = _marked(np.full((101, 101), 50.0, np.float32))
    np.testing.assert_array_equal(plain, marked)


def test_a_wing_beyond_the_edge_is_cut_there():
    plain, marked = _marked(_star(1e6, x=2, y=598))
    assert np.count_nonzero(marked) > np.count_nonzero(plain)
    assert not marked[0].any()
    assert not marked[:, -1].any()


def test_a_galaxy_as_large_as_a_bright_star_stays_as_it_was():
    v, u = np.mgrid[:601, :601]
    image = (40.0 * np.exp(-np.hypot(u - 300, v - 300) / 12.0)).astype(np.float32)
    plain, marked = _marked(image)
    assert np.sqrt((plain > 0).sum() / np.pi) > 40.0
    np.testing.assert_array_equal(plain, marked)


def test_the_mask_that_was_given_stays():
    image = _star(1e6)
    mask = np.full(image.shape, bits("CR"), np.uint32)
    exposure = Exposure(image, np.ones_like(image), mask, INFO)
    found = detect(exposure, exposure.variance, sigma=SIGMA, threshold=THRESHOLD)
    out = with_wings(exposure, exposure.variance, found, SIGMA, THRESHOLD)
    assert (mask == bits("CR")).all()
    assert ((out & bits("CR")) > 0).all()
