"""Matched filter of the difference with its own PSF."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray, GridPsf, Image
from pipeline.subtract.convolve import cut, fft_size, padded_transform, tiles

__all__ = ["score"]

_HALF = 16
_LEAST = 0.2
"""Share of the filter's weight that good pixels must carry."""


def score(
    difference: Image, null_variance: Image, usable: npt.NDArray[np.bool_], psf: GridPsf, core: int
) -> Image:
    """Signal to noise of a point source at every pixel.

    S = Σ P D / V / √(Σ P² / V) with V the variance of the difference without the source: the
    best linear detection statistic in white noise, with variance one where nothing is.

    Parameters
    ----------
    difference, null_variance : ndarray, (ny, nx)
        Decorrelated difference and the variance of its source-free model.
    usable : ndarray of bool, (ny, nx)
        Pixels that count.
    psf : GridPsf
        PSF of the difference with a node in every tile.
    core : int, pixel
        Size of the tiles.

    Returns
    -------
    ndarray, (ny, nx)
        The score, zero where too few pixels are usable.
    """
    shape = (int(difference.shape[0]), int(difference.shape[1]))
    scale = np.float32(np.median(null_variance[::16, ::16]))
    weight = np.where(usable, scale / null_variance, np.float32(0.0))
    weighted = weight * difference
    size = fft_size(shape, core, _HALF)
    out = np.empty(shape, np.float32)
    for tile, stamp in zip(tiles(shape, core), _stamps(psf), strict=True):
        kernels = np.conj(padded_transform(np.stack([stamp, stamp**2]), size))
        planes = np.stack([cut(weighted, tile, _HALF, size), cut(weight, tile, _HALF, size)])
        filtered = fft.irfft2(fft.rfft2(planes) * kernels, size)
        inner = filtered[
            :,
            _HALF : _HALF + tile[0].stop - tile[0].start,
            _HALF : _HALF + tile[1].stop - tile[1].start,
        ]
        least = np.float32(_LEAST * (stamp**2).sum())
        good = inner[1] > least * np.float32(np.median(weight[tile]))
        out[tile] = np.where(good, inner[0], 0.0) / np.sqrt(np.where(good, inner[1], 1.0))
    out /= np.sqrt(scale)
    return out


def _stamps(psf: GridPsf) -> FloatArray:
    """PSFs of all tiles, cut to the filter's size, with unit sum."""
    trim = (psf.side - (2 * _HALF + 1)) // 2
    cube = psf.cube.reshape(-1, psf.side, psf.side)
    if trim > 0:
        cube = cube[:, trim:-trim, trim:-trim]
    return np.asarray(cube / cube.sum((1, 2))[:, None, None])
