"""Aperture fluxes against an independent implementation with exact overlaps."""

from __future__ import annotations

import numpy as np
import pytest
import sep

from pipeline.calibrate.measure import aperture_flux
from pipeline.diasource.aperture import _overlap


@pytest.mark.parametrize("radius", [3.0, 5.0, 12.0])
def test_overlaps_add_up_to_those_of_sep(radius: float) -> None:
    rng = np.random.default_rng(5)
    image = rng.normal(100.0, 5.0, (60, 60))
    for x, y in rng.uniform(25.0, 35.0, (10, 2)):
        ours = sum(
            image[j, i] * _overlap(i - x, j - y, radius) for j in range(60) for i in range(60)
        )
        exact = float(sep.sum_circle(image, [x], [y], radius, subpix=0)[0][0])

        assert ours == pytest.approx(exact, rel=3e-3)


@pytest.mark.parametrize(("radius", "bound"), [(5.0, 8e-3), (12.0, 3e-3)])
def test_apertures_of_calibration_are_near_those_of_sep(radius: float, bound: float) -> None:
    rng = np.random.default_rng(6)
    image = rng.normal(100.0, 5.0, (80, 80)).astype(np.float32)
    x, y = rng.uniform(30.0, 50.0, (2, 50))

    ratio = aperture_flux(image, x, y, radius) / sep.sum_circle(image, x, y, radius, subpix=0)[0]

    assert ratio == pytest.approx(np.ones(50), abs=bound)
