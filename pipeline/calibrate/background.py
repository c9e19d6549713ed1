"""The sky under the sources: masked before it is measured.

A mesh absorbs a large galaxy before any threshold on top of it can find the galaxy.  Therefore a
*clipped plane* is subtracted first; the image is binned and smoothed; what stands out by 2σ is
masked, and every object's mask is widened in proportion to its radius, since what lies under the
threshold round a big object is more than round a small one.  Only then is the sky measured in
cells.  Cells that are mostly masked take their value from a low-order polynomial through the
others, and a spline through the cells is the background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibrate.config import BackgroundConfig as Config
from pipeline.compiled import compiled
from pipeline.errors import PixelError
from pipeline.exposure import FloatArray, Image, Mask, polynomial_terms
from pipeline.masks import NO_BACKGROUND, bits, flagged
from pipeline.statistics import mad_std

__all__ = ["Background", "Config", "model"]

_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """A background and how it came about.

    Attributes
    ----------
    image : ndarray, (ny, nx), float32
        Background in image units.
    metrics : mapping
        ``skyLevel`` (median), ``skyRange`` (largest minus smallest), ``skyNoise`` (of the binned
        image, per pixel), ``maskedFraction``, ``filledCells`` (fraction).
    """

    image: Image
    metrics: dict[str, float]


def model(image: Image, mask: Mask, config: Config | None = None) -> Background:
    """Model the background of an image that still has it.

    Parameters
    ----------
    image : ndarray, (ny, nx), float32
        Any linear unit.
    mask : ndarray, (ny, nx), uint32
        Bad, saturated, interpolated pixels and cosmic rays are left out.
    config : Config, optional
        Mesh and masks.

    Returns
    -------
    Background
        The model; the inputs are not changed.

    Raises
    ------
    PixelError
        If hardly any pixel is usable.
    """
    config = config or Config()
    good = np.isfinite(image)
    good &= ~flagged(mask, bits(*NO_BACKGROUND))
    usable = float(good.mean())
    if usable < 0.01:
        raise PixelError("no sky to measure", usableFraction=usable)
    values, weights = _bin(np.ascontiguousarray(image, np.float32), good, config.bin_side)
    plane = _clipped_plane(values, weights)
    sources = _sources(values - plane, weights, config)
    weights = np.where(sources, 0.0, weights)
    nodes, filled = _mesh(values, weights, config)
    sky = _spline(nodes, image.shape)
    clear = weights > 0.5
    metrics = {
        "skyLevel": float(np.median(nodes)),
        "skyRange": float(np.ptp(nodes)),
        "skyNoise": mad_std((values - plane)[clear]) * config.bin_side,
        "maskedFraction": float(sources.mean()),
        "filledCells": filled,
    }
    return Background(sky, metrics)


def _bin(image: Image, good: _Flags, side: int) -> tuple[FloatArray, FloatArray]:
    """Mean and clean fraction of square bins; partial bins at the far edges included."""
    ny, nx = -(-image.shape[0] // side), -(-image.shape[1] // side)
    values, weights = np.zeros((ny, nx)), np.zeros((ny, nx))
    _accumulate(image, good, side, values, weights)
    values /= np.maximum(weights, 1.0)
    return values, weights / side**2


@compiled
def _accumulate(
    image: Image, good: npt.NDArray[np.bool_], side: int, values: FloatArray, weights: FloatArray
) -> None:
    ny, nx = image.shape
    for y in range(ny):
        j = y // side
        for x in range(nx):
            if good[y, x]:
                values[j, x // side] += image[y, x]
                weights[j, x // side] += 1.0


def _clipped_plane(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Plane through the bins with everything above 2σ, and below 3σ, clipped."""
    thin = (slice(None, None, 4), slice(None, None, 4))  # enough to fix three numbers
    keep = weights[thin] > 0.5
    if keep.sum() < 64:
        thin = (slice(None), slice(None))
        keep = weights > 0
    v, u = np.linspace(-1, 1, values.shape[0]), np.linspace(-1, 1, values.shape[1])
    columns = [np.ones(values.shape), *np.broadcast_arrays(u[None, :], v[:, None])]
    data, basis = values[thin][keep], np.stack([c[thin][keep] for c in columns], axis=1)
    fit = np.array([np.median(data), 0.0, 0.0])
    for _ in range(8):
        residual = data - basis @ fit
        residual -= np.median(residual)
        width = mad_std(residual, 0.0) + 1e-9
        inside = (residual > -3 * width) & (residual < 2 * width)
        fit = np.linalg.lstsq(basis[inside], data[inside], rcond=None)[0]
    return np.asarray(fit[0] + fit[1] * u[None, :] + fit[2] * v[:, None])


def _terms(shape: tuple[int, ...], order: int) -> FloatArray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    size = (shape[0], shape[1])
    return polynomial_terms(x.ravel(), y.ravel(), size, order).reshape(*shape, -1)


