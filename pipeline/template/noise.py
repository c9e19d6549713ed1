"""Autocovariance of noise that interpolation has correlated.

Interpolated pixels share input pixels.  A Lanczos-3 variance plane averages 0.8 of the noise
power on large scales; whoever whitens a difference or adds pixels up must know the rest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exposure import Exposure, FloatArray
from pipeline.template.lanczos import TAPS, autocorrelation
from pipeline.template.mapping import Mapping

__all__ = ["LAGS", "tile_centres", "warped_noise"]

LAGS = 7
"""Largest lag kept, in pixels; twice interpolated noise reaches a little farther (10⁻³)."""

_SAMPLES = 8
_FEWEST = 4
"""Tiles per axis, however small the image: the phase of the warp may turn within 100 px."""


def tile_centres(size: int, tiles: int) -> FloatArray:
    """Centres, in pixels, of `tiles` even parts of an axis of `size` pixels.

    Parameters
    ----------
    size : int, pixel
        Length of the axis.
    tiles : int
        Number of parts.

    Returns
    -------
    ndarray, (tiles,), pixel
        From the centre of the first pixel.
    """
    return np.asarray((np.arange(tiles) + 0.5) * size / tiles - 0.5)


def warped_noise(
    exposure: Exposure, mapping: Mapping, shape: tuple[int, int], tile: int
) -> tuple[FloatArray, FloatArray]:
    """Autocovariance of the noise of an exposure warped by a mapping.

    Parameters
    ----------
    exposure : Exposure
        The input; its own `noise_correlation` is taken into account.
    mapping : Mapping
        Input coordinates of output pixels.
    shape : tuple of int, (ny, nx)
        Size of the output.
    tile : int, pixel
        Approximate side of the tiles.

    Returns
    -------
    correlation : ndarray, (ty, tx, 15, 15)
        Per tile, in units of its true variance; lag (0, 0) in the middle.
    factor : ndarray, (ty, tx)
        True variance over what the weights would make of white noise.
    """
    tiles = max(_FEWEST, round(shape[0] / tile)), max(_FEWEST, round(shape[1] / tile))
    x, y = mapping.at(*_samples(shape, tiles))
    x, y = np.nan_to_num(x), np.nan_to_num(y)
    along_x, along_y = autocorrelation(x - np.floor(x)), autocorrelation(y - np.floor(y))
    white = along_y[..., :, None] * along_x[..., None, :]
    full = _widen(white)
    if exposure.noise_correlation is not None:
        full = _convolve(full, _input_noise(exposure, x.mean(-1), y.mean(-1)))
    variance = full[..., LAGS, LAGS]
    factor = variance / white[..., TAPS - 1, TAPS - 1]
    return full / variance[..., None, None], np.where(np.abs(factor - 1) < 1e-12, 1.0, factor)


def _samples(shape: tuple[int, int], tiles: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Centres of pixels spread over each tile, ``(ty, tx, n)``: only they have true phases."""
    x, y = (_sample_axis(shape[1], tiles[1]), _sample_axis(shape[0], tiles[0]))
    both = np.broadcast_arrays(x[None, :, None, :], y[:, None, :, None])
    size = (*tiles, _SAMPLES * _SAMPLES)
    return both[0].reshape(size), both[1].reshape(size)


def _sample_axis(size: int, tiles: int) -> FloatArray:
    fraction = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    return np.floor((np.arange(tiles)[:, None] + fraction) * size / tiles)


def _widen(correlation: FloatArray) -> FloatArray:
    pad = LAGS - (correlation.shape[-1] - 1) // 2
    return np.pad(correlation, ((0, 0), (0, 0), (pad, pad), (pad, pad)))


def _input_noise(exposure: Exposure, x: FloatArray, y: FloatArray) -> FloatArray:
    """Autocovariance of the input where the output tiles have their centres."""
    tiles = np.asarray(exposure.noise_correlation)
    row = np.clip((y * len(tiles) / exposure.shape[0]).astype(int), 0, len(tiles) - 1)
    column = (x * tiles.shape[1] / exposure.shape[1]).astype(int)
    return np.asarray(tiles[row, np.clip(column, 0, tiles.shape[1] - 1)])


def _convolve(first: FloatArray, second: FloatArray) -> FloatArray:
    """Convolve pairs of small kernels, keeping the lags up to `LAGS`."""
    size = first.shape[-1] + second.shape[-1] - 1
    spectra: npt.NDArray[np.complex128] = np.fft.rfft2(first, (size, size))
    product = np.fft.irfft2(spectra * np.fft.rfft2(second, (size, size)), (size, size))
    start = size // 2 - LAGS
    return np.asarray(product[..., start : start + 2 * LAGS + 1, start : start + 2 * LAGS + 1])
