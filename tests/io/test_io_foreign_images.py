"""Images as other software writes them: the right value, or one clear line."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, BarycentricMeanEcliptic, Galactic, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from pipeline import io
from pipeline import wcs as world
from pipeline.errors import ConfigError, FileFormatError, InputError, KeywordError
from pipeline.io.filters import band_of, filter_name
from pipeline.io.headers import plain_header, unreadable_cards
from pipeline.io.keywords import item_of, parse_keywords
from pipeline.io.nodata import no_data
from pipeline.io.noise import (
    _darkest,
    _neighbours,
    contradicting_gain,
    given_variance,
    measured_gain,
    sky_blocks,
    sky_noise,
)
from pipeline.io.planes import Planes, Raw, read_planes, split_extension
from pipeline.io.quality import decode, mask_of
from pipeline.io.times import read_midpoint
from pipeline.masks import bits

SHAPE = (64, 72)


def header(**cards):
    found = fits.Header()
    known = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 36.5,
        "CRPIX2": 32.5, "CD1_1": -2e-4, "CD1_2": 1e-5, "CD2_1": 1e-5, "CD2_2": 2e-4,
        "DATE-OBS": "2020-01-02T03:04:05.0", "EXPTIME": 60.0, "FILTER": "r", "GAIN": 2.0,
        "RDNOISE": 5.0, "SATURATE": 60000.0,
    }  # fmt: skip
    for key, value in {**known, **{k.replace("__", "-"): v for k, v in cards.items()}}.items():
        if value is not None:
            found[key] = value
    return found


def native(cards):
    """Coordinates as astropy has them; it would warn of the date."""
    bare = cards.copy()
    bare.remove("DATE-OBS")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(bare)


def sky_image(level=500.0, gain=2.0, seed=1, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return (level + rng.normal(0, np.sqrt(level / gain), shape)).astype(np.float32)


def write(path, data=None, cards=None):
    data = sky_image() if data is None else data
    fits.writeto(path, data, cards or header(), overwrite=True)
    return path


def with_card(path, text):
    """Put raw bytes in the place of the card SPARE."""
    write(path, cards=header(SPARE=1))
    content = path.read_bytes()
    at = content.index(b"SPARE   =")
    path.write_bytes(content[:at] + text.ljust(80)[:80] + content[at + 80 :])
    return path


def test_file_that_ends_short_of_a_block_is_read_and_a_truncated_one_is_not(tmp_path):
    image = sky_image()
    tiles = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, header())])
    tiles.writeto(tmp_path / "tiles.fits")
    for path in (write(tmp_path / "a.fits", image), tmp_path / "tiles.fits"):
        content = path.read_bytes()
        path.write_bytes(content[: content.rindex(content.rstrip(b"\0")[-1:]) + 1])
        assert len(path.read_bytes()) % 2880
        short = read_planes(Planes(path)).image
        assert short.shape == image.shape
        assert np.isfinite(short).all()
        for cut in (path.read_bytes()[:-2000], path.read_bytes() + b"\0"):
            path.write_bytes(cut)
            with pytest.raises(FileFormatError, match="truncated"):
                read_planes(Planes(path))


# -- headers -------------------------------------------------------------------------------------

BROKEN = [
    b"SEEING  = 1,25 / decimal comma", b"CRDER1  = nan", b"SEEING  =                  NaN",
    b"OBSERVER= 'Observer without end", b"OBJECT  = 'M\t31'", b"ORIGIN  = 'A\nB'",
    b"SATURLEV= INF", b"AIRMASS = (1,2", b"EXTNAME = 'open", b"EXTVER  = abc",
    b"PV2_3   = -1E400", b"MP_BAD  = (1.0, 2.0)",
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_broken_card_is_left_out_and_noted(tmp_path, text):
    path = with_card(tmp_path / "a.fits", text)
    raw = read_planes(Planes(path))
    name = text[:8].decode().strip()
    assert [n for n in raw.notes if f"card {name} cannot be read" in n]
    assert name not in raw.header
    assert raw.header["GAIN"] == 2.0
    exposure = io.read_generic(path, 1)
    assert any(name in str(v) for k, v in exposure.provenance.items() if k.startswith("FILL"))


def test_number_of_axes_that_stands_twice_has_to_be_possible_twice(tmp_path):
    path = with_card(tmp_path / "a.fits", b"NAXIS   = 99999999999999999999")
    start = time.monotonic()
    with pytest.raises(FileFormatError, match="NAXIS is 99999999999999999999, not from 0 to 999"):
        read_planes(Planes(path))
    assert time.monotonic() - start < 5.0  # astropy would count all the axes


def test_first_of_several_cards_counts():
    cards = fits.Header([("EXPTIME", 60.0), ("EXPTIME", 30.0), ("COMMENT", "x")])
    assert plain_header(cards) == {"EXPTIME": 60.0}
    assert unreadable_cards(cards) == []


def test_plane_of_a_cube_of_one_and_axes_left_over(tmp_path):
    image = sky_image()
    left_over = {"WCSAXES": 3, "CTYPE3": "STOKES", "CRVAL3": 1.0, "CRPIX3": 1.0, "CD3_3": 1.0}
    path = write(tmp_path / "a.fits", image[None], header(**left_over))
    raw = read_planes(Planes(path))
    np.testing.assert_array_equal(raw.image, image)
    assert raw.wcs.naxis == 2
    assert raw.wcs.all_pix2world(35.5, 31.5, 0)[0] == pytest.approx(150.0, abs=1e-9)
    with pytest.raises(FileFormatError, match="no image"):
        read_planes(Planes(write(tmp_path / "b.fits", np.zeros((3, 8, 8), np.float32))))


@pytest.mark.parametrize("value", [0.0, -1.0, 1e308])
def test_exposure_time_that_is_none_is_said(tmp_path, value):
    path = write(tmp_path / "a.fits", cards=header(EXPTIME=value))
    with pytest.raises(KeywordError, match=r"EXPTIME is -?\d(e\+308)?: not an exposure time"):
        io.read_generic(path, 1)


# -- coordinates ---------------------------------------------------------------------------------

X, Y = np.array([0.0, 20.0, 70.0]), np.array([1.0, 60.0, 33.0])
FRAMES = [
    ({"RADESYS": "FK4", "EQUINOX": 1950.0}, FK4(equinox="B1950")),
    ({"EQUINOX": "B1950"}, FK4(equinox="B1950")),
    ({"RADESYS": "FK5", "EQUINOX": 1975.0}, FK5(equinox="J1975")),
    ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, Galactic()),
    ({"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"}, BarycentricMeanEcliptic()),
]


def assert_same_sky(wcs, ra, dec, arcsec=1e-3):
    for made in (wcs, world.canonical(wcs)):
        found = SkyCoord(*made.all_pix2world(X, Y, 0), unit="deg")
        assert found.separation(SkyCoord(ra, dec, unit="deg")).arcsec.max() < arcsec


@pytest.mark.parametrize(("cards", "frame"), FRAMES)
def test_frames_become_icrs(cards, frame):
    place = native(header()).all_pix2world(X, Y, 0)
    true = SkyCoord(*place, unit="deg", frame=frame).icrs
    wcs, notes = world.read(header(**cards))
    assert_same_sky(wcs, true.ra, true.dec)
    assert wcs.wcs.radesys == "ICRS"
    assert "converted to ICRS" in notes[0]
    assert "residual" in notes[0]


def test_axes_in_the_other_order():
    swapped = header(CTYPE1="DEC--TAN", CTYPE2="RA---TAN", CRVAL1=2.0, CRVAL2=150.0)
    dec, ra = native(swapped).all_pix2world(X, Y, 0)
    wcs, notes = world.read(swapped)
    assert_same_sky(wcs, ra, dec)
    assert "declination first" in notes[0]


@pytest.mark.parametrize("code", ["SIN", "ARC", "ZEA", "STG", "ZPN", "CAR"])
def test_other_projections_are_fitted(code):
    cards = header(CTYPE1=f"RA---{code}", CTYPE2=f"DEC--{code}", NAXIS1=72, NAXIS2=64)
    if code == "ZPN":
        cards["PV2_1"], cards["PV2_3"] = 1.0, 60.0
    wcs, notes = world.read(cards)
    assert_same_sky(wcs, *native(cards).all_pix2world(X, Y, 0))
    assert f"{code} projection" in notes[0]


def test_tnx_polynomial():
    """x' = x + 1e-4 + 0.05 x², from the WAT cards of IRAF."""
    coefficients = [1e-4, 1e-12, 0.05, 1e-12, 1e-12, 1e-12]
    cards = header(CTYPE1="RA---TNX", CTYPE2="DEC--TNX", CRPIX1=-900.0, WAT0_001="system=image")
    for axis, name, c in ((1, "lngcor", coefficients), (2, "latcor", [1e-12] * 6)):
        kind = ("ra", "dec")[axis - 1]
        numbers = "3. 3. 3. 2. -0.3 0.3 -0.3 0.3 " + " ".join(str(v) for v in c)
        text = f'wtype=tnx axtype={kind} {name} = "{numbers} "'
        for k in range(0, len(text), 68):
            cards[f"WAT{axis}_{k // 68 + 1:03d}"] = text[k : k + 68]
    plain = native(header(CRPIX1=-900.0))
    cd = np.array([[-2e-4, 1e-5], [1e-5, 2e-4]])
    xi, eta = cd @ np.stack([X + 901.0, Y + 1 - 32.5])
    there = np.linalg.solve(cd, np.stack([xi + 1e-4 + 0.05 * xi**2, eta]))
    ra, dec = plain.all_pix2world(there[0] - 901.0, there[1] + 31.5, 0)
    wcs, notes = world.read(cards)
    assert_same_sky(wcs, ra, dec)
    assert "TNX" in notes[0]
    assert np.hypot(*(np.array(native(header(CRPIX1=-900.0)).all_pix2world(X, Y, 0)) - [ra, dec])
                    ).max() * 3600 > 1.0  # fmt: skip


