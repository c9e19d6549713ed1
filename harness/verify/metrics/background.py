"""Background: kept, invertible, flat on blank sky, and not eaten round bright objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from harness.verify.blanksky import blank_pixels, pixel_scale
from harness.verify.metric import Sample, metric
from harness.verify.view import View, remember
from pipeline import io
from pipeline.camera import Camera
from pipeline.statistics import clipped, mad_std, median_error

__all__ = ["row_medians"]

_SKIP = 8
"""One row of so many gives the medians of the blocks well enough."""
_ENOUGH = 400_000  # pixels give the level of the sky to 0.002 σ


@metric("blank_sky", unit="σ", product="visit_image", reads=("visit_image",), reduce="worst")
def blank_sky(view: View) -> Sample:
    """Clipped mean of the blank sky in units of its noise: what the background left over."""
    level, noise, n = _sky(view)
    return Sample(level / noise, n, 1.0 / np.sqrt(n)) if n else Sample(float("nan"), 0)


def _sky(view: View) -> tuple[float, float, int]:
    """Level and noise of the blank sky, from as many pixels as are needed; of too few nothing."""
    return remember(view, "blank sky", lambda: _measured_sky(view))


def _measured_sky(view: View) -> tuple[float, float, int]:
    values = view.visit_image.image[blank_pixels(view)]
    values = values[:: max(1, len(values) // _ENOUGH)].astype(float)
    if len(values) < 1000:
        return float("nan"), float("nan"), 0
    return _clipped_mean(values), mad_std(values), len(values)


def _clipped_mean(values: np.ndarray) -> float:
    return float(clipped(values, 2.5).mean())


@metric(
    "background_identity",
    unit="%",
    product="visit_image",
    reads=("visit_image", "raw"),
    reduce="worst",
)
def background_identity(view: View, block: int = 64) -> Sample:
    """Image + background against the raw frame reduced anew: median difference in % of the sky.

    The raw frame is reduced by the plainest recipe: overscan, bias, gain, flat; medians of blocks
    are insensitive to all that it leaves out.
    """
    image = view.visit_image
    assert image.background is not None
    assert image.photo_calib is not None
    some = slice(None, None, _SKIP)
    total = (image.image[some] + image.background[some]) / image.photo_calib.njy_per_electron
    total[image.mask[some] != 0] = np.nan
    bias, flat = _calibrations(view)
    found = []
    for amp in view.detector.amplifiers:
        rows, columns = amp.trimmed.slices
        raw = view.raw.data[amp.data.slices][some].astype(np.float32)
        raw -= np.median(view.raw.data[amp.overscan.slices][some], axis=1, keepdims=True)
        plain = (raw - bias[rows, columns][some]) * (amp.gain / flat[rows, columns][some])
        kept = total[rows.start // _SKIP : rows.start // _SKIP + len(plain), columns]
        found.append(_block_ratios(kept, plain, (block // _SKIP, block)))
    ratios = np.concatenate(found)
    if len(ratios) < 4:
        return Sample(float("nan"), 0)
    return Sample(100.0 * abs(float(np.median(ratios)) - 1.0), len(ratios))


def _calibrations(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Bias and flat of the frame; zero and one where the campaign has none."""
    bias, flat = np.zeros(view.detector.shape, np.float32), np.ones(view.detector.shape, np.float32)
    paths = view.frame.bias, view.frame.flat
    if paths[0] is not None and paths[0].is_file():
        bias = _read(io.read_bias, paths[0], paths[0].stat().st_mtime_ns, view.camera, view.number)
    if paths[1] is not None and paths[1].is_file():
        flat = _read(io.read_flat, paths[1], paths[1].stat().st_mtime_ns, view.camera, view.number)
    return bias, flat


@lru_cache(maxsize=2)
def _read(
    read: Callable[[Path, Camera, int], np.ndarray],
    path: Path,
    _modified: int,
    camera: Camera,
    number: int,
) -> np.ndarray:
    """Read bias and flat once for units of a detector that follow one another."""
    return read(path, camera, number)


