"""Products come back as they were written, bit by bit, and hold what the standard asks for."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from pipeline import io
from pipeline.errors import FileFormatError, WriteError
from pipeline.exposure import (
    Difference,
    Exposure,
    GridPsf,
    MatchingKernel,
    PhotoCalib,
    PolynomialPsf,
    VisitInfo,
)
from pipeline.masks import MASK_PLANES, bits
from pipeline.quantise import quantised
from pipeline.wcs import canonical, from_header

TPV = {
    "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CRVAL1": 187.3242484083, "CRVAL2": 25.48046811884,
    "CRPIX1": -127.2001, "CRPIX2": 7301.67, "CD1_1": -1.33e-7, "CD1_2": 7.285184467e-5,
    "CD2_1": -7.288125336e-5, "CD2_2": -1.25e-7, "CUNIT1": "deg", "CUNIT2": "deg",
    "RADESYS": "ICRS", "PV1_0": 0.00197, "PV1_1": 1.0095, "PV1_2": -1.2e-4, "PV1_4": 0.0077,
    "PV1_7": 0.00146, "PV2_0": 1.3e-4, "PV2_1": 1.0060, "PV2_2": 2.6e-4, "PV2_4": -0.0018,
}  # fmt: skip
TAN = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": -2.2, "CRPIX1": 50.5,
    "CRPIX2": 40.5, "CD1_1": -7.3e-5, "CD1_2": 1e-7, "CD2_1": 1e-7, "CD2_2": 7.3e-5,
}  # fmt: skip
SIP = {
    **TAN, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2,
    "A_2_0": 1.1e-6, "A_0_2": -2.3e-7, "B_2_0": 3e-7, "B_1_1": 4e-7,
}  # fmt: skip


def _exposure(shape=(80, 100), header=TPV, psf=None, **changes):
    rng = np.random.default_rng(5)
    image = rng.normal(0, 20, shape).astype(np.float32)
    image[3, 4] = np.nan
    image[10, 10] = 180_000.0
    variance = rng.normal(400, 20, shape).astype(np.float32)
    mask = np.zeros(shape, np.uint32)
    mask[3, 4] = bits("NO_DATA", "BAD")
    mask[10, 10] = bits("SAT", "UNLISTED")
    values = {
        "image": image,
        "variance": variance,
        "mask": mask,
        "info": VisitInfo(411420, 5, "g", 86.0, 57071.3041666666666, ra=150.123456789012345),
        "wcs": canonical(from_header(header)),
        "psf": psf,
        "photo_calib": PhotoCalib(28.123456789012345, 0.001, 0.012, 40, 20.1234567890123456),
        "background": np.full(shape, 400.0, np.float32),
        "unit": "nJy",
        "provenance": {"SCIID": "x" * 100, "CONFHASH": "abcdef012345", "A_LONG_KEYWORD": 3},
    }
    return quantised(Exposure(**{**values, **changes}))


def _polynomial():
    return PolynomialPsf(np.random.default_rng(1).normal(size=(6, 9, 9)), 2, (80, 100))


def _grid():
    rng = np.random.default_rng(2)
    return GridPsf(rng.normal(size=(3, 4, 9, 9)), np.arange(4.0) * 30, np.arange(3.0) * 35 + 0.1)


def _same(a, b):
    for plane in ("image", "variance", "mask", "background"):
        np.testing.assert_array_equal(getattr(a, plane), getattr(b, plane), strict=True)
    assert repr(a.info) == repr(b.info)
    assert a.photo_calib == b.photo_calib
    assert (a.unit, dict(a.provenance)) == (b.unit, dict(b.provenance))


@pytest.mark.parametrize("header", [TPV, TAN, SIP], ids=["TPV", "TAN", "SIP"])
def test_exposure_is_read_back_exactly(tmp_path, header):
    written = _exposure(header=header)
    io.write_exposure(tmp_path / "v.fits", written)
    back = io.read_exposure(tmp_path / "v.fits")
    _same(written, back)
    x, y = np.meshgrid([0.0, 50.3, 99.0], [0.0, 41.7, 79.0])
    assert np.array_equal(written.wcs.all_pix2world(x, y, 0), back.wcs.all_pix2world(x, y, 0))
    assert back.wcs.wcs.ctype[0] == written.wcs.wcs.ctype[0]
    truth = from_header(header)
    shift = np.array(truth.all_pix2world(x, y, 0)) - np.array(back.wcs.all_pix2world(x, y, 0))
    assert np.abs(shift).max() * 3600e3 < 1e-3  # mas


@pytest.mark.parametrize("psf", [_polynomial(), _grid()], ids=["polynomial", "grid"])
def test_psf_is_reconstructable_from_the_file_alone(tmp_path, psf):
    io.write_exposure(tmp_path / "v.fits", _exposure(psf=psf))
    back = io.read_exposure(tmp_path / "v.fits").psf
    assert type(back) is type(psf)
    np.testing.assert_array_equal(back.at(17.3, 61.9), psf.at(17.3, 61.9))


def test_visit_image_plus_background_is_what_was_there_before(tmp_path):
    before = _exposure(background=None)
    step = 1.0
    total = (np.rint(np.nan_to_num(before.image) + 400.3) * step).astype(np.float32)
    background = np.rint(np.linspace(380, 420, total.size)).reshape(total.shape).astype(np.float32)
    io.write_exposure(
        tmp_path / "v.fits", before.replace(image=total - background, background=background)
    )
    back = io.read_exposure(tmp_path / "v.fits")
    np.testing.assert_array_equal(back.image + back.background, total)


def test_pixels_off_any_grid_lose_less_than_a_thirtieth_of_the_noise(tmp_path):
    rng = np.random.default_rng(3)
    image = rng.normal(0, 20, (200, 200)).astype(np.float32)
    raw = _exposure().replace(
        image=image, variance=np.full_like(image, 400.0), mask=np.zeros(image.shape, np.uint32),
        background=None,
    )  # fmt: skip
    io.write_exposure(tmp_path / "v.fits", raw)
    error = io.read_exposure(tmp_path / "v.fits").image - image
    assert np.abs(error).max() <= 20 / 32
    assert np.var(error) < 4e-4 * 400


def test_the_same_exposure_gives_the_same_bytes_and_astropy_agrees(tmp_path):
    exposure = _exposure(psf=_grid())
    for name in ("a.fits", "b.fits"):
        io.write_exposure(tmp_path / name, exposure)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    with fits.open(tmp_path / "a.fits", checksum=True) as hdus:  # a wrong sum is a warning
        names = [h.name for h in hdus]
        np.testing.assert_array_equal(hdus["IMAGE"].data, exposure.image)
        np.testing.assert_array_equal(hdus["MASK"].data, exposure.mask.view(np.int32))
        header = hdus["MASK"].header
        assert {header[f"MP_{n}"] for n in MASK_PLANES} == set(range(len(MASK_PLANES)))
        assert hdus["IMAGE"].header["BUNIT"] == "nJy"
        assert "DETBAD" not in hdus[0].header  # only detection on a difference has such a set
    assert names == ["PRIMARY", "IMAGE", "VARIANCE", "MASK", "BACKGROUND", "PSF", "PSF_X", "PSF_Y"]


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed")
@pytest.mark.parametrize("header", [TPV, TAN, SIP])
def test_products_are_clean_to_fitsverify(tmp_path, header):
    path = tmp_path / "x.fits"
    io.write_exposure(path, _exposure(header=header, psf=_polynomial()))
    done = subprocess.run(["fitsverify", "-l", path], capture_output=True, text=True, check=False)
    assert "found 0 warning(s) and 0 error(s)" in done.stdout, done.stdout


def test_mask_planes_are_found_by_name(tmp_path):
    path = tmp_path / "v.fits"
    exposure = _exposure()
    io.write_exposure(path, exposure)
    with fits.open(path) as hdus:
        for name in MASK_PLANES:
            hdus["MASK"].header[f"MP_{name}"] += 3
        hdus["MASK"].data = hdus["MASK"].data << 3
        hdus.writeto(tmp_path / "w.fits")
    np.testing.assert_array_equal(io.read_exposure(tmp_path / "w.fits").mask, exposure.mask)


def _difference():
    rng = np.random.default_rng(9)
    kernel = MatchingKernel(
        rng.normal(size=(4, 7, 7)), rng.normal(size=(4, 6)), 2, (80, 100), rng.normal(size=3),
        123.4567890123456789, rng.normal(size=(5, 4)), "science",
        rng.normal(size=(7, 7)),
    )  # fmt: skip
    exposure = _exposure(
        psf=_grid(), background=None, noise_correlation=rng.normal(size=(2, 3, 5, 5))
    )
    score = (np.rint(rng.normal(size=exposure.shape) * 128) / 128).astype(np.float32)
    null = (np.rint(rng.normal(400, 5, size=exposure.shape) * 4) / 4).astype(np.float32)
    scale = (1.0 + rng.integers(0, 128, exposure.shape) / 64).astype(np.float32)
    metrics = {"noise_ratio": 1.0012345678901234, "n": 7.0}
    return Difference(exposure, score, null, kernel, metrics, noise_scale=scale)


def test_difference_is_read_back_exactly(tmp_path):
    written = _difference()
    io.write_difference(tmp_path / "d.fits", written)
    back = io.read_difference(tmp_path / "d.fits")
    _same_but_background(written.exposure, back.exposure)
    np.testing.assert_array_equal(back.score, written.score, strict=True)
    np.testing.assert_array_equal(back.null_variance, written.null_variance, strict=True)
    np.testing.assert_array_equal(back.noise_scale, written.noise_scale, strict=True)
    np.testing.assert_array_equal(
        back.exposure.noise_correlation, written.exposure.noise_correlation
    )
    np.testing.assert_array_equal(back.kernel.at(3.0, 70.0), written.kernel.at(3.0, 70.0))
    np.testing.assert_array_equal(back.kernel.stamps, written.kernel.stamps)
    assert back.kernel.condition == written.kernel.condition
    assert back.kernel.convolved == "science"
    np.testing.assert_array_equal(back.kernel.before, written.kernel.before)
    assert dict(back.metrics) == dict(written.metrics)


@pytest.mark.parametrize("counted", [True, False])
def test_a_difference_says_what_its_score_is_in_units_of(tmp_path, counted):
    made = _difference()
    written = made if counted else replace(made, noise_scale=None)
    io.write_difference(tmp_path / "d.fits", written)
    assert (io.read_difference(tmp_path / "d.fits").noise_scale is not None) == counted
    with fits.open(tmp_path / "d.fits") as hdus:
        assert hdus["SCORE"].header["SCORETYP"] == ("S_corr" if counted else "S")


def test_the_planes_excluded_from_detection_are_those_of_the_result(tmp_path):
    excluded = bits("SAT", "UNLISTED", "SUSPECT")
    io.write_difference(tmp_path / "d.fits", replace(_difference(), excluded=excluded))
    with fits.open(tmp_path / "d.fits") as hdus:
        assert hdus[0].header["DETBAD"] == int(excluded)
        for name in MASK_PLANES:
            hdus["MASK"].header[f"MP_{name}"] += 3
        hdus["MASK"].data = hdus["MASK"].data << 3
        hdus[0].header["DETBAD"] <<= 3
        hdus.writeto(tmp_path / "moved.fits")
        del hdus[0].header["DETBAD"]
        hdus.writeto(tmp_path / "without.fits")
    assert io.read_difference(tmp_path / "d.fits").excluded == excluded
    assert io.read_difference(tmp_path / "moved.fits").excluded == excluded
    with pytest.raises(FileFormatError, match="DETBAD"):
        io.read_difference(tmp_path / "without.fits")


def _same_but_background(a, b):
    assert a.background is None
    assert b.background is None
    blank = np.zeros((1, 1), np.float32)
    _same(a.replace(background=blank), b.replace(background=blank))


def test_nothing_half_written_remains(tmp_path):
    exposure = _exposure().replace(psf=object())
    with pytest.raises(TypeError, match="no file format"):
        io.write_exposure(tmp_path / "v.fits", exposure)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_truncated_product_is_one_clear_line(tmp_path, keep):
    path = tmp_path / "v.fits"
    io.write_exposure(path, _exposure())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(
        FileFormatError, match=r"v\.fits.*(truncated|damaged|no such HDU)"
    ) as caught:
        io.read_exposure(path)
    assert "\n" not in str(caught.value)


def test_unwritable_folder_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        io.write_exposure(tmp_path / "file" / "v.fits", _exposure())


def test_one_plane_is_that_of_the_whole(tmp_path):
    path = tmp_path / "v.fits"
    io.write_exposure(path, _exposure())
    whole = io.read_exposure(path)
    for name, expected in (("IMAGE", whole.image), ("MASK", whole.mask)):
        pixels, wcs = io.read_plane(path, name)
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_allclose(wcs.wcs.crval, whole.wcs.wcs.crval)
    with pytest.raises(FileFormatError, match="SCORE"):
        io.read_plane(path, "SCORE")


def test_a_background_that_is_not_wanted_is_not_read(tmp_path):
    exposure = _exposure()
    path = tmp_path / "a.fits"
    io.write_exposure(path, exposure)
    assert io.read_exposure(path).background is not None
    without = io.read_exposure(path, background=False)
    assert without.background is None
    np.testing.assert_array_equal(without.image, exposure.image)