def test_look_up_tables_of_distortion(tmp_path):
    from astropy.wcs import DistortionLookupTable

    plain = native(header())
    table = np.tile(np.linspace(0.0, 3.0, 9, dtype=np.float32), (9, 1))
    plain.cpdis1 = DistortionLookupTable(table, (1, 1), (1, 1), (9, 9))
    plain.cpdis2 = DistortionLookupTable(0.5 * table.T.copy(), (1, 1), (1, 1), (9, 9))
    hdus = plain.to_fits(relax=True)
    hdus[0].data = sky_image()
    hdus.writeto(tmp_path / "a.fits")
    raw = read_planes(Planes(tmp_path / "a.fits"))
    assert_same_sky(raw.wcs, *plain.all_pix2world(X, Y, 0), arcsec=0.05)
    assert any("look-up tables" in note and "residual" in note for note in raw.notes)
    off = np.array(native(header()).all_pix2world(X, Y, 0)) - np.array(plain.all_pix2world(X, Y, 0))
    assert np.hypot(*off).max() * 3600 > 1.0


def test_sip_without_its_suffix_prints_nothing(capsys):
    sip = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4, "B_0_2": -1e-4}
    wcs, notes = world.read(header(**sip))
    right = native(header(CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", **sip))
    assert_same_sky(wcs, *right.all_pix2world(X, Y, 0))
    assert notes == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"CD1_1": 1e308}, "degrees"),
        ({"CD1_1": -1e-300, "CD2_2": 1e-300}, "singular"),
        ({"CD1_1": -1e-20, "CD2_2": 1e-20}, "pixels of 1e-20 x 1e-20 degrees"),
        ({"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 0.0, "PV2_1": 1.0}, "no size"),
    ],
)
def test_pixels_without_a_size_have_no_coordinates(cards, words):
    plain = {"CD1_1": -8e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 8e-5, "NAXIS1": 64, "NAXIS2": 64}
    assert world.read(header(**plain))[0] is not None
    wcs, (note,) = world.read(header(**(plain | cards)))
    assert wcs is None
    assert words in note


