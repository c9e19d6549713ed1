"""One definition of noise and depth, in every unit."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.depth import depth, grid_stamps, sky_variance
from pipeline.exposure import NJY_ZERO_POINT, GridPsf
from pipeline.psfphot import effective_area, fwhm, middle_fwhm
from pipeline.smooth import smooth_variance


def _gaussian(sigma: float) -> GridPsf:
    u = np.arange(41) - 20
    stamp = np.exp(-0.5 * (u[:, None] ** 2 + u**2) / sigma**2)
    return GridPsf((stamp / stamp.sum())[None, None], np.zeros(1), np.zeros(1))


def test_a_source_at_the_limit_has_the_signal_to_noise_ratio() -> None:
    flux = 10 ** (0.4 * (31.4 - depth(31.4, 60.0, 90.0, per_electron=4.0, snr=7.0)))

    assert flux / np.sqrt(60.0 * 90.0 + 4.0 * flux) == pytest.approx(7.0, rel=1e-9)


def test_the_depth_does_not_depend_on_the_unit() -> None:
    zero_point, scale = 30.25, 10 ** (0.4 * (NJY_ZERO_POINT - 30.25))

    electrons = depth(zero_point, 55.0, 1800.0)
    njy = depth(NJY_ZERO_POINT, 55.0, 1800.0 * scale**2, per_electron=scale)

    assert njy == pytest.approx(electrons, abs=1e-9)


def test_photons_of_the_source_cost_depth_and_may_be_left_out() -> None:
    limit = depth(31.4, 60.0, 100.0, per_electron=0.0)

    assert limit == pytest.approx(31.4 - 2.5 * np.log10(5 * np.sqrt(60.0 * 100.0)), abs=1e-9)
    assert depth(31.4, 60.0, 100.0, per_electron=1.0) < limit
    assert np.isnan(depth(31.4, 60.0, 0.0, per_electron=0.0))


def test_the_area_of_a_gaussian_is_four_pi_sigma_squared() -> None:
    stamps = grid_stamps(_gaussian(2.0), (200, 300))

    np.testing.assert_allclose(effective_area(stamps), np.full(25, 4 * np.pi * 4.0), rtol=1e-6)
    np.testing.assert_allclose(fwhm(3.0 * stamps), np.full(25, 2.354820 * 2.0), rtol=1e-6)


def test_the_middle_of_an_image_is_between_its_corner_pixels() -> None:
    cube = np.concatenate([_gaussian(s).cube for s in (2.0, 3.0)], axis=1)
    psf = GridPsf(cube, np.array([149.0, 150.0]), np.zeros(1))

    assert middle_fwhm(psf, (200, 299)) == pytest.approx(2.354820 * 2.0, rel=1e-6)
    assert middle_fwhm(psf, (200, 301)) == pytest.approx(2.354820 * 3.0, rel=1e-6)
    assert np.isnan(middle_fwhm(None, (200, 300)))


def test_the_width_is_that_of_the_core_whatever_surrounds_it() -> None:
    core, wide = (_gaussian(s).cube[0, 0] for s in (2.0, 8.0))
    trough = core - 0.3 * wide * core.sum() / wide.sum()

    assert fwhm(trough) == pytest.approx(2.354820 * 2.0, rel=0.06)
    assert effective_area(trough) < 0.6 * effective_area(core)


def test_the_noise_of_the_sky_is_that_without_the_sources() -> None:
    variance = np.full((400, 400), 25.0, np.float32)
    variance[100:200, 50:350] += 5000.0
    holes = variance.copy()
    holes[::2] = np.nan

    assert sky_variance(smooth_variance(variance, np.zeros(variance.shape, np.uint32))) == 25.0
    assert np.isnan(sky_variance(np.full((8, 8), np.nan, np.float32)))
    assert sky_variance(np.where(np.arange(400) % 16 == 0, np.nan, 9.0)[None]) == 9.0
