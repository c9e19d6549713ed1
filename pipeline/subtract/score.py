"""Matched filter of the difference with its own PSF."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray, GridPsf, Image
from pipeline.subtract.convolve import fft_size, inner, tiles, transform
from pipeline.subtract.pixels import normalise, weigh
from pipeline.subtract.separable import Separable, correlate

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
    stamps = _stamps(psf)
    squares = Separable.of(stamps**2)
    for k, tile in enumerate(tiles(shape, core)):
        place = (tile[0].start, tile[1].start)
        scale = weigh(difference, null_variance, usable, *place, _HALF, planes)
        if scale == 0.0:
            out[tile] = 0.0
            continue
        weights = inner(planes[1], tile, _HALF)
        typical = float(np.median(weights[::4, ::4]))
        least = _LEAST * float((stamps[k] ** 2).sum())
        norms = correlate(
            planes[1], _HALF - squares.half, squares.columns[k], squares.rows[k], out[tile].shape
        )
        sums = _correlate(planes[0], stamps[k], size)
        normalise(sums, norms, planes[1], _HALF, least, typical, float(scale), *place, out)
    return out


def _correlate(plane: Image, kernel: FloatArray, size: tuple[int, int]) -> Image:
    spectrum = np.conj(transform(kernel, size))
    spectrum *= fft.rfft2(plane)
    return np.asarray(fft.irfft2(spectrum, size))


def _stamps(psf: GridPsf) -> FloatArray:
    """PSFs of all tiles, cut to the filter's size, with unit sum."""
    trim = (psf.side - (2 * _HALF + 1)) // 2
    cube = psf.cube.reshape(-1, psf.side, psf.side)
    if trim > 0:
        cube = cube[:, trim:-trim, trim:-trim]
    return np.asarray(cube / cube.sum((1, 2))[:, None, None])
