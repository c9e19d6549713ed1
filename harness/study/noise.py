"""Noise of a point source's flux where no source is: the one definition of the true SNR."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exposure import Difference, FloatArray

__all__ = ["sigma_null"]

_CHUNK = 256


def sigma_null(difference: Difference, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
    """Noise of a PSF flux on the source-free difference.

    Parameters
    ----------
    difference : Difference
        Difference without injections.
    x, y : array-like, (n,), pixel
        Positions.

    Returns
    -------
    ndarray, (n,), unit of the difference
        1 / √(Σ P² / V) with the difference's own PSF P and the variance V of its source-free
        model: the noise in which `Difference.score` is expressed.  NaN where V is unknown.

    Raises
    ------
    ValueError
        If the difference has no PSF.
    """
    if difference.exposure.psf is None:
        raise ValueError("the difference has no PSF")
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    parts = [
        _chunk(difference, x[k : k + _CHUNK], y[k : k + _CHUNK]) for k in range(0, len(x), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _chunk(difference: Difference, x: FloatArray, y: FloatArray) -> FloatArray:
    psf, variance = difference.exposure.psf, difference.null_variance
    assert psf is not None
    stamps = psf.stamps(x, y)
    half = psf.side // 2
    reach = np.arange(-half, half + 1)
    rows = np.clip(np.rint(y).astype(int)[:, None] + reach, 0, variance.shape[0] - 1)
    columns = np.clip(np.rint(x).astype(int)[:, None] + reach, 0, variance.shape[1] - 1)
    values = variance[rows[:, :, None], columns[:, None, :]].astype(float)
    good = np.isfinite(values) & (values > 0)
    weight = np.where(good, 1.0 / np.where(good, values, 1.0), np.nan)
    known = np.nanmedian(np.where(good.any(axis=(1, 2), keepdims=True), weight, 0.0), axis=(1, 2))
    information = (stamps**2 * np.where(good, weight, known[:, None, None])).sum(axis=(1, 2))
    return np.asarray(
        np.where(information > 0, 1.0 / np.sqrt(np.maximum(information, 1e-300)), np.nan)
    )
