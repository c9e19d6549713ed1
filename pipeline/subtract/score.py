"""Matched filter of the difference with its own PSF."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray, GridPsf, Image
from pipeline.subtract.convolve import cut, fft_size, inner, padded_transform, tiles
from pipeline.subtract.pixels import normalise, weigh

__all__ = ["score"]

_HALF = 16
_LEAST = 0.2
"""Share of the filter's weight that good pixels must carry."""


def score(
    difference: Image, null_variance: Image, usable: npt.NDArray[np.uint8], psf: GridPsf, core: int
) -> Image:
    """Signal to noise of a point source at every pixel.

    S = Σ P D / V / √(Σ P² / V) with V the variance of the difference without the source: the
    best linear detection statistic in white noise, with variance one where nothing is.

    Parameters
    ----------
    difference, null_variance : ndarray, (ny, nx)
        Decorrelated difference and the variance of its source-free model.
    usable : ndarray of uint8, (ny, nx)
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
    size = fft_size(shape, core, _HALF)
    out = np.empty(shape, np.float32)
    planes = np.empty((2, *size), np.float32)
    for tile, stamp in zip(tiles(shape, core), _stamps(psf), strict=True):
        good = cut(usable, tile, _HALF, size)
        scale = weigh(
            cut(difference, tile, _HALF, size), cut(null_variance, tile, _HALF, size), good, planes
        )
        if scale == 0.0:
            out[tile] = 0.0
            continue
        kernels = np.conj(padded_transform(np.stack([stamp, stamp**2]), size))
        typical = float(np.median(inner(planes[1], tile, _HALF)[::4, ::4]))
        sums = fft.irfft2(fft.rfft2(planes) * kernels, size)
        normalise(sums, _HALF, _LEAST * float((stamp**2).sum()) * typical, float(scale), out[tile])
    return out


def _stamps(psf: GridPsf) -> FloatArray:
    """PSFs of all tiles, cut to the filter's size, with unit sum."""
    trim = (psf.side - (2 * _HALF + 1)) // 2
    cube = psf.cube.reshape(-1, psf.side, psf.side)
    if trim > 0:
        cube = cube[:, trim:-trim, trim:-trim]
    return np.asarray(cube / cube.sum((1, 2))[:, None, None])
