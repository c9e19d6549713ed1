"""Images that others reduced: codes, units and gaps."""

import numpy as np
import pytest
from astropy.io import fits

from pipeline import io
from pipeline.errors import FileFormatError, KeywordError
from pipeline.io.external import decode_quality
from pipeline.masks import bits

PRIMARY = {
    "EXPNUM": 650104, "EXPTIME": 125.0, "FILTER": "r DECam SDSS c0002 6415.0 1480.0",
    "DATE-OBS": "2017-05-22T00:55:32.362859", "PLVER": "V4.8.2", "MAGZERO": 30.208,
}  # fmt: skip
CCD = {
    "CCDNUM": 33, "GAINA": 3.6, "GAINB": 3.8, "RDNOISEA": 6.0, "RDNOISEB": 6.2, "SATURATE": 40000.0,
    "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CRVAL1": 187.0, "CRVAL2": 25.0, "CRPIX1": 3.0,
    "CRPIX2": 4.0, "CD1_2": 7.3e-5, "CD2_1": -7.3e-5, "CD1_1": 0.0, "CD2_2": 0.0, "PV1_1": 1.01,
}  # fmt: skip


def _instcal(folder, primary=PRIMARY, ccd=CCD, **planes):
    rng = np.random.default_rng(2)
    image = rng.normal(600, 13, (20, 30)).astype(np.float32)
    image[5, 5] = 50000.0
    weight = np.full((20, 30), 1 / 169.0, np.float32)
    weight[2, 3] = 0.0
    quality = np.zeros((20, 30), np.int32)
    quality[7, 8] = 5
    for kind, plane in {"ooi": image, "oow": weight, "ood": quality, **planes}.items():
        if plane is not None:
            hdus = [fits.PrimaryHDU(header=fits.Header(primary)), fits.ImageHDU(plane)]
            hdus[1].header.update(ccd)
            fits.HDUList(hdus).writeto(folder / f"c4d_1_{kind}_r_v1.fits")
    return folder / "c4d_1_ooi_r_v1.fits", image


def test_instcal_becomes_electrons(tmp_path):
    path, adu = _instcal(tmp_path)
    exposure = io.read_instcal(path)
    np.testing.assert_allclose(exposure.image, adu * 3.7, rtol=1e-6)
    np.testing.assert_allclose(exposure.variance[10, 10], 169 * 3.7**2, rtol=1e-5)
    assert exposure.photo_calib.zero_point == pytest.approx(30.208 + 2.5 * np.log10(3.7))
    assert exposure.photo_calib.njy_per_electron == 1.0
    assert exposure.has("CR")[7, 8]
    assert exposure.has("BAD")[2, 3]
    assert exposure.has("SAT")[5, 5]
    assert np.count_nonzero(exposure.mask) == 3
    assert exposure.info.detector == 33
    assert exposure.info.gain == 1.0
    assert exposure.info.read_noise == pytest.approx(6.1)
    assert "1 pixels without weight" in exposure.provenance["FILL1"]
    assert io.list_instcal(path) == [33]


def test_instcal_without_its_companions_is_filled_in_and_says_so(tmp_path):
    path, adu = _instcal(tmp_path, primary={**PRIMARY, "MAGZERO": "none"}, oow=None, ood=None)
    exposure = io.read_instcal(path)
    np.testing.assert_allclose(exposure.variance, adu * 3.7 + 6.1**2, rtol=1e-5)
    assert exposure.photo_calib is None
    notes = [v for k, v in exposure.provenance.items() if k.startswith("FILL")]
    assert any("no quality file" in n for n in notes)
    assert any("no weight file" in n for n in notes)


@pytest.mark.parametrize("key", ["GAINA", "RDNOISEB"])
@pytest.mark.parametrize("value", ["none", True])
def test_instcal_number_that_is_none_is_named(tmp_path, key, value):
    path, _ = _instcal(tmp_path, ccd={**CCD, key: value})
    with pytest.raises(KeywordError, match=key):
        io.read_instcal(path)


def test_instcal_without_a_usable_saturation_or_ccd(tmp_path):
    path, _ = _instcal(tmp_path, ccd={**CCD, "SATURATE": "unknown"})
    exposure = io.read_instcal(path, 33)
    assert exposure.info.saturation == np.inf
    assert not exposure.has("SAT").any()
    for number, folder in (("x", "text"), (-1, "negative"), (1e30, "large")):
        (tmp_path / folder).mkdir()
        path, _ = _instcal(tmp_path / folder, ccd={**CCD, "CCDNUM": number})
        assert io.list_instcal(path) == []


