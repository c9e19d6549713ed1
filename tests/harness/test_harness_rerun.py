"""Alerts and campaigns made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from harness.catalog import Catalog
from harness.cli.main import execute
from harness.rerun import compare_fits


def an_alert(root: Path) -> tuple[int, str]:
    """Return an alert with some history, and its file."""
    with Catalog(root / "catalog.duckdb", read_only=True) as catalog:
        sql = (
            "SELECT diaSourceId, visit, detector FROM alert WHERE emitted ORDER BY nHistory DESC, 1"
        )
        row = catalog.rows(sql)[0]
    return row["diaSourceId"], f"alerts/{row['visit']}_{row['detector']:02d}.avro"


@pytest.mark.slow
def test_alert_is_made_again_from_raw_byte_by_byte(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number, name = an_alert(campaign)
    kept = tmp_path / "again.avro"
    assert execute(["rerun", str(number), "-w", str(campaign), "-o", str(kept)]) == 0
    assert "identical" in capsys.readouterr().out
    assert kept.read_bytes() == (campaign / name).read_bytes()


@pytest.mark.slow
def test_what_differs_on_the_way_to_an_alert_is_named(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(campaign, tmp_path / "tiny"))
    number, name = an_alert(copy)
    alerts = copy / name
    alerts.write_bytes(alerts.read_bytes()[:-1] + b"x")
    assert execute(["rerun", str(number), "-w", str(copy)]) == 1
    text = capsys.readouterr().out
    assert f"differs: {name}: bytes differ" in text
    assert f"{name} was changed" in text
    assert text.count("differs:") == 1


def test_alert_that_is_not_there_is_one_line(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["rerun", "17", "-w", str(campaign)]) == 2
    assert "there is no alert 17" in capsys.readouterr().err


@pytest.mark.slow
def test_campaign_made_again_has_the_same_catalogue(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "again"
    assert execute(["rerun", str(campaign), str(into), "-q", "-j", "2"]) == 0
    assert "identical" in capsys.readouterr().out
    assert len(list((into / "products").rglob("*.fits"))) == 24
    assert execute(["rerun", str(campaign), str(into), "-q"]) == 2  # it is there already


def compressed(path: Path, pixels: np.ndarray, how: str = "RICE_1", **cards: object) -> Path:
    """Write an image and a plain one with the same name of HDUs and cards."""
    image = fits.CompImageHDU(pixels, name="IMAGE", compression_type=how)
    image.header.update(cards)
    plain = fits.ImageHDU(np.arange(12.0).reshape(3, 4), name="KERNEL")
    fits.HDUList([fits.PrimaryHDU(), image, plain]).writeto(path)
    return path


def test_files_differ_by_their_pixels_and_cards_however_they_are_stored(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(-9, 9, (40, 50)).astype(np.int32)
    other = pixels.copy()
    other[7, 5] += 1
    old = compressed(tmp_path / "old.fits", pixels, BUNIT="nJy", DATE="then")
    again = compressed(tmp_path / "again.fits", pixels, BUNIT="nJy", DATE="now")
    stored = compressed(tmp_path / "stored.fits", pixels, "GZIP_1", BUNIT="nJy")
    changed = compressed(tmp_path / "changed.fits", other, BUNIT="nJy")
    renamed = compressed(tmp_path / "renamed.fits", pixels, BUNIT="adu")
    assert compare_fits(old, again) == []
    assert compare_fits(old, stored) == []  # other bytes, the same pixels
    assert compare_fits(old, changed) == ["IMAGE: 1 of 2000 values differ"]
    assert compare_fits(old, renamed) == ["IMAGE card BUNIT: 'nJy' became 'adu'"]
    with fits.open(old) as hdus:
        hdus["KERNEL"].data[1, 1] = -1.0
        hdus.writeto(tmp_path / "kernel.fits")
    assert compare_fits(old, tmp_path / "kernel.fits") == ["KERNEL: 1 of 12 values differ"]


def test_the_same_bytes_scaled_otherwise_are_other_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).normal(size=(40, 50)).astype(np.float32)
    old, new = (compressed(tmp_path / f"{n}.fits", pixels) for n in ("old", "new"))
    with fits.open(new, mode="update", disable_image_compression=True) as hdus:
        hdus[1].header["ZDITHER0"] = hdus[1].header.get("ZDITHER0", 1) + 1
        hdus[1].header["ZQUANTIZ"] = "SUBTRACTIVE_DITHER_1"
    assert any("values differ" in line for line in compare_fits(old, new))
