"""Every metric finds what was planted, and nothing where nothing was."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from harness.verify.metrics import load_metrics
from harness.verify.view import Artefacts
from pipeline.camera import Camera
from pipeline.exposure import Difference, GridPsf, MatchingKernel
from pipeline.masks import bits

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


def test_sky_next_to_light_is_not_blank(blank):
    """The wing of an object under the threshold is no fault of the background."""
    from harness.verify.blanksky import blank_pixels

    yy, xx = np.indices(blank.shape)
    distance = np.hypot(xx - 256, yy - 256)
    halo = np.where(distance < 110, 2.0, 0.0).astype(np.float32)
    mask = blank.mask.copy()
    mask[distance < 60] |= bits("DETECTED")
    view = view_of(blank.replace(image=blank.image + halo, mask=mask))

    sky = blank_pixels(view)

    assert abs(measure("blank_sky", view).value) < 0.02
    assert not sky[distance < 60 + 60].any()
    assert sky[distance > 60 + 60 + 30].all()


def test_a_crowded_field_has_no_blank_sky(blank):
    mask = blank.mask.copy()
    mask[::16, ::16] |= bits("DETECTED")
    shifted = view_of(blank.replace(image=blank.image - np.float32(4.0), mask=mask))

    assert measure("blank_sky", shifted).n == 0
    assert measure("noise_ratio", shifted).n == 0


def test_amp_step(blank):
    image = blank.image.copy()
    image[:, 256:] += 10.0

    got = measure("amp_step", view_of(blank.replace(image=image)))

    assert got.value == pytest.approx(1.0, abs=4 * got.stderr)


def bright_raw(places):
    """Raw counts of detector 1 with 20,000 ADU on rows and columns of amplifier A."""
    detector = CAMERA.detector(1)
    data = np.full(detector.raw_shape, 2000, np.uint16)
    source = detector.amplifier("A")
    rows, columns = places
    data[source.data.slices][rows, columns] = 22000
    return SimpleNamespace(data=data)


def test_crosstalk_residual(blank):
    places = np.s_[100:110], np.s_[40:50]
    detector = CAMERA.detector(1)
    a, b = detector.amplifier("A"), detector.amplifier("B")
    image = blank.image.copy()
    half = b.trimmed.slices
    there = [np.zeros(a.data.shape, bool) for _ in (a, b)]
    there[0][places] = True
    mirror = -1 if a.at_right != b.at_right else 1
    there[1] = there[0][:: -1 if a.at_top != b.at_top else 1, ::mirror]
    clean = measure("crosstalk_residual", view_of(blank, raw=bright_raw(places), number=1))
    image[half][there[1]] += 8.0  # two standard deviations, where the ghost of A lies in B
    ghostly = view_of(blank.replace(image=image), raw=bright_raw(places), number=1)

    got = measure("crosstalk_residual", ghostly)

    assert abs(clean.value) < 4 * clean.stderr
    assert got.value == pytest.approx(4.0, abs=4 * got.stderr)
    assert [row["group"] for row in got.rows] == ["1 A to B"]


def test_crosstalk_residual_does_not_see_what_lies_under_the_victim(blank):
    places = np.s_[100:110], np.s_[40:50]
    lifted = blank.replace(image=blank.image + np.float32(3.0))

    got = measure("crosstalk_residual", view_of(lifted, raw=bright_raw(places), number=1))

    assert abs(got.value) < 4 * got.stderr


def test_pairs_are_pooled_before_their_quantile():
    from harness.verify.metric import Sample
    from harness.verify.sampling import combine_groups

    def sample(*values):
        names = ("A to B", "B to A", "C to D")
        rows = [{"group": n, "value": v, "stderr": 0.2} for n, v in zip(names, values, strict=True)]
        return Sample(0.0, 10, rows=tuple(rows))

    outcomes = {(1, 1): sample(0.3, -0.1, -0.9), (2, 1): sample(-0.3, -0.3, -1.1)}

    middle, largest = (combine_groups(outcomes, q) for q in (0.5, 1.0))

    assert middle.value == pytest.approx(0.2)
    assert largest.value == pytest.approx(1.0)
    assert (middle.population, middle.stderr) == (3, pytest.approx(0.2 / np.sqrt(2)))
    assert combine_groups({(1, 1): Sample(np.nan, 0)}, 0.5).population == 0
    assert combine_groups({(1, 1): "it broke"}, 0.5).broken == "1_01: it broke"


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


def test_false_cosmic_rays(blank):
    mask = blank.mask.copy()
    mask[100:104, 100:104] |= bits("CR")  # widened round a true ray
    mask[200:202, 200:203] |= bits("CR")  # round nothing
    true = artefacts(blank.shape, CR=(slice(101, 103), slice(101, 103)))

    got = measure("false_cosmic_rays", view_of(blank.replace(mask=mask), artefacts=true))

    assert got.value == pytest.approx(6 / 512**2)


def test_struck_star_cores(blank):
    truth = {
        "x": np.array([100.0, 200.0, 300.0, 400.0, 50.0]),
        "y": np.array([100.0, 200.0, 300.0, 400.0, 50.0]),
        "fluxElectrons": np.array([2e6, 2e6, 2e6, 2e6, 1e4]),
        "kind": np.array(["star"] * 5),
        "saturated": np.array([False, False, False, True, False]),
    }
    mask = blank.mask.copy()
    for at in (200, 300, 400, 50):
        mask[at, at] |= bits("CR")
    true = artefacts(blank.shape, CR=(slice(301, 302), slice(300, 301)))

    got = measure(
        "star_cores_struck", view_of(blank.replace(mask=mask), artefacts=true, truth=truth)
    )

    assert (got.value, got.n) == (1.0, 2)  # one was truly hit, one is saturated, one is faint


def test_a_file_against_the_standard(blank, tmp_path):
    from harness.verify.metrics.products import fits_faults
    from pipeline import io

    good, bad = tmp_path / "good.fits", tmp_path / "bad.fits"
    io.write_exposure(good, blank)
    bad.write_bytes(good.read_bytes().replace(b"BAND    =", b"b and   =", 1))
    space = SimpleNamespace(visit_image=lambda visit, detector: good)

    view = view_of(blank, space=space, visit=1, number=1)

    assert fits_faults(good) == []
    assert fits_faults(bad)
    assert measure("invalid_fits", view).value == 0
    assert measure("file_size", view).value == pytest.approx(good.stat().st_size / 1e6)


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


@pytest.fixture
def starry(blank):
    """Stars of SNR 200 to 2000 on a grid, their truth, and coordinates without an error."""
    from astropy.wcs import WCS

    from harness.verify.star_fits import psf_at

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    wcs.wcs.crpix, wcs.wcs.cd = [256.5, 256.5], np.diag([-1.0, 1.0]) * 0.26 / 3600
    rng = np.random.default_rng(8)
    x, y = (a.ravel() + rng.uniform(-0.5, 0.5, 81) for a in np.mgrid[40:472:9j, 40:472:9j])
    flux = 10 ** rng.uniform(4.0, 5.0, 81)
    pixels = blank.image.copy()
    for a, b, f in zip(x, y, flux, strict=True):
        (stamp,), (column,), (row,) = psf_at(blank.psf, a, b, 11)
        pixels[row - 11 : row + 12, column - 11 : column + 12] += (f * stamp).astype(np.float32)
    colour = rng.normal(0.6, 0.3, 81)
    ra, dec = wcs.all_pix2world(x, y, 0)
    truth = {"x": x, "y": y, "flux": flux, "fluxElectrons": flux / 4.0, "ra": ra, "dec": dec,
             "kind": np.array(["star"] * 81), "gFlux": flux,
             "rFlux": flux * 10 ** (0.4 * colour)}  # fmt: skip
    still = {n: np.zeros(81) for n in ("pmRa", "pmDec")} | {"epochMjdTai": np.full(81, 57070.0)}
    refcat = {n: truth[n] for n in ("ra", "dec", "gFlux", "rFlux")} | still

    def view(**changes):
        image = blank.replace(image=pixels, wcs=changes.pop("wcs", wcs), **changes)
        space = SimpleNamespace(root=PRESENT)
        return view_of(image, truth=truth, refcat=refcat, space=space)

    return view


class _Present:
    """A folder in which every file exists."""

    def __truediv__(self, name):
        return self

    def is_file(self):
        return True


PRESENT = _Present()


def test_halos_round_a_few_of_the_brightest(starry, tmp_path):
    """Two dug halos of sixteen are seen; two rings with a neighbour's light are not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = starry()
    image, wcs = plain.visit_image, plain.visit_image.wcs
    x, y = (a.ravel() for a in np.mgrid[100:412:4j, 100:412:4j])
    ra, dec = wcs.all_pix2world(x, y, 0)
    table = {"ra": ra, "dec": dec, "gFlux": np.arange(16.0) + 1, "radius": np.full(16, 0.5)}
    path = tmp_path / "objects.parquet"
    pq.write_table(pa.table(table), path)
    yy, xx = np.indices(image.shape)
    few = np.minimum(*(np.hypot(xx - x[i], yy - y[i]) for i in (0, 15))) < 90
    rng = np.random.default_rng(3)
    noise = rng.normal(0.0, 4.0, image.shape).astype(np.float32)

    def ring(depth):
        changed = image.replace(image=noise + np.where(few, np.float32(depth), np.float32(0.0)))
        space = SimpleNamespace(objects=path)
        return measure("ring_deficit", view_of(changed, space=space)).value

    assert abs(ring(0.0)) < 0.03
    assert ring(-12.0) < -0.1
    assert ring(12.0) < 0.1


