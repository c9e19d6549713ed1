"""Apertures with exact overlaps: the area of a circle, a Gaussian's growth curve, SEP."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import sep
from hypothesis import given
from hypothesis import strategies as st

from pipeline.calibrate.measure import aperture_flux
from pipeline.diasource.aperture import _overlap
from pipeline.diasource.aperture import aperture_flux as measure
from pipeline.diasource.planes import Planes
from pipeline.exposure import GridPsf
from pipeline.psfphot import SplinePsf

FLUX, SIGMA, RADIUS = 5000.0, 2.0, 6.0
# Pixels of constant value widen the profile by the variance of a pixel, 1/12.
ENCLOSED = 1.0 - np.exp(-0.5 * RADIUS**2 / (SIGMA**2 + 1.0 / 12.0))


def gaussian(side: int, x: float, y: float, flux: float = FLUX) -> npt.NDArray[np.float64]:
    v, u = np.mgrid[:side, :side]
    profile = np.exp(-0.5 * ((u - x) ** 2 + (v - y) ** 2) / SIGMA**2)
    return np.asarray(flux * profile / (2.0 * np.pi * SIGMA**2))


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.4, 15.0))
def test_overlaps_add_up_to_the_area_of_the_circle(x: float, y: float, radius: float) -> None:
    r = range(-17, 18)
    parts = np.array([[_overlap(i - x, j - y, radius) for i in r] for j in r])

    assert parts.sum() == pytest.approx(np.pi * radius**2, rel=1e-10)
    assert parts.min() >= -1e-12
    assert parts.max() <= 1.0 + 1e-12


@pytest.mark.parametrize("radius", [0.7, 3.0, 5.0, 12.0])
def test_overlaps_are_those_of_sep(radius: float) -> None:
    rng = np.random.default_rng(5)
    image = rng.normal(100.0, 5.0, (60, 60))
    for x, y in rng.uniform(25.0, 35.0, (10, 2)):
        ours = sum(
            image[j, i] * _overlap(i - x, j - y, radius) for j in range(60) for i in range(60)
        )
        exact = float(sep.sum_circle(image, [x], [y], radius, subpix=0)[0][0])

        assert ours == pytest.approx(exact, rel=1e-7)  # SEP rounds pixels to float32


class TestCalibration:
    @pytest.mark.parametrize("radius", [3.0, 5.0, 12.0])
    def test_constant_image(self, radius: float) -> None:
        x, y = np.random.default_rng(6).uniform(20.0, 40.0, (2, 100))

        flux = aperture_flux(np.full((64, 64), 7.0, np.float32), x, y, radius)

        assert flux == pytest.approx(np.full(100, 7.0 * np.pi * radius**2), rel=1e-12)

    def test_growth_curve_of_a_gaussian_star(self) -> None:
        for x, y in np.random.default_rng(7).uniform(25.0, 35.0, (20, 2)):
            image = gaussian(60, x, y).astype(np.float32)

            flux = aperture_flux(image, [x], [y], RADIUS)[0]

            assert flux / FLUX == pytest.approx(ENCLOSED, abs=3e-4)

    def test_circles_that_leave_the_image_have_no_flux(self) -> None:
        image = np.ones((40, 50), np.float32)
        x = [4.5, 4.4, 44.5, 44.6, 20.0, 20.0, 20.0, 20.0, -30.0, np.nan]
        y = [20.0, 20.0, 20.0, 20.0, 4.5, 4.4, 34.5, 34.6, 20.0, 20.0]

        flux = aperture_flux(image, x, y, 5.0)

        assert np.isfinite(flux).tolist() == [True, False] * 4 + [False, False]

    def test_missing_pixels_are_not_passed_over(self) -> None:
        image = np.ones((40, 40), np.float32)
        image[20, 24] = np.nan

        flux = aperture_flux(image, [20.0, 20.0, 10.0], [20.0, 12.0, 20.0], 5.0)

        assert np.isnan(flux).tolist() == [True, False, False]


class TestDifferences:
    """A star in the middle of an image; the PSF is the Gaussian."""

    X, Y = 30.3, 29.8

    def measure(
        self,
        image: npt.NDArray[np.float64],
        bad: tuple[int, int] | None = None,
        *,
        x: float = X,
        added: float = 0.0,
        variance: float = 4.0,
    ) -> list[float]:
        even = np.full(image.shape, variance)
        mask = np.zeros(image.shape, np.uint32)
        if bad is not None:
            mask[bad] = 1
        planes = Planes.of(image, even, even, mask, np.uint32(1))  # type: ignore[arg-type]
        spline = SplinePsf.of(GridPsf(gaussian(31, 15, 15, 1.0)[None, None], *np.zeros((2, 1))))
        own = np.array([[FLUX, x - round(x), self.Y - 30]])
        out = np.empty((1, 4))
        measure(
            planes, spline.coefficients([x], [self.Y]), spline.order, own,
            np.array([float(round(x))]), np.array([30.0]), np.array([added]), RADIUS, out,
        )  # fmt: skip
        return [float(v) for v in out[0]]

    def test_star(self) -> None:
        flux, variance, good, beyond = self.measure(gaussian(61, self.X, self.Y))

        assert flux / FLUX == pytest.approx(ENCLOSED, abs=3e-4)
        # A pixel cut by the rim enters with its part, its variance with the square of it.
        assert 0.93 < variance / (4.0 * np.pi * RADIUS**2) < 1.0
        assert (good, beyond) == (pytest.approx(1.0), 0.0)

    def test_variance_is_that_of_the_sum(self) -> None:
        rng = np.random.default_rng(8)
        fluxes = [self.measure(rng.normal(0.0, 2.0, (61, 61)))[0] for _ in range(2000)]
        variance = self.measure(np.zeros((61, 61)))[1]

        # 2000 values know their variance to 3.2 %.
        assert np.var(fluxes) / variance == pytest.approx(1.0, abs=4 * 0.032)

    def test_a_bad_pixel_is_replaced_by_the_fitted_star(self) -> None:
        image = gaussian(61, self.X, self.Y)
        whole = self.measure(image)
        image[30, 31] = 1e6

        holed = self.measure(image, bad=(30, 31))

        assert holed[0] == pytest.approx(whole[0], rel=1e-3)
        assert whole[1] - holed[1] == pytest.approx(4.0)
        assert holed[2] == pytest.approx(1.0 - 1.0 / (np.pi * RADIUS**2))

    def test_what_a_neighbour_took_is_added(self) -> None:
        blank = self.measure(np.zeros((61, 61)), added=FLUX)

        assert blank[0] / FLUX == pytest.approx(ENCLOSED, abs=3e-4)

    def test_beyond_the_edge(self) -> None:
        flux, _, good, beyond = self.measure(gaussian(61, -0.5, self.Y), x=-0.5)

        assert flux / FLUX == pytest.approx(ENCLOSED, abs=3e-4)
        assert (good, beyond) == (pytest.approx(0.5), pytest.approx(0.5))
