"""Numbers of calibration whose answers follow from how the data were made."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calibrate import background
from pipeline.calibrate.measure import windowed_moments
from pipeline.calibrate.noise import noise_ratio, rescaled
from pipeline.calibrate.photometry import aperture_correction, fit_zero_point
from pipeline.camera import Section
from pipeline.masks import NOT_BLANK, bits

Array = npt.NDArray[np.float64]
MAG = 2.5 / np.log(10.0)


def standards(seed: int, n: int, scatter: float = 0.0) -> tuple[Array, Array, Array, Array]:
    """Electrons, variance of the sky, nJy and its error, of stars of 0.8 nJy per electron."""
    rng = np.random.default_rng(seed)
    reference = 10 ** rng.uniform(4, 6, n)
    true = reference / 0.8 * np.exp(rng.normal(0.0, scatter / MAG, n))
    sky = np.full(n, 250.0**2)
    noise = rng.normal(0.0, 1.0, n) * np.sqrt(sky + true)
    return true + noise, sky, reference, np.full(n, np.nan)


class TestZeroPoint:
    def test_without_noise_it_is_the_definition(self) -> None:
        reference = np.geomspace(1e4, 1e6, 9)

        zero = fit_zero_point(reference / 0.8, np.ones(9), reference, np.zeros(9))

        assert zero.njy == pytest.approx(0.8, rel=1e-12)
        # One electron is 0.8 nJy: 31.4 is the magnitude of one nJy.
        assert zero.zero_point == pytest.approx(31.4 - 2.5 * np.log10(0.8), abs=1e-12)
        assert zero.scatter == 0.0

    @given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
    @settings(max_examples=25)
    def test_units_of_the_catalogue_only_move_it(self, seed: int, factor: float) -> None:
        flux, sky, reference, err = standards(seed, 30, 0.01)

        plain = fit_zero_point(flux, sky, reference, err)
        scaled = fit_zero_point(flux, sky, reference * factor, err)

        moved = scaled.zero_point - plain.zero_point
        assert moved == pytest.approx(-2.5 * np.log10(factor), abs=1e-5)
        assert scaled.n == plain.n

    @given(st.integers(0, 10**6), st.randoms(use_true_random=False))
    @settings(max_examples=25)
    def test_order_of_the_stars_is_of_no_account(self, seed: int, random: Any) -> None:
        stars = standards(seed, 25, 0.02)
        order = list(range(25))
        random.shuffle(order)

        plain, other = fit_zero_point(*stars), fit_zero_point(*(s[order] for s in stars))

        assert other.zero_point == pytest.approx(plain.zero_point, abs=1e-10)
        assert other.n == plain.n

    def test_stars_that_vary_show_as_scatter_and_enter_the_error(self) -> None:
        zeros = [fit_zero_point(*standards(seed, 60, 0.03)) for seed in range(100)]
        pulls = [(z.zero_point - 31.4 + 2.5 * np.log10(0.8)) / z.err for z in zeros]

        assert np.mean([z.scatter for z in zeros]) == pytest.approx(0.03, abs=0.002)
        assert np.std(pulls) == pytest.approx(1.0, abs=3 / np.sqrt(2 * 100))

    def test_a_star_without_flux_or_reference_is_left_out(self) -> None:
        flux, sky, reference, err = standards(1, 20)
        whole = fit_zero_point(flux[3:], sky[3:], reference[3:], err[3:])
        flux[0], reference[1], sky[2] = np.nan, np.nan, np.nan

        holed = fit_zero_point(flux, sky, reference, err)

        assert (holed.n, holed.zero_point) == (17, pytest.approx(whole.zero_point, abs=1e-12))


class TestApertureCorrection:
    @pytest.mark.parametrize("true", [0.97, 1.0, 1.04])
    def test_ratio_and_error_are_those_of_the_stars(self, true: float) -> None:
        rng = np.random.default_rng(3)
        pulls = []
        for _ in range(150):
            flux = 10 ** rng.uniform(4, 5, 40)
            err = 50.0 / flux
            found = aperture_correction(true * flux * (1 + err * rng.normal(size=40)), flux, err)
            pulls.append((found.value - true) / found.err)

        assert np.mean(pulls) == pytest.approx(0.0, abs=3 / np.sqrt(150))
        assert np.std(pulls) == pytest.approx(1.0, abs=4 / np.sqrt(2 * 150))


class TestBackground:
    SHAPE = (900, 700)

    def surface(self) -> Array:
        v, u = (np.linspace(-1, 1, n) for n in self.SHAPE)
        return 400.0 + 6.0 * u - 4.0 * v[:, None] + 1.5 * u * v[:, None] + 1.2 * u * u

    def noise(self, seed: int = 1) -> Array:
        return np.random.default_rng(seed).normal(0.0, 20.0, self.SHAPE)

    def model(self, image: Array, mask: npt.NDArray[np.uint32] | None = None) -> Array:
        nothing = np.zeros(self.SHAPE, np.uint32) if mask is None else mask
        sky = background.model(image.astype(np.float32), nothing)
        return np.asarray(sky.image, float)

    def test_the_surface_of_the_sky_is_followed(self) -> None:
        error = self.model(self.surface() + self.noise()) - self.surface()

        # Between the middles of the outermost cells; beyond them it stays level, which costs the
        # slope times half a cell, here 2.2 and 1.1 electrons, where there is one.
        inner = error[128:-128, 128:-128]
        # 20 electrons per pixel are 0.08 in a cell of 256 × 256; the surface has a spread of 2.6.
        assert inner.std() < 0.3
        assert abs(inner.mean()) < 0.25
        assert np.abs(error).max() < 5.0

    @pytest.mark.parametrize("level", [-350.0, 1e4])
    def test_a_level_is_added_and_nothing_else_changes(self, level: float) -> None:
        image = self.surface() + self.noise()

        moved = self.model(image + level) - self.model(image)

        assert moved == pytest.approx(np.full(self.SHAPE, level), abs=0.02)

    def test_stars_do_not_lift_it(self) -> None:
        rng = np.random.default_rng(2)
        image = self.surface() + self.noise()
        before = self.model(image)
        k = np.arange(-20, 21)
        star = np.exp(-0.5 * (k[:, None] ** 2 + k**2) / 4.0)
        for x, y in zip(rng.integers(30, 670, 60), rng.integers(30, 870, 60), strict=True):
            image[y - 20 : y + 21, x - 20 : x + 21] += rng.uniform(200, 5000) * star

        lifted = self.model(image) - before

        assert abs(lifted.mean()) < 0.15
        assert np.abs(lifted).max() < 2.0

    def test_masked_light_is_not_seen(self) -> None:
        image, mask = self.surface() + self.noise(), np.zeros(self.SHAPE, np.uint32)
        mask[300:420, 200:300] = bits("SAT")
        lit = image.copy()
        lit[300:420, 200:300] += 5000.0

        assert (self.model(lit, mask) == self.model(image, mask)).all()


class TestNoise:
    SHAPE = (400, 600)

    def blank(self, width: float, seed: int = 4) -> Any:
        image = np.random.default_rng(seed).normal(0.0, width, self.SHAPE).astype(np.float32)
        return image, np.full(self.SHAPE, 9.0, np.float32), np.zeros(self.SHAPE, np.uint32)

    @pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
    def test_ratio_is_the_noise_over_its_claim(self, ratio: float) -> None:
        image, variance, mask = self.blank(3.0 * ratio)

        # 27,000 pixels tell an interquartile range to 0.7 %.
        assert noise_ratio(image, variance, mask) == pytest.approx(ratio, rel=0.03)

    @pytest.mark.parametrize("plane", sorted(NOT_BLANK))
    def test_pixels_that_are_not_blank_do_not_count(self, plane: str) -> None:
        image, variance, mask = self.blank(3.0)
        image[:200] *= 50.0
        mask[:200] = bits(plane)

        assert noise_ratio(image, variance, mask) == pytest.approx(1.0, rel=0.04)

    def test_too_few_pixels_are_no_answer(self) -> None:
        image, variance, mask = self.blank(3.0)
        mask[3:] = bits("BAD")

        assert np.isnan(noise_ratio(image[:, :90], variance[:, :90], mask[:, :90]))

    def test_each_amplifier_gets_its_own_factor(self) -> None:
        image, variance, mask = self.blank(3.0)
        image[:, :300] *= 1.05
        amplifiers = [Section(0, 300, 0, 400), Section(300, 600, 0, 400)]

        scaled, factors = rescaled(image, variance, mask, amplifiers, 0.2)

        assert list(factors.values()) == pytest.approx([1.05**2, 1.0], rel=0.02)
        assert scaled[0, 0] / 9.0 == pytest.approx(factors["[1:300,1:400]"], rel=1e-6)
        assert (variance == 9.0).all()

    def test_factors_stay_within_their_limits(self) -> None:
        image, variance, mask = self.blank(3.0)
        image[:, :300] *= 3.0
        image[:, 300:] /= 3.0
        amplifiers = [Section(0, 300, 0, 400), Section(300, 600, 0, 400)]

        _, factors = rescaled(image, variance, mask, amplifiers, 0.2)

        assert list(factors.values()) == pytest.approx([1.2, 0.9])

    def test_a_slope_of_the_sky_is_no_noise(self) -> None:
        image, variance, mask = self.blank(3.0)
        image += np.linspace(0.0, 100.0, 600, dtype=np.float32)

        _, factors = rescaled(image, variance, mask, [], 0.2)

        assert list(factors.values()) == pytest.approx([1.0], rel=0.02)


@given(
    st.floats(1.3, 3.0), st.floats(0.6, 1.0), st.floats(0.0, np.pi),
    st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(1.6, 2.6),
)  # fmt: skip
@settings(max_examples=40)
def test_moments_of_a_gaussian_are_its_own_whatever_the_window(
    major: float, axis_ratio: float, angle: float, dx: float, dy: float, window: float
) -> None:
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    shape = turn @ np.diag([major**2, (axis_ratio * major) ** 2]) @ turn.T
    v, u = np.mgrid[:61, :61]
    offset = np.stack([u - 30 - dx, v - 30 - dy], axis=-1)
    exponent = np.einsum("yxi,ij,yxj->yx", offset, np.linalg.inv(shape), offset)
    image = (1e4 * np.exp(-0.5 * exponent)).astype(np.float32)

    found = windowed_moments(image, np.zeros((61, 61), np.uint32), [30.0], [30.0], window)

    assert (found.x[0], found.y[0]) == pytest.approx((30 + dx, 30 + dy), abs=2e-3)
    measured = np.array([found.xx[0], found.xy[0], found.yy[0]])
    assert measured == pytest.approx(shape[[0, 0, 1], [0, 1, 1]], abs=0.02 * major**2)
    assert found.ok[0]
