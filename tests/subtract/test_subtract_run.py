"""The whole stage on pairs with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from pipeline import subtract
from pipeline.errors import PixelError, SubtractionError
from pipeline.exposure import Difference, GridPsf, MatchingKernel
from pipeline.masks import BRIDGEABLE, NOT_IN_SCORE, bits
from pipeline.subtract import alard_lupton
from pipeline.subtract.convolve import convolve
from pipeline.subtract.decorrelate import Filters
from pipeline.subtract.metrics import robust_std

CORRELATED = np.array([[0.1, 0.25, 0.1], [0.25, 0.6, 0.25], [0.1, 0.25, 0.1]])


def autocovariance(kernel: np.ndarray, lags: int = 5) -> np.ndarray:
    wide = np.pad(kernel, lags)
    out = np.array(
        [
            [(wide * np.roll(wide, (j, i), (0, 1))).sum() for i in range(-lags, lags + 1)]
            for j in range(-lags, lags + 1)
        ]
    )
    return out / out[lags, lags]


def pulls(difference: Difference, edge: int = 30) -> np.ndarray:
    e = difference.exposure
    z = e.image / np.sqrt(e.variance)
    z = np.where((e.mask & bits(*NOT_IN_SCORE)) == 0, z, 0.0)
    return z[edge:-edge, edge:-edge]


def lag1(z: np.ndarray) -> float:
    z = np.clip(z, -5, 5)
    return float(((z[:, 1:] * z[:, :-1]).mean() + (z[1:] * z[:-1]).mean()) / 2 / (z**2).mean())


def psf_fluxes(difference: Difference, x, y) -> tuple[np.ndarray, ...]:
    """Forced fluxes at known places with the difference's own PSF, null and full errors."""
    e, flux, err, total = difference.exposure, [], [], []
    for u, v in zip(x, y, strict=True):
        i, j = round(u), round(v)
        p = e.psf.at(u, v)
        k = np.fft.fftfreq(p.shape[0])
        shift = np.exp(-2j * np.pi * (k[:, None] * (v - j) + k[None, :] * (u - i)))
        p = np.real(np.fft.ifft2(np.fft.fft2(p) * shift))
        h = p.shape[0] // 2
        p = p[h - 9 : h + 10, h - 9 : h + 10]
        box = np.s_[j - 9 : j + 10, i - 9 : i + 10]
        w = 1.0 / difference.null_variance[box]
        flux.append((w * p * e.image[box]).sum() / (w * p * p).sum())
        err.append((w * p * p).sum() ** -0.5)
        total.append(np.sqrt(((w * p) ** 2 * e.variance[box]).sum()) / (w * p * p).sum())
    return np.array(flux), np.array(err), np.array(total)


def middle(image: np.ndarray, x: float | None = None, y: float | None = None) -> np.ndarray:
    """Offset of light from a place, or from the middle, in a Gaussian window of 2 pixels."""
    v, u = np.indices(image.shape, float)
    u -= image.shape[1] // 2 if x is None else x
    v -= image.shape[0] // 2 if y is None else y
    light = image * np.exp(-(u**2 + v**2) / 8.0)
    return np.array([(light * u).sum(), (light * v).sum()]) / light.sum()


def _near(difference: Difference) -> float:
    """Flux of the PSF within the radius that fluxes are tied to."""
    psf = difference.exposure.psf
    (stamp,) = psf.stamps([256.0], [256.0])
    v, u = np.indices(stamp.shape) - stamp.shape[0] // 2
    return float(stamp[np.hypot(u, v) <= psf.FLUX_RADIUS].sum())


