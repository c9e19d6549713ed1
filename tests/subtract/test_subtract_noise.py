"""The noise model, the loop that refines it, and the steps between."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError
from importlib import import_module

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from pipeline import subtract
from pipeline.exposure import GridPsf, MatchingKernel
from pipeline.subtract import alard_lupton, psf_matching
from pipeline.subtract.correlation import measured_correlation
from pipeline.subtract.decorrelate import apply, design
from pipeline.subtract.excess import NoiseExcess
from pipeline.subtract.metrics import in_columns, in_rows, mean_lag1
from pipeline.subtract.noise import NoiseModel
from pipeline.subtract.pixels import pull_sums, region_sums, weigh
from pipeline.subtract.prepare import prepare_pair
from pipeline.subtract.stamps import find
from tests.subtract.conftest import gaussian
from tests.subtract.test_subtract_run import CORRELATED, autocovariance, lag1

KNOWN = autocovariance(CORRELATED)[None, None]


class TestModel:
    def test_cannot_be_changed(self):
        noise = NoiseModel.declared({})
        with pytest.raises(FrozenInstanceError):
            noise.excess = NoiseExcess(0.1, 2.0)
        with pytest.raises(TypeError):
            noise.correlations["science"] = KNOWN

    def test_refinements_leave_the_old_one_alone(self, make_scene):
        scene = make_scene(stars=5)
        deep = scene.template.replace(noise_correlation=KNOWN)
        noise = NoiseModel.declared({"science": scene.science, "template": deep})
        excess = noise.with_excess(NoiseExcess(0.1, 2.0), None)
        measured = excess.with_correlations({"science": KNOWN})

        assert noise.undeclared == excess.undeclared == ("science",)
        assert noise.excess is None
        assert noise.correlations["science"] is None
        assert measured.excess is None  # it was that beyond the old noise
        assert measured.measured == {"science"}
        assert measured.measurements == 1
        assert measured.undeclared == ("science",)  # it may be measured again
        assert measured.correlations["template"] is KNOWN

    def test_is_what_the_images_are_given(self, make_scene):
        scene = make_scene(stars=5)
        images = {"science": scene.science, "template": scene.template}
        given = NoiseModel.declared(images).with_correlations({"template": KNOWN}).assigned(images)
        assert given["template"].noise_correlation is KNOWN
        assert given["science"].noise_correlation is None
        assert images["template"].noise_correlation is None


class TestRefinement:
    @pytest.mark.parametrize(
        ("excess", "correlated", "passes", "looks"),
        [(False, False, 1, 1), (True, False, 2, 1), (False, True, 3, 3), (True, True, 6, 3)],
    )
    def test_ends(self, make_scene, monkeypatch, excess, correlated, passes, looks):
        """Even if every look finds something new."""
        calls = dict.fromkeys(("subtract", "whiten", "excess", "correlation"), 0)

        def counted(name, function):
            def call(*args):
                calls[name] += 1
                return function(*args)

            return call

        def found_excess(*args):
            calls["excess"] += 1
            return NoiseExcess(0.01, 2.0) if excess else None

        def found_correlation(*args):
            calls["correlation"] += 1
            return {"template": KNOWN}

        for name, of in (("subtract", "subtract_matched"), ("whiten", "_whiten")):
            monkeypatch.setattr(alard_lupton, of, counted(name, getattr(alard_lupton, of)))
        monkeypatch.setattr(alard_lupton, "looks_wide", lambda *args: True)
        monkeypatch.setattr(alard_lupton, "measure_excess", found_excess)
        monkeypatch.setattr(alard_lupton, "_looks_correlated", lambda *args: correlated)
        monkeypatch.setattr(alard_lupton, "_colour", lambda *args: 0.0)  # as good as before
        monkeypatch.setattr(alard_lupton, "measured_correlation", found_correlation)
        scene = make_scene(shape=(300, 300), stars=60)
        made = subtract.run(scene.science, scene.template)

        kernels = 1 + 2 * correlated  # another look at the same kernel only whitens anew
        assert calls == {
            "subtract": kernels, "whiten": passes, "excess": looks, "correlation": 2 * correlated
        }  # fmt: skip
        assert made.metrics["measuredColours"] == float(correlated)
        assert made.metrics["excessNoise"] == pytest.approx(0.01 * excess)

    def test_leaves_declared_noise_alone(self, make_scene, monkeypatch):
        monkeypatch.setattr(alard_lupton, "_looks_correlated", lambda *args: True)
        scene = make_scene(shape=(300, 300), stars=60)
        white = np.zeros((1, 1, 3, 3))
        white[..., 1, 1] = 1.0
        pair = (e.replace(noise_correlation=white) for e in (scene.science, scene.template))
        assert subtract.run(*pair).metrics["measuredColours"] == 0.0


class TestDirection:
    @pytest.mark.parametrize(
        ("science", "template", "choice", "expected"),
        [
            (2.0, 1.6, "auto", "template"),
            (1.6, 2.0, "auto", "science"),
            (1.8, 1.8, "auto", "template"),
            (2.0, 1.6, "science", "science"),
            (1.6, 2.0, "template", "template"),
        ],
    )
    def test_is_that_of_the_sharper_image(self, make_scene, science, template, choice, expected):
        scene = make_scene(science_sigma=science, template_sigma=template)
        working = prepare_pair({"science": scene.science, "template": scene.template})
        config = subtract.Config(convolve=choice)
        stamps = find(working["science"], working["template"], config)
        assert psf_matching._direction(stamps, config) == expected


class TestRings:
    """Stars of the science image out of focus: peaks of their rims are not their places."""

    def test_sharp_template_is_convolved_whichever_rim_has_the_peak(self, make_scene):
        scene = make_scene(shape=(400, 400), stars=30, template_sigma=1.6, noise=(3.0, 3.0))
        r = np.hypot(*np.mgrid[-20:21, -20:21])
        ring = np.exp(-0.5 * (r - 5.5) ** 2)
        ring /= ring.sum()
        sharp = scene.template.image.astype(float)
        light = np.maximum(fftconvolve(sharp, ring, mode="same"), 0.0)
        noise = np.random.default_rng(5).normal(0.0, np.sqrt(9.0 + light))
        science = scene.science.replace(
            image=(light + noise).astype(np.float32), variance=(9.0 + light).astype(np.float32),
            psf=GridPsf(fftconvolve(gaussian(1.6), ring, "same")[None, None], *np.zeros((2, 1))),
        )  # fmt: skip
        assert psf_matching._rings({"science": science, "template": scene.template})
        working = prepare_pair({"science": science, "template": scene.template})
        config = subtract.Config()
        stamps = find(working["science"], working["template"], config, rings=True)
        middle = stamps.template.shape[-1] // 2
        tops = [np.unravel_index(s.argmax(), s.shape) for s in stamps.template]
        assert np.median(np.hypot(*(np.array(tops) - middle).T)) <= 1.5
        assert psf_matching._direction(stamps, config) == "template"

    def test_stars_in_focus_are_none(self, make_scene):
        scene = make_scene(shape=(300, 300), stars=5)
        assert not psf_matching._rings({"science": scene.science, "template": scene.template})


class TestDecorrelation:
    SHAPE = (512, 512)

    def kernel(self, sigma: float) -> MatchingKernel:
        return MatchingKernel(
            gaussian(sigma, 10)[None], np.ones((1, 1)), 0, self.SHAPE, np.zeros(1), 1.0,
            np.zeros((0, 4)),
        )  # fmt: skip

    def whitened(self, sigma, s, t, excess=None, extra=0.0):
        rng = np.random.default_rng(11)
        first, second = (rng.normal(0.0, np.sqrt(v), self.SHAPE) for v in (s, t))
        noise = first - fftconvolve(second, gaussian(sigma, 10), mode="same") + extra
        powers = {n: np.full((4, 4), v, np.float32) for n, v in (("science", s), ("template", t))}
        known = {"science": None, "template": None}
        filters = design(self.kernel(sigma), powers, known, 128, excess=excess)
        planes = (np.full(self.SHAPE, v, np.float32) for v in (t, s))
        image, variance = apply(filters, noise.astype(np.float32), *planes, 128)
        inner = np.s_[30:-30, 30:-30]
        return noise[inner], (image / np.sqrt(variance))[inner]

    @pytest.mark.parametrize(
        ("sigma", "s", "t"), [(1.0, 4.0, 4.0), (1.5, 1.0, 9.0), (2.0, 1.0, 25.0)]
    )
    def test_whitens_white_noise_convolved_with_a_known_kernel(self, sigma, s, t):
        before, z = self.whitened(sigma, s, t)
        error = 1.0 / np.sqrt(2 * z.size)
        assert lag1(before / before.std()) > 20 * error
        assert abs(lag1(z)) < 4 * error
        assert z.std() == pytest.approx(1.0, abs=4 * error)

    def test_whitens_an_excess_of_known_spectrum(self):
        """Noise smoothed by w has the autocovariance of a Gaussian of width √2 w."""
        extra = gaussian_filter(np.random.default_rng(12).normal(size=self.SHAPE), 2.0)
        extra *= np.sqrt(0.2 * 8.0) / extra.std()
        excess = NoiseExcess(0.2, np.sqrt(2) * 2.0)
        plain, whitened = (self.whitened(1.0, 4.0, 4.0, e, extra)[1] for e in (None, excess))
        assert lag1(plain) > 0.1
        assert abs(lag1(whitened)) < 0.2 * lag1(plain)


class TestMeasurement:
    """Noise of a target and of a source that is convolved, of known autocovariance."""

    SHAPE = (700, 700)

    def measured(self, convolved, declared, unknown):
        kernel = MatchingKernel(
            gaussian(1.0, 10)[None], np.ones((1, 1)), 0, self.SHAPE, np.zeros(1), 1.0,
            np.zeros((0, 4)), convolved=convolved,
        )  # fmt: skip
        rng = np.random.default_rng(13)
        noise = {name: rng.normal(size=self.SHAPE) for name in ("science", "template")}
        colour = CORRELATED / np.sqrt((CORRELATED**2).sum())
        noise["template"] = fftconvolve(noise["template"], colour, mode="same")
        noise[convolved] = fftconvolve(noise[convolved], gaussian(1.0, 10), mode="same")
        residual = (noise["science"] - noise["template"]).astype(np.float32)
        powers = dict.fromkeys(noise, np.ones((4, 4), np.float32))
        blank = np.ones(self.SHAPE, np.uint8)
        return measured_correlation(residual, blank, kernel, powers, declared, unknown)

    @pytest.mark.parametrize("convolved", ["science", "template"])
    def test_leaves_white_noise_beside_declared_colour_white(self, convolved):
        """What the kernel takes away cannot be told better than the prior expects, 0.05."""
        declared = {"science": None, "template": KNOWN}
        found = self.measured(convolved, declared, ("science",))
        assert set(found) <= {"science"}
        lags = found.get("science", np.zeros((1, 1, 7, 7))).mean((0, 1))
        assert np.abs(lags[[3, 4], [4, 3]]).max() < 0.1

    @pytest.mark.parametrize("convolved", ["science", "template"])
    def test_finds_the_colour_that_nobody_declared(self, convolved):
        nothing = {"science": None, "template": None}
        found = self.measured(convolved, nothing, ("science", "template"))
        if convolved == "science":  # what is seen without a kernel is told apart
            assert set(found) == {"template"}
            lags = found["template"].mean((0, 1))
            np.testing.assert_allclose(lags[2:5, 2:5], KNOWN[0, 0, 4:7, 4:7], atol=0.05)
        else:
            assert "template" in found


class TestAlgorithms:
    def test_every_one_has_a_function(self):
        for module in subtract.ALGORITHMS.values():
            assert callable(import_module(module).subtract)

    def test_unknown_ones_are_refused_with_the_names_of_the_others(self):
        with pytest.raises(ValueError, match=r"alard_lupton, zogy"):
            subtract.Config(algorithm="hotpants")

    def test_one_more_is_one_file_and_one_line(self, make_scene, monkeypatch):
        """A module with a function ``subtract``, named in `ALGORITHMS`."""
        import sys
        from types import ModuleType

        scene = make_scene(stars=5)
        module, called = ModuleType("mine"), []

        def mine(science, template, config):
            called.append((science, template, config.tile))
            return "a difference"

        module.subtract = mine
        monkeypatch.setitem(sys.modules, "mine", module)
        monkeypatch.setitem(subtract.ALGORITHMS, "mine", "mine")
        config = subtract.Config(algorithm="mine")
        assert subtract.run(scene.science, scene.template, config) == "a difference"
        assert called == [(scene.science, scene.template, 128)]


def test_a_measured_correlation_that_whitens_less_is_not_used(make_scene, monkeypatch):
    """In crowded fields what the stars leave may be taken for noise."""
    scene = make_scene(smooth=CORRELATED, noise=(10.0, 12.0), template_sigma=1.9)
    wrong = np.zeros((1, 1, 7, 7))
    wrong[0, 0, 3, 3] = 1.0
    wrong[0, 0, [1, 2, 4, 5], 3] = -0.2, 0.4, 0.4, -0.2
    pair = scene.science, scene.template
    monkeypatch.setattr(alard_lupton, "_measured_correlations", lambda *_: {})
    without = subtract.run(*pair)
    monkeypatch.setattr(
        alard_lupton, "_measured_correlations", lambda *_: {"science": wrong, "template": wrong}
    )
    made = subtract.run(*pair)
    assert made.metrics["measuredColours"] == 0.0
    np.testing.assert_array_equal(made.exposure.image, without.exposure.image)


def test_decisions_are_logged(make_scene, caplog):
    scene = make_scene(smooth=CORRELATED, noise=(10.0, 12.0), template_sigma=1.9)
    with caplog.at_level(logging.INFO, logger="pipeline.subtract"):
        made = subtract.run(scene.science, scene.template)
    text = caplog.text
    used = int(made.metrics["nStampsUsed"])
    rejected = int(made.metrics["nStamps"]) - used
    assert "template is convolved (auto)" in text
    assert f"kernel of spatial order {made.kernel.order}" in text
    assert f"from {used} stamps, {rejected} rejected" in text
    assert "template: noise" in text
    assert "taken as white" in text
    assert "noise autocovariance measured of science and template" in text
    assert "autocovariance measured" in text


def test_correlation_of_rows_is_told_from_that_of_columns() -> None:
    """Noise plus a share s of its neighbour correlates by s / (1 + s²)."""
    noise = np.random.default_rng(3).normal(size=(400, 401))
    rows = (noise[:, 1:] + 0.3 * noise[:, :-1]).astype(np.float32)
    for image, known in ((rows, (0.3 / 1.09, 0.0)), (rows.T.copy(), (0.0, 0.3 / 1.09))):
        sums = region_sums(image, np.ones_like(image), np.ones(image.shape, np.uint8), 4, 4)
        found = mean_lag1(in_rows(sums)), mean_lag1(in_columns(sums))
        assert found == pytest.approx(known, abs=4 / 400)  # four standard errors
        assert mean_lag1(sums) == pytest.approx(np.mean(found), abs=1e-3)


def test_pull_sums_are_the_first_of_the_sums_of_regions():
    rng = np.random.default_rng(8)
    image = rng.normal(0, 3, (90, 70)).astype(np.float32)
    variance = rng.uniform(1, 9, image.shape).astype(np.float32)
    usable = (rng.random(image.shape) > 0.2).astype(np.uint8)
    image[4, 5], usable[4, 5] = np.nan, 0
    pulls = np.where(usable > 0, np.clip(image / np.sqrt(variance), -5, 5), 0.0)
    sums = pull_sums(image, variance, usable, 3, 2)
    np.testing.assert_array_equal(sums, region_sums(image, variance, usable, 3, 2)[..., :2])
    np.testing.assert_array_equal(sums[1, 1, 0], usable[30:60, 35:].sum())
    np.testing.assert_allclose(sums[1, 1, 1], pulls[30:60, 35:].sum(), rtol=1e-5)


@pytest.mark.parametrize("place", [(0, 0), (20, 24), (40, 30)], ids=["corner", "inside", "end"])
def test_weights_are_inverse_variances_mirrored_at_the_edges(place):
    rng = np.random.default_rng(9)
    flux = rng.normal(0, 3, (50, 44)).astype(np.float32)
    variance = rng.uniform(1, 9, flux.shape).astype(np.float32)
    usable = (rng.random(flux.shape) > 0.2).astype(np.uint8)
    flux[22, 25], variance[23, 26] = np.nan, 0.0
    usable[22, 25], usable[23, 26] = 0, 0
    rim, planes = 6, np.empty((2, 25, 25), np.float32)
    largest = weigh(flux, variance, usable, *place, rim, planes)
    padded = [np.pad(p, 30, "reflect") for p in (flux, variance, usable)]
    y, x = (30 + p - rim for p in place)
    f, v, good = (p[y : y + 25, x : x + 25] for p in padded)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(good > 0, 1 / v, 0)
        expected = np.where(good > 0, f * weight, 0)
    assert largest == weight.max()
    np.testing.assert_allclose(planes[1] * largest, weight, rtol=1e-6)
    np.testing.assert_allclose(planes[0] * largest, expected, rtol=1e-6)
