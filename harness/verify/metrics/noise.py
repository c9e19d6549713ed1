"""Noise: whether the variance plane is right and the difference is white."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from harness.verify.blanksky import blank_pixels
from harness.verify.metric import Sample, metric
from harness.verify.view import View, remember
from pipeline.exposure import Exposure
from pipeline.statistics import clipped, mad_std

__all__: list[str] = []

_LAG = 3
_TILE, _BOX = 128, 7
_SOURCE_FREE = 1.1
"""Light of sources may add so much to the variance of a source-free place."""


@dataclass(frozen=True, slots=True)
class _Band:
    """Some rows of a difference: planes (ny, nx), and where no source adds to the noise."""

    image: npt.NDArray[np.floating]
    variance: npt.NDArray[np.floating]
    score: npt.NDArray[np.floating]
    source_free: npt.NDArray[np.bool_]


def _bands(view: View) -> list[_Band]:
    """Bands of rows, one of three: over 10⁶ pixels of a detector, which give a σ to 0.1 %."""
    exposure, score = view.difference.exposure, view.difference.score

    def cut() -> list[_Band]:
        parts = _parts(exposure.shape[0])
        return [
            _Band(exposure.image[p], exposure.variance[p], score[p], _source_free(exposure, p))
            for p in (parts[1::3] if len(parts) > 5 else parts)
        ]

    return remember(view, "bands", cut)


def _source_free(exposure: Exposure, rows: slice) -> npt.NDArray[np.bool_]:
    """Blank pixels of a difference in the dark: no source of either image adds noise there.

    A static source is as good as gone from a difference and leaves no mask bit, but its photons
    are noise, and what is left of it is no noise at all.  The variance plane knows where it was:
    its mean over some pixels (a pixel's own variance goes with its own noise) is compared with
    the dark quarter of the surroundings.
    """
    image, variance = exposure.image[rows], exposure.variance[rows]
    blank = (exposure.mask[rows] == 0) & np.isfinite(image) & (variance > 0)
    weight = uniform_filter(blank.astype(np.float32), _BOX)
    total = uniform_filter(np.where(blank, variance, np.float32(0.0)), _BOX)
    level = total / np.maximum(weight, np.float32(1e-6))
    source_free = np.zeros_like(blank)
    for columns in _parts(blank.shape[1]):
        here = level[:, columns]
        known = here[blank[:, columns]]
        if len(known):
            source_free[:, columns] = here < _SOURCE_FREE * np.percentile(known, 25)
    return np.asarray(source_free & blank)


def _parts(size: int) -> list[slice]:
    edges = np.linspace(0, size, max(1, round(size / _TILE)) + 1).astype(int)
    return [slice(a, b) for a, b in pairwise(edges)]


def _pair_pulls(exposure: Exposure, blank: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Differences of pixels a few apart in a row over their error: sky and galaxies cancel."""
    image, variance = exposure.image[::4], exposure.variance[::4]
    good = blank[::4, :-_LAG] & blank[::4, _LAG:]
    pulls = (image[:, :-_LAG] - image[:, _LAG:])[good].astype(float)
    return np.asarray(pulls / np.sqrt((variance[:, :-_LAG] + variance[:, _LAG:])[good]))


def _ratio(exposure: Exposure, blank: npt.NDArray[np.bool_]) -> Sample:
    pulls = _pair_pulls(exposure, blank)
    if len(pulls) < 1000:
        return Sample(float("nan"), 0)
    # The MAD of n Gaussian values has a relative error of 1.17 / sqrt(n); half of the pairs
    # share a pixel with another pair.
    return Sample(mad_std(pulls), len(pulls), 1.6 * mad_std(pulls) / np.sqrt(len(pulls)))


@metric("noise_ratio", unit="", product="visit_image", reads=("visit_image",), reduce="worst")
def noise_ratio(view: View) -> Sample:
    """Empirical noise of blank sky over the noise the variance plane claims."""
    return _ratio(view.visit_image, blank_pixels(view))


@metric("difference_noise", unit="", product="difference", reads=("difference",), reduce="mean")
def difference_noise(view: View) -> Sample:
    """Robust standard deviation of the difference over the square root of its variance."""
    pulls = np.concatenate([_pulls(band)[band.source_free] for band in _bands(view)])
    if len(pulls) < 1000:
        return Sample(float("nan"), 0)
    return Sample(mad_std(pulls), len(pulls), 1.17 * mad_std(pulls) / np.sqrt(len(pulls)))


@metric("score_noise", unit="", product="difference", reads=("difference",), reduce="mean")
def score_noise(view: View) -> Sample:
    """Robust standard deviation of the score on blank sky; one by definition of σ_null."""
    # σ_null is the noise of the source-free image: only where no source adds to it.
    values = np.concatenate([band.score[band.source_free] for band in _bands(view)])
    values = values[np.isfinite(values)].astype(float)
    if len(values) < 1000:
        return Sample(float("nan"), 0)
    beam = 25.0  # pixels that share one independent value of the score
    return Sample(_spread(values), len(values), 0.88 * np.sqrt(beam / len(values)))


def _spread(values: npt.NDArray[np.float64]) -> float:
    """Return the standard deviation that the two most telling quantiles give.

    Of all pairs those of 6.9 and 93.1 per cent know a Gaussian's width best: to 0.88 / √n, the MAD
    to 1.17 / √n (Mosteller 1946, Ann. Math. Statist. 17, 377).  Stored scores are rounded, to which
    the MAD, one value out of few, is sensitive as well.
    """
    low, high = np.percentile(values, [6.94, 93.06])
    return float(high - low) / (2.0 * 1.4803)


@metric("noise_correlation", unit="", product="difference", reads=("difference",), reduce="mean")
def noise_correlation(view: View, axis: int = 1, columns: int = 4) -> Sample:
    """Correlation of neighbouring blank pixels of the difference, averaged over a grid of tiles."""
    values, n = [], 0
    for band in _bands(view):
        pulls = _pulls(band)
        good = band.source_free & (np.abs(pulls) < 5.0)
        n += int(good.sum())
        tiles = (np.array_split(plane, columns, axis=1) for plane in (pulls, good))
        values += [_lag_one(pull, kept, axis) for pull, kept in zip(*tiles, strict=True)]
    known = np.array([v for v in values if np.isfinite(v)])
    if not len(known):
        return Sample(float("nan"), 0)
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
    return Sample(float(known.mean()), n, error)


def _pulls(band: _Band) -> npt.NDArray[np.floating]:
    return np.asarray(band.image / np.sqrt(band.variance))


def _lag_one(pulls: npt.NDArray[np.floating], good: npt.NDArray[np.bool_], axis: int) -> float:
    first, second = (slice(None, -1), slice(1, None))
    one = (first, slice(None)) if axis == 0 else (slice(None), first)
    two = (second, slice(None)) if axis == 0 else (slice(None), second)
    a, b, both = pulls[one], pulls[two], good[one] & good[two]
    if both.sum() < 500:
        return float("nan")
    return float(np.corrcoef(a[both], b[both])[0, 1])


@metric("amp_step", unit="%", product="visit_image", reads=("visit_image",), reduce="worst")
def amp_step(view: View, width: int = 24) -> Sample:
    """Step of the sky level across the boundary between amplifiers, in percent of the sky."""
    image = view.visit_image
    assert image.background is not None
    sky = float(np.median(image.background[::8, ::8]))  # it is smooth
    middle = image.shape[1] // 2
    strips = (slice(middle - width, middle), slice(middle, middle + width))
    planes = [(image.image[:, s], image.mask[:, s], image.variance[:, s]) for s in strips]
    sides = [p[(m == 0) & np.isfinite(p) & (v > 0)].astype(float) for p, m, v in planes]
    n = min(len(s) for s in sides)
    if n < 500 or not sky > 0:
        return Sample(float("nan"), 0)
    sides = [clipped(s, 3.0) for s in sides]
    error = np.sqrt(sum(s.var() / len(s) for s in sides))
    step = float(sides[1].mean() - sides[0].mean())
    return Sample(100.0 * abs(step) / sky, n, 100.0 * float(error) / sky)
