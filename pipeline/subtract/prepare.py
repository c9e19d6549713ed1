"""Working copies of the two images: finite everywhere, with coarse skies and noise levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.errors import PixelError, SubtractionError
from pipeline.exposure import Exposure, FloatArray, Image, Mask, Psf
from pipeline.fill import bridge
from pipeline.masks import BRIDGEABLE, NO_SKY, bits
from pipeline.psfphot import middle_fwhm

__all__ = ["WorkingImage", "check_overlap", "coarse_median", "prepare", "prepare_pair"]

_NO_SKY, _NO_BRIDGE = bits(*NO_SKY), bits(*NO_SKY - BRIDGEABLE)
_BLOCK = 128
_THIN = 4
_LEAST = 100
_LARGEST = np.float32(1e18)  # squares of larger values are infinite in float32


@dataclass(frozen=True, slots=True, eq=False)
class WorkingImage:
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
    inverse_gain : float
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
    inverse_gain: float
    correlation: FloatArray | None

    def without_pixels(self) -> WorkingImage:
        """Return what is known of the image but the image, whose memory others need."""
        return replace(self, image=np.zeros((0, 0), np.float32), bad=np.zeros((0, 0), bool))

    def numbers(self) -> WorkingImage:
        """Return what is known of the image without any plane."""
        nothing = np.zeros((0, 0), np.float32)
        return replace(self.without_pixels(), variance=nothing)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (int(self.image.shape[0]), int(self.image.shape[1]))


def prepare(exposure: Exposure, name: str, like: WorkingImage | None = None) -> WorkingImage:
    """Make the working copy of an exposure.

    Parameters
    ----------
    exposure : Exposure
        Science or template.
    name : str
        Which of the two, for the error message.
    like : WorkingImage, optional
        One of nearly the same pixels, whose level, sky, noise and gain are taken over.

    Returns
    -------
    WorkingImage
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
    unusable, hollow = _mark_unusable(image, variance, exposure.mask, _NO_SKY, flags)
    if hollow:
        variance = variance.copy()  # they will be filled
    if bad.size - unusable < _LEAST:
        raise PixelError(
            f"the {name} has no usable pixels", usable=bad.size - unusable, of=bad.size
        )
    if like is None:
        sky, power = coarse_median(image, bad), coarse_median(variance, bad)
        level = float(np.median(sky))
        sky -= np.float32(level)
        noise = np.sqrt(power)
    else:
        sky, noise, level = like.sky, like.noise, like.level
        power = noise**2
    _refuse_constant(image, bad, name)
    _fill(image, variance, flags, level, sky, power)
    bridged = _bridged(image, exposure.mask, bad, exposure.psf)
    inverse_gain = (
        like.inverse_gain if like is not None else _inverse_gain(image, variance, flags, sky, power)
    )
    return WorkingImage(
        image, variance, bad, bridged, level, sky, noise, inverse_gain, exposure.noise_correlation
    )


def prepare_pair(
    images: dict[str, Exposure], like: Mapping[str, WorkingImage] | None = None
) -> dict[str, WorkingImage]:
    """Make the working copies of both images, see `prepare`.

    Parameters
    ----------
    images : dict of Exposure
        ``science`` and ``template``.
    like : mapping of WorkingImage, optional
        See `prepare`.

    Returns
    -------
    dict of WorkingImage
        The same keys.
    """
    known = like or {}
    return {name: prepare(image, name, known.get(name)) for name, image in images.items()}


def check_overlap(working: dict[str, WorkingImage]) -> None:
    """Refuse images without usable pixels in common.

    Parameters
    ----------
    working : dict of WorkingImage
        ``science`` and ``template``.
    """
    common = ~(working["science"].bad | working["template"].bad)
    if np.count_nonzero(common) < 100:
        raise SubtractionError(
            "science and template have no usable pixels in common", common=int(common.sum())
        )


