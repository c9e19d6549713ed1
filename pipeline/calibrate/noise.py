"""How well the variance plane describes the noise that is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.camera import Section
from pipeline.exposure import Image
from pipeline.masks import NOT_BLANK, bits
from pipeline.statistics import iqr_std

__all__ = ["noise_ratio", "rescaled"]

_SOURCES = bits(*NOT_BLANK)
_FEWEST = 100
_STRIDE = 3


def noise_ratio(image: Image, variance: Image, mask: npt.NDArray[np.uint32]) -> float:
    """Robust noise of the blank sky over the square root of the variance.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        Without sky.
    mask : ndarray, (ny, nx)
        With the detections marked.

    Returns
    -------
    float
        1 if the variance is right; NaN with fewer than 100 blank pixels.  A third of the rows
        and columns is looked at, which leaves an error of 0.1 per cent on a megapixel.
    """
    thin = (slice(None, None, _STRIDE), slice(None, None, _STRIDE))
    sky = ((mask[thin] & _SOURCES) == 0) & np.isfinite(image[thin]) & (variance[thin] > 0)
    if int(sky.sum()) < _FEWEST:
        return float("nan")
    pulls = image[thin][sky] / np.sqrt(variance[thin][sky])
    return iqr_std(pulls)


def _neighbours_ratio(image: Image, variance: Image, mask: npt.NDArray[np.uint32]) -> float:
    """Robust noise of differences of neighbours over what the variance says; NaN if too few."""
    sky = ((mask & _SOURCES) == 0) & np.isfinite(image) & (variance > 0)
    pulls = []
    for last, first in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        both = sky[last] & sky[first]
        spread = np.sqrt((variance[last] + variance[first])[both])
        pulls.append((image[last] - image[first])[both] / spread)
    values = np.concatenate(pulls)
    if len(values) < _FEWEST:
        return float("nan")
    return iqr_std(values)


def rescaled(
    image: Image,
    variance: Image,
    mask: npt.NDArray[np.uint32],
    amplifiers: Sequence[Section],
    limit: float,
) -> tuple[Image, dict[str, float]]:
    """Scale the variance of each amplifier to the noise of its blank sky.

    The noise is that of differences of neighbouring pixels, to which faint sources and an uneven
    sky hardly add.  It is too small where pixels share noise: not for resampled images.

    Parameters
    ----------
    image, variance, mask : ndarray, (ny, nx)
        As for `noise_ratio`.
    amplifiers : sequence of Section
        Regions; the whole image if empty.
    limit : float
        Scales of the variance are kept within ``1 - limit/2`` and ``1 + limit``.

    Returns
    -------
    tuple
        New variance, and the factor applied by region (FITS section).
    """
    whole = Section(0, image.shape[1], 0, image.shape[0])
    out, factors = variance.copy(), {}
    for region in amplifiers or (whole,):
        at = region.slices
        ratio = _neighbours_ratio(image[at], variance[at], mask[at])
        scale = float(np.clip(ratio**2, 1.0 - limit / 2.0, 1.0 + limit))
        factors[region.fits] = scale if np.isfinite(scale) else 1.0
        out[at] *= np.float32(factors[region.fits])
    return out, factors
