"""Every metric finds what was planted, and nothing where nothing was."""

from types import SimpleNamespace

import numpy as np
import pytest

from harness.verify.metrics import load_metrics
from harness.verify.view import Artefacts
from pipeline.camera import Camera
from pipeline.exposure import Difference, MatchingKernel, bits

METRICS = load_metrics()
CAMERA = Camera.load("testcam")


def measure(name, view, **arguments):
    return METRICS[name].function(view, **arguments)


def view_of(image, **more):
    return SimpleNamespace(visit_image=image, camera=CAMERA, detector=CAMERA.detector(1), **more)


@pytest.fixture
def blank(exposure):
    return exposure(shape=(512, 512))


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_noise_ratio(blank, factor):
    image = blank.replace(variance=np.float32(factor) * blank.variance)

    got = measure("noise_ratio", view_of(image))

    assert got.value == pytest.approx(factor**-0.5, abs=4 * got.stderr)
    assert got.stderr < 0.01


def test_noise_ratio_does_not_see_a_smooth_sky(blank):
    slope = np.linspace(0, 100, 512, dtype=np.float32)[:, None]

    assert measure("noise_ratio", view_of(blank.replace(image=blank.image + slope))).value < 1.02


def test_blank_sky(blank):
    shifted = blank.replace(image=blank.image + np.float32(0.4))

    assert abs(measure("blank_sky", view_of(blank)).value) < 0.02
    assert measure("blank_sky", view_of(shifted)).value == pytest.approx(0.1, abs=0.02)


def test_amp_step(blank):
    image = blank.image.copy()
    image[:, 256:] += 10.0

    got = measure("amp_step", view_of(blank.replace(image=image)))

    assert got.value == pytest.approx(1.0, abs=4 * got.stderr)


def test_crosstalk_residual(blank):
    image = blank.image.copy()
    source = blank.photo_calib.njy_per_electron * CAMERA.detector(1).amplifier("A").gain * 20000.0
    image[100:110, 300:310] = source  # amplifier A of detector 1 lies to the right
    clean = measure("crosstalk_residual", view_of(blank.replace(image=image.copy())))
    image[100:110, 512 - 310 : 512 - 300] += 8.0  # two standard deviations, mirrored

    got = measure("crosstalk_residual", view_of(blank.replace(image=image)))

    assert abs(clean.value) < 4 * clean.stderr
    assert got.value == pytest.approx(4.0, abs=4 * got.stderr)


def artefacts(shape, **places):
    planes = {name: n for n, name in enumerate(places)}
    data = np.zeros(shape, np.uint32)
    for name, box in places.items():
        data[box] |= 1 << planes[name]
    return Artefacts(data, planes)


def test_masked_artefacts(blank):
    box, nowhere = (slice(0, 10), slice(0, 10)), (slice(0, 0), slice(0, 0))
    mask = blank.mask.copy()
    mask[:5, :10] |= bits("CR")
    true = artefacts(blank.shape, CR=box, BLEED=nowhere)
    view = view_of(blank.replace(mask=mask), artefacts=true)

    got = measure("masked_artefacts", view, artefacts=["CR"], planes=["CR"])
    none = measure("masked_artefacts", view, artefacts=["BLEED"], planes=["BLEED"])
    lost = measure("good_pixels_masked", view, artefacts=["CR"], planes=["CR"])

    assert (got.value, got.n) == (0.5, 100)
    assert none.n == 0
    assert lost.value == 0.0
    with pytest.raises(KeyError, match="BLED"):  # a misspelt name must not pass for a clean image
        measure("masked_artefacts", view, artefacts=["BLED"], planes=["BLEED"])


def test_listed_defects(blank):
    view = view_of(blank)
    missing = measure("masked_defects", view)
    mask = blank.mask.copy()
    for box in view.detector.defects:
        mask[box.y0 : box.y0 + box.height, box.x0 : box.x0 + box.width] |= bits("BAD")

    got = measure("masked_defects", view_of(blank.replace(mask=mask)))

    assert missing.value == 0.0
    assert (got.value, got.n) == (1.0, missing.n)


