"""Reference stars from an archive: never needed, fetched when asked, one clear line when not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from harness.cli.main import execute
from harness.ingest.archives import fetch_refcat
from pipeline import io

IMAGE = [30.1, -5.1, 29.9, -5.1, 29.9, -4.9, 30.1, -4.9]


def gaia() -> Table:
    """Two stars like the Sun, one without a measured motion and colour."""
    return Table({
        "Source": np.array([5_000_000_000_000_000_001, 7]),
        "RA_ICRS": [30.0, 30.01], "DE_ICRS": [-5.0, -5.01],
        "e_RA_ICRS": [0.02, 0.5], "e_DE_ICRS": [0.03, 0.6],
        "pmRA": MaskedColumn([12.0, 0.0], mask=[False, True]),
        "pmDE": MaskedColumn([-3.0, 0.0], mask=[False, True]),
        "Plx": MaskedColumn([1.0, 0.0], mask=[False, True]),
        "Gmag": [16.0, 20.0],
        "BPmag": MaskedColumn([16.33, 0.0], mask=[False, True]), "RPmag": [15.51, 19.5],
    })  # fmt: skip


def panstarrs() -> Table:
    """A star and a galaxy."""
    table = Table({"objID": np.array([1, 2]), "RAJ2000": [30.0, 30.01], "DEJ2000": [-5.0, -5.01],
                   "e_RAJ2000": [0.002, 0.01], "e_DEJ2000": [0.003, 0.01]})  # fmt: skip
    for band in "grizy":
        table[f"{band}mag"], table[f"e_{band}mag"] = [17.0, 18.0], [0.01, 0.02]
    table["iKmag"] = [17.02, 17.5]
    return table


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Put a false astroquery in place, with an answer or an error; its questions are recorded."""

    def install(answer: Table | Exception | None) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        class Vizier:
            def __init__(self, **options: Any) -> None:
                self.options = options

            def query_region(self, where: Any, **more: Any) -> list[Table]:
                asked.append({**self.options, **more, "ra": where.ra.deg, "dec": where.dec.deg})
                if isinstance(answer, Exception):
                    raise answer
                return [] if answer is None else [answer]

        package, module = ModuleType("astroquery"), ModuleType("astroquery.vizier")
        module.Vizier = Vizier  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "astroquery", package)
        monkeypatch.setitem(sys.modules, "astroquery.vizier", module)
        return asked

    return install


def test_gaia(archive: Any) -> None:
    asked = archive(gaia())

    stars = fetch_refcat("gaia", [IMAGE]).to_pylist()

    (question,) = asked
    assert (question["catalog"], question["row_limit"]) == ("I/355/gaiadr3", -1)
    assert (question["ra"], question["dec"]) == (pytest.approx(30.0), pytest.approx(-5.0))
    assert question["radius"].to_value("deg") > 0.14  # the corners and a margin
    faint, bright = stars
    assert bright["objectId"] == 5_000_000_000_000_000_001
    assert bright["pmRa"] == pytest.approx(12.0)
    assert bright["epochMjdTai"] == 57388.5
    # The Sun's G - r is 0.03 and its G - g -0.43, which the polynomials meet within their scatter.
    assert -2.5 * np.log10(bright["rFlux"]) + 31.4 == pytest.approx(15.97, abs=0.04)
    assert -2.5 * np.log10(bright["gFlux"]) + 31.4 == pytest.approx(16.43, abs=0.08)
    assert (faint["pmRa"], faint["rFlux"]) == (None, None)


def test_panstarrs_without_its_galaxies(archive: Any) -> None:
    archive(panstarrs())

    (star,) = fetch_refcat("ps1", [IMAGE]).to_pylist()

    assert star["objectId"] == 1
    assert star["raErr"] == pytest.approx(2.0)
    assert star["iFlux"] == pytest.approx(10 ** (0.4 * (31.4 - 17.0)), rel=1e-5)


def test_dithered_images_are_one_question(archive: Any) -> None:
    asked = archive(gaia())
    dithered = [x + 0.01 for x in IMAGE]
    elsewhere = [x + 3.0 * (n % 2 == 0) for n, x in enumerate(IMAGE)]

    stars = fetch_refcat("gaia", [IMAGE, dithered, elsewhere, []])

    assert len(asked) == 2
    assert stars.num_rows == 2  # every star once


@pytest.fixture
def campaign(tmp_path: Path) -> tuple[Path, str]:
    root, frame = tmp_path / "w", fits.PrimaryHDU(np.ones((64, 64), np.float32))
    frame.header.update({
        "EXPTIME": 30.0, "DATE-OBS": "2020-01-01T01:00:00", "FILTER": "r", "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN", "CRVAL1": 30.0, "CRVAL2": -5.0, "CDELT1": -1e-4, "CDELT2": 1e-4,
    })  # fmt: skip
    frame.writeto(tmp_path / "a.fits")
    assert execute(["init", str(root), "--camera", "generic"]) == 0
    return root, str(tmp_path / "a.fits")


def test_ingest_fetches(campaign: tuple[Path, str], archive: Any) -> None:
    root, frame = campaign
    archive(gaia())

    assert execute(["ingest", str(root), frame, "--fetch-refcat", "gaia"]) == 0

    assert io.read_parquet(root / "refcat" / "refcat.parquet").num_rows == 2
    assert execute(["ingest", str(root), frame, "--fetch-refcat", "gaia"]) == 0
    assert io.read_parquet(root / "refcat" / "refcat.parquet").num_rows == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ConnectionError("no route\nto host"), ["could not be fetched", "no route to host"]),
        (None, ["has no stars here"]),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    campaign: tuple[Path, str],
    archive: Any,
    capsys: pytest.CaptureFixture[str],
    answer: Exception | None,
    words: list[str],
) -> None:
    root, frame = campaign
    archive(answer)

    assert execute(["ingest", str(root), frame, "--fetch-refcat", "ps1"]) == 2

    said = capsys.readouterr().err
    assert all(word in said for word in [*words, "--refcat"])
    assert said.count("\n") == 1
    assert not (root / "raw" / "frames.parquet").exists()


def test_without_astroquery(
    campaign: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, frame = campaign
    monkeypatch.setitem(sys.modules, "astroquery.vizier", None)
    monkeypatch.setitem(sys.modules, "astroquery", None)

    assert execute(["ingest", str(root), frame, "--fetch-refcat", "gaia"]) == 2

    said = capsys.readouterr().err
    assert "pip install nightjar[fetch]" in said
    assert said.count("\n") == 1


def test_one_catalogue_at_a_time(
    campaign: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, frame = campaign
    both = ["--refcat", frame, "--fetch-refcat", "gaia"]

    assert execute(["ingest", str(root), frame, *both]) == 2
    assert "not both" in capsys.readouterr().err