class TestNoise:
    @pytest.mark.parametrize(("science", "template"), [(2.0, 1.6), (1.6, 2.0), (1.8, 1.8)])
    def test_is_white_and_scaled(self, make_scene, science, template):
        scene = make_scene(science_sigma=science, template_sigma=template)
        difference = subtract.run(scene.science, scene.template)
        assert difference.kernel.convolved == ("science" if science < template else "template")
        z = pulls(difference)
        assert robust_std(z) == pytest.approx(1.0, abs=0.01)
        assert abs(lag1(z)) < 0.008  # 3σ of this many pixels
        assert robust_std(difference.score[30:-30, 30:-30]) == pytest.approx(1.0, abs=0.03)

    def test_correlated_template_noise_is_whitened(self, make_scene, monkeypatch):
        scene = make_scene(smooth=CORRELATED, noise=(10.0, 12.0), template_sigma=1.9)
        correlation = autocovariance(CORRELATED)[None, None]
        with_noise = scene.template.replace(noise_correlation=correlation)
        declared = lag1(pulls(subtract.run(scene.science, with_noise)))
        measured = lag1(pulls(subtract.run(scene.science, scene.template)))
        monkeypatch.setattr(alard_lupton, "_CORRELATED", np.inf)
        naive = lag1(pulls(subtract.run(scene.science, scene.template)))
        assert abs(declared) < 0.01
        assert abs(measured) < 0.01
        assert abs(naive) > 0.1

    def test_without_decorrelation_noise_stays_correlated(self, make_scene):
        scene = make_scene(noise=(8.0, 16.0))
        config = subtract.Config(decorrelate=False)
        z = pulls(subtract.run(scene.science, scene.template, config))
        assert lag1(z) > 0.03
        assert robust_std(z) == pytest.approx(1.0, abs=0.02)


class TestPhotometry:
    @pytest.mark.parametrize(("science", "template"), [(2.0, 1.6), (1.6, 2.0)])
    def test_transients_keep_their_flux(self, make_scene, science, template):
        scene = make_scene(transients=60, science_sigma=science, template_sigma=template)
        difference = subtract.run(scene.science, scene.template)
        flux, _, total = psf_fluxes(difference, scene.x, scene.y)
        mean = np.average(flux / scene.flux, weights=1 / total**2)
        assert mean == pytest.approx(1.0, abs=0.012)  # 2.5σ of 60 sources
        if science > template:  # a convolved science image has correlated photon noise
            assert robust_std((flux - scene.flux) / total) == pytest.approx(1.0, abs=0.3)

    def test_wide_psf_has_unit_flux_where_fluxes_are_tied(self, make_scene, monkeypatch):
        """Decorrelation moves light across twelve pixels in bad seeing; fluxes do not care."""
        scene = make_scene(transients=30, science_sigma=4.5, template_sigma=3.5, noise=(6.0, 8.0))
        scaled = subtract.run(scene.science, scene.template)
        monkeypatch.setattr(Filters, "scaled", lambda self, psf: (self, psf))
        free = subtract.run(scene.science, scene.template)
        assert _near(scaled) == pytest.approx(1.0, abs=1e-4)
        assert abs(_near(free) - 1.0) > 1e-3
        fluxes = [psf_fluxes(difference, scene.x, scene.y)[0] for difference in (scaled, free)]
        np.testing.assert_allclose(*fluxes, rtol=1e-3)

    def test_transients_keep_their_flux_on_a_fringed_sky(self, make_scene):
        scene = make_scene(transients=60)
        fringes = gaussian_filter(np.random.default_rng(9).normal(size=(512, 512)), 4.0)
        fringes *= 3.0 / fringes.std()
        science = scene.science.replace(image=scene.science.image + fringes.astype(np.float32))
        pulls = []
        for image in (scene.science, science):
            difference = subtract.run(image, scene.template)
            flux, _, total = psf_fluxes(difference, scene.x, scene.y)
            assert np.mean(flux / scene.flux) == pytest.approx(1.0, abs=0.02)
            pulls.append(robust_std((flux - scene.flux) / total))
        assert difference.metrics["excessNoise"] > 0.02
        assert pulls[1] < 1.15 * pulls[0]

    def test_score_is_flux_over_null_error(self, make_scene):
        scene = make_scene(transients=40)
        difference = subtract.run(scene.science, scene.template)
        flux, err, _ = psf_fluxes(difference, scene.x, scene.y)
        at = [
            difference.score[round(v) - 1 : round(v) + 2, round(u) - 1 : round(u) + 2].max()
            for u, v in zip(scene.x, scene.y, strict=True)
        ]
        assert np.median(np.array(at) / (flux / err)) == pytest.approx(1.0, abs=0.03)

    def test_kernel_is_the_known_one(self, make_scene):
        scene = make_scene(noise=(1.0, 0.5))
        kernel = subtract.run(scene.science, scene.template).kernel
        assert kernel.sum_at([100, 400], [100, 300]) == pytest.approx(0.8, abs=0.002)
        # What the kernel does counts: it takes one PSF to the other.
        matched = fftconvolve(scene.template.psf.at(0, 0), kernel.at(256, 256), "same")
        wanted = 0.8 * scene.science.psf.at(0, 0)
        assert np.abs(matched - wanted).max() < 0.004 * wanted.max()
        assert kernel.background[0] == pytest.approx(7.0, abs=0.2)

    @pytest.mark.parametrize("offset", [(0.3, -0.2), (-0.15, 0.4)])
    def test_sources_stay_where_they_are(self, make_scene, offset):
        """The science image is the sharper one: the kernel carries it to the template's places."""
        scene = make_scene(
            science_sigma=1.6, template_sigma=2.0, offset=offset, transients=40, shape=(640, 640)
        )
        difference = subtract.run(scene.science, scene.template)
        assert difference.kernel.convolved == "science"
        moved = difference.kernel.middle()
        u = np.arange(len(moved)) - len(moved) // 2
        assert moved.sum(0) @ u / moved.sum() == pytest.approx(offset[0], abs=0.03)
        assert np.abs(middle(difference.exposure.psf.at(320, 320))).max() < 0.005
        image = difference.exposure.image
        light = [middle(image, x, y) for x, y in zip(scene.x, scene.y, strict=True)]
        error = np.std(light, axis=0) / np.sqrt(len(light))
        assert (np.abs(np.median(light, axis=0)) < 4 * error).all()
        assert error.max() < 0.03
        assert abs(difference.metrics["scoreStd"] - 1.0) < 0.02
        assert abs(difference.metrics["pixelStd"] - 1.0) < 0.03
        assert abs(difference.metrics["lag1"]) < 0.02

    def test_psf_is_that_of_a_source(self, make_scene):
        scene = make_scene(noise=(1.0, 3.0), template_sigma=1.5)
        x, y = np.array([256.0]), np.array([256.0])
        bright = draw_one(scene, x, y, 2e5)
        difference = subtract.run(bright, scene.template, subtract.Config(clip_sigma=3.0))
        before = subtract.run(scene.science, scene.template, subtract.Config(clip_sigma=3.0))
        box = np.s_[244:269, 244:269]
        change = (difference.exposure.image - before.exposure.image)[box] / 2e5
        model = difference.exposure.psf.at(256, 256)[8:33, 8:33]
        assert np.abs(change - model).max() < 0.02 * model.max()


