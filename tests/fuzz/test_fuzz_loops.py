"""Compiled loops given what no healthy exposure holds.

Out-of-bounds access shows where the loops are compiled with ``NUMBA_BOUNDSCHECK=1`` (``make
boundscheck``); what is asserted here holds without it: what cannot be computed is NaN or flagged,
what lies outside touches nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pipeline import psfphot, quantise, smooth
from pipeline.calibrate import cosmicray, detect, measure
from pipeline.calibrate.deblend import separate
from pipeline.compiled import FAR, pixel
from pipeline.diaobject.config import Config as ObjectConfig
from pipeline.diaobject.groups import Groups
from pipeline.diaobject.period import periods
from pipeline.diasource.aperture import aperture_flux
from pipeline.diasource.detect import find_peaks, flood
from pipeline.diasource.features import STAMP_FEATURES, stamp_features
from pipeline.diasource.fits import fit_dipoles, fit_points, fit_trails
from pipeline.diasource.moments import measure_moments
from pipeline.diasource.planes import Planes
from pipeline.fill import fill_holes
from pipeline.isr import Config as IsrConfig
from pipeline.isr import columns, flags
from pipeline.masks import bits
from pipeline.subtract import wings

from .conftest import PIXELS, gaussian, pixels, places

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def _planes(kind: str, shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    image = pixels(kind, shape)
    mask = np.zeros(shape, np.uint32)
    mask[:1, :2] = bits("SAT")
    return image, np.where(np.isnan(image), image, np.abs(image) + 1).astype(np.float32), mask


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, float(FAR), -(2.0**63)])
def test_no_number_is_an_index_outside(value: float) -> None:
    assert pixel(value) == -FAR


@pytest.mark.parametrize("value", [-3.7, -0.2, 0.0, 1.99, 1e9])
def test_numbers_are_truncated(value: float) -> None:
    assert pixel(value) == int(value)


@pytest.mark.parametrize("dx", [np.nan, np.inf, -np.inf, 1e30, 2.0**62, -200.0, 83.0, 82.0, 0.3])
@pytest.mark.parametrize("n", [1, 3, 41, 61])
def test_psf_is_zero_where_the_stamp_does_not_reach(dx: float, n: int) -> None:
    coef = psfphot.SplinePsf.of(gaussian()).coefficients(0.0, 0.0)[0]
    p, px, py = (np.full((n, n), 7.0) for _ in range(3))

    psfphot.psf_box(coef, dx, 0.2, 3, p, px, py)

    if not np.isfinite(dx):
        assert np.isnan(p).all()
    elif abs(dx) > 80:
        assert not np.stack([p, px, py]).any()
    else:
        assert p.max() > 0


def test_forced_flux_outside_is_not_a_number(kind: str, shape: tuple[int, int]) -> None:
    image, variance, mask = _planes(kind, shape)
    x, y = places(shape)

    found = psfphot.forced_flux(image, variance, None, mask, gaussian(), x, y)

    outside = ~((x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5))
    assert np.isnan(found.flux[outside]).all()
    assert found.edge[outside].all()
    assert not np.isfinite(found.flux[found.ndata == 0]).any()


@pytest.mark.parametrize("radius", [0.0, 1e-9, 40.0])
def test_forced_flux_of_any_radius(radius: float) -> None:
    image, variance, mask = _planes("noise", (33, 47))

    found = psfphot.forced_flux(image, variance, None, mask, gaussian(), 20.0, 12.0, radius=radius)

    assert np.isfinite(found.flux).all()


def test_smooth_variance_of_anything(kind: str, shape: tuple[int, int]) -> None:
    _, variance, mask = _planes(kind, shape)

    assert smooth.smooth_variance(variance, mask).shape == shape


def test_joint_fits_stay_finite(kind: str, shape: tuple[int, int]) -> None:
    image, variance, mask = _planes(kind, shape)
    x, y = places(shape)

    out = separate(image, variance, mask, gaussian(), x, y, np.ones(len(x), bool))

    assert np.isfinite(out.flux).all()
    somewhere = np.isfinite(x) & np.isfinite(y)
    assert_array_equal(out.x[~somewhere], x[~somewhere])
    assert np.abs(out.x - x)[somewhere].max() <= 1.5


@pytest.mark.parametrize("side", [1, 5, 41])
def test_joint_fits_with_small_stamps(side: int) -> None:
    image, variance, mask = _planes("noise", (33, 47))
    x, y = np.array([0.0, 20.0, 22.0, 46.4]), np.array([0.0, 12.0, 13.0, 32.4])

    out = separate(image, variance, mask, gaussian(side=side), x, y, np.ones(4, bool))

    assert np.isfinite(out.residual).all()


@pytest.mark.parametrize("wing", [1e-3, 1e-2, 3e-2])
def test_joint_fit_of_spurious_sources_does_not_diverge(wing: float) -> None:
    # 1,570 spurious sources in vignetted corners, and a PSF that is negative there: each fit adds
    # light to all of its neighbours.  The fluxes grew to 1e39 and the positions were lost.
    rng = np.random.default_rng(1)
    v, u = np.mgrid[:512, :512]
    corner = np.hypot(u - 255.5, v - 255.5) > 250
    places_ = np.argwhere(corner)
    at = places_[rng.choice(len(places_), 1570, replace=False)].astype(float)
    image = (rng.normal(0.0, 20.0, (512, 512)) + 100.0 * corner).astype(np.float32)
    noise = np.full((512, 512), 400.0, np.float32)
    mask = np.zeros((512, 512), np.uint32)

    out = separate(image, noise, mask, gaussian(2.0, wing=wing), at[:, 1], at[:, 0], at[:, 0] >= 0)

    # All light of a fit's pixels, 150 of at most 200, is some 30,000.
    assert out.flux.max() < 3e4 * 3
    assert np.hypot(out.x - at[:, 1], out.y - at[:, 0]).max() < 2.2
    assert np.abs(out.residual).max() < 1e4


def test_moments_and_apertures_of_anything(kind: str, shape: tuple[int, int]) -> None:
    image, _, mask = _planes(kind, shape)
    x, y = places(shape)

    moments = measure.windowed_moments(image, mask, x, y, 1.8)
    flux = measure.aperture_flux(image, x, y, 4.0)

    outside = ~((np.abs(x) < 100) & (np.abs(y) < 100))
    assert not moments.ok[outside].any()
    assert np.isnan(flux[outside]).all()


def test_detection_of_anything(kind: str, shape: tuple[int, int]) -> None:
    image, variance, _ = _planes(kind, shape)
    score = detect.score_image(image, variance, 1.8)
    labels = np.zeros(shape, np.int32)

    areas, peaks, _ = detect._label(score, np.float32(5.0), labels)

    assert areas.sum() == np.count_nonzero(labels)
    assert ((peaks[:, 0] < shape[1]) & (peaks[:, 1] < shape[0])).all()


def test_cosmic_rays_of_anything(kind: str, shape: tuple[int, int]) -> None:
    image, variance, mask = _planes(kind, shape)
    if min(shape) == 0:
        pytest.skip("an exposure has pixels")

    found = cosmicray.find(image, variance, mask, 0.0, 2.0)

    assert found.found.shape == shape
    assert not found.found[~np.isfinite(image)].any()


@pytest.mark.parametrize("reach", [0, 1, 8, 100])
def test_filling_holes_of_anything(kind: str, shape: tuple[int, int], reach: int) -> None:
    image, variance, _ = _planes(kind, shape)
    holes = np.random.default_rng(3).random(shape) < 0.4
    before = image.copy()

    filled = fill_holes(image, variance, holes, ~np.isfinite(before), reach)

    assert not filled[~holes].any()
    assert_array_equal(image[~holes], before[~holes])


def test_detector_masks_of_anything(kind: str, shape: tuple[int, int]) -> None:
    image, variance, mask = _planes(kind, shape)
    mask[image > 30] |= bits("SAT")

    flags.flag_bleeds(image, variance, mask, IsrConfig())
    flags.grow_saturation(mask, 3)

    assert mask.shape == shape
    if min(shape):
        assert columns.find_columns(image, variance, mask, IsrConfig()).shape == shape


def test_grids_of_powers_of_two(kind: str, shape: tuple[int, int]) -> None:
    image = pixels(kind, shape)

    assert quantise.to_grid(image, 0.25).shape == shape
    assert quantise.shared_step(image) >= 0


@pytest.mark.parametrize("bound", [-np.inf, 0.0, 5.0, np.nan])
def test_peaks_and_footprints_of_anything(kind: str, shape: tuple[int, int], bound: float) -> None:
    score = pixels(kind, shape)

    x, y = find_peaks(score, bound)
    prints = flood(score, x, y, 3.0)

    assert ((x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])).all()
    assert prints is not None


def test_fits_of_sources_anywhere(kind: str, shape: tuple[int, int]) -> None:
    image, variance, mask = _planes(kind, shape)
    planes = Planes.of(image, variance, None, mask, bits("SAT"))
    spline = psfphot.SplinePsf.of(gaussian())
    at = np.column_stack(places(shape))
    flux = np.resize([100.0, np.nan, 1e30, -1e30, np.inf, 0.0], len(at))
    children = np.arange(0, len(at), 3)

    points, _ = fit_points(planes, spline, at, flux, 6.0, 2.0, children)
    start = np.column_stack([flux, at])
    extent = np.resize([[np.nan, 3.0], [1e30, 0.0], [0.0, 0.0], [2.0, 2.0]], at.shape)
    room = np.resize([np.nan, 1e30, 0.0, 9.0], len(at))
    trails = fit_trails(planes, spline, start, flux, extent, room, 4.0)
    known = np.resize([np.nan, 1.0, 1e30], len(at))
    dipoles = fit_dipoles(planes, spline, at, at[::-1].copy(), start, known, 8.0)

    for fits in (points, trails, dipoles):
        assert np.isfinite(fits.theta[fits.converged]).all()
        assert not fits.converged[~np.isfinite(at).all(axis=1)].any()


def test_measurements_of_sources_anywhere(kind: str, shape: tuple[int, int]) -> None:
    image, variance, mask = _planes(kind, shape)
    planes = Planes.of(image, variance, None, mask, bits("SAT"))
    spline = psfphot.SplinePsf.of(gaussian())
    ix, iy = places(shape)
    n = len(ix)
    coef = np.repeat(spline.coefficients(0.0, 0.0), n, axis=0)
    wrong = np.array([100.0, np.nan, 1e30, -1e30, np.inf, 0.0])
    own = np.column_stack([np.resize(wrong, n), np.resize(wrong[::-1] / 50, n), np.zeros(n)])
    added, snr = np.resize(wrong[1:], n), np.resize(wrong[2:], n)
    moments, aperture = np.empty((n, 15)), np.empty((n, 4))
    features = np.empty((n, len(STAMP_FEATURES)))

    measure_moments(planes, coef, spline.order, own, ix, iy, 10, added, snr, moments)
    aperture_flux(planes, coef, spline.order, own, ix, iy, added, 7.5, aperture)
    for width in (0.2, 1.0, 4.0):
        stamp_features(planes, coef, spline.order, own, ix, iy, added, width, features)

    outside = ~(np.isfinite(ix) & np.isfinite(iy))
    assert (moments[outside, 13] > 0).all()
    assert not (aperture[outside, 2] > 0).any()
    assert np.isnan(features[outside, 0]).all()


def test_features_of_a_peak_at_the_rim_of_its_box() -> None:
    # A PSF one pixel wide, and a fit that has run away to the rim of the box that goes with it.
    image = np.random.default_rng(2).normal(0.0, 1.0, (40, 40)).astype(np.float32)
    planes = Planes.of(image, np.ones_like(image), None, np.zeros((40, 40), np.uint32), bits())
    spline = psfphot.SplinePsf.of(gaussian(0.6))
    out = np.empty((1, len(STAMP_FEATURES)))

    for shift in (2.0, 3.4, 4.0, 4.6):
        own = np.array([[50.0, shift, -shift]])
        middle = np.array([20.0])
        stamp_features(
            planes, spline.coefficients(0, 0), spline.order, own, middle, middle,
            np.zeros(1), 1.0, out,
        )  # fmt: skip

    assert np.isnan(out[0, 9])


@pytest.mark.parametrize("time", [np.nan, np.inf, 1e30, -1e30, 0.0])
def test_periods_at_impossible_times(time: float) -> None:
    n = 40
    times = np.append(np.linspace(57000.0, 57400.0, n - 1), time)
    flux = np.random.default_rng(1).normal(100.0, 20.0, n)
    groups = Groups.of(np.zeros(n, np.int64))

    found = periods(groups, times, flux, np.ones(n), ObjectConfig())

    if not np.isfinite(time) or abs(time) > 1e29:
        assert not np.isfinite(found["period"]).any()


def test_wings_of_stars_anywhere(kind: str, shape: tuple[int, int]) -> None:
    image = pixels(kind, shape)
    x, y = places(shape)
    heights = np.zeros(len(x))

    wings._fit(image, np.ones(shape, np.uint8), x, y, np.ones(240), 4, heights)

    outside = ~((np.abs(x) < 100) & (np.abs(y) < 100))
    assert not heights[outside].any()


def test_every_kind_is_drawn() -> None:
    assert all(pixels(kind, (3, 3)).shape == (3, 3) for kind in PIXELS)