def _sources(residual: FloatArray, weights: FloatArray, config: Config) -> _Flags:
    """Bins that belong to a source, every source widened in proportion to its radius."""
    from scipy import ndimage

    known = np.minimum(weights * 2, 1.0)
    smooth = ndimage.gaussian_filter(residual * known, config.smoothing)
    norm = ndimage.gaussian_filter(known, config.smoothing)
    smooth = np.where(norm > 0.1, smooth / np.maximum(norm, 0.1), 0.0)
    clear = weights > 0.5
    level = float(np.median(smooth[clear])) if clear.any() else 0.0
    above = smooth - level > config.threshold * _lower_std(smooth[clear] - level)
    labels, count = ndimage.label(above)
    if count == 0:
        return np.zeros(residual.shape, bool)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    area[0] = 0
    kept = area >= config.smallest
    distance, nearest = ndimage.distance_transform_edt(~kept[labels], return_indices=True)
    radius = np.sqrt(area[labels[nearest[0], nearest[1]]] / np.pi)
    return np.asarray(distance <= config.margin + config.growth * radius)


def _lower_std(values: FloatArray) -> float:
    """Scatter of what lies below zero, where no source contributes."""
    below = values[values < 0]
    return mad_std(below, 0.0) if below.size else 0.0


def _mesh(values: FloatArray, weights: FloatArray, config: Config) -> tuple[FloatArray, float]:
    """Sky in cells, with those that are mostly masked filled from a polynomial."""
    ny, nx = (max(1, round(n * config.bin_side / config.cell)) for n in values.shape)
    edges_y = np.linspace(0, values.shape[0], ny + 1).round().astype(int)
    edges_x = np.linspace(0, values.shape[1], nx + 1).round().astype(int)
    nodes, share = np.zeros((ny, nx)), np.zeros((ny, nx))
    for j in range(ny):
        for i in range(nx):
            cell = slice(edges_y[j], edges_y[j + 1]), slice(edges_x[i], edges_x[i + 1])
            nodes[j, i], share[j, i] = _cell(values[cell], weights[cell])
    sparse = share < config.clean
    return _filled(nodes, share, sparse, config.fill_order), float(sparse.mean())


def _cell(values: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Mean of the clean bins of a cell, symmetrically clipped, and the clean fraction."""
    clean = weights > 0.5
    data, weight = values[clean], weights[clean]
    if data.size == 0:
        return 0.0, 0.0
    centre, width = np.median(data), mad_std(data)
    inside = np.abs(data - centre) <= 4 * width + 1e-9
    return float(np.average(data[inside], weights=weight[inside])), float(weights.mean())


def _filled(nodes: FloatArray, share: FloatArray, sparse: _Flags, order: int) -> FloatArray:
    if not sparse.any():
        return nodes
    clear = ~sparse
    if not clear.any():
        clear = share > 0
    while order > 0 and clear.sum() < (order + 1) * (order + 2):
        order -= 1
    terms = _terms(nodes.shape, order)
    weight = np.sqrt(share[clear])
    fit = np.linalg.lstsq(terms[clear] * weight[:, None], nodes[clear] * weight, rcond=None)[0]
    return np.where(sparse, terms @ fit, nodes)


def _spline(nodes: FloatArray, shape: tuple[int, ...]) -> Image:
    """Cubic spline through the centres of the cells, evaluated along one axis after the other."""
    along_y = _weights(nodes.shape[0], shape[0])
    along_x = _weights(nodes.shape[1], shape[1])
    rows = along_y @ nodes
    sky = np.empty(shape, np.float32)
    for y in range(0, len(sky), 256):
        sky[y : y + 256] = rows[y : y + 256] @ along_x.T
    return sky


def _weights(nodes: int, pixels: int) -> FloatArray:
    """Matrix that takes values at evenly spaced cell centres to all pixels.

    The cubic spline without knots at the second and the last but one centre, as the matrix of its
    second derivatives; linear with less than four centres.
    """
    at = np.clip((np.arange(pixels) + 0.5) * nodes / pixels - 0.5, 0.0, nodes - 1.0)
    left = np.minimum(at.astype(int), max(nodes - 2, 0))
    right, share = np.minimum(left + 1, nodes - 1), (at - left)[:, None]
    unit = np.eye(nodes)
    linear = (1.0 - share) * unit[left] + share * unit[right]
    if nodes < 4:
        return np.asarray(linear)
    system = 4.0 * unit + np.eye(nodes, k=1) + np.eye(nodes, k=-1)
    bends = 6.0 * (np.eye(nodes, k=1) + np.eye(nodes, k=-1) - 2.0 * unit)
    system[[0, -1]], bends[[0, -1]] = 0.0, 0.0
    system[0, :3] = system[-1, -3:] = 1.0, -2.0, 1.0
    curvature = np.linalg.solve(system, bends)
    cubic = [(t**3 - t) / 6.0 for t in (1.0 - share, share)]
    return np.asarray(linear + cubic[0] * curvature[left] + cubic[1] * curvature[right])