def test_old_pc_cards():
    cards = header(CD1_1=None, CD1_2=None, CD2_1=None, CD2_2=None, CDELT1=-2e-4, CDELT2=2e-4)
    cards["PC001001"], cards["PC001002"] = 0.8, -0.6
    cards["PC002001"], cards["PC002002"] = 0.6, 0.8
    right = header(CD1_1=-1.6e-4, CD1_2=1.2e-4, CD2_1=1.2e-4, CD2_2=1.6e-4)
    assert_same_sky(world.read(cards)[0], *native(right).all_pix2world(X, Y, 0))


def test_plain_coordinates_stay_what_they_are():
    for cards in (header(), header(RADESYS="FK5", EQUINOX=2000.0), header(RADESYS="ICRS")):
        wcs, notes = world.read(cards)
        assert notes == []
        assert list(wcs.wcs.crval) == [150.0, 2.0]
        assert list(wcs.wcs.ctype) == ["RA---TAN", "DEC--TAN"]


def test_cards_of_a_twenty_first_axis_are_no_coordinates_of_an_image():
    found, notes = world.read(header(CRVAL21=1.0))
    assert found is None
    assert "21 axes" in notes[0]


def test_coordinates_that_nobody_knows_are_none_with_a_reason():
    for kinds in (("RA---XXX", "DEC--XXX"), ("HPLN-TAN", "HPLT-TAN")):
        wcs, notes = world.read(header(CTYPE1=kinds[0], CTYPE2=kinds[1]))
        assert wcs is None
        assert "coordinates cannot be understood" in notes[0]
    assert world.read(header(CTYPE1="LINEAR", CTYPE2="LINEAR")) == (None, [])


