"""Ten cameras that nobody knows, from their files alone to the width of the score.

Usage: ``python -m bench.bench_cameras science [NAME...]``.  Each camera writes three exposures of
one field its own way: cards, units, scaling, compression, extensions, projection and time.  They go
through ``camera new``, ``init``, ``ingest`` and ``run``: the deepest exposure is the template, the
second has no changes, the third has sixteen.  ``subtract`` gets the first and the third as files;
it must find what ``run`` finds, where it finds it and as bright.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import astropy.units as u
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.coordinates import FK4, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from bench.pairs import profile
from bench.report import reporter
from harness.cli.main import execute

SEED, SIDE, STARS, CHANGES = 1505, 512, 150, 16
NJY = 57.0
"""Flux of one electron of an exposure, nJy."""
DAYS = (0.0, 40.1, 41.2)
SKY = (0.7, 1.0, 1.1)
"""Sky of the exposures over that of the camera."""
SEEING = (0.92, 1.0, 1.06)
report = reporter("cameras")
CENTRE = SkyCoord(150.1, 2.2, unit="deg")

Rng = np.random.Generator
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Instrument:
    """How a camera writes its exposures.

    Attributes
    ----------
    gain, noise : float
        Electrons per stored unit, electrons of read noise.
    sky : float
        Electrons of sky per pixel.
    scale, fwhm : float
        Arcsec per pixel, pixels.
    cards : mapping
        Cards of every header.
    start : str
        How the start of the exposure is written.
    frame : str
        Projection and frame of the coordinates.
    form : str
        How the pixels are stored.
    """

    gain: float
    cards: Mapping[str, Any] = field(default_factory=dict)
    start: str = "DATE-OBS"
    frame: str = "TAN"
    form: str = "f4"
    noise: float = 6.0
    sky: float = 900.0
    scale: float = 0.4
    fwhm: float = 3.6


INSTRUMENTS: dict[str, Instrument] = {
    "plain": Instrument(
        2.0, {"GAIN": 2.0, "RDNOISE": 6.0, "SATURATE": 6e4, "EXPTIME": 60.0, "FILTER": "r"}
    ),
    "cmos": Instrument(
        0.8, {"GAIN": 120, "EGAIN": 0.8, "EXPOSURE": 60.0, "FILTER": "Sloan r'"},
        start="DATE-OBS+TIME-OBS", frame="CROTA", form="u2.gz", noise=2.0, sky=400.0, scale=1.1,
        fwhm=2.8,
    ),
    "electrons": Instrument(
        1.0, {"GAIN": 1.0, "RDNOISE": 9.0, "EXPTIME": 60.0, "FILTER": "rp", "BUNIT": "electron"},
        start="DATE-BEG", form="sci err bpm", noise=9.0, scale=0.58, fwhm=3.2,
    ),
    "distorted": Instrument(
        1.6, {"GAIN": 1.6, "READNOI": 8.0, "SATURATE": 5e4, "EXPTIME": "60.0", "FILTER": "ZTF_r"},
        start="OBSMJD", frame="TPV", noise=8.0, scale=1.0, fwhm=2.6,
    ),
    "tiled": Instrument(
        1.7, {"GAIN": 1.7, "RDNOISE": 5.0, "EXPTIME": 60.0, "FILTER": "r.MP9601"},
        start="DATE-OBS+UTC-OBS", frame="SIP", form="f4.fz", noise=5.0, scale=0.19, fwhm=4.4,
    ),
    "plates": Instrument(
        3.0, {"EPADU": 3.0, "READNOIS": 12.0, "EXPTIME": 60.0, "FILTER1": "SDSS-R"},
        start="DATE-OBS+UT", frame="FK4", form="i2", noise=12.0, scale=0.9, fwhm=3.0,
    ),
    "galactic": Instrument(
        4.0, {"GAIN": "4.0 e-/ADU", "EXP_TIME": 60.0, "FILTNAM": "r_SDSS"},
        start="MJD-OBS", frame="GALACTIC", form="cube", noise=4.0,
    ),
    "turned": Instrument(
        2.5, {"CCDGAIN": 2.5, "RON": 7.0, "EXPTIME": 60.0, "FILTER": "SDSS r"},
        start="JD", frame="SWAPPED", form="u2.bz2", noise=7.0, scale=0.7, fwhm=4.0,
    ),
    "rates": Instrument(
        60.0, {"EXPTIME": 60.0, "FILTER": "r", "BUNIT": "electron/s"},
        start="EXPSTART", form="sci wht", noise=5.0, sky=300.0, scale=0.25, fwhm=3.0,
    ),
    "without gain": Instrument(
        1.4, {"EXPTIME": 60.0, "FILTER": "r"}, start="DATE-AVG", noise=5.0, fwhm=5.0
    ),
}  # fmt: skip


def coordinates(camera: Instrument, epoch: int) -> fits.Header:
    """Header whose coordinates are written as the camera does; every exposure is dithered."""
    kind, centre = camera.frame, CENTRE
    types = {"GALACTIC": ("GLON-TAN", "GLAT-TAN"), "SWAPPED": ("DEC--TAN", "RA---TAN")}
    header = fits.Header()
    suffix = {"TPV": "TPV", "SIP": "TAN-SIP"}.get(kind, "TAN")
    header["CTYPE1"], header["CTYPE2"] = types.get(kind, (f"RA---{suffix}", f"DEC--{suffix}"))
    if kind == "FK4":
        centre = CENTRE.transform_to(FK4(equinox="B1950"))
        header["RADESYS"], header["EQUINOX"] = "FK4", 1950.0
    place = centre.ra.deg, centre.dec.deg
    if kind == "GALACTIC":
        place = CENTRE.galactic.l.deg, CENTRE.galactic.b.deg
    scale, angle = camera.scale / 3600, np.radians(epoch - 1.0)
    turn = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if kind == "SWAPPED":
        place, turn = place[::-1], turn[::-1]
    header["CRVAL1"], header["CRVAL2"] = place
    header["CRPIX1"], header["CRPIX2"] = SIDE / 2 + 3.3 * epoch, SIDE / 2 - 2.1 * epoch
    if kind == "CROTA":
        header["CDELT1"], header["CDELT2"] = -scale, scale
        header["CROTA2"] = float(-np.degrees(angle))
    else:
        for (i, j), value in np.ndenumerate(turn):
            header[f"CD{i + 1}_{j + 1}"] = value
    if kind == "TPV":
        for axis in (1, 2):
            header[f"PV{axis}_1"], header[f"PV{axis}_7"] = 1.0, 0.4
    if kind == "SIP":
        header["A_ORDER"], header["A_2_0"] = 2, 2e-6
        header["B_ORDER"], header["B_1_1"] = 2, -3e-6
    return header


def dated(camera: Instrument, epoch: int) -> dict[str, Any]:
    """Cards of the time, and nothing else that tells it."""
    start = Time("2020-01-02T03:04:05", scale="utc") + DAYS[epoch] * u.day
    day, clock = start.isot.split("T")
    match camera.start.split("+"):
        case ["DATE-AVG"]:
            return {"DATE-AVG": (start + 30 * u.s).isot}
        case [key] if key.startswith("DATE"):
            return {key: start.isot}
        case ["JD"]:
            return {"JD": start.jd}
        case [key]:
            return {key: start.mjd}
        case [key, other]:
            return {key: day, other: clock}
    raise ValueError(camera.start)


def electrons(
    camera: Instrument, header: fits.Header, epoch: int, sky: Mapping[str, Any]
) -> Floats:
    """Electrons of one exposure, with its noise."""
    rng = np.random.default_rng([SEED, epoch, len(camera.frame), int(10 * camera.fwhm)])
    flux = np.where(sky["change"] & (epoch < 2), 0.0, sky["flux"])
    image = np.full((SIDE, SIDE), camera.sky * SKY[epoch])
    width = (camera.fwhm * SEEING[epoch] / 2.2) ** 2
    x, y = WCS(header).world_to_pixel(sky["place"])
    for x0, y0, f in zip(x, y, flux, strict=True):
        j, i = max(round(y0) - 40, 0), max(round(x0) - 40, 0)
        part = image[j : round(y0) + 41, i : round(x0) + 41]
        dx = np.arange(i, i + part.shape[1])[None] - x0
        part += f * profile(dx, np.arange(j, j + part.shape[0])[:, None] - y0,
                            (width, width, 0.0), (0.0, 0.0, 0.0))  # fmt: skip
    return rng.poisson(image) + rng.normal(0.0, camera.noise, image.shape)


def stored(camera: Instrument, image: Floats, header: fits.Header, path: Path) -> Path:
    """Write the exposure the camera's way."""
    form, _, packed = camera.form.partition(".")
    pixels = image / camera.gain
    error = np.sqrt(np.maximum(image, 1.0) + camera.noise**2) / camera.gain
    if form in ("i2", "u2"):
        pixels = np.clip(np.rint(pixels), 0, 32_000).astype(form)
    elif form == "cube":
        pixels = pixels[None]
    pixels = pixels if form in ("i2", "u2") else pixels.astype(np.float32)
    hdus: list[Any] = [fits.PrimaryHDU(pixels, header)]
    if form.startswith("sci"):
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels, header, name="SCI")]
    if "err" in form:
        bad = np.zeros(image.shape, np.uint8)
        bad[200:203, 100:160] = 1
        hdus += [fits.ImageHDU(error.astype(np.float32), name="ERR"),
                 fits.ImageHDU(bad, name="BPM")]  # fmt: skip
    if "wht" in form:
        hdus.append(fits.ImageHDU((1 / error**2).astype(np.float32), name="WHT"))
    if packed == "fz":
        hdus = [fits.PrimaryHDU(), fits.CompImageHDU(pixels, header, quantize_level=16.0)]
    path = path.with_suffix(".fits" + (f".{packed}" if packed else ""))
    fits.HDUList(hdus).writeto(path)
    return path