def distorted(size=0.0, e1=0.0):
    """The Gaussian PSF with another T, relative, or another ellipticity along the axes."""
    yy, xx = np.indices((25, 25)) - 12
    var = 1.8**2 * (1.0 + size)
    stamp = np.exp(-0.5 * (xx**2 / (var * (1 + e1)) + yy**2 / (var * (1 - e1))))
    stamp /= stamp[np.hypot(xx, yy) <= 12].sum()
    return GridPsf(stamp[None, None], np.zeros(1), np.zeros(1))


def test_size_and_ellipticity_of_stars_against_the_model(starry):
    honest, wide, long = starry(), starry(psf=distorted(size=0.02)), starry(psf=distorted(e1=0.02))

    right = measure("psf_size_error", honest)
    wrong = measure("psf_size_error", wide)

    assert abs(right.value) < 4 * right.stderr + 0.05
    assert wrong.value == pytest.approx(-2.0, abs=0.4)
    assert abs(measure("psf_ellipticity_error", honest).value) < 0.001
    assert measure("psf_ellipticity_error", long).value == pytest.approx(-0.02, abs=0.004)
    assert abs(measure("psf_ellipticity_error", long, component=2).value) < 0.002


def test_psf_flux_over_the_detector(starry):
    right, tilted = starry(), starry()
    x = tilted.truth["x"]
    tilted.truth = tilted.truth | {"fluxElectrons": tilted.truth["flux"] * (1 + 0.02 * x / 512)}

    flat = measure("flux_flatness", right)
    trend = measure("flux_flatness", tilted)

    assert flat.value < 0.15
    assert trend.value == pytest.approx(100 * 0.02 * 2 / np.sqrt(12) / 2 / 1.01, abs=0.1)


