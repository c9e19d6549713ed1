"""The stage as a whole, on frames with known answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import calibrate
from pipeline.errors import AstrometryError, PhotometryError, PixelError, PsfError
from pipeline.exposure import Exposure, PhotoCalib
from pipeline.masks import bits
from pipeline.schema import VISIT_IMAGE, to_numpy

Maker = Callable[..., Any]
ZERO_POINT = 31.5


@pytest.fixture(scope="module")
def frame(scene: Maker) -> Any:
    return scene(3, n_faint=20, isolated=True)


@pytest.fixture(scope="module")
def result(frame: Any) -> calibrate.Result:
    return calibrate.run(frame.exposure, frame.refcat, psf_fwhm_min=0.68)


def test_zero_point_is_the_true_one(result: calibrate.Result) -> None:
    calib = result.visit_image.photo_calib

    assert calib is not None
    assert calib.zero_point_err < 0.004
    assert abs(calib.zero_point - ZERO_POINT) < 3 * calib.zero_point_err


@pytest.mark.parametrize(
    ("seeds", "field"),
    [
        (range(3, 9), {"n_faint": 20, "isolated": True}),
        (range(51, 54), {"n_stars": 300, "n_faint": 0}),  # stars in the rims of all stars
    ],
)
def test_zero_points_of_several_fields_are_unbiased(
    scene: Maker, seeds: range, field: dict[str, Any]
) -> None:
    off, pull = [], []
    for seed in seeds:
        frame = scene(seed, **field)
        made = calibrate.run(frame.exposure, frame.refcat, psf_fwhm_min=0.68)
        calib = made.visit_image.photo_calib
        assert calib is not None
        off.append(calib.zero_point - ZERO_POINT)
        pull.append(off[-1] / calib.zero_point_err)

    assert abs(np.mean(off)) < 0.005
    assert np.sqrt(np.mean(np.square(pull))) < 2.0


def test_galaxies_among_the_reference_stars_are_no_standards(frame: Any, scene: Maker) -> None:
    wide = scene(41, n_stars=60, n_faint=0, fwhm=5.4, isolated=True)
    both = frame.exposure.replace(
        image=frame.exposure.image + wide.exposure.image,
        variance=frame.exposure.variance + wide.exposure.variance,
    )
    refcat = pa.concat_tables([frame.refcat, wide.refcat])

    calib = calibrate.run(both, refcat, psf_fwhm_min=0.68).visit_image.photo_calib

    assert calib is not None
    assert abs(calib.zero_point - ZERO_POINT) < 3 * calib.zero_point_err
    assert calib.scatter < 0.02


def test_fluxes_are_those_within_twelve_pixels(frame: Any, result: calibrate.Result) -> None:
    x, y, flux = (to_numpy(result.sources, name) for name in ("x", "y", "psfFlux"))
    njy = frame.flux * 10 ** (0.4 * (31.4 - ZERO_POINT))
    bright = frame.flux > np.quantile(frame.flux, 0.5)
    ratio = [
        flux[np.argmin(np.hypot(x - a, y - b))] / f
        for a, b, f in zip(frame.x[bright], frame.y[bright], njy[bright], strict=True)
    ]

    assert np.median(ratio) == pytest.approx(1.0, abs=0.006)
    assert 1.4826 * np.median(np.abs(ratio - np.median(ratio))) < 0.015


def test_coordinates_stay_within_ten_milliarcseconds(frame: Any, result: calibrate.Result) -> None:
    x, y = (a.ravel() for a in np.mgrid[30:482:57, 30:482:57])
    wcs = result.visit_image.wcs

    assert wcs is not None
    ra0, dec0 = frame.wcs.all_pix2world(x, y, 0)
    ra, dec = wcs.all_pix2world(x, y, 0)
    east, north = (ra - ra0) * np.cos(np.radians(dec0)) * 3.6e6, (dec - dec0) * 3.6e6
    assert np.hypot(np.median(east), np.median(north)) < 10.0
    assert np.sqrt(np.mean(east**2)) < 15.0
    assert np.sqrt(np.mean(north**2)) < 15.0


def test_background_can_be_put_back_bitwise(frame: Any, result: calibrate.Result) -> None:
    image = result.visit_image
    assert image.background is not None
    assert image.photo_calib is not None

    restored = image.image + image.background
    assert np.array_equal(restored - image.background, image.image)
    scaled = frame.exposure.image * np.float32(image.photo_calib.njy_per_electron)
    noise = np.sqrt(np.median(image.variance))
    assert np.abs(restored - scaled).max() < noise / 8.0


def test_summary_speaks_the_names_of_the_catalog(result: calibrate.Result) -> None:
    known = {"psfArea", "effectiveTime", "headerOffset", "headerRotation"}
    known |= {"chromaticRa", "chromaticDec"}  # kept in the table of metrics

    assert set(result.summary) - known <= set(VISIT_IMAGE.names)
    assert all(
        value is None or type(value) in (int, float, str) for value in result.summary.values()
    )


def test_noise_ratio_is_one(result: calibrate.Result) -> None:
    assert result.summary["noiseRatio"] == pytest.approx(1.0, abs=0.02)


def test_same_input_same_output(frame: Any, result: calibrate.Result) -> None:
    again = calibrate.run(frame.exposure, frame.refcat, psf_fwhm_min=0.68)

    assert np.array_equal(again.visit_image.image, result.visit_image.image)
    assert again.sources.equals(result.sources)
    assert again.summary == result.summary


def test_without_catalogue_fluxes_stay_in_electrons(frame: Any) -> None:
    result = calibrate.run(frame.exposure, None, psf_fwhm_min=0.68)
    image = result.visit_image

    assert image.unit == "electron"
    assert image.photo_calib is not None
    assert not image.photo_calib.calibrated
    assert any("electrons" in note for note in result.notes)
    assert any("no reference catalogue" in note for note in result.notes)


def test_zero_point_of_the_header_is_used_when_there_is_no_catalogue(frame: Any) -> None:
    given = frame.exposure.replace(photo_calib=PhotoCalib(zero_point=31.4))

    result = calibrate.run(given, None, psf_fwhm_min=0.68)

    assert result.visit_image.unit == "nJy"
    assert result.visit_image.photo_calib is not None
    assert result.visit_image.photo_calib.njy_per_electron == pytest.approx(1.0)
    assert any("header" in note for note in result.notes)


def test_catalogue_of_another_field_is_refused_with_numbers(frame: Any, scene: Maker) -> None:
    other = scene(99, n_faint=20)

    with pytest.raises(AstrometryError, match="no credible match") as caught:
        calibrate.run(frame.exposure, other.refcat, psf_fwhm_min=0.68)
    assert caught.value.numbers["detections"] > 10
    partial = caught.value.partial
    assert isinstance(partial, Exposure)
    assert partial.psf is not None  # everything before the match is there to be looked at
    assert partial.background is not None
    assert partial.has("DETECTED").any()


def test_patchy_clouds_are_refused_with_the_scatter(frame: Any) -> None:
    rng = np.random.default_rng(17)
    patchy = to_numpy(frame.refcat, "gFlux") * 10 ** (0.4 * rng.normal(0, 0.5, len(frame.refcat)))
    index = frame.refcat.schema.get_field_index("gFlux")
    refcat = frame.refcat.set_column(index, "gFlux", [patchy])

    with pytest.raises(PhotometryError, match="clouds") as caught:
        calibrate.run(frame.exposure, refcat, psf_fwhm_min=0.68)
    assert 0.3 < caught.value.numbers["scatter"] < 0.7
    assert caught.value.numbers["bound"] == 0.2


def test_empty_sky_has_no_psf(frame: Any) -> None:
    rng = np.random.default_rng(0)
    blank = frame.exposure.replace(
        image=rng.normal(1200.0, 35.0, frame.exposure.shape).astype(np.float32),
        variance=np.full(frame.exposure.shape, 1225.0, np.float32),
    )

    with pytest.raises(PsfError) as caught:
        calibrate.run(blank, frame.refcat, psf_fwhm_min=0.68)
    assert caught.value.numbers["required"] == 2


@pytest.mark.parametrize(
    ("plane", "share", "message"), [("SAT", 0.5, "saturated"), ("BAD", 0.95, "usable")]
)
def test_unusable_pixels_fail_with_numbers(
    frame: Any, plane: str, share: float, message: str
) -> None:
    mask = frame.exposure.mask.copy()
    mask[: int(share * len(mask))] |= bits(plane)

    with pytest.raises(PixelError, match=message):
        calibrate.run(frame.exposure.replace(mask=mask), frame.refcat, psf_fwhm_min=0.68)


def test_variance_is_scaled_to_the_noise_only_on_request(frame: Any) -> None:
    quiet = frame.exposure.replace(variance=(0.95 * frame.exposure.variance).astype(np.float32))

    kept = calibrate.run(quiet, None, psf_fwhm_min=0.68)
    scaled = calibrate.run(quiet, None, calibrate.Config(rescale_variance=True), psf_fwhm_min=0.68)

    assert kept.summary["varianceScale"] == 1.0
    assert kept.summary["noiseRatio"] == pytest.approx(0.95**-0.5, abs=0.02)
    assert scaled.summary["varianceScale"] == pytest.approx(1.0 / 0.95, abs=0.03)
    assert any("variance scaled" in note for note in scaled.notes)


def test_few_stars_lower_the_order_and_say_so(scene: Maker) -> None:
    few = scene(11, shape=(300, 300), n_stars=5, n_faint=0, varying=False, isolated=True)

    result = calibrate.run(few.exposure, None, psf_fwhm_min=0.68)

    assert result.summary["psfOrder"] == 0
    assert any("order 0" in note for note in result.notes)


def test_aligned_exposure_follows_the_reference(scene: Maker) -> None:
    one = scene(21, n_stars=40, n_faint=0, isolated=True, kind="TAN")
    wcs = one.wcs.deepcopy()
    wcs.wcs.crpix = one.wcs.wcs.crpix + np.array([8.0, -5.0])
    dim = one.exposure.replace(
        image=(0.5 * one.exposure.image).astype(np.float32),
        variance=(0.25 * one.exposure.variance).astype(np.float32),
        wcs=wcs,
        info=replace(one.exposure.info, visit=411421),
    )
    reference = calibrate.run(one.exposure, None, psf_fwhm_min=0.68)
    later = calibrate.run(dim, None, psf_fwhm_min=0.68)

    aligned = calibrate.align(later, reference.sources)

    assert aligned.visit_image.photo_calib is not None
    assert aligned.visit_image.photo_calib.njy_per_electron == pytest.approx(2.0, rel=2e-3)
    ra, dec = aligned.visit_image.wcs.all_pix2world([100.0, 400.0], [300.0, 50.0], 0)
    ra0, dec0 = one.wcs.all_pix2world([100.0, 400.0], [300.0, 50.0], 0)
    assert np.abs(ra - ra0).max() * 3.6e6 < 10.0
    assert np.abs(dec - dec0).max() * 3.6e6 < 10.0
    assert any("tied to a reference" in note for note in aligned.notes)
