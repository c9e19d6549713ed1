"""Bright stars: wings beyond the kernel, and kernels from noisy templates."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import subtract
from pipeline.masks import bits
from pipeline.subtract.wings import remove_wings

HALF = 14


def wing(shape: tuple[int, int], x: float, y: float, height: float) -> np.ndarray:
    """Return a power law that is `height` one pixel outside the kernel."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    r = np.maximum(np.hypot(rows - y, columns - x), 1.0)
    return height * (r / (HALF + 1)) ** (-11 / 3) * (r > HALF)


class TestWings:
    def test_a_known_wing_is_removed_and_its_surroundings_are_left_alone(self):
        rng = np.random.default_rng(2)
        noise = rng.normal(size=(300, 300)).astype(np.float32)
        residual = noise + wing((300, 300), 140, 160, 3.0).astype(np.float32)
        given, usable = residual.copy(), np.ones((300, 300), np.uint8)
        assert remove_wings(residual, usable, np.array([140.0]), np.array([160.0]), HALF) == 1
        rows, columns = np.mgrid[:300, :300]
        r = np.hypot(rows - 160, columns - 140)
        ring = (r > HALF + 2) & (r < 30)
        assert abs((residual - noise)[ring].mean()) < 0.05
        assert np.abs((residual - noise)[ring]).max() < 0.5
        assert np.array_equal(residual[r > 4 * HALF + 1], given[r > 4 * HALF + 1])

    @pytest.mark.parametrize("height", [30.0, -30.0, 150.0])
    def test_a_high_wing_is_followed_until_it_drowns_in_the_noise(self, height):
        """It is fitted within 56 pixels, where it still has a quarter to 1.2 of the noise."""
        noise = np.random.default_rng(3).normal(size=(400, 400)).astype(np.float32)
        left = wing((400, 400), 200, 190, height).astype(np.float32)
        residual, usable = noise + left, np.ones((400, 400), np.uint8)
        remove_wings(residual, usable, np.array([200.0]), np.array([190.0]), HALF)
        rows, columns = np.mgrid[:400, :400]
        r = np.hypot(rows - 190, columns - 200)
        beyond = (r > 4 * HALF) & (r < 10 * HALF - 1)
        assert np.abs(left[r > 4 * HALF]).max() > 0.2
        assert np.abs((residual - noise)[beyond]).max() < 0.05
        assert np.array_equal(residual[r > 10 * HALF], (noise + left)[r > 10 * HALF])

    def test_noise_alone_is_not_touched(self):
        noise = np.random.default_rng(7).normal(size=(300, 300)).astype(np.float32)
        residual = noise.copy()
        usable = np.ones((300, 300), np.uint8)
        assert remove_wings(residual, usable, np.array([150.0]), np.array([150.0]), HALF) == 0
        assert np.array_equal(residual, noise)

    def test_a_transient_in_the_ring_survives(self):
        rng = np.random.default_rng(4)
        rows, columns = np.mgrid[:300, :300]
        star = 40 * np.exp(-0.5 * ((rows - 150) ** 2 + (columns - 170) ** 2) / 2.0**2)
        clean = rng.normal(size=(300, 300)) + star
        residual = (clean + wing((300, 300), 150, 150, 2.0)).astype(np.float32)
        usable = np.ones((300, 300), np.uint8)
        remove_wings(residual, usable, np.array([150.0]), np.array([150.0]), HALF)
        box = np.s_[144:157, 164:177]
        assert residual[box].sum() == pytest.approx(clean[box].sum(), rel=0.03)

    def test_difference_has_no_ring_round_a_saturated_star(self, make_scene):
        """A wing as that of the worse seeing, whose star is saturated in both images."""
        scene = make_scene(stars=60, noise=(10.0, 5.0))
        rows, columns = np.mgrid[:512, :512]
        r = np.hypot(rows - 250.0, columns - 256.0)
        science = scene.science.image + wing((512, 512), 256, 250, 30.0).astype(np.float32)
        mask = np.where(r < 6, bits("SAT"), np.uint32(0)).astype(np.uint32)
        pair = [
            scene.science.replace(image=science, mask=mask),
            scene.template.replace(mask=mask.copy()),
        ]
        difference = subtract.run(*pair)
        ring = (r > HALF + 2) & (r < 40)
        z = (difference.exposure.image / np.sqrt(difference.exposure.variance))[ring]
        assert abs(z.mean()) < 0.15
        assert np.abs(difference.score[ring]).max() < 5.0


class TestNoisyTemplate:
    @pytest.mark.parametrize("noise", [(10.0, 12.5), (10.0, 2.0)])
    def test_cores_do_not_depend_on_the_noise_of_the_template(self, make_scene, noise):
        """Noise in the regressor would leave positive cores, 2 % of the peak."""
        scene = make_scene(seed=9, stars=160, noise=noise)
        config = subtract.Config(stamp_cell=64)
        difference = subtract.run(scene.science, scene.template, config)
        stamps = difference.kernel.fitted_stamps
        shares = []
        for x, y in stamps[:, :2].astype(int):
            peak = scene.science.image[y, x] - 7.0
            shares.append((difference.exposure.image[y, x] / peak, peak))
        share, peak = np.array(shares).T
        weight = peak**2 / (noise[0] ** 2 + peak)
        error = np.sqrt(1.5 / weight.sum())
        assert abs((share * weight).sum() / weight.sum()) < 0.003 + 3 * error
