"""A camera nobody described: plain FITS images and a catalogue go all the way to a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from harness.cli.main import execute

SIDE, SCALE, SKY, GAIN, NOISE = 800, 0.31, 900.0, 1.7, 6.0
ZERO_POINT = 30.2  # AB magnitude of one count


def field(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Places and counts of stars, the bright ones apart from each other."""
    places: list[tuple[float, float]] = []
    while len(places) < 60:
        x, y = rng.uniform(40, SIDE - 40, 2)
        if all(np.hypot(x - a, y - b) > 45 for a, b in places):
            places.append((x, y))
    faint = rng.uniform(20, SIDE - 20, (60, 2))
    x, y = np.concatenate([places, faint]).T
    counts = np.concatenate([10 ** rng.uniform(4.0, 5.3, 60), 10 ** rng.uniform(3.0, 3.4, 60)])
    return x, y, counts


def coordinates(shift: float) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [210.0 + shift / 3600.0, 12.0]
    wcs.wcs.crpix, wcs.wcs.cd = [SIDE / 2, SIDE / 2], np.diag([-SCALE, SCALE]) / 3600.0
    return wcs


def frame(path: Path, day: int, fwhm: float, stars: tuple[Any, Any, Any]) -> None:
    """Write one exposure of Moffat stars; its header points two arcsec wrong."""
    rng = np.random.default_rng(day)
    light = np.full((SIDE, SIDE), SKY)
    radius = fwhm / (2.0 * np.sqrt(2.0 ** (1 / 3.3) - 1.0))
    k = np.arange(-26, 27)
    for x, y, counts in zip(*stars, strict=True):
        column, row = round(x), round(y)
        u, v = k[None, :] - (x - column), k[:, None] - (y - row)
        stamp = (1.0 + (u**2 + v**2) / radius**2) ** -3.3
        stamp *= counts / stamp[np.hypot(u, v) <= 12.0].sum()
        ys, xs = row + k, column + k
        on_y, on_x = (ys >= 0) & (ys < SIDE), (xs >= 0) & (xs < SIDE)
        light[np.ix_(ys[on_y], xs[on_x])] += stamp[np.ix_(on_y, on_x)]
    counts = rng.poisson(light * GAIN) / GAIN + rng.normal(0.0, NOISE / GAIN, light.shape)
    hdu = fits.PrimaryHDU(counts.astype(np.float32), coordinates(2.0).to_header())
    hdu.header.update({
        "EXPTIME": 120.0, "DATE-OBS": f"2021-03-{day:02d}T04:00:00", "FILTER": "r",
        "OBJECT": "north", "GAIN": GAIN, "RDNOISE": NOISE, "AIRMASS": 1.1, "SATURATE": 60000.0,
    })  # fmt: skip
    hdu.writeto(path)


@pytest.mark.slow
def test_plain_images_and_a_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(41)
    stars = field(rng)
    for day, fwhm in ((1, 4.2), (2, 4.6), (4, 5.0)):
        frame(tmp_path / f"{day}.fits", day, fwhm, stars)
    ra, dec = coordinates(0.0).all_pix2world(stars[0], stars[1], 0)
    catalogue = tmp_path / "stars.csv"
    magnitudes = ZERO_POINT - 2.5 * np.log10(stars[2])
    rows = zip(ra, dec, magnitudes, strict=True)
    lines = [f"{a:.9f},{d:.9f},{m:.4f}" for a, d, m in rows]
    catalogue.write_text("ra,dec,rMag\n" + "\n".join(lines) + "\n")
    space = str(tmp_path / "w")
    frames = [str(p) for p in sorted(tmp_path.glob("*.fits"))]

    assert execute(["init", space, "--camera", "generic"]) == 0
    assert execute(["ingest", space, *frames, "--refcat", str(catalogue)]) == 0
    assert execute(["run", space, "-q", "-j", "1"]) == 0
    capsys.readouterr()
    execute(["verify", space, "-q", "-j", "1", "--check", "AG-00-10", "--json"])

    (case,) = json.loads(capsys.readouterr().out)["cases"]
    checks = {f"{i['id']}/{c['id']}": c for i in case["items"] for c in i["checks"]}
    wrong = {p: c["reason"] for p, c in checks.items() if c["counts"] and c["verdict"] not in GOOD}
    assert wrong == {}
    assert case["verdict"] == "pass"
    passed = {p for p, c in checks.items() if c["verdict"] == "pass"}
    assert {"background/blank-sky", "zero-point/kept", "psf/stars", "psf/held-out-some",
            "wcs/catalogue", "variance/open-sky"} <= passed  # fmt: skip


GOOD = ("pass", "not_applicable")