def test_bad_columns(blank):
    image = blank.image.copy()
    image[:, 200] += 8.0
    mask = blank.mask.copy()
    mask[:, 200] |= bits("UNLISTED")

    assert measure("bad_columns_unmasked", view_of(blank)).value == 0
    assert measure("bad_columns_unmasked", view_of(blank.replace(image=image))).value == 4
    masked = blank.replace(image=image, mask=mask)
    assert measure("bad_columns_unmasked", view_of(masked)).value == 0


def test_sharp_pixels(blank):
    image = blank.image.copy()
    image[50, 50] = 200.0
    mask = blank.mask.copy()
    mask[50, 50] |= bits("CR")

    assert measure("sharp_pixels_unmasked", view_of(blank)).value == 0
    assert measure("sharp_pixels_unmasked", view_of(blank.replace(image=image))).value == 1
    assert (
        measure("sharp_pixels_unmasked", view_of(blank.replace(image=image, mask=mask))).value == 0
    )


def test_saturated_pixels(blank):
    detector = CAMERA.detector(1)
    data = np.full(detector.raw_shape, 1000, np.uint16)
    amp = detector.amplifiers[0]
    data[amp.data.y0 + 5, amp.data.x0 + 5 : amp.data.x0 + 9] = 65535
    raw = SimpleNamespace(data=data)
    mask = blank.mask.copy()
    mask[amp.trimmed.y0 + 5, amp.trimmed.x0 + 5 : amp.trimmed.x0 + 8] |= bits("SAT")

    got = measure("saturated_unmasked", view_of(blank.replace(mask=mask), raw=raw))

    assert (got.value, got.n) == (1.0, 4)


def test_trimmed(blank, exposure):
    assert measure("untrimmed_pixels", view_of(blank)).value == 0
    assert measure("untrimmed_pixels", view_of(exposure(shape=(512, 562)))).value == 50


def test_psf_norm_and_variation(blank):
    bad = blank.psf.cube * 1.02
    wrong = blank.replace(psf=type(blank.psf)(bad, blank.psf.x, blank.psf.y))

    assert measure("psf_norm", view_of(blank)).value < 1e-9
    assert measure("psf_norm", view_of(wrong)).value == pytest.approx(0.02)
    assert measure("psf_variation", view_of(blank)).value == 0.0


def kernel(ratio=0.5, sigma=1.2):
    yy, xx = np.indices((15, 15)) - 7
    basis = np.exp(-0.5 * (xx**2 + yy**2) / sigma**2)
    basis /= basis.sum()
    return MatchingKernel(
        basis[None], np.array([[ratio]]), 0, (512, 512), np.zeros(1), 1.0, np.zeros((0, 4))
    )


@pytest.fixture
def pair(exposure):
    """Science = kernel ⊗ template + noise, and its difference without decorrelation."""
    from scipy import signal

    template, noise = exposure(shape=(512, 512), seed=5), exposure(shape=(512, 512), seed=6)
    rng = np.random.default_rng(2)
    sky = np.zeros((512, 512), np.float32)
    yy, xx = np.mgrid[-12:13, -12:13]
    for x, y in rng.integers(40, 470, (40, 2)):
        sky[y - 12 : y + 13, x - 12 : x + 13] += 4000 * np.exp(-0.5 * (xx**2 + yy**2) / 3.0)
    template = template.replace(image=0.1 * template.image + sky)
    matched = signal.oaconvolve(template.image, kernel().basis[0] * 0.5, mode="same")
    science = noise.replace(image=(noise.image + matched).astype(np.float32))
    difference = science.replace(image=(science.image - matched).astype(np.float32))
    made = Difference(difference, difference.image / 4.0, difference.variance.copy(), kernel())
    return SimpleNamespace(
        visit_image=science, warped=template, difference=made, excluded_bits=int(bits("SAT"))
    )


def test_a_stored_kernel_reproduces_the_difference(pair):
    good = measure("kernel_mismatch", pair)
    pair.difference = Difference(
        pair.difference.exposure, pair.difference.score, pair.difference.null_variance, kernel(0.52)
    )

    stale = measure("kernel_mismatch", pair)

    assert good.value < 0.01
    assert stale.value == pytest.approx(100 * (1 - 0.5 / 0.52), abs=0.2)


