"""Injection of sources into an image: its PSF and zero point, and their photon noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.fft import irfft2, next_fast_len, rfft2

from pipeline import schema
from pipeline.exposure import Exposure, FloatArray, Image, Mask, Psf
from pipeline.masks import bits
from pipeline.schema import to_numpy
from sims.streams import stream

__all__ = ["paint"]

_FOOTPRINT = 0.1  # sigma of a pixel from which a source marks it
_CORE = 1.5  # pixels
_PADDING = 16


def paint(
    exposure: Exposure,
    injections: pa.Table,
    *,
    seed: int,
    template: bool = False,
) -> tuple[Exposure, pa.Table]:
    """Add sources to an image.

    Parameters
    ----------
    exposure : Exposure
        Visit image with a PSF; with a WCS the sources are put at their ``ra`` and ``dec``, else
        at ``x`` and ``y``.
    injections : pyarrow.Table
        Rows of `schema.INJECTION`.
    seed : int
        Seed of their photon noise.
    template : bool
        Whether the image goes into a template: then the sources of kind ``template_only`` are
        painted, with the opposite of their flux on the difference, and no others.

    Returns
    -------
    exposure : Exposure
        A copy: image, variance and mask changed, ``INJECTED`` where a source is visible.
    injections : pyarrow.Table
        The same rows for this visit and detector; ``placed`` and ``reason`` say which could not
        be put here: ``off_image``, ``no_data``, ``no_psf``, ``other_image`` (a source of the
        template in a science image or the reverse).

    Notes
    -----
    A source is the PSF at its place, shifted by phases in Fourier space, smeared along its trail,
    times its flux: the flux within 12 pixels, as everywhere.  Its photons are drawn from a Poisson
    distribution of the electrons that the flux stands for.
    """
    info = exposure.info
    rows = _positions(exposure, injections)
    reasons = [_reason(exposure, row, template) for row in rows]
    image, variance, mask = exposure.image.copy(), exposure.variance.copy(), exposure.mask.copy()
    unit = exposure.photo_calib.njy_per_electron if exposure.photo_calib else 1.0
    for row, reason in zip(rows, reasons, strict=True):
        if reason is not None or exposure.psf is None:
            continue
        rng = stream(seed, info.visit, info.detector, f"photons of injection {row['injectionId']}")
        stamp, x0, y0 = _stamp(exposure.psf, row)
        electrons = abs(row["flux"]) / unit * stamp
        _add((image, variance, mask), electrons, x0, y0, unit, rng)
        _mark_core(mask, row["x"], row["y"])
    painted = exposure.replace(image=image, variance=variance, mask=mask)
    return painted, _answer(injections, rows, reasons, info.visit, info.detector)


def _positions(exposure: Exposure, injections: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = injections.to_pylist()
    ra, dec = to_numpy(injections, "ra"), to_numpy(injections, "dec")
    x, y = to_numpy(injections, "x"), to_numpy(injections, "y")
    ahead = x.copy(), y.copy()
    if exposure.wcs is not None and np.isfinite(ra).all() and len(rows):
        x, y = exposure.wcs.all_world2pix(ra, dec, 0)
        ahead = _ahead(exposure, injections, ra, dec)
    for k, row in enumerate(rows):
        row["x"], row["y"] = float(x[k]), float(y[k])
        row["trail"] = float(ahead[0][k] - x[k]), float(ahead[1][k] - y[k])
    return rows


def _ahead(
    exposure: Exposure, injections: pa.Table, ra: FloatArray, dec: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Pixels of the points a whole trail ahead of the sources."""
    length = np.nan_to_num(to_numpy(injections, "trailLength")) / 3600.0
    angle = np.radians(np.nan_to_num(to_numpy(injections, "trailAngle")))
    east = length * np.sin(angle) / np.cos(np.radians(dec))
    x, y = exposure.wcs.all_world2pix(ra + east, dec + length * np.cos(angle), 0)  # type: ignore[union-attr]
    return x, y


