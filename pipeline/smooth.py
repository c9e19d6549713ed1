"""Variances without sources: medians of blocks, and what lies between their centres."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, Mask
from pipeline.masks import NO_FLUX, bits

__all__ = ["hats", "smooth_variance"]

_NO_FLUX = bits(*NO_FLUX)
_BLOCK = 64


def smooth_variance(variance: Image, mask: Mask, bad: np.uint32 = _NO_FLUX) -> Image:
    """Source-free variance: medians of 64-pixel blocks, bilinear between their centres.

    Parameters
    ----------
    variance : ndarray, (ny, nx)
        Variance with the sources' own noise in it.
    mask : ndarray, (ny, nx)
        Mask planes.
    bad : numpy.uint32
        Planes to leave out.

    Returns
    -------
    ndarray, (ny, nx), float32
        What the variance would be without sources; blocks without data take the median of all.
    """
    ny, nx = (max(1, round(size / _BLOCK)) for size in variance.shape)
    nodes = np.full((ny, nx), np.nan)
    thin = np.s_[::4, ::4]  # the median of 256 pixels is exact enough for a noise level
    _block_medians(np.asarray(variance[thin], np.float32), mask[thin] & bad, nodes)
    nodes[~np.isfinite(nodes)] = _median(nodes)
    rows, columns = (hats(size, n) for size, n in zip(variance.shape, (ny, nx), strict=True))
    return np.asarray(rows @ nodes.astype(np.float32) @ columns.T)


@compiled
def _block_medians(values: Image, bad: Mask, nodes: FloatArray) -> None:
    """Median of the good positive values of each block; blocks are as even as can be."""
    ny, nx = nodes.shape
    tall, wide = divmod(values.shape[0], ny), divmod(values.shape[1], nx)
    kept = np.empty((tall[0] + 1) * (wide[0] + 1))
    for j in range(ny):
        y0, y1 = j * tall[0] + min(j, tall[1]), (j + 1) * tall[0] + min(j + 1, tall[1])
        for i in range(nx):
            x0, x1 = i * wide[0] + min(i, wide[1]), (i + 1) * wide[0] + min(i + 1, wide[1])
            n = 0
            for y in range(y0, y1):
                for x in range(x0, x1):
                    if bad[y, x] == 0 and values[y, x] > 0 and np.isfinite(values[y, x]):
                        kept[n] = values[y, x]
                        n += 1
            if n > 0:
                nodes[j, i] = np.median(kept[:n])


def hats(size: int, n: int) -> Image:
    """Weights of linear interpolation between the centres of n blocks, constant outside.

    Parameters
    ----------
    size : int, pixel
        Length of the axis.
    n : int
        Number of even blocks along it.

    Returns
    -------
    ndarray, (size, n), float32
        Rows of unit sum.
    """
    place = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(n))).astype(np.float32)


def _median(values: npt.NDArray[np.floating]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")
