"""Cameras of reduced images: those that come with the program, and one written from files."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from harness.cli.main import execute
from harness.ingest.cameras import adopt_camera
from harness.settings import Settings
from harness.workspace import Workspace
from pipeline import io
from pipeline.camera import Camera
from pipeline.errors import ConfigError
from pipeline.io.planes import Planes, read_planes
from pipeline.io.quality import decode
from pipeline.io.times import read_midpoint

SHAPE = (120, 130)
PLAIN = [name for name in Camera.names() if Camera.load(name).plain]


def cards(**more):
    """Header with coordinates and what `more` says."""
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"], header["CRPIX1"], header["CRPIX2"] = 150.0, 2.0, 65.0, 60.0
    header["CDELT1"], header["CDELT2"] = -0.4 / 3600, 0.4 / 3600
    header["DATE-OBS"], header["EXPTIME"] = "2020-01-02T03:04:05", 30.0
    header.update(more)
    return header


def image(seed=1):
    return np.random.default_rng(seed).normal(500.0, 14.0, SHAPE).astype(np.float32)


@pytest.mark.parametrize("name", PLAIN)
def test_bundled_definition_is_short_and_its_bits_and_bands_are_known(name):
    camera = Camera.load(name)
    assert camera.name == name
    assert set(camera.filters.values()) <= set("ugrizy")
    if camera.mask_bits:
        decode(np.zeros((2, 2), np.int32), camera.mask_bits)


def test_fourteen_usual_ones_are_there():
    assert len(PLAIN) >= 13
    assert {"generic", "ztf", "lco", "ps1", "sdss", "hsc", "lt"} <= set(PLAIN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "x"\nimages = "plain"\nkeyword = {}', "did you mean keywords"),
        ('name = "x"\nimages = "plain"\n[keywords]\ngian = "G"', "did you mean gain"),
        ('name = "x"\nimages = "plain"\n[filters]\nX = "q"', "expected one of ugrizy"),
        ('name = "x"\nimages = "plain"\npixel_scale = "1"', "a number with a decimal point"),
        ('name = "x/y"\nimages = "plain"', "letters, digits"),
        ('name = "x"', 'images = "plain" if the images come reduced'),
        ('name = "x', "is not TOML"),
    ],
)
def test_wrong_definition_is_one_clear_line(tmp_path, text, words):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        Camera.load(tmp_path / "c.toml")


def test_definition_is_honoured_where_images_are_read(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nimages = "plain"\nmask_bits = "3=SAT"\n[keywords]\ngain = "EPADU"\n'
        '[filters]\nSLOAN2 = "i"\n'
    )
    codes = np.zeros(SHAPE, np.int16)
    codes[5, 6], codes[7, 8] = 8, 4
    header = cards(EPADU=2.5, GAIN=120.0, FILTER="SLOAN2")
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(image(), header, name="SCI"),
         fits.ImageHDU(codes, name="DQ")]
    ).writeto(tmp_path / "a.fits")  # fmt: skip
    found = io.read_generic(tmp_path / "a.fits", 1, camera=Camera.load(tmp_path / "mine.toml"))
    assert found.info.band == "i"
    assert found.info.camera == "mine"
    assert found.provenance["ORIGGAIN"] == 2.5  # fits 500 ADU with a noise of 14
    assert found.mask[5, 6] != 0
    assert found.mask[7, 8] == 0


def test_definition_written_from_files_is_kept_and_used(tmp_path, capsys):
    for k, band in enumerate(("gp", "rp")):
        header = cards(FILTER=band, EGAIN=1.7, READNOIS=4.0, SATURATN=60000.0)
        header["DATE-OBS"] = f"2020-01-0{k + 2}T03:04:05"
        fits.writeto(tmp_path / f"{band}.fits", image(k), header)
    files = [str(tmp_path / f"{band}.fits") for band in ("gp", "rp")]
    out = tmp_path / "mine.toml"
    assert execute(["camera", "new", *files, "-o", str(out)]) == 0
    assert execute(["camera", "new", *files, "-o", str(out)]) == 2
    made = Camera.load(out)
    assert made.name == "mine"
    assert made.keywords == {"gain": "EGAIN", "read_noise": "READNOIS", "saturation": "SATURATN"}
    assert made.filters == {"gp": "g", "rp": "r"}
    assert made.pixel_scale == pytest.approx(0.4, abs=1e-4)
    assert len(out.read_text().splitlines()) <= 30

    space = tmp_path / "w"
    assert execute(["init", str(space), "--camera", str(out)]) == 0
    out.unlink()
    assert execute(["ingest", str(space), *files]) == 0
    assert "registered 2 frames" in capsys.readouterr().out
    assert Settings.load(space / "nightjar.toml").campaign.camera == "mine"
    rows = io.read_parquet(space / "raw" / "exposures.parquet").to_pylist()
    assert [(r["band"], r["camera"]) for r in rows] == [("g", "mine"), ("r", "mine")]


def test_bundled_camera_stays_a_name(tmp_path):
    space = Workspace.create(tmp_path / "w")
    assert adopt_camera(space, "ztf") == "ztf"
    assert not (space.root / "calib" / "camera").exists() or not list(
        (space.root / "calib" / "camera").iterdir()
    )


def test_asinh_pixels_of_pan_starrs_become_linear(tmp_path):
    flux, a = image().astype(float), 2.5 * np.log10(np.e)
    header = cards(BSOFTEN=12.5, BOFFSET=-3.0)
    stored = a * np.arcsinh((flux + 3.0) / (2 * 12.5))
    fits.writeto(tmp_path / "p.fits", stored.astype(np.float32), header)
    raw = read_planes(Planes(tmp_path / "p.fits"))
    assert raw.image == pytest.approx(flux, rel=1e-4)
    assert any("asinh" in note for note in raw.notes)


def test_start_in_seconds_and_the_card_that_is_asked_for():
    header = {"TAI": 4507681767.0, "EXPTIME": 54.0, "DATE-OBS": "2001-09-21"}
    assert read_midpoint(header).mjd_tai == pytest.approx((4507681767.0 + 27.0) / 86400.0)
    both = {"MJD-OBS": 58850.25, "DATE-OBS": "2020-01-02T03:04:05", "EXPTIME": 0.002}
    assert read_midpoint(both, start="MJD-OBS").mjd_tai == pytest.approx(58850.25 + 37 / 86400)
