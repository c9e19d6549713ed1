"""Noise and depth of an image: one definition for visit images, templates and differences."""

from __future__ import annotations

import numpy as np

from pipeline.exposure import FloatArray, Image, Psf

__all__ = ["depth", "grid_stamps", "sky_variance"]

_THIN = 8


def sky_variance(variance: Image) -> float:
    """Variance of a pixel of blank sky, whose root is ``skyNoise``.

    Parameters
    ----------
    variance : ndarray, (ny, nx), image unit squared
        Source-free variance: `pipeline.smooth.smooth_variance` of an image, or
        `Difference.null_variance`.  Where pixels are correlated, as in a template, it describes
        the noise on scales beyond the correlation.

    Returns
    -------
    float, image unit squared
        Median of every eighth row and column; NaN without a finite value.
    """
    thin = variance[::_THIN, ::_THIN]
    finite = thin[np.isfinite(thin)]
    return float(np.median(finite)) if finite.size else float("nan")


def grid_stamps(psf: Psf, shape: tuple[int, int]) -> FloatArray:
    """Stamps of a PSF on a 5 × 5 grid over an image of a shape, ``(25, side, side)``.

    Parameters
    ----------
    psf : Psf
        Point spread function of the image.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    ndarray, (25, side, side)
        Unit sum, row by row of the grid.
    """
    gx, gy = np.meshgrid(*(np.linspace(0.1, 0.9, 5) * n for n in (shape[1], shape[0])))
    return psf.stamps(gx.ravel(), gy.ravel())


def depth(
    zero_point: float, area: float, variance: float, *, per_electron: float = 1.0, snr: float = 5.0
) -> float:
    """AB magnitude of a point source of a given signal-to-noise ratio.

    Parameters
    ----------
    zero_point : float, mag
        Magnitude of one image unit: `NJY_ZERO_POINT` for images in nJy.
    area : float, pixel
        Noise-equivalent area of the PSF.
    variance : float, image unit squared
        Of a blank pixel, see `sky_variance`.
    per_electron : float, image unit
        What an electron of the source is in the image; its photons have noise of their own.
    snr : float
        Signal-to-noise ratio.

    Returns
    -------
    float, mag
        Of the flux S with S² = snr² (area variance + per_electron S); NaN unless it is positive.
    """
    photons = snr**2 * per_electron
    flux = photons / 2.0 + np.sqrt(photons**2 / 4.0 + snr**2 * area * variance)
    return float(zero_point - 2.5 * np.log10(flux)) if flux > 0 else float("nan")
