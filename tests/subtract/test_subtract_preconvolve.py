"""Stars so trailed that no short kernel matches them: one image is filtered before that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import shift as moved_by
from scipy.signal import fftconvolve
from scipy.special import erf

from harness.cli.main import execute
from pipeline import io, subtract
from pipeline.exposure import Difference, GridPsf
from pipeline.masks import NOT_IN_SCORE, bits
from pipeline.subtract import psf_matching
from pipeline.subtract.basis import Basis
from pipeline.subtract.masks import spread
from pipeline.subtract.preconvolve import design_filter, filtered
from pipeline.subtract.prepare import prepare
from tests.subtract.conftest import exposure, gaussian

SHAPE, SKY = (400, 400), (10.0, 5.0)


def trail(length: float, along: float, across: float, dx: float = 0.0, dy: float = 0.0) -> Any:
    """A star drawn out along x: its transfer function changes sign at 1 / length."""
    u = np.arange(-20, 21)
    ends = [(u - dx + s * length / 2) / np.sqrt(2) / along for s in (1, -1)]
    column = np.exp(-0.5 * ((u - dy) / across) ** 2) / np.sqrt(2 * np.pi) / across
    return np.outer(column, (erf(ends[0]) - erf(ends[1])) / (2 * length))


SCIENCE, TEMPLATE = (3.4, 1.4, 1.8), (4.6, 1.1, 1.5)
"""Length and widths of the trails in the two images, in pixels."""


@pytest.fixture(scope="module")
def pair() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    x, y = rng.uniform(25, 375, (2, 160))
    flux = 10 ** rng.uniform(4.3, 5.3, 160)
    images = []
    for shape, noise in zip((SCIENCE, TEMPLATE), SKY, strict=True):
        image = np.zeros(SHAPE)
        for u, v, f in zip(x, y, flux, strict=True):
            i, j = round(u), round(v)
            image[j - 20 : j + 21, i - 20 : i + 21] += f * trail(*shape, u - i, v - j)
        variance = noise**2 + image / 10
        image += rng.normal(size=SHAPE) * np.sqrt(variance)
        psf = GridPsf(trail(*shape)[None, None], np.zeros(1), np.zeros(1))
        images.append(exposure(image, variance, 1.0).replace(psf=psf))
    return {"science": images[0], "template": images[1], "x": x, "y": y, "flux": flux}


@pytest.fixture(scope="module")
def difference(pair: dict[str, Any]) -> Difference:
    return subtract.run(pair["science"], pair["template"])


def left(difference: Difference, pair: dict[str, Any]) -> float:
    """Largest pixel of the median bright star that is left, over the peak."""
    stamps = []
    for x, y in zip(pair["x"], pair["y"], strict=True):
        i, j = round(x), round(y)
        box = np.s_[j - 7 : j + 8, i - 7 : i + 8]
        peak = pair["science"].image[j, i]
        if peak > 1000 and not (difference.exposure.mask[box] & bits(*NOT_IN_SCORE)).any():
            stamps.append(difference.exposure.image[box] / peak)
    assert len(stamps) > 30
    return float(np.abs(np.median(stamps, axis=0)).max())


def test_bright_trails_leave_next_to_nothing(pair, difference, monkeypatch):
    monkeypatch.setattr(psf_matching, "RESIDUAL_SHARE", np.inf)
    without = subtract.run(pair["science"], pair["template"])

    assert without.kernel.before is None
    assert left(without, pair) > 0.05
    assert left(difference, pair) < 0.02
    assert difference.metrics["filteredBefore"] == 1.0


def test_the_difference_is_white_and_correctly_scaled(pair, difference):
    e, ones = difference.exposure, np.ones(SHAPE, bool)
    ones[pair["y"].round().astype(int), pair["x"].round().astype(int)] = False
    empty = (distance_transform_edt(ones) > 12) & ((e.mask & bits(*NOT_IN_SCORE)) == 0)
    z = np.where(empty, np.clip(e.image / np.sqrt(e.variance), -4, 4), np.nan)[30:-30, 30:-30]
    score = difference.score[30:-30, 30:-30][~np.isnan(z)]

    assert np.nanstd(z) == pytest.approx(1.0, abs=0.015)
    assert score.std() == pytest.approx(1.0, abs=0.05)
    # Where both images have next to no power, noise is not lifted all the way.
    assert abs(np.nanmean(z[:, 1:] * z[:, :-1])) < 0.02
    assert abs(np.nanmean(z[1:] * z[:-1])) < 0.04


def test_a_transient_keeps_its_flux_and_shape(pair, difference):
    science = pair["science"]
    image = science.image.copy()
    image[180:221, 180:221] += (5e4 * trail(*SCIENCE)).astype(np.float32)
    changed = subtract.run(science.replace(image=image), pair["template"])
    new = changed.exposure.image[185:216, 185:216] - difference.exposure.image[185:216, 185:216]
    expected = 5e4 * changed.exposure.psf.at(200, 200)[5:36, 5:36]

    assert (new * expected).sum() == pytest.approx((expected**2).sum(), rel=0.01)
    np.testing.assert_allclose(new, expected, atol=0.03 * expected.max())


def test_kernel_and_filter_reproduce_the_difference(pair, difference):
    kernel = difference.kernel
    assert kernel.before is not None
    assert kernel.before.sum() == pytest.approx(1.0)
    first = fftconvolve(pair["science"].image, kernel.before, mode="same")
    bright = np.argsort(pair["flux"])[-20:]
    for x, y in np.stack([pair["x"], pair["y"]], 1)[bright].round().astype(int):
        if not (40 < x < 360 and 40 < y < 360):
            continue
        matched = fftconvolve(pair["template"].image, kernel.at(x, y), mode="same")
        box = np.s_[y - 4 : y + 5, x - 4 : x + 5]
        remade = (first - matched)[box].sum() - 81 * kernel.background[0]
        stored = difference.exposure.image[box].sum()
        assert abs(remade - stored) < 0.005 * matched[box].sum() + 5 * 9 * SKY[0]


def test_same_bytes_again(pair, difference):
    again = subtract.run(pair["science"], pair["template"])
    assert again.exposure.image.tobytes() == difference.exposure.image.tobytes()
    assert again.kernel.before.tobytes() == difference.kernel.before.tobytes()


def test_the_other_image_is_filtered_when_the_science_image_is_convolved(pair):
    config = subtract.Config(convolve="science")
    made = subtract.run(pair["template"], pair["science"], config)
    assert made.kernel.convolved == "science"
    assert made.kernel.before is not None
    assert made.metrics["pixelStd"] == pytest.approx(1.0, abs=0.03)


def test_psfs_may_have_different_sides(pair, difference):
    small = GridPsf(trail(*TEMPLATE)[None, None, 4:-4, 4:-4], np.zeros(1), np.zeros(1))
    made = subtract.run(pair["science"], pair["template"].replace(psf=small))
    np.testing.assert_allclose(made.kernel.before, difference.kernel.before, atol=1e-3)


def test_stars_that_need_no_filter_get_none(make_scene):
    scene = make_scene(seed=3)
    made = subtract.run(scene.science, scene.template)
    assert made.kernel.before is None
    assert made.metrics["filteredBefore"] == 0.0
    assert made.metrics["starLeft"] < 0.004


def test_filter_vanishes_where_the_transfer_function_of_the_source_does():
    basis = Basis.build((0.7, 1.7, 4.0), (4, 3, 2), 14)
    trailed = design_filter(trail(*TEMPLATE), trail(*SCIENCE), basis)
    plain = design_filter(gaussian(1.6), gaussian(2.0), basis)
    wave = np.exp(2j * np.pi / 4.6 * np.arange(-3, 4))

    assert abs(trailed.sum(0) @ wave) < 0.3
    assert abs(plain.sum(0) @ wave) > 0.9
    assert trailed.sum() == pytest.approx(1.0)
    assert plain[3, 3] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.4, -0.3), (-0.9, 0.6)])
def test_filter_does_not_move_the_image(shift):
    target = trail(*SCIENCE)
    source = moved_by(trail(*TEMPLATE), shift, order=5)
    made = design_filter(source, target, Basis.build((0.7, 1.7, 4.0), (4, 3, 2), 14))
    moved = fftconvolve(target, made, mode="same")
    y, x = np.indices(target.shape) - len(target) // 2
    weight = np.exp(-(x**2 + y**2) / 8.0)
    for axis in (x, y):
        for stamp in (target, moved):
            assert (stamp * weight * axis).sum() / (stamp * weight).sum() == pytest.approx(
                0.0, abs=0.02
            )


def test_noise_of_a_filtered_image_is_known():
    rng = np.random.default_rng(7)
    white = exposure(rng.normal(100.0, 3.0, SHAPE), np.full(SHAPE, 9.0), 1.6)
    filter_ = design_filter(
        trail(*TEMPLATE), trail(*SCIENCE), Basis.build((0.7, 1.7, 4.0), (4, 3, 2), 14)
    )
    made = filtered(white, prepare(white, "science"), "science", filter_, 0.02, 128)
    noise = (made.image - 100.0)[10:-10, 10:-10]
    middle = made.noise_correlation.shape[-1] // 2

    assert noise.std() == pytest.approx(np.sqrt(made.variance[200, 200]), rel=0.02)
    for lag in (1, 2, 3):
        measured = (noise[:, lag:] * noise[:, :-lag]).mean() / noise.var()
        assert measured == pytest.approx(
            made.noise_correlation[0, 0, middle, middle + lag], abs=0.02
        )
    twice = filtered(made, prepare(made, "science"), "science", filter_, 0.02, 128)
    again = (twice.image - 100.0)[15:-15, 15:-15]
    assert again.std() == pytest.approx(np.sqrt(twice.variance[200, 200]), rel=0.03)


def test_masks_grow_with_the_filter():
    mask = np.zeros((40, 40), np.uint32)
    mask[20, 20], mask[10, 10], mask[30, 10] = bits("SAT"), bits("NO_DATA"), bits("SUSPECT")
    kernel = np.array([[0.0, 0.001, 0.0], [0.3, 0.4, 0.27], [0.0, 0.029, 0.0]])

    out = spread(mask, "science", kernel, 0.02)

    assert (out[20, 19:22] & bits("SAT")).all()
    assert out[21, 20] & bits("SAT")
    assert not out[19, 20]
    assert (out[10, 9:12] & (bits("EDGE") | bits("NO_DATA"))).all()
    assert not out[9, 10]
    assert not out[30, 9] | out[30, 11]
    assert (out[:, [0, -1]] & bits("EDGE")).all()


def test_with_and_without_detection_the_same_pixels(pair, tmp_path, capsys):
    files = []
    for name in ("science", "template"):
        for suffix in ("image", "variance"):
            files.append(str(tmp_path / f"{name}_{suffix}.fits"))
            fits.writeto(files[-1], getattr(pair[name], suffix))
    science, science_variance, template, template_variance = files
    command = ["subtract", science, template, "--science-variance", science_variance,
               "--template-variance", template_variance]  # fmt: skip
    products = [tmp_path / name / "difference.fits" for name in ("all", "planes")]
    assert execute([*command, "-o", str(products[0].parent)]) == 0
    assert execute([*command, "-o", str(products[1].parent), "--no-detect"]) == 0
    one, other = (io.read_difference(p) for p in products)
    assert one.kernel.before is not None
    assert np.array_equal(one.exposure.image, other.exposure.image, equal_nan=True)
    assert execute(["rerun", str(products[0])]) == 0
    assert "identical" in capsys.readouterr().out