def draw_one(scene, x, y, flux):
    from pipeline.exposure import Exposure

    rows, columns = np.arange(512), np.arange(512)
    sigma = 2.0
    star = np.outer(
        np.exp(-0.5 * ((rows - y[0]) / sigma) ** 2), np.exp(-0.5 * ((columns - x[0]) / sigma) ** 2)
    ) / (2 * np.pi * sigma**2)
    science: Exposure = scene.science
    return science.replace(image=science.image + (flux * star).astype(np.float32))


class TestScore:
    def test_a_change_of_a_bright_star_is_seen_where_it_is(self, make_scene):
        scene = make_scene(seed=8)
        rows, columns = np.mgrid[:512, :512]
        r2 = (rows - 250.0) ** 2 + (columns - 256.0) ** 2
        for change in (0.3, -0.3):
            old = 4e5 * np.exp(-0.5 * r2 / 1.6**2) / (2 * np.pi * 1.6**2)
            new = 0.8 * (1 + change) * 4e5 * np.exp(-0.5 * r2 / 2.0**2) / (2 * np.pi * 2.0**2)
            science = scene.science.replace(
                image=(scene.science.image + new).astype(np.float32),
                variance=(scene.science.variance + new).astype(np.float32),
            )
            template = scene.template.replace(
                image=(scene.template.image + old).astype(np.float32),
                variance=(scene.template.variance + 0.2 * old).astype(np.float32),
            )
            score = subtract.run(science, template).score
            core = score[240:261, 246:267] * np.sign(change)
            assert np.unravel_index(np.argmax(core), core.shape) == (10, 10)
            assert core[10, 10] > 100
            assert (core[4:17, 4:17] > 0).all()


class TestRepeats:
    def test_same_bytes(self, make_scene):
        scene = make_scene(seed=4)
        first, second = (subtract.run(scene.science, scene.template) for _ in range(2))
        assert first.exposure.image.tobytes() == second.exposure.image.tobytes()
        assert first.score.tobytes() == second.score.tobytes()

    def test_inputs_are_left_alone(self, make_scene):
        scene = make_scene(seed=4)
        scene.science.image[100, 100] = np.nan
        copies = [a.copy() for a in (scene.science.image, scene.template.image)]
        subtract.run(scene.science, scene.template)
        assert np.array_equal(copies[0], scene.science.image, equal_nan=True)
        assert np.array_equal(copies[1], scene.template.image)