def scene(camera: Instrument) -> dict[str, Any]:
    """Stars of constant light and changes on a grid, with their places in the third exposure."""
    rng = np.random.default_rng([SEED, int(100 * camera.scale)])
    header = coordinates(camera, 2)
    grid = (np.arange(4) + 0.5) * SIDE / 4
    x, y = (a.ravel() + rng.uniform(-20, 20, CHANGES) for a in np.meshgrid(grid, grid))
    x, y = (np.append(a, rng.uniform(12, SIDE - 12, STARS)) for a in (x, y))
    noise = 2 * np.sqrt(np.pi) * camera.fwhm / 2.35 * np.sqrt(camera.sky + camera.noise**2)
    flux = noise * np.append(rng.uniform(25, 50, CHANGES), 10 ** rng.uniform(1.2, 2.6, STARS))
    place = WCS(header).pixel_to_world(x, y).icrs  # pixel_to_skycoord exchanges x and y of "turned"
    return {"place": place, "flux": flux, "change": np.arange(len(x)) < CHANGES, "x": x, "y": y}


def exposures(camera: Instrument, folder: Path, sky: Mapping[str, Any]) -> list[Path]:
    """Write the three exposures and the reference catalogue."""
    star = ~sky["change"]
    place, flux = sky["place"][star], NJY * sky["flux"][star]
    table = pa.table({"ra": place.ra.deg, "dec": place.dec.deg, "rFlux": flux})
    pq.write_table(table, folder / "reference.parquet")
    paths = []
    for epoch in range(3):
        header = coordinates(camera, epoch)
        header.update(camera.cards)
        header.update(dated(camera, epoch))
        image = electrons(camera, header, epoch, sky)
        paths.append(stored(camera, image, header, folder / f"v{epoch}"))
    return paths