# -- times ---------------------------------------------------------------------------------------

START = "2020-01-02T03:04:05"
TIMES = [
    ({"DATE-OBS": "2020-01-02T03:04:05.0"}, START),
    ({"DATE-OBS": "2020-01-02 03:04:05Z"}, START),
    ({"DATE-OBS": "2020-1-2T3:4:5"}, START),
    ({"DATE-OBS": "2020-01-02", "TIME-OBS": "03:04:05.0"}, START),
    ({"DATE-OBS": "2020-01-02", "UT": "03:04:05"}, START),
    ({"DATE-OBS": "2020-01-02", "UTSTART": "03:04:05"}, START),
    ({"DATE-OBS": "2020-01-02", "MJD-OBS": 58850.127835648148}, START),
    ({"DATE-OBS": "02/01/98", "UT": "03:04:05"}, "1998-01-02T03:04:05"),
    ({"DATE-OBS": "1975-01-02T03:04:05"}, "1975-01-02T03:04:05"),
    ({"MJD-OBS": 58850.127835648148}, START),
    ({"JD": 2458850.627835648}, START),
    ({"DATE-BEG": START}, START),
    ({"DATE-END": "2020-01-02T03:05:05"}, START),
    ({"DATE-AVG": "2020-01-02T03:04:35"}, START),
    ({"MJD-AVG": 58850.12818287037, "DATE-OBS": "2020-01-02"}, START),
    ({"MJD-MID": 58850.12818287037}, START),
    ({"DATE-OBS": "2016-12-31T23:59:60.5"}, "2016-12-31T23:59:60.5"),
    ({"DATE-OBS": "2020-01-02T03:03:60"}, "2020-01-02T03:04:00"),
    ({"DATE-OBS": "2020-01-02T05:04:05+02:00"}, START),
    ({"DATE-OBS": "2020-01-01T22:04:05-0500"}, START),
    ({"DATE-OBS": "2020-01-02T03:04:42", "TIMESYS": "TAI"}, START),
    ({"DATE-OBS": "2020-01-02T03:05:14.184", "TIMESYS": "TT"}, START),
    ({"DATE-OBS": "2020-01-02T03:04:23", "TIMESYS": "GPS"}, START),
]


@pytest.mark.parametrize(("cards", "start"), TIMES)
def test_middle_of_the_exposure(cards, start):
    moment = read_midpoint({"EXPTIME": 60.0, **cards})
    true = Time(start, scale="utc").tai.mjd + 30.0 / 86400
    assert (moment.mjd_tai - true) * 86400 == pytest.approx(0.0, abs=2e-4)


HALVES = [
    ({"DATE-OBS": "2020-01-02"}, "date without a time of day"),
    ({"MJD-OBS": 58850}, "day without a time"),
    ({"DATE-OBS": "yesterday"}, "not a date"),
    ({"DATE-OBS": START, "TIMESYS": "LOCAL"}, "TIMESYS 'LOCAL'"),
    ({"DATE-OBS": START, "EXPTIME": None}, "no exposure time"),
    ({"DATE-OBS": "2020-01-02T27:00:00"}, "not a time of day"),
]


@pytest.mark.parametrize(("cards", "words"), HALVES)
def test_half_a_fact_is_no_time(cards, words):
    moment = read_midpoint({"EXPTIME": 60.0, **cards})
    assert moment.mjd_tai is None
    assert any(words in note for note in moment.notes)


