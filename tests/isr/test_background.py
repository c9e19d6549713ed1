"""The background is the sky and nothing but the sky."""

import numpy as np
import pytest

from pipeline.calibrate import background
from pipeline.errors import PixelError
from pipeline.masks import bits

GAIN = 4.0
SHAPE = (2048, 1024)


def _blank(seed, level=400.0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    sky = level * (1 + 0.02 * x / shape[1] + 0.01 * (y / shape[0]) ** 2)
    image = (sky + rng.normal(0, np.sqrt(sky))).astype(np.float32)
    return image, sky.astype(np.float32), np.zeros(shape, np.uint32)


def test_blank_sky_is_unbiased():
    errors = []
    for seed in range(3):
        image, sky, mask = _blank(seed)
        errors.append(background.model(image, mask).image - sky)
    assert abs(np.mean(errors)) / GAIN < 0.03
    assert np.std(errors) / GAIN < 0.08


def _galaxy(radius, x, y, flux, index):
    """Sérsic profile with half-light radius in pixels, sampled, softened in the middle."""
    b = 2 * index - 1 / 3
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    r = np.sqrt((xx - x) ** 2 + ((yy - y) / 0.7) ** 2 + 1.0)
    profile = np.exp(-b * ((r / radius) ** (1 / index) - 1)) * (r < 8 * radius)
    return flux * profile / profile.sum(), r < 4 * radius


@pytest.mark.parametrize("index", [1, 4])
@pytest.mark.parametrize(("arcsec", "bound"), [(3, 0.03), (8, 0.03), (20, 0.07)])
def test_galaxies_keep_their_flux(arcsec, bound, index):
    image, _, mask = _blank(7)
    before = background.model(image, mask).image
    radius = arcsec / 0.2626
    magnitude = 22.0 - 2.5 * np.log10(2 * np.pi * arcsec**2)
    light, inside = _galaxy(radius, 480.0, 900.0, 10 ** (0.4 * (31.34 - magnitude)), index)
    noise = np.random.default_rng(8).normal(0, 1, SHAPE) * np.sqrt(light)
    after = background.model((image + light + noise).astype(np.float32), mask).image
    lost = float((after - before)[inside].sum() / light[inside].sum())
    assert abs(lost) < bound


def test_image_plus_background_is_the_image():
    image, _, mask = _blank(1, shape=(600, 500))
    step = np.float32(1.0)
    total = np.rint(image)
    model = np.rint(background.model(image, mask).image / step) * step
    np.testing.assert_array_equal((total - model) + model, total)


def test_bad_pixels_and_nan_do_not_matter():
    image, _, mask = _blank(2, shape=(600, 500))
    clean = background.model(image, mask).image
    dirty = image.copy()
    dirty[::7, 100], dirty[50:80, 300:330], dirty[400, 400] = 1e6, np.nan, -1e7
    mask[::7, 100] = mask[50:80, 300:330] = mask[400, 400] = bits("BAD")
    assert np.abs(background.model(dirty, mask).image - clean).max() < 2.0
    assert np.isfinite(background.model(dirty, mask).image).all()


def test_image_without_sky_is_a_typed_failure():
    image, _, mask = _blank(2, shape=(64, 64))
    with pytest.raises(PixelError, match="no sky to measure"):
        background.model(image, mask | bits("BAD"))
    with pytest.raises(PixelError, match="usableFraction=0"):
        background.model(np.full_like(image, np.nan), mask)


def test_small_images_work():
    image, sky, mask = _blank(2, shape=(40, 30))
    model = background.model(image, mask)
    assert model.image.shape == (40, 30)
    assert model.image.mean() == pytest.approx(sky.mean(), abs=3)
