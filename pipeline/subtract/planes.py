"""Working copies of the two images: finite everywhere, with coarse skies and noise models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.errors import PixelError
from pipeline.exposure import Exposure, FloatArray, Image, Mask, Psf, bits
from pipeline.fill import bridge
from pipeline.subtract.masks import BRIDGEABLE
from pipeline.subtract.pixels import block_medians, bright_ratios, fill, mark_unusable

__all__ = ["UNUSABLE", "Layer", "coarse_median", "prepare"]

UNUSABLE = bits(
    "BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN", "BLEED", "EDGEBLEED", "STREAK", "UNLISTED"
)
"""Pixels with one of these planes say nothing about the sky."""

_BLOCK = 128
_THIN = 4
_LEAST = 100


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One of the two images, ready for arithmetic.

    Attributes
    ----------
    image : ndarray, (ny, nx)
        Pixels minus `level`, unusable ones filled from their neighbours.
    variance : ndarray, (ny, nx)
        Finite and positive.
    bad : ndarray of bool, (ny, nx)
        Unusable pixels.
    bridged : tuple of ndarray, (n,)
        Flat indices of those that are known from both sides of a narrow gap, and their errors as
        shares of the flux of a star.
    level : float
        Median of the image.
    sky, noise : ndarray, (ty, tx)
        Median minus `level`, and root of the median variance, of blocks that divide the image.
    slope : float
        Increase of the variance per unit of flux: the inverse gain.
    correlation : ndarray, (cy, cx, k, k), optional
        Autocovariance of the noise, see `Exposure.noise_correlation`.
    """

    image: Image
    variance: Image
    bad: npt.NDArray[np.bool_]
    bridged: tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
    level: float
    sky: Image
    noise: Image
    slope: float
    correlation: FloatArray | None

    def without_pixels(self) -> Layer:
        """Return what is known of the image but the image, whose memory others need."""
        return replace(self, image=np.zeros((0, 0), np.float32), bad=np.zeros((0, 0), bool))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (int(self.image.shape[0]), int(self.image.shape[1]))


def prepare(exposure: Exposure, name: str) -> Layer:
    """Make the working copy of an exposure.

    Parameters
    ----------
    exposure : Exposure
        Science or template.
    name : str
        Which of the two, for the error message.

    Returns
    -------
    Layer
        The working copy.

    Raises
    ------
    PixelError
        If no pixel is usable, or the image is constant.
    """
    image = np.array(exposure.image, np.float32, order="C")
    variance = np.ascontiguousarray(exposure.variance, np.float32)
    bad = np.empty(image.shape, bool)
    flags = bad.view(np.uint8)
    unusable, hollow = mark_unusable(image, variance, exposure.mask, UNUSABLE, flags)
    if hollow:
        variance = variance.copy()  # they will be filled
    if bad.size - unusable < _LEAST:
        raise PixelError(
            f"the {name} has no usable pixels", usable=bad.size - unusable, of=bad.size
        )
    sky, power = coarse_median(image, bad), coarse_median(variance, bad)
    level = float(np.median(sky))
    _refuse_constant(image, bad, name)
    sky -= np.float32(level)
    fill(image, variance, flags, level, sky, power)
    bridged = _bridged(image, exposure.mask, bad, exposure.psf)
    slope, noise = _slope(image, variance, flags, sky, power), np.sqrt(power)
    return Layer(
        image, variance, bad, bridged, level, sky, noise, slope, exposure.noise_correlation
    )


def _bridged(
    image: Image, mask: Mask, bad: npt.NDArray[np.bool_], psf: Psf | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Bridge narrow gaps that have nothing to do with what is beside them."""
    flat = np.flatnonzero(bad)  # far faster than in two dimensions
    flat = flat[mask.reshape(-1)[flat] & (UNUSABLE & ~BRIDGEABLE) == 0]
    y, x = np.divmod(flat, image.shape[1])
    error = bridge(image, y, x, bad, *([] if psf is None else [_fwhm(psf, image.shape)]))
    done = error < 1.0
    return flat[done], error[done]


def _fwhm(psf: Psf, shape: tuple[int, ...]) -> float:
    """FWHM, in pixels, of the Gaussian with the noise-equivalent area of the PSF."""
    stamp = psf.at((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    return float(2.3548 / np.sqrt(4.0 * np.pi * (stamp**2).sum()))


def coarse_median(plane: Image, bad: npt.NDArray[np.bool_]) -> Image:
    """Medians of even blocks of some 128 px, from every fourth good pixel of every fourth row.

    Parameters
    ----------
    plane : ndarray, (ny, nx)
        Image or variance.
    bad : ndarray of bool, (ny, nx)
        Pixels left out.

    Returns
    -------
    ndarray, (ty, tx)
        The medians; blocks with few good pixels take the median of the others.
    """
    tiles = [max(1, round(size / _BLOCK)) for size in plane.shape]
    out = block_medians(plane, bad.view(np.uint8), tiles[0], tiles[1], _THIN)
    hollow = np.isnan(out)
    if hollow.all():
        out[:] = np.median(plane[~bad])
    elif hollow.any():
        out[hollow] = np.median(out[~hollow])
    return np.asarray(out)


def _refuse_constant(image: Image, bad: npt.NDArray[np.bool_], name: str) -> None:
    values = image[~bad] if image.size < 100_000 else image[::5, ::5][~bad[::5, ::5]]
    if values.size and float(np.percentile(values, 99) - np.percentile(values, 1)) <= 0.0:
        raise PixelError(f"the {name} is constant", value=float(values[0]))


def _slope(
    image: Image, variance: Image, bad: npt.NDArray[np.uint8], sky: Image, power: Image
) -> float:
    """Inverse gain: the median excess of variance over excess of flux of bright pixels."""
    for threshold in (20.0, 8.0):
        ratios = bright_ratios(image, variance, bad, sky, power, threshold, 100_000)
        if len(ratios) >= 20:
            return max(0.0, float(np.median(ratios)))
    return 0.0
