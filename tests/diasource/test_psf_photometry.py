"""The photometric core against closed forms and brute force."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from pipeline.exposure import GridPsf, PolynomialPsf, Psf
from pipeline.masks import bits
from pipeline.psfphot import (
    SplinePsf,
    flux_noise,
    forced_flux,
    fwhm,
    psf_box,
)
from pipeline.smooth import smooth_variance

SHAPE = (200, 220)


@pytest.fixture
def planes(lab):
    image = np.zeros(SHAPE, np.float32)
    return image, np.full(SHAPE, lab.SKY, np.float32), np.zeros(SHAPE, np.uint32)


def put(lab, image, x, y, flux, star):
    ix, iy, h = round(x), round(y), lab.SIDE // 2
    stamp = star.stamp(x - ix, y - iy) * flux / star.norm()
    image[iy - h : iy + h + 1, ix - h : ix + h + 1] += stamp.astype(np.float32)


@pytest.mark.parametrize(("width", "tolerance"), [(3.0, 2e-3), (4.2, 2e-3), (6.0, 5e-4)])
def test_shifted_stamps_and_slopes_match_the_analytic_psf(lab, width, tolerance):
    star = lab.Star(width)
    spline = SplinePsf.of(star.psf())
    p, px, py = np.empty((17, 17)), np.empty((17, 17)), np.empty((17, 17))
    for dx, dy in ((0.0, 0.0), (0.37, -0.21), (-1.8, 0.5)):
        psf_box(spline.coefficients([5.0], [5.0])[0], dx, dy, spline.order, p, px, py)
        true = star.stamp(dx, dy, 17) / star.norm()
        e = 1e-4
        slope = (star.stamp(dx + e, dy, 17) - star.stamp(dx - e, dy, 17)) / (2 * e * star.norm())
        np.testing.assert_allclose(p, true, atol=tolerance * true.max())
        np.testing.assert_allclose(-px, slope, atol=2 * tolerance * true.max())


@pytest.mark.parametrize("width", [3.0, 4.2])
@pytest.mark.parametrize("model", ["grid", "polynomial"])
def test_spline_within_a_radius_is_the_same_there(lab, width, model):
    stamps = lab.Star(width).psf().stamps([5.0], [5.0])[0] + np.zeros((3, 1, 1))
    stamps *= np.array([1.0, 0.1, -0.05])[:, None, None]
    psf = PolynomialPsf(stamps, 1, SHAPE)
    if model == "grid":
        at = np.array([10.0, 150.0])
        psf = GridPsf(np.stack([[psf.at(x, y) for x in at] for y in at]), at, at)
    whole = SplinePsf.of(psf)
    part = whole.within(5)
    assert part.psf.side < whole.psf.side - 10
    for dx, dy in ((0.5, -0.5), (-0.5, 0.5), (0.13, 0.0)):
        boxes = np.empty((2, 3, 11, 11))
        for box, spline in zip(boxes, (whole, part), strict=True):
            psf_box(spline.coefficients([60.0], [40.0])[0], dx, dy, spline.order, *box)
        np.testing.assert_allclose(boxes[1], boxes[0], rtol=1e-13, atol=1e-18)


def test_sharp_psfs_get_the_quintic_spline(lab):
    assert SplinePsf.of(lab.Star(3.0).psf()).order == 5
    assert SplinePsf.of(lab.Star(4.2).psf()).order == 3


def test_fwhm_of_a_gaussian(lab):
    # the pixel adds 1/12 to the variance
    true = np.sqrt(4.2**2 + 2.3548**2 / 12)
    assert fwhm(lab.Star(4.2).stamp(0, 0)) == pytest.approx(true, rel=2e-3)


def test_flux_noise_is_the_scatter_of_optimal_fluxes(lab):
    psf, rng = lab.Star().psf(), np.random.default_rng(1)
    side = psf.side
    variance = rng.uniform(50.0, 200.0, SHAPE).astype(np.float32)
    y, x = 90, 110
    stamp = psf.at(float(x), float(y))
    h = side // 2
    v = variance[y - h : y + h + 1, x - h : x + h + 1].astype(float)
    noise = rng.normal(size=(4000, side, side)) * np.sqrt(v)
    fluxes = (noise * stamp / v).sum((1, 2)) / (stamp**2 / v).sum()

    sigma = flux_noise(psf, variance, float(x), float(y))[0]

    assert sigma == pytest.approx(1.0 / np.sqrt((stamp**2 / v).sum()), rel=1e-12)
    assert np.std(fluxes / sigma) == pytest.approx(1.0, abs=4 / np.sqrt(2 * 4000))


def test_flux_noise_with_unknown_variances(lab):
    psf = lab.Star().psf()
    even = np.full(SHAPE, 100.0, np.float32)
    holes, half = even.copy(), even.copy()
    holes[88:92, 105:115] = np.nan
    half[:, :100] = 0.0
    whole = flux_noise(psf, even, [110.0, 0.0], [90.0, 0.0])  # beyond the edge as on it

    assert whole[0] == pytest.approx(whole[1], rel=0.01)
    np.testing.assert_allclose(flux_noise(psf, holes, [110.0], [90.0]), whole[:1])
    np.testing.assert_allclose(flux_noise(psf, half, [100.0], [90.0]), whole[:1])
    assert np.isnan(flux_noise(psf, np.zeros(SHAPE, np.float32), 110.0, 90.0)[0])
    assert flux_noise(psf, even, [], []).shape == (0,)


def test_models_of_the_psf_agree(lab):
    star = lab.Star()
    stamp = star.psf().cube[0, 0]

    class Plain(Psf):
        side = lab.SIDE

        def stamps(self, x, y):
            return np.repeat(stamp[None], len(np.atleast_1d(x)), axis=0)

    linear = np.zeros((3, *stamp.shape))
    linear[0] = stamp
    models = [star.psf(), PolynomialPsf(linear, 1, SHAPE), Plain()]
    values = [SplinePsf.of(m).coefficients([3.0, 9.0], [4.0, 2.0]) for m in models]
    np.testing.assert_allclose(values[0], values[1], atol=1e-14)
    np.testing.assert_allclose(values[0], values[2], atol=1e-14)


def test_noise_free_star_returns_its_flux(lab, planes):
    image, variance, mask = planes
    star = lab.Star()
    put(lab, image, 60.3, 80.7, 5e4, star)
    got = forced_flux(image, variance, None, mask, star.psf(), [60.3], [80.7])
    assert got.flux[0] == pytest.approx(5e4, rel=1e-3)
    assert got.flux_err[0] == pytest.approx(star.sigma_flux(), rel=5e-3)
    assert not got.flag[0]


def test_error_is_the_sandwich_of_weights_and_total_variance(lab, planes):
    image, variance, mask = planes
    star = lab.Star()
    variance[:] = np.random.default_rng(3).uniform(50, 400, SHAPE)
    null = np.random.default_rng(4).uniform(80, 120, SHAPE).astype(np.float32)
    got = forced_flux(image + 1, variance, null, mask, star.psf(), [100.0], [90.0], radius=6)
    j, i = np.mgrid[-6:7, -6:7]
    inside = i**2 + j**2 <= 36
    box = np.s_[84:97, 94:107]
    p = star.psf().cube[0, 0][9:22, 9:22] * inside
    w, v = 1.0 / null[box], variance[box]
    a = (w * p**2).sum()
    flux = (w * p).sum() / a
    assert got.flux[0] == pytest.approx(flux)
    assert got.flux_err[0] == pytest.approx(np.sqrt((w**2 * p**2 * v).sum()) / a)
    residual = (1 - flux * p)[inside]
    chi2 = (residual**2 / v[inside]).sum()
    assert got.chi2[0] == pytest.approx(chi2)
    logs = np.log(2 * np.pi * v[inside]).sum()
    assert got.ln_likelihood[0] == pytest.approx(-0.5 * (chi2 + logs))
    assert got.ndata[0] == inside.sum()
    assert got.mean[0] == pytest.approx(1.0)


def test_bad_pixels_are_left_out_and_counted(lab, planes):
    image, variance, mask = planes
    star = lab.Star()
    put(lab, image, 60.0, 80.0, 1e4, star)
    image[81, 61], mask[81, 61] = 1e6, bits("CR")
    image[79, 58] = np.nan
    got = forced_flux(image, variance, None, mask, star.psf(), [60.0], [80.0])
    clean = forced_flux(
        np.zeros(SHAPE), variance, None, np.zeros_like(mask), star.psf(), [60.0], [80.0]
    )
    assert got.flux[0] == pytest.approx(1e4, rel=1e-3)
    assert got.ndata[0] == clean.ndata[0] - 2
    assert got.good[0] < clean.good[0] == 1


def test_flags_at_the_edge_and_without_pixels(lab, planes):
    image, variance, mask = planes
    mask[100:140, 100:140] = bits("BAD")
    x, y = [3.0, -40.0, 120.0, 60.0], [50.0, 50.0, 120.0, 50.0]
    got = forced_flux(image, variance, None, mask, lab.Star().psf(), x, y)
    np.testing.assert_array_equal(got.edge, [True, True, False, False])
    np.testing.assert_array_equal(got.no_good_pixels, [False, True, True, False])
    np.testing.assert_array_equal(np.isfinite(got.flux), [True, False, False, True])
    np.testing.assert_array_equal(got.flag, [True, True, True, False])


def test_correlated_noise_enters_the_error(lab):
    rng = np.random.default_rng(5)
    size = 900
    image = uniform_filter(rng.normal(size=(size, size)), 3, mode="wrap") * 3  # unit variance
    rho = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1]) / 9.0
    variance, mask = np.ones((size, size), np.float32), np.zeros((size, size), np.uint32)
    x, y = (v.ravel() for v in np.meshgrid(*2 * [np.arange(20.0, size - 20, 20)]))
    psf = lab.Star().psf()
    white = forced_flux(image, variance, None, mask, psf, x, y)
    known = forced_flux(image, variance, None, mask, psf, x, y, correlation=rho[None, None])
    assert np.std(white.flux / white.flux_err) > 2
    assert np.std(known.flux / known.flux_err) == pytest.approx(1, abs=3 / np.sqrt(2 * len(x)))


def test_smooth_variance_does_not_see_sources():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:300, :260]
    truth = 100 + 0.1 * x + 0.05 * y
    variance = (truth * rng.normal(1, 0.02, truth.shape)).astype(np.float32)
    variance[140:170, 100:130] += 5000
    mask = np.zeros(truth.shape, np.uint32)
    smooth = smooth_variance(variance, mask)
    np.testing.assert_allclose(smooth[40:-40, 40:-40], truth[40:-40, 40:-40], rtol=0.03)
    assert smooth.dtype == np.float32