def test_pull_of_the_zero_point(starry):
    from pipeline.exposure import PhotoCalib

    right = starry(photo_calib=PhotoCalib(30.0, 0.001, 0.02, 20, 4.0))
    wrong = starry(photo_calib=PhotoCalib(30.0, 0.001, 0.02, 20, 4.0))
    wrong.truth = wrong.truth | {"flux": wrong.truth["flux"] / 1.01}

    assert abs(measure("zero_point_pull", right, snr_max=1e5).value) < 2.0
    assert measure("zero_point_pull", wrong, snr_max=1e5).value > 8.0


def test_precision_of_coordinates(starry):
    shifted, chromatic, good = starry(), starry(), starry()
    shift = 15.0 / 3.6e6
    shifted.truth = shifted.truth | {"dec": shifted.truth["dec"] + shift}
    colour = -2.5 * np.log10(chromatic.truth["gFlux"] / chromatic.truth["rFlux"])
    refracted = chromatic.truth["dec"] + 100.0 / 3.6e6 * (colour - np.median(colour))
    chromatic.truth = chromatic.truth | {"dec": refracted}

    assert measure("wcs_precision", good).value < 0.1
    assert measure("wcs_offset", good).value < 0.1
    assert measure("wcs_offset", shifted).value == pytest.approx(15.0, abs=0.1)
    assert measure("wcs_precision", shifted).value == pytest.approx(15.0, abs=0.1)
    assert measure("wcs_error", chromatic).value > 20.0
    assert measure("wcs_precision", chromatic).value < 0.1
    assert measure("wcs_precision", good, least=100).n == 0


def kernel(ratio=0.5, sigma=1.2):
    yy, xx = np.indices((15, 15)) - 7
    basis = np.exp(-0.5 * (xx**2 + yy**2) / sigma**2)
    basis /= basis.sum()
    return MatchingKernel(
        basis[None], np.array([[ratio]]), 0, (512, 512), np.zeros(1), 1.0, np.zeros((0, 4))
    )