def _bridged(
    image: Image, mask: Mask, bad: npt.NDArray[np.bool_], psf: Psf | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Bridge narrow gaps that have nothing to do with what is beside them."""
    flat = np.flatnonzero(bad)  # far faster than in two dimensions
    flat = flat[mask.reshape(-1)[flat] & _NO_BRIDGE == 0]
    y, x = np.divmod(flat, image.shape[1])
    width = () if psf is None else (middle_fwhm(psf, image.shape),)
    error = bridge(image, y, x, bad, *width)
    done = error < 1.0
    return flat[done], error[done]


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
    out = _block_medians(plane, bad.view(np.uint8), tiles[0], tiles[1], _THIN)
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


def _inverse_gain(
    image: Image, variance: Image, bad: npt.NDArray[np.uint8], sky: Image, power: Image
) -> float:
    """Inverse gain: the median excess of variance over excess of flux of bright pixels."""
    for threshold in (20.0, 8.0):
        ratios = _bright_ratios(image, variance, bad, sky, power, threshold, 100_000)
        if len(ratios) >= 20:
            return max(0.0, float(np.median(ratios)))
    return 0.0


@compiled
def _block_medians(
    plane: Image, bad: npt.NDArray[np.uint8], tiles_y: int, tiles_x: int, thin: int
) -> Image:
    """Medians of the good pixels of blocks, thinned in both axes; NaN below 30 of them.

    Parameters
    ----------
    plane : ndarray, (ny, nx)
        Values.
    bad : ndarray, (ny, nx)
        Non-zero pixels are left out.
    tiles_y, tiles_x : int
        Number of even blocks per axis.
    thin : int
        Only every ``thin``-th pixel is used.

    Returns
    -------
    ndarray, (tiles_y, tiles_x)
        The medians.
    """
    ny, nx = plane.shape
    out = np.full((tiles_y, tiles_x), np.float32(np.nan), np.float32)
    values = np.empty((ny // tiles_y + 2) * (nx // tiles_x + 2), np.float32)
    for j in range(tiles_y):
        for i in range(tiles_x):
            n = 0
            for y in range(j * ny // tiles_y, (j + 1) * ny // tiles_y, thin):
                for x in range(i * nx // tiles_x, (i + 1) * nx // tiles_x, thin):
                    if not bad[y, x]:
                        values[n] = plane[y, x]
                        n += 1
            if n >= 30:
                out[j, i] = np.median(values[:n])
    return out


@compiled
def _mark_unusable(
    image: Image, variance: Image, mask: Mask, planes: np.uint32, bad: npt.NDArray[np.uint8]
) -> tuple[int, int]:
    """Mark pixels with one of some planes, without a number, or without a positive variance.

    Parameters
    ----------
    image, variance, mask : ndarray, (ny, nx)
        The planes.
    planes : numpy.uint32
        Bits of the mask that make a pixel unusable.
    bad : ndarray, (ny, nx)
        Becomes one where a pixel is unusable, otherwise zero.

    Returns
    -------
    unusable, hollow : int
        Number of marked pixels, and of those without a positive variance.
    """
    unusable, hollow = 0, 0
    for y in range(len(image)):
        values, noise, flags, to = image[y], variance[y], mask[y], bad[y]
        for x in range(len(values)):
            sound = (noise[x] > 0) & np.isfinite(noise[x])
            wrong = (flags[x] & planes != 0) | (not abs(values[x]) < _LARGEST) | (not sound)
            to[x] = wrong
            unusable += wrong
            hollow += not sound
    return unusable, hollow


@compiled
def _fill(
    image: Image,
    variance: Image,
    bad: npt.NDArray[np.uint8],
    level: float,
    sky: Image,
    power: Image,
) -> None:
    """Subtract `level`, and replace bad pixels by their neighbours', in place.

    A bad pixel takes the mean of the good ones within 3 px, weighted by the inverse fourth power
    of the distance, or the sky where there are none.  Variances that are not positive numbers
    become those of the sky.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        Changed in place.
    bad : ndarray, (ny, nx)
        Non-zero pixels are bad.
    level : float
        Subtracted from all pixels.
    sky, power : ndarray, (ty, tx)
        Coarse medians of the levelled image and of the variance.
    """
    ny, nx = image.shape
    ty, tx = sky.shape
    base = np.float32(level)
    for y in range(ny):
        for x in range(nx):
            image[y, x] -= base
    for y in range(ny):
        for x in range(nx):
            if not bad[y, x]:
                continue
            total, norm = 0.0, 0.0
            for v in range(max(0, y - 3), min(ny, y + 4)):
                for u in range(max(0, x - 3), min(nx, x + 4)):
                    if not bad[v, u]:
                        d2 = (v - y) * (v - y) + (u - x) * (u - x)
                        total += image[v, u] / (d2 * d2)
                        norm += 1.0 / (d2 * d2)
            j, i = min(y * ty // ny, ty - 1), min(x * tx // nx, tx - 1)
            image[y, x] = total / norm if norm > 0.0 else sky[j, i]
            if not (variance[y, x] > 0.0 and np.isfinite(variance[y, x])):
                variance[y, x] = power[j, i]


@compiled
def _bright_ratios(
    image: Image,
    variance: Image,
    bad: npt.NDArray[np.uint8],
    sky: Image,
    power: Image,
    threshold: float,
    most: int,
) -> Image:
    """Excess variance per excess flux of pixels that many σ above the sky.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        The planes.
    bad : ndarray, (ny, nx)
        Non-zero pixels are left out.
    sky, power : ndarray, (ty, tx)
        Coarse medians of both.
    threshold : float
        In units of the noise.
    most : int
        Largest number of pixels.

    Returns
    -------
    ndarray, (n,)
        The ratios.
    """
    ny, nx = image.shape
    ty, tx = sky.shape
    limit = sky + np.float32(threshold) * np.sqrt(power)
    out = np.empty(most, np.float32)
    n = 0
    for y in range(ny):
        j = min(y * ty // ny, ty - 1)
        for i in range(tx):
            for x in range(i * nx // tx, (i + 1) * nx // tx):
                if image[y, x] > limit[j, i] and not bad[y, x] and n < most:
                    out[n] = (variance[y, x] - power[j, i]) / (image[y, x] - sky[j, i])
                    n += 1
    return out[:n]
