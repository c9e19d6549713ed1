"""Shifts that are expected of a star: by refraction and by the registration."""

import numpy as np
import pytest

from pipeline.diasource.causes import Colours, Refraction, _excess, expected_shifts
from pipeline.statistics import excess_scatter

SLOPE = np.array([0.15, -0.08])


def _stars(rng, n=60, scatter=0.04):
    """Shifts of stars by their colour, by turbulence and by noise."""
    at = rng.uniform(0, 1000, (n, 2))
    colour = np.where(rng.random(n) < 0.4, rng.normal(2.1, 0.15, n), rng.normal(0.7, 0.2, n))
    noise = 10.0 ** rng.uniform(-4.0, -2.5, n)
    moved = (
        colour[:, None] * SLOPE + rng.normal(0, 1, (n, 2)) * np.sqrt(noise + scatter**2)[:, None]
    )
    return np.column_stack([at, moved, noise]), colour


def test_refraction_has_the_error_it_says():
    rng = np.random.default_rng(1)
    found = [Refraction.measure(*_stars(rng)) for _ in range(300)]
    pull = np.array([(f.slope - SLOPE) / f.error for f in found]).ravel()
    assert abs(pull.mean()) < 3.5 / np.sqrt(len(pull))
    assert pull.std() == pytest.approx(1.0, abs=0.12)


def test_stars_that_lie_elsewhere_do_not_count():
    rng = np.random.default_rng(2)
    shifts, colour = _stars(rng)
    clean = Refraction.measure(shifts, colour)
    shifts[:4, 2:4] += 3.0
    found = Refraction.measure(shifts, colour)
    assert np.abs(found.slope - clean.slope).max() < 2.0 * clean.error


def test_refraction_is_unknown_where_too_few_stars_tell():
    shifts, colour = _stars(np.random.default_rng(3))
    colour[11:] = np.nan
    assert np.isnan(Refraction.measure(shifts, colour).slope).all()
    grey = Refraction.measure(shifts, np.full(len(shifts), 0.8))
    assert np.isnan(grey.error)


def test_expected_shift_is_that_of_the_colour_here(lab):
    wcs = lab.wcs()
    shifts, colour = _stars(np.random.default_rng(4), scatter=0.0)
    shifts[:, 4] = 1e-8
    shifts[:, 2:4] = (colour - colour.mean())[:, None] * SLOPE
    ra, dec = wcs.all_pix2world(*shifts[:, :2].T, 0)
    at = np.vstack([shifts[:5, :2] + 0.7, [[1500.0, 1500.0]]])  # nothing is at the last one

    found = expected_shifts(at, wcs, shifts, Colours(ra, dec, colour), 0.01)

    move = (colour[:5] - Refraction.measure(shifts, colour).colour)[:, None] * SLOPE
    length, angle = found["dipoleDcrLength"], found["dipoleDcrAngle"]
    assert length[:5] == pytest.approx(np.hypot(*move.T) * lab.SCALE, rel=1e-4)
    east, north = wcs.wcs.cd @ move.T
    assert angle[:5] == pytest.approx(np.degrees(np.arctan2(east, north)), abs=0.03)  # north turns
    assert np.isnan(length[5])
    assert np.isnan(angle[5])
    assert found["dipoleRegistrationLength"] == pytest.approx(np.zeros(6), abs=1e-4)


@pytest.mark.parametrize("colours", [None, Colours(np.zeros(0), np.zeros(0), np.zeros(0))])
def test_without_colours_or_stars_refraction_is_missing_and_the_registration_assumed(lab, colours):
    at = np.array([[100.0, 120.0]])
    found = expected_shifts(at, lab.wcs(), np.empty((0, 5)), colours, 0.012)
    assert np.isnan(found["dipoleDcrLength"]).all()
    assert found["dipoleRegistrationLength"] == pytest.approx([0.012])


def test_registration_is_that_of_the_stars_near_by(lab):
    rng = np.random.default_rng(5)
    at = rng.uniform(0, 1000, (400, 2))
    sigma = np.where(at[:, 0] < 500, 0.03, 0.12)
    shifts = np.column_stack([at, rng.normal(0, 1, (400, 2)) * sigma[:, None], np.full(400, 1e-5)])
    near = rng.uniform(100, 400, (50, 2))
    places = near, near + np.array([500.0, 0.0])
    left, right = (
        expected_shifts(p, lab.wcs(), shifts, None, 0.01)["dipoleRegistrationLength"] / lab.SCALE
        for p in places
    )
    assert np.median(left) == pytest.approx(0.03, rel=0.15)
    assert np.median(right) == pytest.approx(0.12, rel=0.15)


def test_excess_of_rows_is_that_of_each():
    rng = np.random.default_rng(6)
    noise = 10.0 ** rng.uniform(-3, -1, (20, 24))
    values = np.abs(rng.normal(0, 1, noise.shape) * np.sqrt(noise + 0.04))
    each = [excess_scatter(v, n) for v, n in zip(values, noise, strict=True)]
    assert _excess(values, noise) == pytest.approx(each, abs=1e-6)
