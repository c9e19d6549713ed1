"""What real skies leave in a difference: found when there, left alone when not."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipeline import subtract
from pipeline.subtract.background import (
    sky_polynomial,
    sky_structure,
    source_free,
    subtract_polynomial,
)
from pipeline.subtract.excess import measure_excess

SHAPE = (512, 512)


@pytest.fixture
def white():
    rng = np.random.default_rng(3)
    return rng.normal(size=SHAPE).astype(np.float32)


ONE = np.ones(SHAPE, np.float32)
BLANK = np.ones(SHAPE, np.uint8)


class TestSky:
    def test_is_known_to_the_noise_of_all_pixels(self):
        rng = np.random.default_rng(11)
        y, x = (k / n for k, n in zip(np.indices(SHAPE), SHAPE, strict=True))
        sky = 0.01 + 0.02 * (x - 0.5) - 0.03 * (y - 0.5) ** 2
        image = (rng.normal(size=SHAPE) + sky).astype(np.float32)
        white = image - sky
        terms = sky_polynomial(image, ONE, BLANK, 2)
        subtract_polynomial(image, terms)
        left = image - white
        error = 1.0 / np.sqrt(image.size)
        assert abs(left.mean()) < 3 * error
        assert left.std() < 3 * np.sqrt(5) * error

    def test_does_not_see_what_has_changed(self):
        rng = np.random.default_rng(12)
        image = rng.normal(size=SHAPE).astype(np.float32)
        before = sky_polynomial(image, ONE, source_free(image, ONE, BLANK), 0)[0]
        image[100:104, 50:54] += 40.0
        after = sky_polynomial(image, ONE, source_free(image, ONE, BLANK), 0)[0]
        assert abs(after - before) < 1e-3

    def test_without_pixels_is_zero(self):
        image = np.ones(SHAPE, np.float32)
        assert not sky_polynomial(image, ONE, np.zeros(SHAPE, np.uint8), 2).any()


class TestStructure:
    def test_noise_has_none(self):
        rng = np.random.default_rng(4)
        found = [
            sky_structure(rng.normal(size=SHAPE).astype(np.float32), ONE, BLANK) for _ in range(50)
        ]
        assert sum(f is not None for f in found) <= 2

    def test_smooth_light_is_found(self, white):
        rng = np.random.default_rng(5)
        light = gaussian_filter(rng.normal(size=SHAPE), 60)
        light *= 0.2 / light.std()
        found = sky_structure(white + light.astype(np.float32), ONE, BLANK)
        assert np.std(found - light) < 0.3 * light.std()

    def test_rows_are_found(self, white):
        rows = 0.3 * np.random.default_rng(6).normal(size=(SHAPE[0], 1))
        found = sky_structure(white + rows.astype(np.float32), ONE, BLANK)
        assert np.std(found - rows) < 0.06

    def test_new_sources_are_not_background(self, white):
        source = np.zeros(SHAPE)
        source[64::128, 64::128] = 600.0
        light = gaussian_filter(source, 2.0).astype(np.float32)
        image = white + light
        assert sky_structure(image, ONE, source_free(image, ONE, BLANK)) is None


class TestExcess:
    def test_noise_has_none(self, white):
        assert measure_excess(white, ONE, white, BLANK > 0) is None

    def test_fringes_are_measured(self, white):
        fringes = gaussian_filter(np.random.default_rng(7).normal(size=SHAPE), 4.0)
        fringes *= 0.2 / fringes.std()
        image = (white + fringes).astype(np.float32)
        found = measure_excess(image, ONE, 2 * white, BLANK > 0)
        assert found.share == pytest.approx(0.04, rel=0.25)
        assert found.width == pytest.approx(np.sqrt(2) * 4.0, abs=2.0)

    def test_halos_of_stars_are_no_noise(self, white):
        fringes = gaussian_filter(np.random.default_rng(7).normal(size=SHAPE), 4.0)
        fringes *= 0.15 / fringes.std()
        halos = np.zeros(SHAPE)
        halos[50::100, 50::100] = -400.0
        halos = gaussian_filter(halos, 5.0)
        image = (white + fringes).astype(np.float32)
        score = (gaussian_filter(image, 2.0) * np.sqrt(4 * np.pi) * 2.0).astype(np.float32)
        clean = measure_excess(image, ONE, score, BLANK > 0)
        image = (image + halos).astype(np.float32)
        score = (gaussian_filter(image, 2.0) * np.sqrt(4 * np.pi) * 2.0).astype(np.float32)
        found = measure_excess(image, ONE, score, BLANK > 0)
        assert found.share == pytest.approx(clean.share, rel=0.3)


class TestDifference:
    def test_a_clean_pair_is_left_alone(self, make_scene):
        scene = make_scene()
        metrics = subtract.run(scene.science, scene.template).metrics
        assert metrics["scoreExcess"] == 1.0
        assert metrics["excessNoise"] == 0.0

    def test_fringed_sky_ends_white(self, make_scene):
        scene = make_scene()
        noise = np.sqrt(np.median(scene.science.variance))
        fringes = gaussian_filter(np.random.default_rng(8).normal(size=scene.science.shape), 4.0)
        fringes *= 0.25 * noise / fringes.std()
        science = scene.science.replace(image=scene.science.image + fringes.astype(np.float32))
        made = subtract.run(science, scene.template)
        assert made.metrics["excessNoise"] > 0.02
        assert made.metrics["scoreStd"] == pytest.approx(1.0, abs=0.06)
        assert abs(made.metrics["lag1"]) < 0.015
