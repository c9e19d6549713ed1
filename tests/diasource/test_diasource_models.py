"""Models, their derivatives and their fits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from pipeline.diasource.models import DIPOLE, POINT, TRAIL, evaluate, fit, invert
from pipeline.psfphot import SplinePsf

CASES = {
    POINT: np.array([900.0, 0.31, -0.2]),
    TRAIL: np.array([900.0, 0.31, -0.2, 5.0, 3.5]),
    DIPOLE: np.array([900.0, 120.0, 0.31, -0.2, 2.5, -1.0]),
}


@pytest.fixture(scope="module")
def psf(lab):
    spline = SplinePsf.of(lab.Star().psf(), 5)
    return spline.coefficients([0.0], [0.0])[0], spline.order


def render(kind, theta, psf, n=41):
    m, jac = np.empty((n, n)), np.empty((len(theta), n, n))
    evaluate(kind, theta, *psf, m, jac)
    return m, jac


@pytest.mark.parametrize("kind", CASES)
def test_derivatives_are_those_of_the_model(kind, psf):
    theta = CASES[kind]
    _, jac = render(kind, theta, psf)
    for k in range(len(theta)):
        e = np.zeros(len(theta))
        e[k] = 1e-5 * max(1, abs(theta[k]))
        numeric = (render(kind, theta + e, psf)[0] - render(kind, theta - e, psf)[0]) / (2 * e[k])
        np.testing.assert_allclose(jac[k], numeric, atol=2e-6 * np.abs(jac[k]).max())


def test_a_trail_is_the_integral_of_the_psf_along_a_line(lab, psf):
    length = 14.0
    m, _ = render(TRAIL, np.array([1.0, 0.0, 0.0, length, 0.0]), psf)
    s = lab.Star().width / 2.3548 * np.sqrt(2)
    k = np.arange(-20, 21)

    def primitive(u):  # of erf(u / s)
        return u * erf(u / s) + s / np.sqrt(np.pi) * np.exp(-((u / s) ** 2))

    h = length / 2
    ends = ((0.5, h, 1), (0.5, -h, -1), (-0.5, h, -1), (-0.5, -h, 1))
    along = sum(sign * primitive(k + e + side) for e, side, sign in ends) / (2 * length)
    across = 0.5 * (erf((k + 0.5) / s) - erf((k - 0.5) / s))
    truth = np.outer(across, along) / lab.Star().norm()
    np.testing.assert_allclose(m, truth, atol=2e-3 * truth.max())


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_inverse_of_a_positive_matrix(k, seed):
    rng = np.random.default_rng(seed)
    b = rng.normal(size=(k, k + 3)) * 10.0 ** rng.integers(-3, 4, (k, 1))
    a, out = b @ b.T, np.empty((k, k))
    assert invert(a, out)
    np.testing.assert_allclose(out @ a, np.eye(k), atol=1e-6)


def test_a_singular_matrix_is_refused():
    assert not invert(np.ones((2, 2)), np.empty((2, 2)))


@pytest.mark.parametrize("kind", CASES)
def test_noise_free_fits_return_the_truth(kind, psf):
    truth = CASES[kind]
    d, _ = render(kind, truth, psf)
    theta = truth * np.array([0.8] + [1.15] * (len(truth) - 1))
    cov, stats = np.empty((len(truth),) * 2), np.empty(4)
    w = np.ones_like(d)
    assert fit(kind, theta, *psf, d, w, 1 / w, 3.0, np.zeros(2), cov, stats)
    np.testing.assert_allclose(theta, truth, rtol=1e-4, atol=1e-3)
    assert stats[0] < 1e-3


def test_the_sandwich_with_exact_weights_is_the_inverse_of_fisher(psf):
    theta = CASES[POINT].copy()
    d, _ = render(POINT, theta, psf)
    cov, stats = np.empty((3, 3)), np.empty(4)
    v = np.full_like(d, 7.0)
    fit(POINT, theta, *psf, d, 1 / v, v, 3.0, np.zeros(2), cov, stats)
    _, jac = render(POINT, theta, psf)
    fisher = np.einsum("aij,bij->ab", jac, jac) / 7.0
    np.testing.assert_allclose(cov, np.linalg.inv(fisher), rtol=1e-3, atol=1e-6)


def test_a_prior_counts_as_one_more_measurement(psf):
    d, _ = render(POINT, np.array([900.0, 0.0, 0.0]), psf)
    v, results = np.full_like(d, 4e4), []
    for prior in (np.zeros(2), np.array([500.0, 1e-4])):
        theta, cov, stats = np.array([800.0, 0.1, 0.1]), np.empty((3, 3)), np.empty(4)
        fit(POINT, theta, *psf, d, 1 / v, v, 3.0, prior, cov, stats)
        results.append((theta[0], cov[0, 0]))
    (free, var), (informed, less) = results
    assert less == pytest.approx(1 / (1 / var + 1e-4), rel=1e-2)
    assert informed == pytest.approx((free / var + 500 * 1e-4) * less, rel=1e-2)


def test_a_position_that_runs_away_is_stopped_and_reported(psf):
    d, _ = render(POINT, np.array([900.0, 5.0, 0.0]), psf)
    theta, cov, stats = np.array([300.0, 0.0, 0.0]), np.empty((3, 3)), np.empty(4)
    w = np.ones_like(d)
    assert not fit(POINT, theta, *psf, d, w, w, 2.0, np.zeros(2), cov, stats)
    assert np.hypot(*theta[1:]) <= 2.0 + 1e-9
