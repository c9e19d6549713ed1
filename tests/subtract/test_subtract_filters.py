"""Matched filter, separable filters and restored cores against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pipeline.exposure import GridPsf, MatchingKernel
from pipeline.psfphot import flux_noise
from pipeline.subtract.prepare import WorkingImage
from pipeline.subtract.saturated import groups, restore
from pipeline.subtract.score import score
from pipeline.subtract.separable import Separable, correlate
from tests.subtract.conftest import draw, gaussian

SHAPE = (300, 260)
Array = npt.NDArray[np.float64]


def one_psf(sigma: float, core: int) -> GridPsf:
    """The same PSF in the middle of every tile."""
    y, x = (np.arange(0, size, core) + core / 2 for size in SHAPE)
    cube = np.broadcast_to(gaussian(sigma), (len(y), len(x), 41, 41))
    return GridPsf(np.array(cube), x, y)


def scored(image: Array, variance: Array, usable: Array, sigma: float, core: int = 128) -> Array:
    planes = [np.asarray(a, np.float32) for a in (image, variance)]
    return score(*planes, np.asarray(usable, np.uint8), one_psf(sigma, core), core)


class TestScore:
    def test_is_the_sum_of_the_formula(self):
        """S = Σ P D / V / √(Σ P² / V), where V changes and some pixels do not count."""
        rng = np.random.default_rng(1)
        image = rng.normal(size=SHAPE)
        variance = 1.0 + 0.5 * np.linspace(0, 1, SHAPE[1])[None] + np.zeros(SHAPE)
        usable = rng.random(SHAPE) > 0.02
        usable[100:140, 60:62] = False
        p = gaussian(2.1)[4:-4, 4:-4]
        weight = usable / variance
        above = ndimage.correlate(image * weight, p, mode="constant")
        below = ndimage.correlate(weight, p**2, mode="constant")
        expected = above / np.sqrt(below)
        found = scored(image, variance, usable, 2.1)
        inside = np.s_[20:-20, 20:-20]
        assert np.abs(found - expected)[inside].max() < 0.03
        assert abs(np.polyfit(expected[inside].ravel(), found[inside].ravel(), 1)[0] - 1) < 2e-3

    @pytest.mark.parametrize("sigma", [1.5, 2.4])
    def test_noise_alone_has_width_one(self, sigma):
        image = 3.0 * np.random.default_rng(2).normal(size=SHAPE)
        found = scored(image, np.full(SHAPE, 9.0), np.ones(SHAPE), sigma)[20:-20, 20:-20]
        effective = found.size / (4 * np.pi * sigma**2)
        assert found.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * effective))

    def test_a_source_has_its_flux_over_its_noise(self):
        image = draw(SHAPE, [130.0], [150.0], [400.0], 1.9)
        variance = np.full(SHAPE, 25.0)
        found = scored(image, variance, np.ones(SHAPE), 1.9)
        psf = GridPsf(gaussian(1.9)[None, None], np.zeros(1), np.zeros(1))
        noise = flux_noise(psf, variance.astype(np.float32), 130.0, 150.0)[0]
        assert found[150, 130] == pytest.approx(400.0 / noise, rel=5e-3)
        assert np.unravel_index(found.argmax(), SHAPE) == (150, 130)

    def test_is_zero_where_too_little_counts(self):
        usable = np.ones(SHAPE)
        usable[100:200, 100:200] = 0
        found = scored(np.ones(SHAPE), np.ones(SHAPE), usable, 2.0)
        assert (found[110:190, 110:190] == 0).all()
        assert (found[20:80, 20:80] > 0).all()

    @pytest.mark.parametrize("core", [64, 100, 512])
    def test_tiles_do_not_matter(self, core):
        image = np.random.default_rng(3).normal(size=SHAPE)
        found = [scored(image, np.ones(SHAPE), np.ones(SHAPE), 2.0, c) for c in (128, core)]
        np.testing.assert_allclose(found[1], found[0], atol=2e-3)


class TestSeparable:
    @pytest.mark.parametrize("kernel", [gaussian(1.7) ** 2, gaussian(2.5)])
    def test_sums_are_kept_and_products_are_exact_for_gaussians(self, kernel):
        made = Separable.of(kernel[None])
        assert made.columns.shape[1] == 1
        product = np.einsum("ti,tj->ij", made.columns[0], made.rows[0])
        assert product.sum() == pytest.approx(kernel.sum(), rel=1e-3)
        trim = (kernel.shape[0] - product.shape[0]) // 2
        np.testing.assert_allclose(
            product, kernel[trim : 41 - trim, trim : 41 - trim], atol=2e-3 * kernel.max()
        )

    def test_correlation_is_that_of_the_kernel(self):
        rng = np.random.default_rng(4)
        u, v = np.meshgrid(np.arange(-10, 11), np.arange(-10, 11))
        kernel = np.exp(-0.5 * (u**2 / 4 + v**2 / 2 + 0.6 * u * v / 2))  # turned: several terms
        made = Separable.of(kernel[None])
        assert made.columns.shape[1] > 1
        plane = rng.random((90, 80)).astype(np.float32)
        half = made.half
        shape = (90 - 2 * half, 80 - 2 * half)
        found = correlate(plane, 0, made.columns[0], made.rows[0], shape)
        full = ndimage.correlate(plane.astype(float), kernel, mode="constant")
        expected = full[half : half + shape[0], half : half + shape[1]]
        inside = np.s_[11:-11, 11:-11]  # what was cut off reaches from outside elsewhere
        np.testing.assert_allclose(found[inside], expected[inside], rtol=5e-3)


def kernel_of(stamp: Array, shape: tuple[int, int] = SHAPE) -> MatchingKernel:
    return MatchingKernel(
        basis=stamp[None],
        coefficients=np.ones((1, 1)),
        order=0,
        shape=shape,
        background=np.zeros(1),
        condition=1.0,
        stamps=np.zeros((0, 4)),
    )


def working(image: Array, bad: npt.NDArray[np.bool_]) -> WorkingImage:
    return WorkingImage(
        image=image.astype(np.float32),
        variance=np.full(image.shape, 4.0, np.float32),
        bad=bad,
        bridged=(np.zeros(0, np.int64), np.zeros(0, np.float32)),
        level=0.0,
        sky=np.zeros((1, 1), np.float32),
        noise=np.full((1, 1), 2.0, np.float32),
        inverse_gain=0.0,
        correlation=None,
    )


class TestRestore:
    def test_clipped_core_is_found_again_from_its_halo(self):
        """The wings of the target say what the clipped pixels of the source were."""
        true = draw(SHAPE, [120.0], [140.0], [2e6], 1.6)
        stamp = gaussian(1.2, 8)
        target = ndimage.convolve(true, stamp)
        clipped = true > 30000.0
        assert 20 < clipped.sum() < 100
        given = np.where(clipped, 30000.0, true)
        matched = ndimage.convolve(given, stamp).astype(np.float32)
        core = ndimage.binary_dilation(clipped, iterations=2)  # saturated in the target as well
        source = working(given, clipped)
        before = np.abs(target - matched)[~core].max()
        solved = restore(matched, source, working(target, core), clipped, kernel_of(stamp))
        assert solved == 1
        assert np.abs(target - matched)[~core].max() < 2e-3 * before
        assert source.image.sum() == pytest.approx(true.sum(), rel=0.05)

    def test_nothing_is_solved_without_surroundings(self):
        clipped = np.zeros(SHAPE, bool)
        clipped[140:143, 120:123] = True
        image = np.ones(SHAPE)
        bad = np.ones(SHAPE, bool)
        matched = image.astype(np.float32)
        both = working(image, bad), working(image, bad)
        assert restore(matched, *both, clipped, kernel_of(gaussian(1.2, 8))) == 0
        np.testing.assert_array_equal(matched, 1.0)

    def test_groups_bridge_gaps_of_a_pixel(self):
        marked = np.zeros((40, 40), bool)
        marked[10, [5, 7, 10]] = marked[20:23, 30] = True
        y, x = np.nonzero(marked)
        label = groups(marked.shape, y, x)
        assert label[0] == label[1]
        assert len(set(label.tolist())) == 3
        expected, n = ndimage.label(marked, np.ones((3, 3)))
        assert n == 4  # without the gap
        assert len(set(label[expected[y, x] == expected[21, 30]].tolist())) == 1