def _block_ratios(total: np.ndarray, plain: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    height, width = block
    ny, nx = total.shape[0] // height, total.shape[1] // width
    if not ny or not nx:
        return np.array([])
    cut = (slice(0, ny * height), slice(0, nx * width))
    plain = np.where(np.isfinite(total), plain, np.nan)
    a, b = (
        p[cut].reshape(ny, height, nx, width).swapaxes(1, 2).reshape(-1, height * width)
        for p in (total, plain)
    )
    enough = np.isfinite(a).sum(axis=1) > height * width // 2
    return np.asarray(row_medians(a[enough]) / row_medians(b[enough]))


def row_medians(values: np.ndarray) -> np.ndarray:
    """Take the medians of rows without their NaN, as `numpy.nanmedian`, of many rows at once.

    Parameters
    ----------
    values : ndarray, (n, m)
        Rows, each with a number at least.

    Returns
    -------
    ndarray, (n,)
        In their unit and type.
    """
    ordered = np.sort(values, axis=1)  # NaN at the end
    n = (~np.isnan(values)).sum(axis=1)
    rows = np.arange(len(values))
    middle = ordered[rows, np.maximum(n - 1, 0) // 2] + ordered[rows, n // 2]
    return np.asarray(middle / values.dtype.type(2))


@metric(
    "ring_deficit",
    unit="σ",
    product="visit_image",
    reads=("visit_image", "refcat"),
    reduce="worst",
)
def ring_deficit(view: View, brightest: int = 30, inner: float = 3.0, outer: float = 5.0) -> Sample:
    """Sky in rings round the brightest objects minus blank sky, in units of the pixel noise."""
    image = view.visit_image
    positions, radii = _bright_objects(view, brightest)
    blank = (image.mask == 0) & np.isfinite(image.image)
    level, noise, n = _sky(view)
    if not n:
        return Sample(float("nan"), 0)
    rings = []
    for (x, y), radius in zip(positions, radii, strict=True):
        values = _ring(image.image, blank, x, y, inner * radius, outer * radius)
        if len(values) > 100:
            rings.append((_clipped_mean(values) - level) / noise)
    if len(rings) < 5:
        return Sample(float("nan"), 0)
    found = np.array(rings)
    # A halo dug round a few counts; a ring that a neighbour lights up does not.
    kept = found[found < np.median(found) + 3.0 * max(mad_std(found), 1e-3)]
    return Sample(float(kept.mean()), len(kept), median_error(kept))


def _bright_objects(view: View, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions and radii of the brightest objects known from outside the images."""
    image = view.visit_image
    assert image.wcs is not None
    path = view.space.objects if view.space.objects.is_file() else view.space.refcat
    table = pq.read_table(path)
    flux = table.column(f"{image.info.band}Flux").to_numpy(zero_copy_only=False)
    ra, dec = (table.column(n).to_numpy(zero_copy_only=False) for n in ("ra", "dec"))
    size = (
        table.column("radius").to_numpy(zero_copy_only=False)
        if "radius" in table.column_names
        else 0
    )
    x, y = image.wcs.all_world2pix(ra, dec, 0, quiet=True)
    ny, nx = image.shape
    inside = (x > 30) & (x < nx - 31) & (y > 30) & (y < ny - 31) & np.isfinite(flux)
    order = np.flatnonzero(inside)[np.argsort(-flux[inside], kind="stable")][:number]
    # A star's wings reach to about 4″ above the noise; a galaxy's to its own radius besides.
    radius = (4.0 + np.broadcast_to(size, flux.shape)[order]) / pixel_scale(
        image, view.camera.pixel_scale
    )
    return np.stack([x[order], y[order]], axis=1), radius


def _ring(
    image: np.ndarray, blank: np.ndarray, x: float, y: float, inner: float, outer: float
) -> np.ndarray:
    half = int(np.ceil(outer))
    rows = slice(max(round(y) - half, 0), round(y) + half + 1)
    columns = slice(max(round(x) - half, 0), round(x) + half + 1)
    yy, xx = np.mgrid[
        rows.start : rows.start + image[rows, columns].shape[0],
        columns.start : columns.start + image[rows, columns].shape[1],
    ]
    distance = np.hypot(xx - x, yy - y)
    use = (distance >= inner) & (distance < outer) & blank[rows, columns]
    return np.asarray(image[rows, columns][use], float)