class TestFallBacks:
    @pytest.mark.parametrize(("stars", "order"), [(200, 2), (40, 1), (9, 0)])
    def test_order_follows_the_stamps(self, make_scene, stars, order):
        scene = make_scene(stars=stars)
        config = subtract.Config(stamp_cell=64)
        difference = subtract.run(scene.science, scene.template, config)
        assert difference.metrics["kernelOrder"] == order
        assert robust_std(pulls(difference)) == pytest.approx(1.0, abs=0.015)

    @pytest.mark.parametrize(("science", "template"), [(2.0, 1.6), (1.6, 2.0)])
    def test_psf_models_stand_in_for_missing_stars(self, make_scene, science, template):
        scene = make_scene(
            stars=2, ratio=1.0, science_sigma=science, template_sigma=template, transients=20
        )
        difference = subtract.run(scene.science, scene.template)
        assert difference.metrics["nStamps"] == 0
        assert difference.metrics["kernelSum"] == pytest.approx(1.0, abs=0.003)
        assert robust_std(pulls(difference)) == pytest.approx(1.0, abs=0.02)
        kernel = difference.kernel
        stamps = {"science": scene.science, "template": scene.template}
        target = "template" if kernel.convolved == "science" else "science"
        source = stamps[kernel.convolved].psf.at(0, 0)
        matched = fftconvolve(source, kernel.at(256, 256), "same")
        wanted = stamps[target].psf.at(0, 0)
        assert np.abs(matched - wanted).max() < 0.005 * wanted.max()

    def test_saturated_template_core_leaves_no_halo(self, make_scene):
        scene = make_scene(stars=60)
        x, y = np.array([256.0]), np.array([250.0])
        science = draw_one(scene, x, y, 8e5)
        star = draw_one(scene, x, y, 8e5).image - scene.science.image
        template = scene.template.replace(image=scene.template.image.copy())
        rows, columns = np.mgrid[:512, :512]
        r2 = (rows - 250.0) ** 2 + (columns - 256.0) ** 2
        sharp = 1e6 * np.exp(-0.5 * r2 / 1.6**2) / (2 * np.pi * 1.6**2)
        template = template.replace(
            image=np.minimum(template.image + sharp, 2e4).astype(np.float32),
            mask=np.where(template.image + sharp >= 2e4, bits("SAT"), np.uint32(0)),
            variance=(template.variance + 0.2 * sharp).astype(np.float32),
        )
        science = science.replace(variance=(science.variance + star).astype(np.float32))
        difference = subtract.run(science, template)
        ring = (r2 > 6**2) & (r2 < 13**2) & ((difference.exposure.mask & bits(*NOT_IN_SCORE)) == 0)
        z = (difference.exposure.image / np.sqrt(difference.exposure.variance))[ring]
        assert ring.sum() > 200
        assert abs(z.mean()) < 0.4
        assert np.abs(z).max() < 6
        assert difference.exposure.mask[250, 256] & bits("SAT_TEMPLATE")


