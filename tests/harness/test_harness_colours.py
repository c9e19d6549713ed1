"""Colours of the reference stars of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.wcs import WCS

from harness.tasks.colours import star_colours
from pipeline.exposure import Exposure, VisitInfo
from pipeline.io import write_parquet


@pytest.fixture
def image() -> Exposure:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, -20.0]
    wcs.wcs.crpix, wcs.wcs.cdelt = [51.0, 51.0], [-1.0 / 3600.0, 1.0 / 3600.0]
    zeros = np.zeros((101, 101), np.float32)
    info = VisitInfo(1, 1, "g", 90.0, 57070.0)
    return Exposure(zeros, zeros, np.zeros(zeros.shape, np.uint32), info, wcs)


def catalogue(path: Path, **fluxes: list[float]) -> Path:
    n = len(next(iter(fluxes.values())))
    places = {"ra": 150.0 + 0.002 * np.arange(n), "dec": np.full(n, -20.0)}
    write_parquet(path, pa.table(places | {f"{band}Flux": v for band, v in fluxes.items()}))
    return path


def test_the_longest_colour_there_is(tmp_path: Path, image: Exposure) -> None:
    path = catalogue(
        tmp_path / "a.parquet",
        g=[1000.0, 100.0, 0.0, 5.0], r=[1.0, 1.0, 1.0, 1.0], i=[100.0, 1000.0, 10.0, 5.0],
    )  # fmt: skip
    found = star_colours(path, image)
    assert found is not None
    order = np.argsort(found.ra)
    assert found.colour[order][:2] == pytest.approx([-2.5, 2.5])
    assert np.isnan(found.colour[order][2])


def test_stars_elsewhere_are_left_out(tmp_path: Path, image: Exposure) -> None:
    path = catalogue(tmp_path / "b.parquet", g=[10.0] * 40, r=[20.0] * 40)
    found = star_colours(path, image)
    assert found is not None
    assert 5 < len(found.ra) < 15
    assert found.colour == pytest.approx(np.full(len(found.ra), 2.5 * np.log10(2.0)))


def test_no_colour_without_a_catalogue_or_a_second_band(tmp_path: Path, image: Exposure) -> None:
    assert star_colours(tmp_path / "none.parquet", image) is None
    assert star_colours(catalogue(tmp_path / "c.parquet", g=[10.0]), image) is None