def test_exposure_time_between_two_instants():
    moment = read_midpoint({"DATE-BEG": START, "DATE-END": "2020-01-02T03:05:05"})
    assert moment.exptime == pytest.approx(60.0, abs=1e-4)


def test_archive_plate_of_1930():
    """TT - UT1 was 24.0 s in 1930 (Morrison & Stephenson 2004), TAI is TT - 32.184 s."""
    moment = read_midpoint({"DATE-OBS": "1930-01-01T00:00:00", "EXPTIME": 0.002})
    assert (moment.mjd_tai - 25977.0) * 86400 == pytest.approx(24.0 - 32.184, abs=0.5)


# -- filters -------------------------------------------------------------------------------------

NAMES = {
    "r": "r", "rp": "r", "r'": "r", "SDSS r": "r", "Sloan r": "r", "r.MP9602": "r", "sdss-r": "r",
    "SDSSr+": "r", "ZTF_r": "r", "ztfg": "g", "r DECam SDSS c0002 6415.0 1480.0": "r",
    "HSC-I2": "i", "r_SDSS": "r", "g.00000": "g", "LSST_z": "z", "Y": "y", "ip": "i", "zs": "z",
    "R": "R", "Rc": "R", "Bessell R": "R", "Johnson_V": "V", "B": "B", "Ic": "I", "V": "V",
    "Clear": "clear", "Halpha": "Halpha", "RG610": "RG610", "GG395": "GG395", "Red": "Red",
    "OIII": "OIII", "J": "J", "3": "3",
}  # fmt: skip


@pytest.mark.parametrize(("name", "band"), NAMES.items())
def test_band_of_a_filter(name, band):
    assert band_of(name) == band


def test_card_of_the_filter():
    assert filter_name({"FILTER": "unknown", "FILTER2": "r"}) == ("FILTER2", "r")
    assert filter_name({"FILTER1": "CLEAR1L", "FILTER2": "F814W"}) == ("FILTER2", "F814W")
    assert filter_name({"FILTERS": "r"}) == ("FILTERS", "r")
    assert filter_name({"FILTER": "Clear"}) == ("FILTER", "Clear")
    assert filter_name({"FILTER": " ", "FILTNAM": "UNDEF"}) is None


def test_campaign_refuses_a_band_it_cannot_work_in(tmp_path):
    for name in ("UNKNOWN", "V", "RG610", "Clear"):
        path = write(tmp_path / "a.fits", cards=header(FILTER=name))
        with pytest.raises(KeywordError, match=f"unknown filter '{name}'"):
            io.read_generic(path, 1)


# -- keywords ------------------------------------------------------------------------------------


def test_synonyms_and_the_users_word():
    cards = {"GAIN": 120, "EGAIN": "0.93", "READNOIS": 4.0, "SATURATN": 50000, "NOISY": 9.0}
    assert item_of(cards, "gain", {}) == ("EGAIN", 0.93)
    assert item_of(cards, "gain", {"gain": "GAIN"}) == ("GAIN", 120.0)
    assert item_of(cards, "read_noise", {}) == ("READNOIS", 4.0)
    assert item_of(cards, "saturation", {}) == ("SATURATN", 50000.0)
    assert item_of({"GAIN": 0}, "gain", {}) is None
    for text, value in (
        ("2.0 e-/ADU", 2.0),
        ("1.7e-", 1.7),
        ("4 electrons / DN", 4.0),
        ("1e1", 10),
    ):
        assert item_of({"GAIN": text}, "gain", {}) == ("GAIN", value)
    for text in ("2.0 ADU/e-", "1.2.3 e-", "e-", "high", True, None):
        assert item_of({"GAIN": text}, "gain", {}) is None
    assert item_of({"READNOI": "5.1 e- rms"}, "read_noise", {}) == ("READNOI", 5.1)
    assert item_of({"SATURATE": "60000 e-"}, "saturation", {}) is None  # of the image unit
    assert item_of({"RDNOISE": 1e308, "READNOIS": 5.0}, "read_noise", {}) == ("READNOIS", 5.0)
    assert item_of({"SATURATE": 1e308}, "saturation", {}) is None
    assert parse_keywords(["gain=egain"]) == {"gain": "EGAIN"}
    with pytest.raises(ConfigError, match="NAME=CARD"):
        parse_keywords(["colour=X"])