class TestBadInput:
    def test_different_shapes(self, make_scene):
        scene = make_scene()
        other = make_scene(shape=(400, 512))
        with pytest.raises(SubtractionError, match="not on the same pixels"):
            subtract.run(scene.science, other.template)

    def test_no_overlap(self, make_scene):
        scene = make_scene()
        left, right = (m.mask.copy() for m in (scene.science, scene.template))
        left[:, 256:] = bits("NO_DATA")
        right[:, :256] = bits("NO_DATA")
        with pytest.raises(SubtractionError, match="in common"):
            subtract.run(scene.science.replace(mask=left), scene.template.replace(mask=right))

    @pytest.mark.parametrize("which", ["science", "template"])
    def test_all_masked(self, make_scene, which):
        scene = make_scene()
        pair = {"science": scene.science, "template": scene.template}
        pair[which] = pair[which].replace(mask=np.full((512, 512), bits("BAD")))
        with pytest.raises(PixelError, match=f"{which} has no usable"):
            subtract.run(**pair)

    @pytest.mark.parametrize("which", ["science", "template"])
    def test_constant(self, make_scene, which):
        scene = make_scene()
        pair = {"science": scene.science, "template": scene.template}
        pair[which] = pair[which].replace(image=np.full((512, 512), 3.0, np.float32))
        with pytest.raises(PixelError, match="constant"):
            subtract.run(**pair)

    def test_all_nan(self, make_scene):
        scene = make_scene()
        science = scene.science.replace(image=np.full((512, 512), np.nan, np.float32))
        with pytest.raises(PixelError, match="no usable"):
            subtract.run(science, scene.template)

    def test_negative_variance_everywhere(self, make_scene):
        scene = make_scene()
        science = scene.science.replace(variance=-scene.science.variance)
        with pytest.raises(PixelError, match="no usable"):
            subtract.run(science, scene.template)

    def test_some_nan_and_negative_variances_are_masked(self, make_scene):
        scene = make_scene()
        image, variance = scene.science.image.copy(), scene.template.variance.copy()
        image[100:104, 200:204] = np.nan
        variance[300:303, 100:103] = -1.0
        difference = subtract.run(
            scene.science.replace(image=image), scene.template.replace(variance=variance)
        )
        mask = difference.exposure.mask
        assert (mask[100:104, 200:204] & bits(*NOT_IN_SCORE)).all()
        assert (mask[300:303, 100:103] & bits(*NOT_IN_SCORE)).all()
        clean = (mask & bits(*NOT_IN_SCORE)) == 0
        assert np.isfinite(difference.exposure.image[clean]).all()
        assert (difference.exposure.variance[clean] > 0).all()

    def test_too_few_stamps(self, make_scene):
        scene = make_scene(stars=2)
        with pytest.raises(SubtractionError, match="too few sources") as error:
            subtract.run(scene.science, scene.template.replace(psf=None))
        assert error.value.numbers["needed"] == 3
        empty = make_scene(stars=0)
        pair = (e.replace(unit="adu") for e in (empty.science, empty.template))
        with pytest.raises(SubtractionError, match="too few sources"):
            subtract.run(*pair)

    def test_ratio_of_uncalibrated_images_is_that_of_the_stars_left(self, make_scene):
        scene = make_scene(stars=2, seed=6, ratio=0.8)
        pair = (e.replace(unit="adu") for e in (scene.science, scene.template))
        metrics = subtract.run(*pair).metrics
        assert metrics["nStamps"] == 0
        assert metrics["kernelSum"] == pytest.approx(0.8, abs=0.02)

    def test_without_psf(self, make_scene):
        scene = make_scene()
        with pytest.raises(SubtractionError, match="PSF"):
            subtract.run(scene.science.replace(psf=None), scene.template)


PLANES = [(image, rule) for image, rules in subtract.RULES.items() for rule in rules]


@pytest.fixture(scope="module")
def kernel(make_scene):
    scene = make_scene()
    return subtract.run(scene.science, scene.template).kernel


def _padded(kernel):
    return replace(kernel, shape=tuple(n + 40 for n in kernel.shape))


