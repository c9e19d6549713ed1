"""Measurements against what was put in: no bias, and errors that are those of the scatter.

Every bound on a width or a mean is a few of its own statistical errors; seeds are fixed.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import convolve
from scipy.signal import correlate2d

from pipeline.diasource.fits import Fits, fit_dipoles, fit_points, fit_trails
from pipeline.diasource.moments import measure_moments
from pipeline.diasource.planes import Planes
from pipeline.psfphot import SplinePsf, forced_flux

Array = npt.NDArray[np.float64]
SHAPE = (1040, 1040)
NONE = np.zeros(0, np.intp)
_NO_MASK = np.zeros(SHAPE, np.uint32)


def unbiased(pull: Array, sigmas: float = 3.5) -> None:
    """Mean 0 and width 1 within the errors of a sample of this size, and within 0.9 to 1.1."""
    n = len(pull)
    assert n > 500
    assert np.isfinite(pull).all()
    assert abs(pull.mean()) < sigmas / np.sqrt(n)
    assert abs(pull.std() - 1.0) < min(0.1, sigmas / np.sqrt(2 * n))


def stage(lab: ModuleType, image: Array, variance: Array) -> Planes:
    return Planes.of(
        image.astype(np.float32), variance.astype(np.float32), np.full(SHAPE, lab.SKY, np.float32),
        _NO_MASK, np.uint32(1),
    )  # fmt: skip


def pull(fits: Fits, k: int, truth: Array) -> Array:
    return np.asarray((fits.theta[:, k] - truth) / fits.errors[:, k])


class TestPureNoise:
    def test_forced_fluxes(self, lab: ModuleType) -> None:
        rng = np.random.default_rng(21)
        image, variance = lab.blank(SHAPE, rng)
        x, y = lab.grid(SHAPE, 20, rng).T

        found = forced_flux(image, variance, None, _NO_MASK, lab.Star().psf(), x, y)

        unbiased(found.flux / found.flux_err)
        assert (found.chi2 / found.ndata).mean() == pytest.approx(1.0, abs=0.01)
        assert found.ndata.min() == found.ndata.max()

    def test_forced_fluxes_in_noise_that_neighbours_share(self, lab: ModuleType) -> None:
        rng = np.random.default_rng(22)
        kernel = np.array([[0.02, 0.08, 0.02], [0.08, 0.6, 0.08], [0.02, 0.08, 0.02]])
        white, variance = lab.blank(SHAPE, rng)
        rho = correlate2d(kernel, kernel) / (kernel**2).sum()
        image, variance = convolve(white, kernel, mode="wrap"), variance * (kernel**2).sum()
        x, y = lab.grid(SHAPE, 20, rng).T
        star = lab.Star().psf()

        found = forced_flux(
            image, variance, None, _NO_MASK, star, x, y, correlation=rho[None, None]
        )
        blind = forced_flux(image, variance, None, _NO_MASK, star, x, y)

        unbiased(found.flux / found.flux_err)
        assert (blind.flux / blind.flux_err).std() > 1.2

    def test_variance_that_changes_over_the_image(self, lab: ModuleType) -> None:
        rng = np.random.default_rng(23)
        variance = np.broadcast_to(np.geomspace(20.0, 2000.0, SHAPE[1]), SHAPE)
        image = rng.normal(0.0, 1.0, SHAPE) * np.sqrt(variance)
        x, y = lab.grid(SHAPE, 20, rng).T

        null = variance.astype(np.float32)
        found = forced_flux(image, variance, null, _NO_MASK, lab.Star().psf(), x, y)

        unbiased(found.flux / found.flux_err)
        assert found.flux_err.max() / found.flux_err.min() > 8.0


@pytest.fixture(scope="module")
def points(lab: ModuleType) -> dict[str, Any]:
    """Stars of both signs with their own noise, at signal-to-noise ratios of 20 to 200."""
    rng = np.random.default_rng(24)
    star = lab.Star()
    image, variance = lab.blank(SHAPE, rng)
    at = lab.grid(SHAPE, 40, rng)
    flux = lab.log_uniform(20, 200, len(at), rng) * star.sigma_flux()
    flux *= np.where(rng.random(len(at)) < 0.5, -1.0, 1.0)
    lab.add(image, variance, star, at, flux, rng)
    planes, psf = stage(lab, image, variance), SplinePsf.of(star.psf())
    begin = at + rng.normal(0.0, 0.3, at.shape)
    fits, _ = fit_points(planes, psf, begin, 0.7 * flux, 8.0, 2.0, NONE)
    return {"at": at, "flux": flux, "planes": planes, "psf": psf, "fits": fits}


class TestPoints:
    def test_every_fit_comes_to_rest(self, points: dict[str, Any]) -> None:
        assert points["fits"].converged.all()
        assert points["fits"].good == pytest.approx(np.ones(len(points["at"])))

    def test_fluxes(self, points: dict[str, Any]) -> None:
        unbiased(pull(points["fits"], 0, points["flux"]))

    @pytest.mark.parametrize("axis", [0, 1])
    def test_positions(self, points: dict[str, Any], axis: int) -> None:
        unbiased(pull(points["fits"], 1 + axis, points["at"][:, axis]))

    def test_errors_of_flux_and_position_are_those_of_theory(
        self, lab: ModuleType, points: dict[str, Any]
    ) -> None:
        # King 1983, PASP 95, 163: a Gaussian of width s has a position to s / SNR × √2 per axis
        # in noise of the sky alone, which the faintest of these nearly have.
        fits, snr = points["fits"], np.abs(points["flux"]) / lab.Star().sigma_flux()
        faint = snr < 30
        s = np.sqrt((4.2 / 2.3548) ** 2 + 1.0 / 12.0)

        assert (fits.errors[faint, 1] * snr[faint] / s / np.sqrt(2)).mean() == pytest.approx(
            1.0, abs=0.12
        )
        assert (fits.errors[faint, 0] / lab.Star().sigma_flux()).mean() == pytest.approx(
            1.0, abs=0.12
        )

    def test_chi_square_is_that_of_the_pixels(self, points: dict[str, Any]) -> None:
        fits = points["fits"]
        excess = (fits.chi2 - (fits.ndata - 3)) / np.sqrt(2.0 * (fits.ndata - 3))

        assert excess.mean() == pytest.approx(0.0, abs=0.2)
        assert excess.std() == pytest.approx(1.0, abs=0.1)

    def test_moments_are_those_of_the_psf(self, points: dict[str, Any]) -> None:
        out = self.moments(points, points["at"], points["fits"])

        good = out[:, 13] == 0
        assert good.mean() > 0.99
        for value, own, variance in ((0, 3, 6), (1, 4, 9), (2, 5, 11)):
            unbiased((out[good, value] - out[good, own]) / np.sqrt(out[good, variance]), 5.0)

    def moments(self, points: dict[str, Any], at: Array, fits: Fits) -> Array:
        middle = np.rint(at)
        own = fits.theta[:, :3].copy()
        own[:, 1:] -= middle
        out = np.empty((len(at), 15))
        measure_moments(
            points["planes"], points["psf"].coefficients(*middle.T), points["psf"].order,
            np.ascontiguousarray(own), np.ascontiguousarray(middle[:, 0]),
            np.ascontiguousarray(middle[:, 1]), 12, np.zeros(len(at)),
            np.abs(fits.theta[:, 0]) / fits.errors[:, 0], out,
        )  # fmt: skip
        return out


@pytest.mark.parametrize(
    ("xx", "xy", "yy"), [(3.0, 0.0, 3.0), (5.0, 1.0, 3.5), (4.0, -1.5, 6.0), (8.0, 2.0, 8.0)]
)
def test_moments_of_gaussians_are_their_own(
    lab: ModuleType, points: dict[str, Any], xx: float, xy: float, yy: float
) -> None:
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]][:, 480:561, 480:561] - 520.0
    x, y = 0.3, -0.2
    inverse = np.linalg.inv([[xx, xy], [xy, yy]])
    du, dv = u - x, v - y
    exponent = inverse[0, 0] * du**2 + 2 * inverse[0, 1] * du * dv + inverse[1, 1] * dv**2
    image = np.zeros(SHAPE)
    image[480:561, 480:561] = np.exp(-0.5 * exponent) * 1e6 / (2 * np.pi * np.sqrt(xx * yy - xy**2))
    planes = stage(lab, image, np.full(SHAPE, lab.SKY))
    out, middle = np.empty((1, 15)), np.array([520.0])
    psf = points["psf"]

    measure_moments(
        planes, psf.coefficients(middle, middle), psf.order, np.array([[9e5, x, y]]),
        middle, middle, 18, np.zeros(1), np.array([1e4]), out,
    )  # fmt: skip

    assert out[0, 13] == 0
    assert out[0, :3] == pytest.approx([xx, xy, yy], rel=1e-3, abs=1e-3)


class TestShapes:
    """Trails and dipoles, at high signal-to-noise ratios, where fits are linear."""

    def scene(
        self, lab: ModuleType, seed: int, parts: Any, low: float, high: float
    ) -> tuple[Planes, SplinePsf, Array, Array]:
        rng = np.random.default_rng(seed)
        star = lab.Star()
        image, variance = lab.blank(SHAPE, rng)
        at = lab.grid(SHAPE, 52, rng)[:400]
        flux = lab.log_uniform(low, high, len(at), rng) * star.sigma_flux()
        lab.add(image, variance, star, at, flux, rng, parts)
        return stage(lab, image, variance), SplinePsf.of(star.psf()), at, flux

    @pytest.mark.parametrize(("a", "b"), [(9.0, 0.0), (0.0, 7.0), (6.0, -6.0)])
    def test_trails(self, lab: ModuleType, a: float, b: float) -> None:
        t = (np.arange(40) + 0.5) / 40 - 0.5
        parts = np.column_stack([a * t, b * t, np.full(40, 1 / 40)])
        planes, psf, at, flux = self.scene(lab, 25, lambda _: parts, 60, 200)
        guess = np.column_stack([0.5 * flux, at])

        fits = fit_trails(
            planes, psf, guess, np.zeros(len(at)), np.tile([0.6 * a, 0.6 * b + 0.5], (len(at), 1)),
            np.full(len(at), 25.0), 4.2,
        )  # fmt: skip

        assert fits.converged.mean() > 0.99
        sign = np.sign(fits.theta[:, 3] * a + fits.theta[:, 4] * b)
        length = np.hypot(fits.theta[:, 3], fits.theta[:, 4])
        angle = np.degrees(np.arctan2(sign * fits.theta[:, 4], sign * fits.theta[:, 3]))
        assert np.median(length) == pytest.approx(np.hypot(a, b), abs=0.05)
        assert np.median(angle) == pytest.approx(np.degrees(np.arctan2(b, a)), abs=0.3)
        for k, truth in ((0, flux), (1, at[:, 0]), (2, at[:, 1])):
            width = np.nanstd(pull(fits, k, truth))
            assert width == pytest.approx(1.0, abs=3.5 / np.sqrt(2 * len(at)))

    @pytest.mark.parametrize(("a", "b"), [(6.0, 0.0), (-3.0, 6.0)])
    def test_dipoles_apart(self, lab: ModuleType, a: float, b: float) -> None:
        parts = np.array([[a / 2, b / 2, 1.0], [-a / 2, -b / 2, -1.0]])
        planes, psf, at, flux = self.scene(lab, 26, lambda _: parts, 40, 150)
        half = np.array([a / 2, b / 2])
        points = np.column_stack([0.8 * flux, at + half])

        fits = fit_dipoles(
            planes, psf, np.rint(at + half), np.rint(at - half), points,
            np.full(len(at), np.nan), 8.0,
        )  # fmt: skip

        assert fits.converged.mean() > 0.99
        for k, truth in enumerate(
            (flux, 0.0 * flux, at[:, 0], at[:, 1], a + 0.0 * flux, b + 0.0 * flux)
        ):
            values = pull(fits, k, truth)[fits.converged]
            assert values.mean() == pytest.approx(0.0, abs=3.5 / np.sqrt(len(at)))
            assert values.std() == pytest.approx(1.0, abs=3.5 / np.sqrt(2 * len(at)))

    @pytest.mark.parametrize("distance", [5.0, 6.0])
    def test_blends_are_taken_apart(self, lab: ModuleType, distance: float) -> None:
        parts = np.array([[distance / 2, 0.0, 1.0], [-distance / 2, 0.0, 0.5]])
        planes, psf, at, flux = self.scene(lab, 27, lambda _: parts, 60, 150)
        arm = np.array([distance / 2, 0.0])
        both = np.concatenate([at + arm, at - arm])
        truth = np.concatenate([flux, 0.5 * flux])

        fits, _ = fit_points(planes, psf, both, truth, 8.0, 2.0, np.arange(len(both)))

        # Each is fitted with the other taken out, in turn: the errors know nothing of the other.
        n = len(at)
        alone, _ = fit_points(planes, psf, both, truth, 8.0, 2.0, NONE)
        for half in (slice(0, n), slice(n, 2 * n)):
            ratio = fits.theta[half, 0] / truth[half]
            assert np.median(ratio) == pytest.approx(1.0, abs=0.005)
            assert np.median(fits.theta[half, 1] - both[half, 0]) == pytest.approx(0.0, abs=0.01)
        assert abs(np.median(alone.theta[n:, 0] / truth[n:]) - 1.0) > 0.02