def test_gain_is_measured_or_contradicted():
    image, good = sky_image(gain=2.0, shape=(256, 256)), np.zeros((256, 256), bool)
    assert measured_gain(image, good) == pytest.approx(2.0, rel=0.05)
    assert measured_gain(image - 500.0, good) is None
    assert contradicting_gain(image, good, 2.0) is None
    assert "contradicts the noise" in contradicting_gain(image / 65535, good, 2.0)
    assert "unexplained" in contradicting_gain(image, good, 120.0)


def test_frame_without_gain_gets_the_measured_one(tmp_path):
    image = sky_image(gain=2.0, shape=(256, 256))
    exposure = io.read_generic(write(tmp_path / "a.fits", image, header(GAIN=None)), 1)
    assert exposure.provenance["ORIGGAIN"] == pytest.approx(2.0, rel=0.05)
    assert "measured from the sky" in exposure.provenance["FILL1"]


def crowded_image(sky, gain=2.0, read_noise=6.0, shape=(384, 384)):
    """Stars on every pixel but ever fainter ones, FWHM 4.7 pixels: no sky is open."""
    rng = np.random.default_rng(7)
    stars = np.zeros(shape)
    flux = 150.0 * rng.uniform(size=14_000) ** -1.25
    np.add.at(stars, tuple(rng.integers(0, n, flux.size) for n in shape), np.minimum(flux, 1e6))
    electrons = rng.poisson(gain * (sky + gaussian_filter(stars, 2.0)))
    return ((electrons + rng.normal(0.0, read_noise, shape)) / gain).astype(np.float32)


@pytest.mark.parametrize("sky", [600.0, 12_000.0])
def test_noise_of_a_crowded_field_is_that_of_its_darkest_places(tmp_path, sky):
    image = crowded_image(sky)
    level, noise, crowded = sky_blocks(image, np.zeros(image.shape, bool))
    level, noise = np.median(level), np.median(noise)
    assert crowded
    assert sky < level < 1.2 * sky
    assert noise == pytest.approx(np.sqrt(level / 2.0 + 9.0), rel=0.04)

    known = io.read_generic(write(tmp_path / "a.fits", image, header(GAIN=2.0, RDNOISE=6.0)), 1)
    assert np.median(known.variance) == pytest.approx(2.0 * np.median(image) + 36.0, rel=0.01)
    measured = io.read_generic(write(tmp_path / "b.fits", image, header(GAIN=None, RDNOISE=6.0)), 2)
    assert measured.provenance["ORIGGAIN"] == pytest.approx(2.0, rel=0.08)


def test_light_of_sources_is_no_noise_of_the_sky(tmp_path):
    """150 broad stars on 512 × 512 pixels: the darker half of all pixels is 4.5 per cent wide."""
    rng, shape = np.random.default_rng(9), (512, 512)
    x, y = rng.uniform(0, 512, (2, 150))
    flux = 10 ** rng.uniform(3.3, 4.7, 150)
    light = np.full(shape, 900.0)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for x0, y0, total in zip(x, y, 1.4 * flux, strict=True):  # FWHM of 5 pixels, Moffat's wings
        r2 = (columns - x0) ** 2 + (rows - y0) ** 2
        light += total * 2.3 / (np.pi * 5.41**2) * (1.0 + r2 / 5.41**2) ** -3.3
    electrons = rng.poisson(light)
    image = ((electrons + rng.normal(0.0, 5.0, shape)) / 1.4).astype(np.float32)
    level, noise, crowded = sky_blocks(image, np.zeros(shape, bool))
    assert not crowded
    assert np.median(level) == pytest.approx(900.0 / 1.4, abs=0.5)
    assert np.median(noise) == pytest.approx(np.sqrt(925.0) / 1.4, rel=0.012)

    cards = header(GAIN=None, RDNOISE=5.0)
    exposure = io.read_generic(write(tmp_path / "a.fits", image, cards), 1)
    assert exposure.provenance["ORIGGAIN"] == pytest.approx(1.4, rel=0.02)


def test_white_noise_is_not_crowded_and_measured_either_way():
    image = np.random.default_rng(3).normal(500.0, 10.0, (512, 512)).astype(np.float32)
    bad = np.zeros(image.shape, bool)
    assert not sky_blocks(image, bad)[2]
    assert sky_noise(image, bad) == pytest.approx((500.0, 10.0), rel=0.01)
    assert _darkest(image, *_neighbours(image), bad)[1] == pytest.approx(10.0, rel=0.01)


