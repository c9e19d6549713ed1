"""Correlated noise of a difference beyond that of its images: fringes, flat fields, drifts.

What real skies leave on scales too fine to be subtracted, the matched filter adds up, so its
normalisation has to know of it.  A difference whose noise is as expected is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray, Image
from pipeline.subtract.background import source_free
from pipeline.subtract.convolve import frequencies
from pipeline.subtract.metrics import robust_std

__all__ = ["NoiseExcess", "looks_wide", "measure_excess", "score_width", "sky_dominated"]

_LEAST = 400
"""Pixels that are enough for an autocovariance."""

_FEW = 8
"""Independent values of a score below which its width says nothing."""

_SIGNIFICANT, _NOTABLE = 3.0, 2.0
"""Standard errors from which on an excess is modelled, and a score is rescaled."""

_RELEVANT = 0.02
"""Excess of the score's width that is worth a second look."""

_BEAM = 25.0
"""Pixels that share one independent value of the score."""

_SKY_DOMINATED, _BOX = 1.04, 7
"""Variance over the source-free one up to which the sky dominates, and the mean's box."""

_CLIP = 4.0
_MOST, _BLOCK = 2048, 1024
"""Pixels per axis, in the middle, that are looked at, and at a time."""

_REACH = 30
"""Largest lag looked at."""

_WIDTHS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Widths of the excess that are tried, in pixels."""


@dataclass(frozen=True, slots=True)
class NoiseExcess:
    """Correlated noise beyond that of the model.

    Attributes
    ----------
    share : float
        Its variance over that of the white noise.
    width : float, pixel
        Its autocovariance falls as a Gaussian of this width.
    """

    share: float
    width: float

    def power(self, size: tuple[int, int]) -> FloatArray:
        """Power over that of the white noise on the half plane of a real transform."""
        ky, kx = frequencies(size)
        k2 = kx**2 + ky**2
        return np.asarray(
            self.share * 2 * np.pi * self.width**2 * np.exp(-0.5 * k2 * self.width**2)
        )


def score_width(score: Image, sky: npt.NDArray[np.bool_]) -> float:
    """Factor by which a score scatters more than its noise model says, one if it does not.

    Parameters
    ----------
    score : ndarray, (ny, nx)
        The matched filter's signal to noise.
    sky : ndarray of bool, (ny, nx)
        Pixels with nothing but noise, see `sky_dominated`.

    Returns
    -------
    float
        The factor, at least one.
    """
    values = score[sky]
    return robust_std(values) if _too_wide(values, 1, _NOTABLE) else 1.0


def looks_wide(score: Image, blank: npt.NDArray[np.uint8]) -> bool:
    """Whether a score scatters by more than one; a quick look, for most differences do not.

    Parameters
    ----------
    score : ndarray, (ny, nx), float32
        Score image.
    blank : ndarray, (ny, nx), uint8
        One where a pixel is usable and empty.

    Returns
    -------
    bool
        True where a correction may be needed.
    """
    return _too_wide(score[::3, ::3][blank[::3, ::3] > 0], 9, _NOTABLE)


def _too_wide(values: npt.NDArray[np.floating], each: int, significance: float) -> bool:
    """Whether values of a score, one of `each` pixels, scatter by more than one.

    By significantly more, that is, and by so much that it matters.
    """
    number = max(values.size * each / _BEAM, 1.0)
    excess = max(_RELEVANT, significance * 1.17 / np.sqrt(number))
    return bool(number > _FEW and robust_std(values) > 1.0 + excess)


def sky_dominated(
    variance: Image, null_variance: Image, blank: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """Blank pixels where photon noise of sources nearby hardly enters the score.

    They are noise that the score does not count: none of the model's business here.

    Parameters
    ----------
    variance, null_variance : ndarray, (ny, nx)
        Variance of the difference, sources included and not.
    blank : ndarray of uint8, (ny, nx)
        Non-zero where there is nothing but noise.

    Returns
    -------
    ndarray of bool, (ny, nx)
        The pixels.
    """
    from scipy.ndimage import uniform_filter

    share = np.divide(variance, null_variance, where=blank > 0, out=np.ones_like(variance))
    uniform_filter(share, _BOX, output=share)
    quiet = blank > 0
    if quiet.any():
        quiet &= share < _SKY_DOMINATED * np.percentile(share[::3, ::3][quiet[::3, ::3]], 25)
    return np.asarray(quiet)


def measure_excess(
    image: Image, variance: Image, score: Image, sky: npt.NDArray[np.bool_]
) -> NoiseExcess | None:
    """Noise that neighbours share beyond what the images explain: fringes, flat fields, drifts.

    Its autocovariance is described by a Gaussian of the lag, fitted to the rings of that of the
    whitened difference.  Places that stand out are left aside: changes and what bright stars
    leave are no noise, though a few per cent of the pixels with them would look like it.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        Whitened difference and the variance of its source-free model.
    score : ndarray, (ny, nx)
        Its matched filter's signal to noise, which shows whether there is any.
    sky : ndarray of bool, (ny, nx)
        Pixels with nothing but noise, see `sky_dominated`.

    Returns
    -------
    NoiseExcess, optional
        The noise; None if there is none.
    """
    sky = source_free(image, variance, sky.view(np.uint8)) > 0
    if not _too_wide(score[::2, ::2][sky[::2, ::2]], 4, _SIGNIFICANT):
        return None
    middle = tuple(slice(max(0, n - _MOST) // 2, max(0, n - _MOST) // 2 + _MOST) for n in sky.shape)
    image, variance, sky = image[middle], variance[middle], sky[middle]
    pulls = np.sqrt(variance)
    np.divide(image, pulls, out=pulls)
    use = sky & (pulls > -_CLIP) & (pulls < _CLIP)
    if np.count_nonzero(use) < _LEAST:
        return None
    pulls -= np.mean(pulls, where=use)
    pulls[~use] = 0.0
    sums, counts = _autocovariance(pulls), _autocovariance(use.astype(np.float32))
    lags = np.arange(-_REACH, _REACH + 1)
    rho = sums / sums[_REACH, _REACH] * counts[_REACH, _REACH] / counts
    radius = np.hypot(lags[:, None], lags)
    ring = (radius > 0) & (radius <= _REACH) & (lags[:, None] != 0)
    best = min((_fit_ring(rho[ring], radius[ring], width) for width in _WIDTHS), key=lambda f: f[0])
    return NoiseExcess(best[1], best[2]) if best[1] > 0 else None


def _autocovariance(plane: Image) -> FloatArray:
    """Sum the products of pixels that lie up to `_REACH` apart, block by block to save memory."""
    total = np.zeros((2 * _REACH + 1,) * 2)
    lags = np.arange(-_REACH, _REACH + 1)
    for y in range(0, plane.shape[0], _BLOCK):
        for x in range(0, plane.shape[1], _BLOCK):
            block = plane[y : y + _BLOCK, x : x + _BLOCK]
            size = [fft.next_fast_len(n + _REACH, real=True) for n in block.shape]
            sums = fft.irfft2(np.abs(fft.rfft2(block, size)) ** 2, size)
            total += sums[lags[:, None], lags]
    return total


def _fit_ring(rho: FloatArray, radius: FloatArray, width: float) -> tuple[float, float, float]:
    """Fit a Gaussian of one width and a constant: sum of squares, height, width."""
    design = np.stack([np.exp(-0.5 * (radius / width) ** 2), np.ones_like(radius)], axis=1)
    solution, *_ = np.linalg.lstsq(design, rho, rcond=None)
    return float(np.sum((rho - design @ solution) ** 2)), float(solution[0]), width