def called(*command: object) -> None:
    """Run a command of nightjar."""
    with contextlib.redirect_stdout(sys.stderr):
        code = execute([str(word) for word in command])
    if code:
        raise RuntimeError(f"nightjar {' '.join(str(word) for word in command)}: exit {code}")


def processed(camera: Instrument, folder: Path, sky: Mapping[str, Any]) -> dict[str, Any]:
    """Both ways of the exposures: widths of the differences, and sources of the last one."""
    files = exposures(camera, folder, sky)
    space, definition = folder / "w", folder / "camera.toml"
    called("camera", "new", *files, "-o", definition, "--name", "stranger")
    called("init", space, "--camera", definition)
    settings = space / "nightjar.toml"
    text = settings.read_text().replace("template_inputs = 3", "template_inputs = 1")
    settings.write_text(text)
    called("ingest", space, *files, "--refcat", folder / "reference.parquet")
    called("run", space, "-j", "1", "-q")
    called("subtract", files[2], files[0], "-o", folder / "out", "--camera", definition)
    alone = pq.read_table(folder / "out" / "detections.parquet").to_pydict()
    with duckdb.connect(space / "catalog.duckdb", read_only=True) as catalog:
        widths = catalog.execute(
            "select visit, noiseRatio, scoreStd from difference_image order by visit"
        ).fetchall()
        chain = catalog.execute(
            "select x, y, psfFlux, psfFluxErr from DiaSource where not isSubThreshold"
            f" and visit = {widths[-1][0]}"
        ).fetchnumpy()
    return {"widths": widths, "chain": chain, "alone": alone}