def test_variance_of_a_sky_subtracted_frame_is_measured(tmp_path):
    image = sky_image(gain=2.0, shape=(256, 256)) - 500.0
    exposure = io.read_generic(write(tmp_path / "a.fits", image, header(RDNOISE=3.0)), 1)
    assert np.median(exposure.variance) == pytest.approx(250.0 * 2.0**2, rel=0.1)


# -- pixels without data -------------------------------------------------------------------------


def test_padding_with_zeros_in_any_form():
    for width in (1, 5, 20):
        image = sky_image(shape=(128, 128)) - 500.0
        image[:width] = image[:, -width:] = 0.0
        holes, notes = no_data(image)
        np.testing.assert_array_equal(holes, image == 0.0)
        assert len(notes) == 1
    corner = sky_image(shape=(128, 128))
    y, x = np.mgrid[:128, :128]
    corner[x + y < 40] = 0.0
    np.testing.assert_array_equal(no_data(corner)[0], corner == 0.0)


@pytest.mark.parametrize("sigma", [0.8, 3.0, 30.0])
def test_zeros_of_integer_noise_are_data(sigma):
    image = np.rint(np.random.default_rng(3).normal(0.0, sigma, (400, 400))).astype(np.float32)
    holes, notes = no_data(image)
    assert not holes.any()
    assert notes == []


@pytest.mark.parametrize("value", [-999.0, -32768.0, -1e30, 1e30, np.inf, -np.inf, 0.0])
def test_sentinels(value):
    image = sky_image(shape=(128, 128))
    image[:, 50:52] = value
    holes, notes = no_data(image)
    np.testing.assert_array_equal(holes, image == value)
    assert len(notes) == int(np.isfinite(value))


def test_blank_of_scaled_integers(tmp_path):
    stored = np.full((32, 32), 7, np.int16)
    stored[3, 4] = -5
    hdu = fits.PrimaryHDU(stored)
    hdu.header["BLANK"], hdu.header["BSCALE"], hdu.header["BZERO"] = -5, 0.5, 32768.0
    hdu.writeto(tmp_path / "a.fits")
    image = read_planes(Planes(tmp_path / "a.fits")).image
    assert np.isnan(image[3, 4])
    assert np.isnan(image).sum() == 1


@pytest.mark.parametrize(
    ("name", "of_variance"),
    [("VARIANCE", lambda v: v), ("ERR", np.sqrt), ("RMS", np.sqrt), ("WHT", lambda v: 1 / v),
     ("INVVAR", lambda v: 1 / v), ("IVAR", lambda v: 1 / v)],
)  # fmt: skip
def test_extensions_by_name(tmp_path, name, of_variance):
    variance = np.full((128, 128), 250.0, np.float32)
    image, bad = sky_image(shape=(128, 128)), np.zeros((128, 128), np.uint8)
    bad[5, 6] = 1
    hdus = [
        fits.PrimaryHDU(), fits.ImageHDU(image, header(), name="sci"),
        fits.ImageHDU(of_variance(variance), name=name), fits.ImageHDU(bad, name="BPM"),
    ]  # fmt: skip
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    raw = read_planes(Planes(tmp_path / "a.fits"))
    np.testing.assert_array_equal(raw.image, image)
    assert raw.mask[5, 6] == 1
    np.testing.assert_allclose(given_variance(raw, raw.mask != 0, []), 250.0, rtol=1e-5)
    exposure = io.read_generic(tmp_path / "a.fits", 1)
    assert exposure.has("BAD")[5, 6]
    assert exposure.variance[9, 9] == pytest.approx(1000.0, rel=1e-5)


def raw_of(image, **planes):
    known = {"variance": None, "mask": None, "header": {}, "files": (tmp,), **planes}
    return Raw(image, **known)


tmp = "a.fits"


def test_variance_that_is_none_is_recognised():
    image, good = sky_image(shape=(128, 128)), np.zeros((128, 128), bool)
    for plane, words in ((np.sqrt(250.0), "standard deviation"), (1 / 250.0, "a weight")):
        raw = raw_of(image, variance=np.full((128, 128), plane, np.float32))
        with pytest.raises(InputError, match=words):
            given_variance(raw, good, [])
    notes: list[str] = []
    relative = raw_of(image, weight=np.full((128, 128), 30.0, np.float32))
    assert np.median(given_variance(relative, good, notes)) == pytest.approx(250.0, rel=0.1)
    assert "scaled to the measured noise" in notes[0]