def test_matched_fluxes(pair):
    good = measure("kernel_flux_error", pair)
    pair.difference = Difference(
        pair.difference.exposure, pair.difference.score, pair.difference.null_variance, kernel(0.55)
    )

    wrong = measure("kernel_flux_error", pair)

    assert good.n >= 8
    assert abs(good.value) < 4 * good.stderr
    assert wrong.value == pytest.approx(100 * (0.5 / 0.55 - 1), abs=4 * wrong.stderr)


def test_difference_noise(pair):
    exposure = pair.difference.exposure
    assert measure("difference_noise", pair).value == pytest.approx(1.0, abs=0.01)
    assert measure("score_noise", pair).value == pytest.approx(1.0, abs=0.01)
    pair.difference = Difference(
        exposure.replace(variance=exposure.variance * np.float32(1.3)),
        pair.difference.score, pair.difference.null_variance, kernel(),
    )  # fmt: skip

    assert measure("difference_noise", pair).value == pytest.approx(1.3**-0.5, abs=0.01)


@pytest.mark.parametrize("axis", [0, 1])
def test_noise_correlation(pair, axis):
    white = measure("noise_correlation", pair, axis=axis)
    pair.memory.clear()
    exposure = pair.difference.exposure
    smooth = exposure.image + 0.3 * np.roll(exposure.image, 1, axis)
    pair.difference = Difference(
        exposure.replace(image=smooth),
        pair.difference.score,
        pair.difference.null_variance,
        kernel(),
    )

    correlated = measure("noise_correlation", pair, axis=axis)

    assert abs(white.value) < 4 * white.stderr
    assert correlated.value == pytest.approx(0.3 / 1.09, abs=0.02)


def test_masks_are_kept(pair):
    mask = pair.visit_image.mask.copy()
    mask[10:20, 10] |= bits("CR")
    pair.visit_image = pair.visit_image.replace(mask=mask)
    lost = measure("mask_kept", pair, planes=["CR", "SAT"], source="science")
    exposure = pair.difference.exposure.replace(mask=mask)
    pair.difference = Difference(
        exposure, pair.difference.score, pair.difference.null_variance, kernel()
    )

    kept = measure("mask_kept", pair, planes=["CR", "SAT"], source="science")

    assert (lost.value, lost.n, lost.note) == (0.0, 10, "worst plane CR")
    assert (kept.value, kept.n) == (1.0, 10)


def test_mask_overgrowth(pair):
    mask = pair.difference.exposure.mask.copy()
    mask[:, :51] |= bits("SAT")
    grown = pair.difference.exposure.replace(mask=mask)
    pair.difference = Difference(
        grown, pair.difference.score, pair.difference.null_variance, kernel()
    )

    assert measure("mask_overgrowth", pair).value == pytest.approx(100 * 51 / 512)


def test_star_fits_are_right(exposure):
    from harness.verify.stamps import psf_at, star_fits

    image = exposure(shape=(128, 128), seed=4)
    pixels = image.image.copy()
    positions = np.array([[30.3, 40.7], [80.0, 90.5]])
    for x, y in positions:
        stamp, column, row = psf_at(image.psf, x, y, 11)
        pixels[row - 11 : row + 12, column - 11 : column + 12] += (5000.0 * stamp).astype(
            np.float32
        )

    found = star_fits(
        pixels, image.variance, np.zeros((128, 128), bool), image.psf, positions + 0.2, half=6
    )

    for fit in found:
        assert fit.flux == pytest.approx(5000.0, abs=5 * fit.flux_err)
        assert fit.chi2 == pytest.approx(1.0, abs=0.5)


def test_every_metric_says_what_it_reads():
    known = {"visit_image", "difference", "template", "warped", "raw", "artefacts", "truth",
             "refcat", "sources", "camera"}  # fmt: skip
    for metric in METRICS.values():
        assert set(metric.reads) <= known
        assert metric.summary.endswith(".")