class Pair(SimpleNamespace):
    """A unit whose difference may be exchanged; what was remembered of the former is forgotten."""

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        self.__dict__.pop("memory", None)


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
    difference = science.replace(
        image=(science.image - matched).astype(np.float32), background=None
    )
    made = Difference(difference, difference.image / 4.0, difference.variance.copy(), kernel())
    return Pair(
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


def test_structure_taken_off_the_sky_belongs_to_the_difference(pair):
    made = pair.difference
    slope = np.linspace(-40.0, 40.0, 512, dtype=np.float32)[None] * np.ones((512, 1), np.float32)
    for background, right in ((slope, True), (None, False)):
        exposure = made.exposure.replace(image=made.exposure.image - slope, background=background)
        pair.difference = Difference(exposure, made.score, made.null_variance, made.kernel)
        assert (measure("kernel_mismatch", pair).value < 0.01) is right


def test_a_filter_before_the_match_belongs_to_the_kernel(pair):
    from dataclasses import replace

    from scipy import signal

    before = np.zeros((3, 3))
    before[1] = 0.45, -0.05, 0.6
    exposure = pair.difference.exposure
    change = signal.fftconvolve(pair.visit_image.image, before, mode="same")
    image = exposure.image + (change - pair.visit_image.image).astype(np.float32)

    stamp = signal.fftconvolve(exposure.psf.at(250, 250), before, mode="same")
    psf = GridPsf(stamp[None, None], np.zeros(1), np.zeros(1))

    def told(filter_):
        return Difference(
            exposure.replace(image=image, psf=psf),
            pair.difference.score,
            pair.difference.null_variance,
            replace(kernel(), before=filter_),
        )

    pair.difference = told(before)
    good = measure("kernel_mismatch", pair)
    pair.difference = told(None)
    assert good.value < 0.01
    assert measure("kernel_mismatch", pair).value > 0.5


def test_pattern_at_bright_stars(pair):
    good = measure("star_residual", pair)
    exposure, scene = pair.difference.exposure, pair.visit_image.image
    pair.difference = Difference(
        exposure.replace(image=exposure.image + 0.07 * np.roll(scene, 1, axis=1)),
        pair.difference.score, pair.difference.null_variance, kernel(),
    )  # fmt: skip
    bad = measure("star_residual", pair)

    assert good.n == bad.n >= 8
    assert good.value < 3.0
    assert bad.value == pytest.approx(7.0, abs=4 * bad.stderr)
    assert measure("star_residual", pair, least=1000).n == 0


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


@pytest.mark.parametrize("places", [[], [[-40.0, 3.0]], [[2.0, 2.0], [1e6, 5.0]]])
def test_stars_outside_the_image_are_not_fitted(exposure, places):
    from harness.verify.star_fits import star_fits

    made = exposure(shape=(64, 64))
    bad = np.zeros(made.shape, bool)
    found = star_fits(made.image, made.variance, bad, made.psf, np.array(places))
    assert found == [None] * len(places)


def test_star_fits_are_right(exposure):
    from harness.verify.star_fits import psf_at, star_fits

    image = exposure(shape=(128, 128), seed=4)
    pixels = image.image.copy()
    positions = np.array([[30.3, 40.7], [80.0, 90.5]])
    for x, y in positions:
        (stamp,), (column,), (row,) = psf_at(image.psf, x, y, 11)
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
             "refcat", "sources", "forced", "camera", "alerts"}  # fmt: skip
    for metric in METRICS.values():
        assert set(metric.reads) <= known
        assert metric.summary.endswith(".")


