"""Every kind of bad input is one clear line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from harness.cli.main import execute
from pipeline import io

Edit = Callable[[fits.PrimaryHDU], None]


def write_frame(path: Path, edit: Edit | None = None, start: str = "2020-01-01T01:00:00") -> Path:
    rng = np.random.default_rng(3)
    hdu = fits.PrimaryHDU(rng.normal(200.0, 10.0, (64, 64)).astype(np.float32))
    cards = {
        "EXPTIME": 30.0, "DATE-OBS": start, "FILTER": "r", "OBJECT": "field", "GAIN": 1.5,
        "RDNOISE": 5.0, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 30.0, "CRVAL2": -5.0,
        "CRPIX1": 32.5, "CRPIX2": 32.5, "CDELT1": -1e-4, "CDELT2": 1e-4,
    }  # fmt: skip
    hdu.header.update(cards)
    if edit is not None:
        edit(hdu)
    hdu.writeto(path)
    return path


@pytest.fixture
def space(tmp_path: Path) -> Path:
    root = tmp_path / "w"
    assert execute(["init", str(root), "--camera", "generic"]) == 0
    return root


def registered(space: Path) -> bool:
    return (space / "raw" / "frames.parquet").exists() or (
        space / "raw" / "exposures.parquet"
    ).exists()


def remove(key: str) -> Edit:
    return lambda hdu: hdu.header.remove(key)


def unknown_filter(hdu: fits.PrimaryHDU) -> None:
    hdu.header["FILTER"] = "OIII"


def bad_date(hdu: fits.PrimaryHDU) -> None:
    hdu.header["DATE-OBS"] = "yesterday"


def all_nan(hdu: fits.PrimaryHDU) -> None:
    hdu.data[:] = np.nan


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (remove("EXPTIME"), ["EXPTIME", "missing keyword"]),
        (remove("FILTER"), ["FILTER", "missing keyword"]),
        (remove("CTYPE1"), ["CTYPE1", "no celestial coordinates"]),
        (unknown_filter, ["FILTER", "unknown filter 'OIII'", "ugrizy"]),
        (bad_date, ["DATE-OBS", "not a date"]),
        (all_nan, ["every pixel is NaN"]),
    ],
)
def test_bad_file_is_one_line_and_nothing_is_registered(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: Edit, words: list[str]
) -> None:
    good = write_frame(tmp_path / "good.fits")
    bad = write_frame(tmp_path / "bad.fits", edit, "2020-01-02T01:00:00")
    assert execute(["ingest", str(space), str(good), str(bad)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, lines
    assert "bad.fits" in lines[0]
    assert all(word in lines[0] for word in words), lines
    assert lines[1] == "nightjar: nothing registered"
    assert not registered(space)


def test_truncated_file(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_frame(tmp_path / "cut.fits")
    path.write_bytes(path.read_bytes()[:9000])
    assert execute(["ingest", str(space), str(path)]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert "cut.fits" in first
    assert "truncated" in first
    assert not registered(space)


@pytest.mark.parametrize("content", [b"", b"this is no FITS file" * 500])
def test_file_that_is_no_fits(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "x.fits").write_bytes(content)
    assert execute(["ingest", str(space), str(tmp_path / "x.fits")]) == 2
    assert "x.fits" in capsys.readouterr().err


def test_two_files_of_the_same_exposure(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write_frame(tmp_path / "a.fits"), write_frame(tmp_path / "b.fits")
    assert execute(["ingest", str(space), str(a), str(b)]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert "b.fits" in first
    assert "a.fits" in first
    assert "give one of the two" in first
    assert not registered(space)


def test_missing_file_and_missing_workspace(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["ingest", str(space), str(tmp_path / "none.fits")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert execute(["ingest", str(tmp_path / "nowhere"), "x.fits"]) == 2
    assert "nightjar init" in capsys.readouterr().err


def test_workspace_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert execute(["init", str(tmp_path / "file" / "w")]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert len(error.splitlines()) == 1


def test_frames_are_numbered_in_the_order_of_time_and_known_again(
    space: Path, tmp_path: Path
) -> None:
    late = write_frame(tmp_path / "a.fits", start="2020-01-03T01:00:00")
    early = write_frame(tmp_path / "b.fits", start="2020-01-01T01:00:00")
    assert execute(["ingest", str(space), str(late), str(early)]) == 0
    before = (space / "raw" / "frames.parquet").read_bytes()
    assert execute(["ingest", str(space), str(late)]) == 0
    assert (space / "raw" / "frames.parquet").read_bytes() == before
    rows = io.read_parquet(space / "raw" / "frames.parquet").to_pylist()
    assert {Path(r["file"]).name: r["visit"] for r in rows} == {"b.fits": 1, "a.fits": 2}
    assert all(len(r["corners"]) == 8 for r in rows)


def test_dry_run_registers_nothing(space: Path, tmp_path: Path) -> None:
    assert execute(["ingest", str(space), str(write_frame(tmp_path / "a.fits")), "-n"]) == 0
    assert not registered(space)


def test_catalogues_are_taken_along_or_refused_before_anything_is_written(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = str(write_frame(tmp_path / "a.fits"))
    stars, things = tmp_path / "stars.csv", tmp_path / "things.csv"
    stars.write_text("ra,dec,rMag\n30.0,-5.0,18.0\n")
    things.write_text("ra,dec,kind\n30.0,-5.0,star\n")
    both = ["--refcat", str(stars), "--objects", str(things)]
    assert execute(["ingest", str(space), frame, *both]) == 2
    assert "objectType" in capsys.readouterr().err
    assert not registered(space)
    things.write_text("ra,dec,objectType\n30.0,-5.0,star\n")
    assert execute(["ingest", str(space), frame, *both]) == 0
    assert io.read_parquet(space / "refcat" / "refcat.parquet")["rFlux"].null_count == 0
    rows = io.read_parquet(space / "refcat" / "objects.parquet").to_pylist()
    assert [r["objectType"] for r in rows] == ["star"]


def test_unit_that_fails_is_recorded_and_the_rest_goes_on(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write_frame(tmp_path / f"{d}.fits", start=f"2020-01-0{d}T01:00:00") for d in (1, 2)]
    assert execute(["ingest", str(space), *map(str, files)]) == 0
    files[1].unlink()  # gone between ingest and run
    assert execute(["run", str(space), "-q", "--set", "execution.executor=serial"]) == 1
    capsys.readouterr()
    assert execute(["status", str(space)]) == 0
    text = capsys.readouterr().out
    assert "BAD_INPUT" in text  # the file that is gone
    assert "PSF_FAILED" in text  # the frame without stars
    kept = io.read_exposure(space / "diagnosis" / "visit_image_1_01.fits")
    assert kept.provenance["FAILURE"] == "PSF_FAILED"
    assert kept.background is not None  # as far as it came
    assert abs(float(np.median(kept.image))) < float(np.sqrt(np.median(kept.variance)))
    assert not list(space.rglob("*.part"))