def compared(camera: Instrument, sky: Mapping[str, Any], found: Mapping[str, Any]) -> list[Floats]:
    """Distance, pixels, difference of flux over its error, and true pull, of changes in both."""
    alone = {k: np.array(found["alone"][k], float) for k in ("x", "y", "psfFlux", "psfFluxErr")}
    chain, rows = found["chain"], []
    for x, y, flux in zip(sky["x"][:CHANGES], sky["y"][:CHANGES], sky["flux"], strict=False):
        far = [np.hypot(t["x"] - x, t["y"] - y) for t in (chain, alone)]
        a, b = (int(np.argmin(r)) for r in far)
        if max(far[0][a], far[1][b]) > 2.0:
            continue
        unit = 1 / (NJY * camera.gain)
        gap = chain["psfFlux"][a] * unit - alone["psfFlux"][b]
        apart = np.hypot(chain["x"][a] - alone["x"][b], chain["y"][a] - alone["y"][b])
        pull = (chain["psfFlux"][a] - NJY * flux) / chain["psfFluxErr"][a]
        rows.append([apart, gap / alone["psfFluxErr"][b], pull])
    return list(np.array(rows).reshape(-1, 3).T)


def measure(name: str, camera: Instrument) -> None:
    """Measure one camera."""
    sky = scene(camera)
    with tempfile.TemporaryDirectory(dir=os.environ.get("NIGHTJAR_SCRATCH")) as scratch:
        found = processed(camera, Path(scratch), sky)
    for (_, pixel, score), kind in zip(found["widths"], ("null", "changes"), strict=True):
        report(f"{name}: D/√V, {kind}", pixel, "", 1.03, 1, low=0.97)
        report(f"{name}: score, {kind}", score, "", 1.03, 1, low=0.97)
    apart, gap, pull = compared(camera, sky, found)
    n = len(gap)
    report(f"{name}: changes found both ways", n, "", CHANGES - 1, CHANGES, least=True)
    if n:
        report(f"{name}: flux apart, largest", np.abs(gap).max(), "error", 0.5, n)
        report(f"{name}: places apart, largest", apart.max(), "pixel", 0.1, n)
        report(f"{name}: mean pull of the flux", pull.mean(), "error", 0.75, n, low=-0.75)


def main() -> None:
    """Measure all cameras, or those that are named."""
    if sys.argv[1:2] != ["science"]:
        return
    for name in sys.argv[2:] or INSTRUMENTS:
        try:
            measure(name, INSTRUMENTS[name])
        except (RuntimeError, ValueError) as err:
            report(f"{name}: {err}", None, "", None, 0, holds=False)


if __name__ == "__main__":
    main()