def _variables(tmp_path, made, fluxes, now, excluded=0):
    """View of stars 1, 2, … with their fluxes in two inputs of a template, and in the visit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "truth").mkdir()
    rows = [
        {"truthId": k, "visit": v, "detector": 1, "flux": f, "ra": 150.0, "dec": 2.0 + 0.01 * k}
        for k, pair in enumerate(fluxes, 1)
        for v, f in zip((11, 12), pair, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "truth" / "visits.parquet")
    k = np.arange(1, len(now) + 1)
    return SimpleNamespace(
        truth={
            "truthId": k, "x": 60.0 * k, "y": 30.0 + 30.0 * k, "ra": np.full(len(k), 150.0),
            "dec": 2.0 + 0.01 * k, "flux": np.array(now), "kind": np.full(len(k), "rr_lyrae"),
        },
        template_inputs=((11, 1, 0.5), (12, 1, 0.5)), space=SimpleNamespace(root=tmp_path),
        camera=SimpleNamespace(pixel_scale=0.26), visit=1, number=1, excluded_bits=excluded,
        difference=Difference(made, made.image, made.variance, kernel()),
    )  # fmt: skip


@pytest.mark.parametrize("lost", [False, True])
def test_a_variable_star_is_known_where_the_template_has_all_its_inputs(tmp_path, exposure, lost):
    from harness.verify.metrics.transients import true_differences

    made = exposure()
    if lost:
        made = made.replace(mask=made.mask | bits("CLIPPED"))
    fluxes = [(5000.0, 9000.0), (7000.0, 7000.0)]  # one varies between the inputs
    view = _variables(tmp_path, made, fluxes, now=[10000.0, 10000.0])

    found = {r["truthId"]: r for r in true_differences(view)}

    assert [found[k]["flux"] for k in (1, 2)] == pytest.approx([3000.0, 3000.0])
    assert [found[k]["masked"] for k in (1, 2)] == [lost, False]


@pytest.mark.parametrize("plane", ["CLIPPED", "SAT"])
def test_a_star_that_cannot_have_changed_is_no_transient_where_it_is_masked(
    tmp_path, exposure, plane
):
    from harness.verify.metrics.transients import true_differences
    from pipeline.psfphot import flux_noise

    made = exposure()
    made = made.replace(mask=made.mask | bits(plane))
    noise = float(flux_noise(made.psf, made.variance, 60.0, 60.0)[0])
    now = 5000.0 + 2000.0 * noise
    fluxes = [
        (now - 0.2 * noise, now + 0.2 * noise),  # changes by nothing that could be seen
        (now - 20.0 * noise, now + 20.0 * noise),  # the mean is that of now, but the share unknown
        (now - 9.0 * noise, now - 9.0 * noise),
    ]
    view = _variables(tmp_path, made, fluxes, [now] * 3, excluded=int(bits("SAT")))
    view.truth["flux"][1] += 0.1 * noise

    found = {r["truthId"]: r["masked"] for r in true_differences(view, faded=True)}

    assert found == ({2: True, 3: False} if plane == "CLIPPED" else {3: True})


@pytest.mark.parametrize("width", [4, 5, 1024])
def test_medians_of_rows_are_those_of_numpy(width):
    from harness.verify.metrics.background import row_medians

    rng = np.random.default_rng(5)
    values = rng.normal(1000, 30, (60, width)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:, 0] = 1.0

    assert np.array_equal(row_medians(values), np.nanmedian(values, axis=1))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.45, 1.0])
def test_regions_are_those_of_scipy(share):
    from harness.verify.metrics.masks import _regions

    flags = np.random.default_rng(3).random((40, 57)) < share
    theirs, count = ndimage.label(flags, np.ones((3, 3)))

    ours = _regions(*np.nonzero(flags))

    assert len(set(ours.tolist())) == count
    assert len(set(zip(ours.tolist(), theirs[flags].tolist(), strict=True))) == count


def test_highest_pixels_are_those_that_none_in_their_square_exceeds():
    from harness.verify.metrics.difference import _highest

    image = np.random.default_rng(4).normal(size=(30, 40)).astype(np.float32)
    image[:2, :2] = image[29, 39] = 9.0  # equal ones, and the corner

    found = set(zip(*(a.tolist() for a in _highest(image, *np.nonzero(image > 0.5))), strict=True))

    largest = ndimage.maximum_filter(image, 9, mode="nearest")
    assert found == set(zip(*(a.tolist() for a in np.nonzero(image == largest)), strict=True))


def test_a_psf_moved_in_a_batch_is_that_of_scipy(exposure):
    from harness.verify.star_fits import psf_at

    psf = exposure(shape=(64, 64)).psf
    x, y = np.array([30.0, 20.31, 40.5]), np.array([31.0, 25.77, 19.5])

    stamps, columns, rows = psf_at(psf, x, y, 7)

    assert (columns.tolist(), rows.tolist()) == ([30, 20, 40], [31, 26, 20])
    for stamp, u, v in zip(stamps, x - columns, y - rows, strict=True):
        moved = ndimage.shift(psf.at(0, 0), (v, u), order=5)
        middle = len(moved) // 2
        inner = slice(middle - 7, middle + 8)
        assert stamp == pytest.approx(moved[inner, inner], abs=1e-9)