class TestMasks:
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(case=st.sampled_from(PLANES), x=st.integers(60, 450), y=st.integers(60, 450))
    def test_every_plane_reaches_as_far_as_declared(self, kernel, case, x, y):
        from pipeline.subtract.masks import propagate

        image, rule = case
        masks = {name: np.zeros((512, 512), np.uint32) for name in ("science", "template")}
        masks[image][y, x] = bits(rule.plane)
        out = propagate(masks, kernel, 0.02)
        assert out[y, x] & bits(rule.becomes)
        weight = np.abs(kernel.at(255.5, 255.5))
        weight /= weight.sum()
        grows = rule.spread is not None and image == kernel.convolved
        reached = {
            (y + j - 14, x + i - 14) for j, i in np.argwhere(weight > 0.02) if (j, i) != (14, 14)
        }
        inner = out[30:-30, 30:-30] != 0
        found = {(int(j) + 30, int(i) + 30) for j, i in np.argwhere(inner)} - {(y, x)}
        assert found == (reached if grows else set())
        if grows:
            assert all(out[p] & bits(rule.spread) for p in reached)

    def test_planes_without_a_rule_stay_behind(self, kernel):
        from pipeline.subtract.masks import propagate

        masks = {name: np.zeros((512, 512), np.uint32) for name in ("science", "template")}
        masks["science"][200, 200] = bits("DETECTED")
        assert propagate(masks, kernel, 0.02)[200, 200] == 0

    def test_the_rim_is_where_the_kernel_reaches_outside(self):
        from pipeline.subtract.masks import propagate

        shape = (60, 50)
        lopsided = np.outer(*(np.exp(-0.5 * ((np.arange(-9, 10) - c) / 2) ** 2) for c in (2, -1)))
        kernel = MatchingKernel(
            basis=lopsided[None] / lopsided.sum(),
            coefficients=np.ones((1, 1)),
            order=0,
            shape=shape,
            background=np.zeros(1),
            condition=1.0,
            stamps=np.zeros((0, 4)),
        )
        empty = {name: np.zeros(shape, np.uint32) for name in ("science", "template")}
        out = propagate(empty, kernel, 0.02) & bits("EDGE") > 0
        outside = 1.0 - convolve(np.pad(np.ones(shape, np.float32), 20), _padded(kernel), 256)
        rows, columns = outside[20:-20, 45], outside[50, 20:-20]
        assert np.array_equal(out[:, 25], rows > 0.02)
        assert np.array_equal(out[30], columns > 0.02)
        assert np.count_nonzero(rows[:10] > 0.02) != np.count_nonzero(rows[-10:] > 0.02)

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        x=st.integers(60, 450),
        width=st.integers(1, 4),
        plane=st.sampled_from(["BAD", "CR", "UNLISTED", "SAT", "STREAK"]),
    )
    def test_bridged_gaps_count_as_much_as_they_are_wrong(self, kernel, x, width, plane):
        from pipeline.subtract.masks import propagate

        here = np.zeros((512, 512), bool)
        here[:, x : x + width] = True
        masks = {name: np.zeros((512, 512), np.uint32) for name in ("science", "template")}
        masks["template"][here] = bits(plane)
        places = np.flatnonzero(here)
        error = np.full(len(places), 0.1, np.float32)
        nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
        out = propagate(masks, kernel, 0.02, {"science": nothing, "template": (places, error)})
        weight = np.abs(kernel.at(255.5, 255.5))
        counts = 0.1 if plane in BRIDGEABLE else 1.0
        reach = np.convolve(here[0] * counts, (weight / weight.sum()).sum(0), "same")
        assert np.array_equal(
            out[256] != 0, (reach > 0.02) | here[0] | (out[256] & bits("EDGE") > 0)
        )

    def test_beside_bad_columns_of_the_template_noise_and_stars_are_right(self, make_scene):
        scene = make_scene(seed=5, stars=400, transients=0)
        bad = np.zeros((512, 512), bool)
        bad[:, 20:-20:18] = True
        rubbish = np.where(bad, 3e4, scene.template.image).astype(np.float32)
        mask = np.where(bad, bits("BAD"), np.uint32(0)).astype(np.uint32)
        difference = subtract.run(scene.science, scene.template.replace(image=rubbish, mask=mask))
        clean = (difference.exposure.mask & bits(*NOT_IN_SCORE)) == 0
        beside = np.zeros_like(bad)
        for k in (-3, -2, -1, 1, 2, 3):
            beside |= np.roll(bad, k, 1)
        beside &= clean
        beside[:30] = beside[-30:] = False
        assert beside.sum() > 30_000
        e = difference.exposure
        z = (e.image / np.sqrt(e.variance))[beside]
        assert robust_std(z) == pytest.approx(1.0, abs=0.02)
        assert z.std() == pytest.approx(1.0, abs=0.04)
        assert np.abs(difference.score[beside]).max() < 5.5

    def test_halos_are_masked_where_the_core_could_not_be_put_right(self, make_scene):
        scene = make_scene(stars=60)
        rows, columns = np.mgrid[:512, :512]
        found = {}
        for place, extra in (("right", 0.0), ("wrong", 0.5)):
            r2 = (rows - 250.0) ** 2 + (columns - 256.0) ** 2
            sharp = 1e6 * np.exp(-0.5 * r2 / 1.6**2) / (2 * np.pi * 1.6**2)
            soft = draw_one(scene, np.array([256.0]), np.array([250.0]), 8e5).image
            ring = extra * 3e3 * np.exp(-0.5 * (np.sqrt(r2) - 8.0) ** 2)
            science = scene.science.replace(
                image=(soft + ring).astype(np.float32),
                variance=(scene.science.variance + soft - scene.science.image).astype(np.float32),
            )
            template = scene.template.replace(
                image=np.minimum(scene.template.image + sharp, 2e4).astype(np.float32),
                mask=np.where(scene.template.image + sharp >= 2e4, bits("SAT"), np.uint32(0)),
                variance=(scene.template.variance + 0.2 * sharp).astype(np.float32),
            )
            difference = subtract.run(science, template)
            found[place] = int((difference.exposure.mask & bits("SAT_TEMPLATE") > 0).sum())
            if difference.kernel.convolved != "template":
                pytest.fail("the sharper template should have been convolved")
        assert found["wrong"] > 1.3 * found["right"]

    def test_share_of_the_kernel_is_a_convolution(self):
        from pipeline.subtract import masks as module

        rng = np.random.default_rng(5)
        here = rng.random((120, 90)) < 0.05
        here[30:60, :20] = here[-3:] = here[:, 70] = True  # blocks, edges, a column
        weight = rng.random((13, 13))
        known = np.flatnonzero(here)[::7], rng.random(len(np.flatnonzero(here)[::7]))
        counts = here.astype(float)
        counts.ravel()[known[0]] = known[1]
        expected = ndimage.convolve(counts, weight, mode="constant")
        np.testing.assert_allclose(module._reach(here, weight, known), expected, atol=1e-4)

    def test_bad_column_grows_by_the_kernel(self, kernel):
        from pipeline.subtract.masks import propagate

        mask = np.zeros((512, 512), np.uint32)
        mask[:, 200] = bits("BAD")
        both = {"science": np.zeros_like(mask), "template": mask}
        assert 3 <= np.count_nonzero(propagate(both, kernel, 0.02)[256, 150:250]) <= 11