def test_quality_planes_depend_on_the_version_of_the_pipeline():
    codes = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8]])
    new = decode_quality(codes, "V4.8.2a")[0]
    names = [None, "BAD", "NO_DATA", "SAT", "BLEED", "CR", "BAD", None, "STREAK"]
    assert list(new) == [bits(n) if n else 0 for n in names]
    assert (decode_quality(codes, "V3.5.0") == new).all()
    assert (decode_quality(codes, "") == new).all()
    old = decode_quality(np.array([[1 | 16, 2, 64, 32]]), "V3.2.1")[0]
    assert list(old) == [bits("BAD", "CR"), bits("SAT"), bits("BLEED"), 0]


def test_companions_must_fit(tmp_path):
    path, _ = _instcal(tmp_path, oow=np.zeros((3, 4), np.float32))
    with pytest.raises(FileFormatError, match=r"oow.*the image \(20, 30\)"):
        io.read_instcal(path)


def _generic(path, header, data=None):
    data = np.full((12, 14), 1000, np.uint16) if data is None else data
    fits.PrimaryHDU(data, fits.Header(header)).writeto(path)
    return path


GENERIC = {
    "EXPTIME": 300.0, "DATE-OBS": "2013-06-28T21:43:58", "FILTER": "i", "GAIN": 1.9, "RDNOISE": 5.0,
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 273.87, "CRVAL2": -25.3, "CRPIX1": 6.0,
    "CRPIX2": 6.0, "CDELT1": -8.6e-5, "CDELT2": 8.6e-5,
}  # fmt: skip


def test_generic_image(tmp_path):
    data = np.full((12, 14), 1000, np.uint16)
    data[2, 2:6] = 65300
    exposure = io.read_generic(_generic(tmp_path / "a.fits", GENERIC, data), 7)
    assert (exposure.info.visit, exposure.info.detector) == (7, 1)
    assert exposure.info.saturation == pytest.approx(65300 * 1.9)
    np.testing.assert_allclose(exposure.image[0, 0], 1900)
    np.testing.assert_allclose(exposure.variance[0, 0], 1925)
    assert exposure.has("SAT").sum() == 4
    assert exposure.photo_calib is None
    assert "65300 from the plateau" in exposure.provenance["FILL1"]
    assert exposure.wcs.wcs.crval[0] == 273.87


def test_generic_image_without_gain_says_what_was_assumed(tmp_path):
    header = {k: v for k, v in GENERIC.items() if k not in ("GAIN", "RDNOISE")}
    exposure = io.read_generic(_generic(tmp_path / "a.fits", header), 7, read_noise=4.0)
    assert exposure.provenance["FILL1"] == "gain: no keyword, 1.0 assumed"
    assert exposure.info.read_noise == 4.0


def test_generic_image_needs_coordinates_and_time(tmp_path):
    no_wcs = {k: v for k, v in GENERIC.items() if not k.startswith("CTYPE")}
    with pytest.raises(FileFormatError, match="no celestial coordinates"):
        io.read_generic(_generic(tmp_path / "a.fits", no_wcs), 7)
    no_time = {k: v for k, v in GENERIC.items() if k != "DATE-OBS"}
    with pytest.raises(KeywordError, match="DATE-OBS"):
        io.read_generic(_generic(tmp_path / "b.fits", no_time), 7)


@pytest.mark.real
def test_real_community_pipeline_images(decam_instcal):
    paths = sorted(decam_instcal.glob("*_ooi_*"))
    assert len(paths) == 5
    for path in paths:
        exposure = io.read_instcal(path)
        assert exposure.info.band == "r"
        step = np.diff(exposure.image, axis=1)[exposure.mask[:, 1:] == 0]
        noise = 1.4826 * np.median(np.abs(step)) / np.sqrt(2)
        assert noise / np.sqrt(np.median(exposure.variance)) == pytest.approx(1.0, abs=0.12)


@pytest.mark.real
def test_real_single_images(kb13475):
    exposures = [io.read_generic(p, i) for i, p in enumerate(sorted(kb13475.glob("*.fz")))]
    assert len(exposures) == 16
    assert {e.info.field for e in exposures} == {"KB13475"}
    assert {e.info.saturation for e in exposures} == {65300 * 1.9}