def _reason(exposure: Exposure, row: dict[str, Any], template: bool) -> str | None:
    ny, nx = exposure.shape
    column, line = round(row["x"]), round(row["y"])
    if not row["placed"]:
        return str(row["reason"])
    if (row["kind"] == "template_only") != template:
        return "other_image"
    if exposure.psf is None:
        return "no_psf"
    if not (0 <= column < nx and 0 <= line < ny):
        return "off_image"
    if int(exposure.mask[line, column]) & int(bits("NO_DATA")):
        return "no_data"
    return None


def _stamp(psf: Psf, row: dict[str, Any]) -> tuple[FloatArray, int, int]:
    """Unit-flux image of a source and the pixel of its lower left corner."""
    x0, y0 = int(np.floor(row["x"])), int(np.floor(row["y"]))
    core = psf.at(row["x"], row["y"])
    half = core.shape[0] // 2
    tx, ty = row["trail"]
    pad = _PADDING + int(np.ceil(0.5 * np.hypot(tx, ty)))
    width = core.shape[0] + 2 * pad
    side = next_fast_len(width, real=True)
    padded = np.zeros((side, side))
    padded[pad : pad + len(core), pad : pad + len(core)] = core
    ky = 2 * np.pi * np.fft.fftfreq(side)[:, None]
    kx = 2 * np.pi * np.fft.rfftfreq(side)[None, :]
    there = rfft2(padded) * np.exp(-1j * ky * (row["y"] - y0)) * np.exp(-1j * kx * (row["x"] - x0))
    if tx or ty:
        there *= np.sinc((kx * tx + ky * ty) / (2 * np.pi))
    moved = irfft2(there, padded.shape)[:width, :width]
    positive = np.maximum(moved, 0.0)
    return positive * (core.sum() / positive.sum()), x0 - half - pad, y0 - half - pad


def _add(
    planes: tuple[Image, Image, Mask],
    electrons: FloatArray,
    x0: int,
    y0: int,
    unit: float,
    rng: np.random.Generator,
) -> None:
    image, variance, mask = planes
    ny, nx = image.shape
    side = len(electrons)
    photons = rng.poisson(electrons)
    left, right = max(0, -x0), min(side, nx - x0)
    low, high = max(0, -y0), min(side, ny - y0)
    if left >= right or low >= high:
        return
    inside = slice(y0 + low, y0 + high), slice(x0 + left, x0 + right)
    part = slice(low, high), slice(left, right)
    visible = electrons[part] * unit > _FOOTPRINT * np.sqrt(variance[inside])
    image[inside] += (photons[part] * unit).astype(np.float32)
    variance[inside] += (electrons[part] * unit**2).astype(np.float32)
    mask[inside] |= np.where(visible, bits("INJECTED"), np.uint32(0))


def _mark_core(mask: Mask, x: float, y: float) -> None:
    j, i = np.ogrid[: mask.shape[0], : mask.shape[1]]
    rows = slice(max(0, round(y) - 2), round(y) + 3)
    columns = slice(max(0, round(x) - 2), round(x) + 3)
    near: npt.NDArray[np.bool_] = np.hypot(i[:, columns] - x, j[rows] - y) <= _CORE
    mask[rows, columns] |= np.where(near, bits("INJECTED_CORE"), np.uint32(0))


def _answer(
    injections: pa.Table,
    rows: list[dict[str, Any]],
    reasons: list[str | None],
    visit: int,
    detector: int,
) -> pa.Table:
    columns: dict[str, Any] = {name: injections[name] for name in injections.column_names}
    columns |= {
        "x": [row["x"] for row in rows],
        "y": [row["y"] for row in rows],
        "placed": [reason is None for reason in reasons],
        "reason": reasons,
    }
    columns = {k: v for k, v in columns.items() if k not in ("visit", "detector")}
    return schema.INJECTION.to_arrow(columns, visit=visit, detector=detector)