class TestConvolution:
    def test_equals_the_sum_by_hand(self):

        rng = np.random.default_rng(3)
        kernel = MatchingKernel(
            basis=rng.normal(size=(4, 7, 7)),
            coefficients=rng.normal(size=(4, 6)),
            order=2,
            shape=(90, 130),
            background=np.zeros(1),
            condition=1.0,
            stamps=np.zeros((0, 4)),
        )
        image = rng.normal(size=(90, 130)).astype(np.float32)
        out = convolve(image, kernel, 64)
        for y, x in ((45, 64), (10, 100), (80, 20), (44, 65)):
            patch = image[y - 3 : y + 4, x - 3 : x + 4].astype(float)
            assert out[y, x] == pytest.approx((patch * kernel.at(x, y)[::-1, ::-1]).sum(), rel=1e-4)

    def test_tile_size_does_not_matter(self):

        rng = np.random.default_rng(5)
        kernel = MatchingKernel(
            basis=rng.normal(size=(3, 9, 9)),
            coefficients=rng.normal(size=(3, 3)),
            order=1,
            shape=(200, 150),
            background=np.zeros(1),
            condition=1.0,
            stamps=np.zeros((0, 4)),
        )
        image = rng.normal(size=(200, 150)).astype(np.float32)
        assert convolve(image, kernel, 64) == pytest.approx(convolve(image, kernel, 256), abs=1e-3)


class TestBasis:
    def test_only_the_first_function_has_a_sum(self):
        from pipeline.subtract.basis import Basis

        basis = Basis.build((0.7, 1.7, 4.0), (4, 3, 2), 14)
        sums = basis.functions.sum((1, 2))
        assert basis.size == 31
        assert sums[0] == pytest.approx(1.0)
        assert np.abs(sums[1:]).max() < 1e-12

    def test_separable_convolution_is_a_convolution(self):
        from scipy.signal import convolve2d

        from pipeline.subtract.basis import Basis

        basis = Basis.build((0.7, 2.0), (2, 1), 5)
        stamps = np.random.default_rng(2).normal(size=(3, 25, 25))
        out = np.empty((3, basis.size, 15, 15), np.float32)
        basis.convolve(stamps, out)
        for k, function in enumerate(basis.functions):
            assert out[1, k] == pytest.approx(convolve2d(stamps[1], function, "valid"), abs=1e-5)


def test_grid_psf_has_a_node_per_tile(make_scene):
    scene = make_scene()
    psf = subtract.run(scene.science, scene.template).exposure.psf
    assert isinstance(psf, GridPsf)
    assert psf.cube.shape[:2] == (4, 4)
    assert psf.at(100, 100).sum() == pytest.approx(1.0, abs=0.002)