def test_masks_by_their_bits():
    mask = np.array([[2, 1 << 8, 4, 1 << 7]])
    assert list(decode(mask, "ztf")[0]) == [0, bits("SAT"), bits("BAD"), bits("CR")]
    assert list(decode(np.array([[4, 2, 1]]), "jwst")[0]) == [0, bits("SAT"), bits("BAD")]
    assert list(decode(mask, "1,8=SAT")[0]) == [bits("BAD"), bits("SAT"), 0, 0]
    with pytest.raises(ConfigError, match="mask bits 'x'"):
        decode(mask, "x")


@pytest.mark.parametrize("bit", ["x", 1.5, -1, 32, 99, True, 1e30])
def test_declared_bit_that_no_mask_has_declares_nothing(bit):
    mask = np.zeros(SHAPE, np.int32)
    mask[3, 4] = 2
    notes: list[str] = []
    found = mask_of(
        raw_of(sky_image(), mask=mask, mask_header={"MP_BAD": bit}), np.inf, None, notes
    )
    assert notes == ["mask: non-zero taken as bad, saturated where the saturation level says so"]
    assert list(zip(*np.nonzero(found), strict=True)) == [(3, 4)]


def test_mask_of_a_known_telescope_and_one_that_is_inverted():
    image = sky_image()
    objects = np.zeros(SHAPE, np.int32)
    objects[10:30, 10:30] = 2
    notes: list[str] = []
    known = raw_of(image, mask=objects, mask_header={"BIT01": "OBJECT"})
    assert not mask_of(known, np.inf, None, notes).any()
    assert "bits of ztf" in notes[0]
    assert (mask_of(raw_of(image, mask=objects), np.inf, None, []) != 0).sum() == 400
    good = np.ones(SHAPE, np.uint8)
    good[:, 5] = 0
    with pytest.raises(InputError, match="0 where a pixel is good"):
        mask_of(raw_of(image, mask=good), np.inf, None, [])


# -- choice of an extension ----------------------------------------------------------------------


@pytest.fixture
def mosaic(tmp_path):
    def written(name, order):
        chips = [
            fits.ImageHDU(sky_image(seed=k), header(CRVAL1=150.0 + k, CCDNUM=k), name=f"CCD{k}")
            for k in order
        ]
        fits.HDUList([fits.PrimaryHDU(), *chips]).writeto(tmp_path / name)
        return tmp_path / name

    return written


def test_extension_by_number_name_or_bracket(mosaic):
    path = mosaic("a.fits", [1, 2, 3])
    for planes in (Planes(path, ext="2"), Planes(path, ext="ccd2"), Planes.of(path, ext="2")):
        np.testing.assert_array_equal(read_planes(planes).image, sky_image(seed=2))
    assert split_extension(path.with_name("a.fits[2]")) == (path, "2")
    assert split_extension(path) == (path, None)
    raw = read_planes(Planes(path))
    assert "3 images: HDU 1 (CCD1) used" in raw.notes[0]
    with pytest.raises(FileFormatError, match="one of: 1 CCD1, 2 CCD2, 3 CCD3"):
        read_planes(Planes(path, ext="9"))


def test_template_that_lists_its_chips_in_another_order(mosaic):
    science = read_planes(Planes(mosaic("a.fits", [1, 2]), ext="1"))
    template = read_planes(Planes(mosaic("b.fits", [2, 1])), like=science.header)
    assert template.header["EXTNAME"] == "CCD1"
    assert template.header["CRVAL1"] == 151.0


def test_file_with_several_chips_enters_as_detectors(mosaic):
    path = mosaic("a.fits", [1, 2, 3])
    assert io.list_generic(path) == [1, 2, 3]
    assert io.list_generic(path, "CCD3") == [3]
    assert io.read_generic(path, 7, detector=2).info.ra == pytest.approx(152.0)


# -- the page ------------------------------------------------------------------------------------


def test_page_about_images_is_that_of_the_code():
    from pipeline.io.guide import document

    page = Path(__file__).parents[2] / "docs" / "your-images.md"
    assert page.read_text(encoding="utf-8") == document()
