"""Proper subtraction on pairs with known PSFs, fluxes and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import fft

from pipeline import subtract
from pipeline.errors import ConfigError, SubtractionError
from pipeline.masks import NOT_IN_SCORE, bits
from pipeline.subtract import zogy
from pipeline.subtract.metrics import robust_std
from tests.subtract.conftest import exposure
from tests.subtract.test_subtract_run import (
    CORRELATED,
    autocovariance,
    draw_one,
    lag1,
    psf_fluxes,
    pulls,
)

ZOGY = subtract.Config(algorithm="zogy")
SEEINGS = [(2.0, 1.6), (1.6, 2.0), (1.8, 1.8)]
BEAM = 25.0
"""Pixels that share one independent value of the score."""


def empty_pair(seed: int, sigmas: tuple[float, float], shape=(512, 512)) -> tuple[Any, Any]:
    """Gaussian noise and nothing else, 10 in the science image and 5 in the template."""
    rng = np.random.default_rng(seed)
    return tuple(
        exposure(rng.normal(0.0, noise, shape), np.full(shape, noise**2), sigma)
        for noise, sigma in zip((10.0, 5.0), sigmas, strict=True)
    )


class TestNoise:
    @pytest.mark.parametrize("sigmas", SEEINGS)
    def test_of_empty_images_is_one_within_its_error(self, sigmas):
        made = subtract.run(*empty_pair(3, sigmas), ZOGY)
        z, s = pulls(made), made.score[30:-30, 30:-30]
        assert z.std() == pytest.approx(1.0, abs=3 / np.sqrt(2 * z.size) + 0.003)  # s, t: medians
        assert s.std() == pytest.approx(1.0, abs=3 / np.sqrt(2 * s.size / BEAM))
        assert abs(lag1(z)) < 3 / np.sqrt(2 * z.size) + 0.003
        assert made.metrics["kernelSum"] == 1.0  # from the zero points

    @pytest.mark.parametrize("sigmas", SEEINGS)
    def test_is_white_between_stars(self, make_scene, sigmas):
        scene = make_scene(science_sigma=sigmas[0], template_sigma=sigmas[1])
        made = subtract.run(scene.science, scene.template, ZOGY)
        z = pulls(made)
        assert robust_std(z) == pytest.approx(1.0, abs=0.01)
        assert abs(lag1(z)) < 0.008
        assert robust_std(made.score[30:-30, 30:-30]) == pytest.approx(1.0, abs=0.03)
        assert made.metrics["starChi2Mean"] < 1.15

    def test_declared_correlation_of_the_template_is_whitened(self, make_scene):
        scene = make_scene(smooth=CORRELATED, noise=(10.0, 12.0), template_sigma=1.9)
        correlation = autocovariance(CORRELATED)[None, None]
        deep = scene.template.replace(noise_correlation=correlation)
        declared = pulls(subtract.run(scene.science, deep, ZOGY))
        assert abs(lag1(declared)) < 0.01
        assert robust_std(declared) == pytest.approx(1.0, abs=0.015)
        assert abs(lag1(pulls(subtract.run(scene.science, scene.template, ZOGY)))) > 0.1


class TestSource:
    @pytest.mark.parametrize("sigmas", SEEINGS)
    def test_keeps_its_flux(self, make_scene, sigmas):
        scene = make_scene(transients=60, science_sigma=sigmas[0], template_sigma=sigmas[1])
        made = subtract.run(scene.science, scene.template, ZOGY)
        flux, _, total = psf_fluxes(made, scene.x, scene.y)
        mean = np.average(flux / scene.flux, weights=1 / total**2)
        assert mean == pytest.approx(1.0, abs=0.012)  # 2.5σ of 60 sources

    @pytest.mark.parametrize("sigmas", SEEINGS)
    def test_has_the_flux_that_alard_and_lupton_find(self, make_scene, sigmas):
        scene = make_scene(transients=60, science_sigma=sigmas[0], template_sigma=sigmas[1])
        fluxes, errors = [], []
        for config in (subtract.Config(), ZOGY):
            flux, error, _ = psf_fluxes(
                subtract.run(scene.science, scene.template, config), scene.x, scene.y
            )
            fluxes.append(flux)
            errors.append(error)
        pull = (fluxes[1] - fluxes[0]) / errors[1]
        assert robust_std(pull) < 0.6  # nearly the same noise
        assert abs(np.median(pull)) < 0.25
        assert np.median(errors[1]) < 1.01 * np.median(errors[0])  # nothing is better than proper

    @pytest.mark.parametrize("sigmas", [(2.0, 1.6), (2.0, 2.3)])
    def test_has_the_declared_psf(self, make_scene, sigmas):
        scene = make_scene(noise=(1.0, 3.0), template_sigma=sigmas[1])
        bright = draw_one(scene, np.array([256.0]), np.array([256.0]), 2e5)
        after, before = (
            subtract.run(image, scene.template, ZOGY) for image in (bright, scene.science)
        )
        box = np.s_[244:269, 244:269]
        change = (after.exposure.image - before.exposure.image)[box] / 2e5
        model = after.exposure.psf.at(256, 256)[8:33, 8:33]
        assert np.abs(change - model).max() < 0.01 * model.max()

    def test_has_the_score_of_its_flux(self, make_scene):
        scene = make_scene(transients=40)
        made = subtract.run(scene.science, scene.template, ZOGY)
        flux, error, _ = psf_fluxes(made, scene.x, scene.y)
        peaks = [
            made.score[round(v) - 1 : round(v) + 2, round(u) - 1 : round(u) + 2].max()
            for u, v in zip(scene.x, scene.y, strict=True)
        ]
        assert np.median(np.array(peaks) / (flux / error)) == pytest.approx(1.0, abs=0.03)


def transfer(e: Any, point: float = 0.0) -> Any:
    """Transfer function of an image of 256 × 256 pixels."""
    stamp = np.pad(e.psf.at(0, 0), ((0, 215), (0, 215)))
    return fft.fft2(np.roll(stamp, (-20, -20), (0, 1))) + point


def proper(science: Any, template: Any, point: float = 0.0) -> tuple[Any, Any]:
    """Transforms of the difference and of its PSF, equations 13 and 14 of the paper."""
    p, q = transfer(science, point), transfer(template, point)
    n, r = (fft.fft2(e.image.astype(float)) for e in (science, template))
    root = np.sqrt(100.0 * abs(q) ** 2 + 25.0 * abs(p) ** 2) / np.sqrt(125.0)
    return (q * n - p * r) / root, p * q / root


def test_is_the_formula_of_the_paper():
    """By transforms of whole images, in units of the science image."""
    science, template = empty_pair(5, (2.0, 1.6), (256, 256))
    made = subtract.run(science, template, ZOGY)
    inner = np.s_[40:-40, 40:-40]
    # The point source matters only where neither image has a signal; a background is taken off.
    image = np.real(fft.ifft2(proper(science, template, zogy._POINT)[0]))
    assert (made.exposure.image - image)[inner].std() < 0.01 * np.sqrt(125.0)
    difference, psf = proper(science, template)
    score = np.real(fft.ifft2(difference * np.conj(psf)))
    score /= np.sqrt(125.0 * np.mean(np.abs(psf) ** 2))
    off = (made.score - score)[inner]
    assert (off - off.mean()).std() < 0.06  # what the background makes of the score


class TestRatio:
    @pytest.mark.parametrize("sigmas", SEEINGS)
    def test_is_that_of_the_stars(self, make_scene, sigmas):
        scene = make_scene(science_sigma=sigmas[0], template_sigma=sigmas[1], ratio=0.8)
        made = subtract.run(scene.science, scene.template, ZOGY)
        assert made.metrics["kernelSum"] == pytest.approx(0.8, abs=0.001)
        assert made.metrics["nStampsUsed"] > 40
        chi2 = made.kernel.fitted_stamps[:, 2]
        # Some five independent values in each of 15 × 15 smoothed pixels.
        assert chi2.mean() == pytest.approx(1.0, abs=3 * np.sqrt(2 / 5 / len(chi2)))
        assert made.kernel.background[0] == pytest.approx(7.0, abs=0.3)

    def test_must_be_known(self, make_scene):
        empty = make_scene(stars=0)
        pair = (e.replace(unit="adu") for e in (empty.science, empty.template))
        with pytest.raises(SubtractionError, match="too few sources"):
            subtract.run(*pair, ZOGY)


class TestPixels:
    def test_masked_and_missing_ones(self, make_scene):
        scene = make_scene(seed=4)
        mask = scene.template.mask.copy()
        mask[300, 200], mask[:, :40] = bits("SAT"), bits("NO_DATA")
        made = subtract.run(scene.science, scene.template.replace(mask=mask), ZOGY)
        e = made.exposure
        assert e.mask[300, 200] & bits("SAT_TEMPLATE")
        assert e.mask[300, 201] & bits("SAT_TEMPLATE")  # the filter reaches there
        assert not e.mask[300, 225] & bits("SAT_TEMPLATE")
        assert np.isnan(e.image[:, :40]).all()
        assert np.isnan(made.score[:, :40]).all()
        clean = (e.mask & bits(*NOT_IN_SCORE)) == 0
        assert np.isfinite(e.image[clean]).all()
        assert (e.variance[clean] > 0).all()
        assert robust_std(pulls(made)[clean[30:-30, 30:-30]]) == pytest.approx(1.0, abs=0.01)

    def test_same_bytes_again_and_inputs_left_alone(self, make_scene):
        scene = make_scene(seed=4)
        copies = [scene.science.image.copy(), scene.template.image.copy()]
        one, other = (subtract.run(scene.science, scene.template, ZOGY) for _ in range(2))
        assert one.exposure.image.tobytes() == other.exposure.image.tobytes()
        assert one.score.tobytes() == other.score.tobytes()
        assert np.array_equal(copies[0], scene.science.image)
        assert np.array_equal(copies[1], scene.template.image)


class TestRefusal:
    def test_without_the_psf_of_the_template(self, make_scene):
        scene = make_scene()
        with pytest.raises(SubtractionError, match="PSFs of both"):
            subtract.run(scene.science, scene.template.replace(psf=None), ZOGY)

    @pytest.mark.parametrize(
        ("change", "key"),
        [({"convolve": "science"}, "convolve"), ({"decorrelate": False}, "decorrelate")],
    )
    def test_of_what_it_has_no_choice_of(self, make_scene, change, key):
        scene = make_scene()
        with pytest.raises(ConfigError, match=key):
            subtract.run(scene.science, scene.template, ZOGY.model_copy(update=change))
