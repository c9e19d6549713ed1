"""Cosmic rays: pixels sharper than the PSF allows.

A morphological test on one image, before its PSF is known.  For a star, wherever it falls on the
pixels, the mean of two opposite neighbours at distance d is at least P(d)/P(0) of the pixel
between them, P the profile of the sharpest PSF the telescope ever makes.  A pixel that stands out
more than that, by several σ, is no star.  Found pixels are replaced by a pair of clean
neighbours and their own neighbours tested again, so that thick tracks are peeled from the
outside in.

The idea goes back to R. Lupton's finder for SDSS; the test on ratios and its significance are
formulated afresh here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibrate.config import CosmicRayConfig as Config
from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, Mask
from pipeline.fill import fill_holes
from pipeline.masks import NO_SKY, bits
from pipeline.statistics import GAUSS_FWHM

__all__ = ["Config", "CosmicRays", "find"]


@dataclass(frozen=True, slots=True, eq=False)
class CosmicRays:
    """What was found.

    Attributes
    ----------
    found : ndarray, (ny, nx), bool
        Pixels that failed the test.
    mask : ndarray, (ny, nx), bool
        The same, widened: the pixels to flag CR, and INTRP since they were filled.
    image, variance : ndarray, (ny, nx), float32
        Copies with the flagged pixels filled from their surroundings.
    metrics : mapping
        ``crPixels`` (found), ``crFraction`` (flagged fraction of the image).
    """

    found: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.bool_]
    image: Image
    variance: Image
    metrics: dict[str, float]


def find(
    image: Image,
    variance: Image,
    mask: Mask,
    background_level: float | Image,
    psf_fwhm_pixel: float,
    config: Config | None = None,
) -> CosmicRays:
    """Find cosmic rays and fill them.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx), float32
        Any linear unit, and its square.
    mask : ndarray, (ny, nx), uint32
        Saturated, bad and interpolated pixels are neither tested nor used as neighbours.
    background_level : float or ndarray, (ny, nx)
        The background, in image units; zero if it has been subtracted.
    psf_fwhm_pixel : float, pixel
        FWHM of the sharpest star this telescope can make, not of this image.
    config : Config, optional
        Thresholds.

    Returns
    -------
    CosmicRays
        Masks and filled copies; the inputs are not changed.

    Raises
    ------
    ValueError
        If the width is not positive.
    """
    if not psf_fwhm_pixel > 0:
        raise ValueError(f"psf_fwhm_pixel must be positive, got {psf_fwhm_pixel}")
    config = config or Config()
    flux = np.ascontiguousarray(image - np.float32(background_level), np.float32)
    state = np.empty(flux.shape, np.uint8)
    _untestable(flux.ravel(), np.ravel(mask), bits(*NO_SKY, "INTRP"), state.ravel())
    bad = state == _BAD
    noise = np.array(variance, np.float32, order="C")  # changed where pixels are replaced
    ratios = _star_ratios(psf_fwhm_pixel, config.sharpness)
    seeds = _seeds(flux, noise, state, ratios, config.faintest, config.threshold, config.margin)
    _grow(flux, noise, state, seeds, ratios, config.grow_threshold, config.rounds)
    found = state == _HIT
    flagged = found.copy()
    _dilate(found, flagged, config.dilate)
    # The copies are at hand; what the search has replaced in them is put back.
    flux[found], noise[found] = image[found], variance[found]
    plain = np.ndim(background_level) == 0 and background_level == 0
    clean, clean_variance = (flux if plain else np.array(image, np.float32)), noise
    fill_holes(clean, clean_variance, flagged, bad, config.reach)
    metrics = {"crPixels": float(found.sum()), "crFraction": float(flagged.mean())}
    return CosmicRays(found, flagged, clean, clean_variance, metrics)


_STRETCH = 64  # pixels looked at together
_BAD, _HIT = 1, 2  # states of a pixel; 0 is clean


def _star_ratios(fwhm: float, sharpness: float) -> FloatArray:
    """Neighbour-to-peak ratios of a Gaussian at distances 1, √2, 2 and 2√2, with a margin."""
    squared = np.array([1.0, 2.0, 4.0, 8.0])
    return np.asarray(sharpness * np.exp(-0.5 * squared / (fwhm / GAUSS_FWHM) ** 2))


@compiled
def _untestable(flux: Image, mask: Mask, planes: np.uint32, state: npt.NDArray[np.uint8]) -> None:
    for i in range(flux.size):
        bad = mask[i] & planes != 0 or not np.isfinite(flux[i])
        state[i] = 1 if bad else 0


@compiled
def _dilate(found: npt.NDArray[np.bool_], wide: npt.NDArray[np.bool_], pixels: int) -> None:
    """Set the squares round the pixels found."""
    ny, nx = found.shape
    for y in range(ny):
        for x in range(nx):
            if found[y, x]:
                for j in range(max(y - pixels, 0), min(y + pixels + 1, ny)):
                    wide[j, max(x - pixels, 0) : x + pixels + 1] = True


@compiled
def _sharp(
    flux: Image,
    noise: Image,
    state: npt.NDArray[np.uint8],
    y: int,
    x: int,
    ratios: FloatArray,
    threshold: float,
    margin: float,
) -> bool:
    """Whether a pixel stands out of any opposite pair more than a star could."""
    ny, nx = flux.shape
    a = np.float64(flux[y, x])
    v = np.float64(noise[y, x])
    for direction in range(4):
        dx = 0 if direction == 1 else 1
        dy = 0 if direction == 0 else (-1 if direction == 3 else 1)
        for step in range(1, 3):
            i, j, k, m = y + step * dy, x + step * dx, y - step * dy, x - step * dx
            if i < 0 or k < 0 or i >= ny or k >= ny or m < 0 or j >= nx:
                break
            if state[i, j] == 1 or state[k, m] == 1:
                continue  # beside a bad column the next pair must do
            mean = 0.5 * (np.float64(flux[i, j]) + np.float64(flux[k, m]))
            v_mean = 0.25 * (np.float64(noise[i, j]) + np.float64(noise[k, m]))
            r = ratios[2 * (step - 1) + (1 if direction > 1 else 0)]
            if a - mean > threshold * np.sqrt(v + v_mean) and r * a - mean > margin * np.sqrt(
                r * r * v + v_mean
            ):
                return True
            break
    return False


@compiled
def _seeds(
    flux: Image,
    noise: Image,
    state: npt.NDArray[np.uint8],
    ratios: FloatArray,
    faintest: float,
    threshold: float,
    margin: float,
) -> npt.NDArray[np.int64]:
    """Return the indices of all pixels that fail the test as the image is."""
    ny, nx = flux.shape
    limit = np.float32(faintest * faintest)
    count = 0
    places = np.empty(1024, np.int64)
    for y in range(ny):
        for start in range(0, nx, _STRETCH):
            stop = min(start + _STRETCH, nx)
            if not _any_bright(flux[y, start:stop], noise[y, start:stop], limit):
                continue
            for x in range(start, stop):
                if not _bright(flux[y, x], noise[y, x], limit) or state[y, x] != 0:
                    continue
                if not _sharp(flux, noise, state, y, x, ratios, threshold, margin):
                    continue
                if count == places.size:
                    more = np.empty(2 * count, np.int64)
                    more[:count] = places
                    places = more
                places[count] = y * nx + x
                count += 1
    return places[:count]


@compiled
def _any_bright(flux: Image, noise: Image, limit: np.float32) -> bool:
    """Whether a pixel of a stretch is bright: in nearly all of them none is."""
    some = False
    for x in range(len(flux)):
        some |= _bright(flux[x], noise[x], limit)
    return some


@compiled
def _bright(a: np.float32, noise: np.float32, limit: np.float32) -> bool:
    """Whether a pixel is positive and its square above the limit, or not a number."""
    return not (a * a <= limit * noise) and not a <= 0


@compiled
def _grow(
    flux: Image,
    noise: Image,
    state: npt.NDArray[np.uint8],
    seeds: npt.NDArray[np.int64],
    ratios: FloatArray,
    threshold: float,
    rounds: int,
) -> None:
    """Mark the seeds, replace them, and test their neighbours, round by round."""
    ny, nx = flux.shape
    work = seeds
    for index in work:
        state[index // nx, index % nx] = 2
    for _ in range(rounds):
        for index in work:
            _replace(flux, noise, state, index // nx, index % nx)
        fresh = np.empty(8 * work.size, np.int64)
        count = 0
        for index in work:
            y0, x0 = index // nx, index % nx
            for y in range(max(y0 - 1, 0), min(y0 + 2, ny)):
                for x in range(max(x0 - 1, 0), min(x0 + 2, nx)):
                    a = flux[y, x]
                    if state[y, x] != 0 or a <= threshold * np.sqrt(noise[y, x]):
                        continue
                    if _sharp(flux, noise, state, y, x, ratios, threshold, 0.0):
                        state[y, x] = 2
                        fresh[count] = y * nx + x
                        count += 1
        work = fresh[:count]
        if count == 0:
            break


@compiled
def _replace(flux: Image, noise: Image, state: npt.NDArray[np.uint8], y: int, x: int) -> None:
    """Give a hit pixel the smallest mean of a pair of clean opposite neighbours."""
    ny, nx = flux.shape
    best = np.inf
    for reach in range(1, 4):
        for direction in range(4):
            dx = 0 if direction == 1 else reach
            dy = 0 if direction == 0 else (-reach if direction == 3 else reach)
            i, j, k, m = y + dy, x + dx, y - dy, x - dx
            if i < 0 or k < 0 or i >= ny or k >= ny or m < 0 or j >= nx:
                continue
            if state[i, j] != 0 or state[k, m] != 0:
                continue
            mean = 0.5 * (np.float64(flux[i, j]) + np.float64(flux[k, m]))
            if mean < best:
                best = mean
                noise[y, x] = 0.5 * (noise[i, j] + noise[k, m])
        if best < np.inf:
            break
    flux[y, x] = best if best < np.inf else 0.0
