"""Which sources to inject: strata in signal-to-noise ratio, host brightness and offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.exposure import Exposure, FloatArray
from pipeline.schema import to_numpy
from pipeline.sphere import turned
from pipeline.wcs import pixel_scale
from sims.streams import stream

__all__ = ["Design", "draw", "null_sigma"]

_BOX = 64  # half side of the box whose median variance stands for the sky
_SCALE_LENGTH = 1.678  # half-light radius of an exponential disk in scale lengths


@dataclass(frozen=True, slots=True)
class Design:
    """What a study injects into each image.

    Attributes
    ----------
    n : int
        Sources per image.
    snr : tuple of float
        Range of the true signal-to-noise ratio on the difference, drawn log-uniformly.
    hosted : float
        Fraction on galaxies.
    host_limits : tuple of float, nJy
        Faintest and brightest host in the image's band; strata are even in magnitude.
    offsets : tuple of float
        Range of the distance from the host's centre in its half-light radii.
    template_only : float
        Fraction that is put into the templates instead and is negative on the difference.
    trailed : float
        Fraction that moves during the exposure.
    trail_lengths : tuple of float, arcsec
        Range of their lengths.
    noise : float
        Noise of the difference in units of that of the image alone.
    edge : float, pixel
        Margin without injections.
    """

    n: int = 100
    snr: tuple[float, float] = (3.0, 50.0)
    hosted: float = 0.5
    host_limits: tuple[float, float] = (600.0, 300_000.0)
    offsets: tuple[float, float] = (0.0, 2.0)
    template_only: float = 0.1
    trailed: float = 0.1
    trail_lengths: tuple[float, float] = (1.0, 5.0)
    noise: float = 1.15
    edge: float = 20.0


def draw(
    design: Design,
    exposure: Exposure,
    objects: pa.Table | None,
    *,
    seed: int,
    study: str,
) -> pa.Table:
    """Draw the sources of one image.

    Every quantity is stratified: the range is cut into as many equal parts as there are sources,
    one source falls into each, and the strata of different quantities are shuffled against each
    other (a Latin hypercube, McKay et al. 1979).

    Parameters
    ----------
    design : Design
        What to inject.
    exposure : Exposure
        Visit image with WCS and PSF.
    objects : pyarrow.Table, optional
        Rows of `schema.OBJECT`; without it nothing is hosted.
    seed : int
        Seed of the study.
    study : str
        Its identifier.

    Returns
    -------
    pyarrow.Table
        Rows of `schema.INJECTION`.  A source for which no host was left is listed with
        ``placed`` false and the reason.
    """
    info, n = exposure.info, design.n
    rng = stream(seed, info.visit, info.detector, f"injection {study}")
    ny, nx = exposure.shape
    x = _stratified(rng, n) * (nx - 1 - 2 * design.edge) + design.edge
    y = _stratified(rng, n) * (ny - 1 - 2 * design.edge) + design.edge
    kind = _kinds(rng, design)
    wanted = rng.permutation(n) < round(design.hosted * n)
    hosts = _hosts(rng, design, exposure, objects, int(wanted.sum()))
    rows = np.flatnonzero(wanted)
    got = rows[: len(hosts["x"])]
    x[got], y[got] = hosts["x"], hosts["y"]
    snr = design.snr[0] * (design.snr[1] / design.snr[0]) ** _stratified(rng, n)
    sigma = design.noise * null_sigma(exposure, x, y)
    sign = np.where(kind == "template_only", -1.0, 1.0)
    columns: dict[str, Any] = {
        "injectionId": np.arange(n),
        "x": x,
        "y": y,
        "kind": kind.tolist(),
        "flux": sign * snr * sigma,
        "trueSnr": sign * snr,
        "hostId": _scattered(n, got, hosts["id"]),
        "hostSurfaceBrightness": _scattered(n, got, hosts["brightness"]),
        "hostOffset": _scattered(n, got, hosts["offset"]),
        "placed": ~np.isin(np.arange(n), rows[len(got) :]),
        "reason": ["no_host" if i in set(rows[len(got) :]) else None for i in range(n)],
    }
    columns |= _sky_position(exposure, x, y) | _motion(rng, design, kind)
    return schema.INJECTION.to_arrow(
        columns, studyId=study, visit=info.visit, detector=info.detector, seed=seed
    )


def null_sigma(exposure: Exposure, x: FloatArray, y: FloatArray) -> FloatArray:
    """Noise of a PSF flux at positions when no source is there.

    Parameters
    ----------
    exposure : Exposure
        Image with a PSF.
    x, y : ndarray, (n,), pixel
        Positions.

    Returns
    -------
    ndarray, (n,), unit of the image
        ``√(V / Σ P²)`` with V the median variance of the surroundings.

    Raises
    ------
    ValueError
        If the image has no PSF.
    """
    if exposure.psf is None:
        raise ValueError("the exposure has no PSF")
    power = (exposure.psf.stamps(x, y) ** 2).sum(axis=(1, 2))
    level = [_median_variance(exposure, int(i), int(j)) for i, j in zip(x, y, strict=True)]
    return np.asarray(np.sqrt(np.array(level) / power))


def _median_variance(exposure: Exposure, x: int, y: int) -> float:
    rows = slice(max(0, y - _BOX), y + _BOX + 1, 4)
    box = exposure.variance[rows, max(0, x - _BOX) : x + _BOX + 1 : 4]
    good = box[np.isfinite(box)]
    return float(np.median(good)) if good.size else float("nan")


def _stratified(rng: np.random.Generator, n: int) -> FloatArray:
    return np.asarray((rng.permutation(n) + rng.random(n)) / max(n, 1))


def _kinds(rng: np.random.Generator, design: Design) -> npt.NDArray[np.str_]:
    n = design.n
    order = rng.permutation(n)
    kind = np.full(n, "point", dtype="U16")
    first, second = round(design.template_only * n), round(design.trailed * n)
    kind[order[:first]] = "template_only"
    kind[order[first : first + second]] = "trail"
    return kind


def _motion(
    rng: np.random.Generator, design: Design, kind: npt.NDArray[np.str_]
) -> dict[str, FloatArray]:
    low, high = design.trail_lengths
    length = low + (high - low) * _stratified(rng, len(kind))
    angle = rng.uniform(0.0, 360.0, len(kind))
    trailed = kind == "trail"
    return {
        "trailLength": np.where(trailed, length, np.nan),
        "trailAngle": np.where(trailed, angle, np.nan),
    }


def _scattered(n: int, rows: npt.NDArray[np.intp], values: FloatArray) -> FloatArray:
    out = np.full(n, np.nan)
    out[rows] = values
    return out


def _sky_position(exposure: Exposure, x: FloatArray, y: FloatArray) -> dict[str, FloatArray]:
    if exposure.wcs is None:
        return {}
    ra, dec = exposure.wcs.all_pix2world(x, y, 0)
    return {"ra": turned(ra), "dec": dec}


def _hosts(
    rng: np.random.Generator,
    design: Design,
    exposure: Exposure,
    objects: pa.Table | None,
    n: int,
) -> dict[str, FloatArray]:
    """Pick hosts evenly in magnitude, and a place on each; fewer if there are not enough."""
    columns = ("x", "y", "id", "brightness", "offset")
    empty = {name: np.zeros(0) for name in columns}
    if objects is None or exposure.wcs is None or n == 0:
        return empty
    band = exposure.info.band
    flux, radius = (to_numpy(objects, c) for c in (f"{band}Flux", "radius"))
    x, y = exposure.wcs.all_world2pix(to_numpy(objects, "ra"), to_numpy(objects, "dec"), 0)
    ny, nx = exposure.shape
    usable = (x > design.edge) & (x < nx - design.edge) & (y > design.edge) & (y < ny - design.edge)
    usable &= (flux > design.host_limits[0]) & (flux < design.host_limits[1]) & (radius > 0)
    rows = np.flatnonzero(usable)
    if len(rows) == 0:
        return empty
    chosen = _even_in_magnitude(rng, np.log(flux[rows]), min(n, len(rows)))
    rows = rows[chosen]
    away = design.offsets[0] + (design.offsets[1] - design.offsets[0]) * _stratified(rng, len(rows))
    angle = rng.uniform(0, 2 * np.pi, len(rows))
    pixel = 3600.0 * pixel_scale(exposure.wcs)
    distance = away * radius[rows]
    scale = radius[rows] / _SCALE_LENGTH
    return {
        "x": x[rows] + distance / pixel * np.cos(angle),
        "y": y[rows] + distance / pixel * np.sin(angle),
        "id": to_numpy(objects, "objectId")[rows].astype(float),
        "brightness": flux[rows] / (2 * np.pi * scale**2) * np.exp(-distance / scale),
        "offset": distance,
    }


def _even_in_magnitude(
    rng: np.random.Generator, brightness: FloatArray, n: int
) -> npt.NDArray[np.intp]:
    """Take `n` different rows, as evenly spread in brightness as they allow."""
    targets = rng.permutation(np.linspace(brightness.min(), brightness.max(), n))
    free = np.ones(len(brightness), bool)
    chosen = []
    for target in targets:
        rows = np.flatnonzero(free)
        row = rows[np.argmin(np.abs(brightness[rows] - target))]
        free[row] = False
        chosen.append(row)
    return np.array(chosen, np.intp)
