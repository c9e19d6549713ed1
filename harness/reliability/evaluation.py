"""How well a classifier tells real from bogus: by class, by artefact and by signal to noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from pipeline.exposure import FloatArray

if TYPE_CHECKING:
    from harness.reliability.samples import Samples

__all__ = [
    "Share",
    "bootstrap",
    "calibration_error",
    "faint",
    "operating_point",
    "rejected_at",
    "shares",
]

RATIOS = (9.0, 4.0)
"""Bogus to real for which a purity is stated."""
FAINT = (5.5, 6.5)
"""Signal to noise at which the classifier is judged hardest."""
_DRAWS = 200


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a class that is kept.

    Attributes
    ----------
    name : str
        The class.
    kept, n : int
        Detections at or above the cut, and all.
    """

    name: str
    kept: int
    n: int

    @property
    def value(self) -> float:
        """The part; NaN of nothing."""
        return self.kept / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Jeffreys interval of 68 %."""
        a, b = self.kept + 0.5, self.n - self.kept + 0.5
        low, high = (float(betaincinv(a, b, q)) for q in (0.16, 0.84))
        return (low if self.kept else 0.0), (high if self.kept < self.n else 1.0)


def shares(
    data: Samples, p: FloatArray, cut: float, *, least_true_snr: float = 0.0
) -> Iterator[Share]:
    """Count what is kept of every class of real sources and of artefacts.

    Parameters
    ----------
    data : Samples
        n detections.
    p : ndarray, (n,)
        Their reliabilities.
    cut : float
        Least reliability of what is kept.
    least_true_snr : float
        Only real sources from this true signal to noise on.

    Yields
    ------
    Share
        Real classes first, each group in the order of names.
    """
    strong = ~data.real | (np.abs(data.true_snr) >= least_true_snr)
    for side in (True, False):
        chosen = (data.label >= 0) & (data.real == side) & strong
        for kind in np.unique(data.kind[chosen]).tolist():
            here = chosen & (data.kind == kind)
            yield Share(kind, int((p[here] >= cut).sum()), int(here.sum()))


def calibration_error(p: FloatArray, real: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Compute the expected calibration error (Naeini et al. 2015).

    Parameters
    ----------
    p : ndarray, (n,)
        Probabilities.
    real : ndarray of bool, (n,)
        What is true.
    bins : int
        Ranges of equal width.

    Returns
    -------
    float
        Σ |mean probability − fraction real| of each range, weighted by its members.
    """
    cell = np.minimum((p * bins).astype(int), bins - 1)
    gap = [abs(float(p[cell == c].sum() - real[cell == c].sum())) for c in range(bins)]
    return sum(gap) / max(len(p), 1)


def operating_point(
    real: FloatArray, bogus: FloatArray, ratio: float, purity: float = 0.95
) -> tuple[float, float]:
    """Completeness at a purity.

    Parameters
    ----------
    real, bogus : ndarray
        Reliabilities of either.
    ratio : float
        Bogus per real source in the mixture.
    purity : float
        Least purity of what is kept.

    Returns
    -------
    completeness, cut : float
        The largest completeness of any cut that is pure enough, and that cut; 0 and infinity where
        there is none.
    """
    if not len(real) or not len(bogus):
        return float("nan"), float("nan")
    cuts = np.unique(real)
    kept = 1.0 - np.searchsorted(np.sort(real), cuts, side="left") / len(real)
    false = 1.0 - np.searchsorted(np.sort(bogus), cuts, side="left") / len(bogus)
    good = np.flatnonzero(kept / (kept + ratio * false) >= purity)
    return (float(kept[good[0]]), float(cuts[good[0]])) if len(good) else (0.0, float("inf"))


def faint(data: Samples) -> npt.NDArray[np.bool_]:
    """Mark the detections by which `FAINT` judges: by their measured signal to noise.

    Parameters
    ----------
    data : Samples
        n detections.

    Returns
    -------
    ndarray of bool, (n,)
        Those in the range.
    """
    snr = np.abs(data.snr)
    return np.asarray((snr >= FAINT[0]) & (snr < FAINT[1]) & (data.label >= 0))


def rejected_at(real: FloatArray, bogus: FloatArray, kept: float = 0.99) -> float:
    """Part of the artefacts below the cut that keeps a part of the real sources.

    Parameters
    ----------
    real, bogus : ndarray
        Reliabilities of either.
    kept : float
        Part of the real sources that is to be kept.

    Returns
    -------
    float
        The part that is rejected; NaN without either.
    """
    if not len(real) or not len(bogus):
        return float("nan")
    cut = np.sort(real)[int(np.floor((1.0 - kept) * len(real)))]
    return float(np.mean(bogus < cut))


def bootstrap(
    groups: npt.NDArray[np.str_], measure: Callable[[npt.NDArray[np.intp]], FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Range of numbers over samples of whole groups with replacement (Efron 1979).

    Detections of one image share its seeing, its template and its satellites: they are drawn
    together or not at all.

    Parameters
    ----------
    groups : ndarray of str, (n,)
        Group of every detection.
    measure : callable
        Gives k numbers of the detections with some indices.

    Returns
    -------
    low, high : ndarray, (k,)
        16th and 84th percentiles over 200 draws, the same ones every time; NaN of numbers that
        are not defined in any.
    """
    names, member = np.unique(groups, return_inverse=True)
    rows = [np.flatnonzero(member == k) for k in range(len(names))]
    rng = np.random.default_rng(1)
    drawn = np.array(
        [
            measure(np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))]))
            for _ in range(_DRAWS)
        ]
    )
    ends = [[np.nan, np.nan] if not (c := column[np.isfinite(column)]).size else
            np.percentile(c, (16, 84)) for column in drawn.T]  # fmt: skip
    low, high = np.transpose(ends)
    return low, high
