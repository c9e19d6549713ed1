"""Cosmic rays are found, stars are not."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from pipeline.calibrate import cosmicray
from pipeline.masks import bits

SHARPEST = 0.68 / 0.2626
SKY = 400.0


def _stars(shape, fwhm, count, rng, brightest=6.2):
    """Moffat stars averaged over their pixels, and their cores."""
    image, cores = np.zeros(shape), np.zeros(shape, bool)
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / 3) - 1)
    dy, dx = np.mgrid[-30:31, -30:31]
    for _ in range(count):
        x, y = rng.uniform(31, shape[1] - 32), rng.uniform(31, shape[0] - 32)
        flux = 10 ** rng.uniform(3, brightest)
        i, j = round(y), round(x)
        stamp = np.zeros(dy.shape)
        for sub in np.ndindex(3, 3):
            oy, ox = (np.array(sub) - 1) / 3
            r2 = (dx - (x - j) + ox) ** 2 + (dy - (y - i) + oy) ** 2
            stamp += (1 + r2 / alpha**2) ** -3
        image[i - 30 : i + 31, j - 30 : j + 31] += flux * stamp / stamp.sum()
        if flux > 2e4:
            cores[i - 1 : i + 2, j - 1 : j + 2] = True
    return image, cores


def _tracks(shape, count, rng, diffusion):
    charge = np.zeros(shape)
    for _ in range(count):
        x, y, angle = (
            rng.uniform(5, shape[1] - 5),
            rng.uniform(5, shape[0] - 5),
            rng.uniform(0, 3.1),
        )
        line = np.arange(0, min(rng.exponential(12) + 0.5, 60), 0.1)
        i, j = (y + line * np.sin(angle)).astype(int), (x + line * np.cos(angle)).astype(int)
        inside = (i >= 0) & (j >= 0) & (i < shape[0]) & (j < shape[1])
        np.add.at(charge, (i[inside], j[inside]), 0.1 * rng.uniform(200, 1500))
    return gaussian_filter(charge, diffusion) if diffusion else charge


def _observe(light, rng):
    image = (rng.poisson(light + SKY) + rng.normal(0, 6, light.shape)).astype(np.float32)
    return image, np.maximum(image, 0) + np.float32(36)


@pytest.mark.parametrize("fwhm", [2.7, 4.2])
@pytest.mark.parametrize("diffusion", [0.0, 0.3, 0.45])
def test_complete_and_clean(fwhm, diffusion):
    rng = np.random.default_rng(1)
    shape = (1024, 1024)
    stars, cores = _stars(shape, fwhm, 150, rng)
    charge = _tracks(shape, 120, rng, diffusion)
    image, variance = _observe(stars + charge, rng)
    mask = np.where(stars > 1.7e5, bits("SAT"), np.uint32(0)).astype(np.uint32)
    rays = cosmicray.find(image, variance, mask, SKY, SHARPEST)
    bright = (charge > 6 * np.sqrt(stars + SKY + 36)) & (mask == 0)
    near = binary_dilation(charge > 0.1, iterations=2)
    assert bright.sum() > 1000
    assert (rays.mask & bright).sum() / bright.sum() >= 0.99
    assert (rays.found & ~near).sum() / image.size < 1e-5
    assert not (rays.found & cores & ~near).any()
    assert rays.metrics["crPixels"] == rays.found.sum()


def test_field_of_stars_alone_in_the_best_seeing_loses_no_core():
    rng = np.random.default_rng(11)
    stars, cores = _stars((1024, 1024), 0.70 / 0.2626, 500, rng)
    image, variance = _observe(stars, rng)
    mask = np.where(stars > 1.7e5, bits("SAT"), np.uint32(0)).astype(np.uint32)
    rays = cosmicray.find(image, variance, mask, SKY, SHARPEST)
    assert cores.sum() > 1000
    assert not (rays.found & cores).any()
    assert rays.found.sum() <= 10


def test_flagged_pixels_are_filled_and_the_inputs_kept():
    rng = np.random.default_rng(2)
    image, variance = _observe(np.zeros((300, 300)), rng)
    image[100:140, 77] += 800.0
    before = image.copy(), variance.copy()
    rays = cosmicray.find(image, variance, np.zeros(image.shape, np.uint32), SKY, SHARPEST)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(variance, before[1])
    assert rays.found[100:140, 77].all()
    assert rays.image[100:140, 77].mean() == pytest.approx(SKY, abs=15)
    np.testing.assert_array_equal(rays.image[~rays.mask], image[~rays.mask])
    assert rays.variance[rays.mask].max() < 600


def test_track_beside_a_bad_column_is_found():
    rng = np.random.default_rng(3)
    image, variance = _observe(np.zeros((300, 300)), rng)
    mask = np.zeros(image.shape, np.uint32)
    mask[:, 150] = bits("BAD")
    image[100:140, 151] += 800.0
    rays = cosmicray.find(image, variance, mask, SKY, SHARPEST)
    assert rays.found[100:140, 151].mean() > 0.9


def test_background_may_be_a_number_or_an_image():
    rng = np.random.default_rng(4)
    image, variance = _observe(_tracks((300, 300), 10, rng, 0.3), rng)
    mask = np.zeros(image.shape, np.uint32)
    a = cosmicray.find(image, variance, mask, SKY, SHARPEST)
    b = cosmicray.find(image, variance, mask, np.full_like(image, SKY), SHARPEST)
    np.testing.assert_array_equal(a.found, b.found)
    with pytest.raises(ValueError, match="must be positive"):
        cosmicray.find(image, variance, mask, SKY, 0.0)
