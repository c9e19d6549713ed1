"""Zero point, colour terms, aperture correction, depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.calibrate.photometry import aperture_correction, fit_zero_point, natural_fluxes
from pipeline.calibrate.refcat import ReferenceStars
from pipeline.calibrate.summary import effective_time
from pipeline.camera import Camera
from pipeline.depth import depth
from pipeline.errors import PhotometryError, PsfError
from pipeline.exposure import VisitInfo

DECAM = Camera.load("decam").passbands

SCALE = 0.8  # nJy per electron
ZERO_POINT = 31.4 - 2.5 * np.log10(SCALE)


def _standards(rng: np.random.Generator, n: int, scatter: float = 0.005) -> Any:
    reference = 10 ** rng.uniform(4, 6, n)
    sky = np.full(n, 250.0**2)
    true = reference / SCALE * (1 + scatter * rng.normal(size=n))
    flux = true + rng.normal(size=n) * np.sqrt(sky + true)
    err = 0.004 * reference
    return flux, sky, reference + rng.normal(size=n) * err, err


def test_zero_point_is_unbiased_and_its_error_honest() -> None:
    zeros = [fit_zero_point(*_standards(np.random.default_rng(seed), 25)) for seed in range(120)]
    offset = np.array([z.zero_point - ZERO_POINT for z in zeros])
    pulls = offset / np.array([z.err for z in zeros])

    assert abs(offset.mean()) < 0.001
    assert 0.8 < pulls.std() < 1.2


def test_variables_and_blends_are_clipped() -> None:
    flux, sky, reference, err = _standards(np.random.default_rng(5), 60)
    flux[::6] *= 1.5

    zero = fit_zero_point(flux, sky, reference, err)

    assert zero.zero_point == pytest.approx(ZERO_POINT, abs=0.005)
    assert zero.n <= 50


def test_one_star_is_enough_and_none_is_not() -> None:
    one = np.array([1000.0]), np.array([100.0]), np.array([800.0]), np.array([8.0])

    assert fit_zero_point(*one).n == 1
    with pytest.raises(PhotometryError, match="too few") as caught:
        fit_zero_point(*one, min_stars=3)
    assert caught.value.numbers["stars"] == 1


def test_clouds_are_refused_with_the_scatter() -> None:
    standards = _standards(np.random.default_rng(2), 60, scatter=0.4)

    with pytest.raises(PhotometryError, match="clouds") as caught:
        fit_zero_point(*standards)
    assert float(caught.value.numbers["scatter"]) > 0.2


def test_colour_terms_change_the_standards_only_within_their_range() -> None:
    flux = {"g": np.array([1e4, 1e4, 1e4]), "r": np.array([1e4, 2.5e4, 9e4])}
    n = len(flux["g"])
    stars = ReferenceStars(
        np.arange(n), np.zeros(n), np.zeros(n), np.zeros(n), flux["g"], np.zeros(n), flux
    )

    natural = natural_fluxes(stars, DECAM.colour_terms["ps1-decam"]["g"])

    assert natural_fluxes(stars, None) is stars.flux
    colour = 2.5 * np.log10(2.5)
    shift = 0.006388 + 0.045875 * colour - 0.004484 * colour**2
    assert -2.5 * np.log10(natural[1] / 1e4) == pytest.approx(shift)
    assert np.isnan(natural[2])


def test_colour_term_without_its_band_is_refused() -> None:
    one = np.ones(1)
    stars = ReferenceStars(np.arange(1), one, one, one, one, one, {"g": one})

    with pytest.raises(PhotometryError, match="band"):
        natural_fluxes(stars, DECAM.colour_terms["ps1-decam"]["g"])


def test_aperture_correction_survives_one_star_and_one_blend() -> None:
    flux = np.full(20, 1e5)
    aperture = flux * (1.01 + 0.001 * np.random.default_rng(1).normal(size=20))
    aperture[3] *= 1.3

    many = aperture_correction(aperture, flux, np.full(20, 0.001))
    one = aperture_correction(aperture[:1], flux[:1], np.full(1, 0.02))

    assert many.value == pytest.approx(1.01, abs=4 * many.err)
    assert many.n == 19
    assert (one.n, one.err) == (1, 0.02)
    with pytest.raises(PsfError):
        aperture_correction(np.array([np.nan]), np.ones(1), np.ones(1))


def test_depth_is_the_magnitude_of_five_sigma() -> None:
    limit = depth(31.0, 60.0, 1000.0)
    electrons = 10 ** (0.4 * (31.0 - limit))

    assert electrons / np.sqrt(electrons + 60.0 * 1000.0) == pytest.approx(5.0, rel=1e-6)


def test_effective_time_of_fiducial_conditions_is_the_exposure_time() -> None:
    info = VisitInfo(1, 1, "g", 86.0, 57000.0)
    area = 4 * np.pi * (1.0 / 2.3548 / 0.2626) ** 2
    sky = 86.0 * 0.2626**2 * 10 ** (0.4 * (26.6 - 22.0))

    limit = depth(26.6 + 2.5 * np.log10(86.0), area, sky)

    assert effective_time(limit, info, 0.2626, DECAM) == pytest.approx(86.0, rel=1e-3)
    assert np.isnan(effective_time(np.nan, info, 0.2626, DECAM))
