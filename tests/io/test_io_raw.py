"""Raw files: found by number, parsed with care, refused with one clear line."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

from pipeline import io
from pipeline.camera import Camera
from pipeline.errors import FileFormatError, InputError, KeywordError

PRIMARY = {
    "EXPNUM": 411420, "EXPTIME": 86.0, "FILTER": "g DECam SDSS c0001 4720.0 1520.0",
    "DATE-OBS": "2015-02-18T07:06:19.123456", "OBJECT": "Blind15A_40", "AIRMASS": 1.31,
    "TELRA": "10:00:30.000", "TELDEC": "-06:30:36.0",
}  # fmt: skip


@pytest.fixture(scope="module")
def camera():
    return Camera.load("testcam")


def _write(path, camera, numbers=(2, 1), primary=PRIMARY, compressed=True, shape=None, **changes):
    rng = np.random.default_rng(8)
    header = fits.Header({k: v for k, v in {**primary, **changes}.items() if v is not None})
    hdus = [fits.PrimaryHDU(header=header)]
    frames = {}
    for number in numbers:
        size = shape or camera.detector(1).raw_shape
        frames[number] = rng.integers(1900, 2300, size).astype(np.uint16)
        frames[number][3, -1] = 65535
        kind = fits.CompImageHDU if compressed else fits.ImageHDU
        extra = {"compression_type": "RICE_1"} if compressed else {}
        hdu = kind(frames[number], fits.Header({"CCDNUM": number, "GAINA": 4.0}), **extra)
        hdu.name = f"CCD{number}"
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(path)
    return frames


@pytest.mark.parametrize("compressed", [True, False])
def test_detectors_are_found_by_number_not_by_place(tmp_path, camera, compressed):
    path = tmp_path / "100.fits.fz"
    frames = _write(path, camera, compressed=compressed)
    assert io.list_raw(path, camera) == [1, 2]
    for number in (1, 2):
        raw = io.read_raw(path, camera, number)
        np.testing.assert_array_equal(raw.data, frames[number], strict=True)
        assert raw.info.detector == raw.header["CCDNUM"] == number
        assert raw.header["GAINA"] == 4.0
        assert raw.header["OBJECT"] == "Blind15A_40"
        assert "ZIMAGE" not in raw.header


def test_visit_info(tmp_path, camera):
    path = tmp_path / "100.fits.fz"
    _write(path, camera)
    info = io.read_raw(path, camera, 2).info
    start = Time("2015-02-18T07:06:19.123456", scale="utc")
    assert abs((start.tai.mjd + 43 / 86400) - info.midpoint_mjd_tai) * 86400 < 1e-5
    assert (info.visit, info.band, info.field) == (411420, "g", "Blind15A_40")
    assert info.ra == pytest.approx(150.125, abs=1e-9)
    assert info.dec == pytest.approx(-6.51, abs=1e-9)
    assert info.camera == "testcam"
    assert info.saturation == min(a.saturation for a in camera.detector(2).amplifiers)


def test_optional_keywords_may_be_absent(tmp_path, camera):
    path = tmp_path / "100.fits.fz"
    _write(path, camera, TELRA=None, AIRMASS=None, OBJECT=None)
    info = io.read_raw(path, camera, 2).info
    assert np.isnan(info.ra)
    assert np.isnan(info.airmass)
    assert info.field == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"EXPNUM": None}, "EXPNUM.*missing keyword"),
        ({"DATE-OBS": None}, "DATE-OBS.*missing keyword"),
        ({"DATE-OBS": "yesterday"}, "DATE-OBS.*not a date 'yesterday'|DATE-OBS.*not a date"),
        ({"FILTER": "solid plate 0.0 0.0"}, "FILTER.*unknown filter 'solid plate"),
        ({"FILTER": "VR DECam c0007 6300.0 2600.0"}, "FILTER.*unknown filter 'VR"),
        ({"FILTER": None}, "FILTER.*missing keyword"),
        ({"EXPTIME": "long"}, "EXPTIME.*unusable value 'long'"),
    ],
)
def test_keywords_are_checked(tmp_path, camera, changes, words):
    path = tmp_path / "100.fits.fz"
    _write(path, camera, **changes)
    with pytest.raises(KeywordError, match=words) as caught:
        io.read_raw(path, camera, 1)
    assert str(path) in str(caught.value)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_processed_has_a_reason(tmp_path):
    camera = Camera.load("decam")
    path = tmp_path / "raw.fits"
    _write(path, camera, numbers=(63, 5, 61, 99), shape=(4, 4))
    contents = io.survey_raw(path, camera)
    assert contents.detectors == (5,)
    assert contents.skipped == {
        61: "dead detector",
        63: "not a science detector",
        99: "unknown to the definition of decam",
    }
    zero = tmp_path / "zero.fits"
    _write(zero, camera, numbers=(5,), shape=(4, 4), EXPTIME=0.0)
    assert io.survey_raw(zero, camera).skipped == {5: "exposure time is zero"}
    assert io.list_raw(zero, camera) == []


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.02, 0.5, 0.99])
def test_truncated_file_is_one_clear_line(tmp_path, camera, keep):
    path = tmp_path / "100.fits.fz"
    _write(path, camera)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(FileFormatError, match=r"truncated|damaged|no HDU") as caught:
        io.read_raw(path, camera, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("TTYPE1", "T"), ("NAXIS2", "-2147483647"), ("PCOUNT", "-99999999999")],
)
def test_header_that_no_table_can_have_is_damage(tmp_path, camera, key, value):
    """Of astropy it is an assertion, of the system a place before the beginning of the file."""
    path = tmp_path / "100.fits.fz"
    _write(path, camera, numbers=(1,))
    data = bytearray(path.read_bytes())
    at = next(
        m
        for m in range(0, len(data), 80)
        if data[m : m + 10] == f"{key:<8}= ".encode() and m > 2880
    )
    data[at + 10 : at + 80] = f"{value:>20}".ljust(70).encode()
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"damaged or not FITS|header"):
        io.read_raw(path, camera, 1)


def test_damaged_pixels_are_refused(tmp_path, camera):
    path = tmp_path / "100.fits.fz"
    _write(path, camera, numbers=(1,))
    content = bytearray(path.read_bytes())
    content[20000:40000] = bytes([0]) * 20000
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="compressed pixels are damaged"):
        io.read_raw(path, camera, 1)


def test_wrong_files_are_one_clear_line(tmp_path, camera):
    cases = {
        "none.fits": "no such file",
        "text.fits": "not FITS",
        "empty.fits": "no HDU with an image",
        "shape.fits": r"4 rows × 4 columns.*expected 562 × 624.*is this testcam",
        "twice.fits": "detector 1 occurs twice",
        "other.fits": r"no detector 1; expected one of 2",
    }
    (tmp_path / "text.fits").write_text("hello")
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    _write(tmp_path / "shape.fits", camera, shape=(4, 4))
    _write(tmp_path / "twice.fits", camera, numbers=(1, 1))
    _write(tmp_path / "other.fits", camera, numbers=(2,))
    for name, words in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            io.read_raw(tmp_path / name, camera, 1)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
