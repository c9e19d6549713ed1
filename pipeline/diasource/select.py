"""Which peaks become sources: vetoes, blends, and the sample below the threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pipeline.diasource.config import Config
from pipeline.diasource.detect import Footprints, Ints
from pipeline.exposure import FloatArray, Image, Mask
from pipeline.masks import MASK_PLANES, bits

__all__ = ["SELECTION_BITS", "Peaks", "judge", "sample", "sky_places"]

SELECTION_BITS: Mapping[str, int] = {
    "random": 1,
    "object": 2,
    "ephemeris": 4,
    "user": 8,
    "sky": 16,
}
"""Bits of `selectionBits`: why a row below the threshold was kept."""


@dataclass(slots=True, eq=False)
class Peaks:
    """The ledger: every peak and what became of it.

    Attributes
    ----------
    x, y : ndarray, (n,), int32
        Pixels.
    score : ndarray, (n,)
        Score, with its sign.
    rule : ndarray of str, (n,)
        Rule that stopped it, empty where none did.
    value, bound : ndarray, (n,)
        What the rule measured and what it allows.
    source : ndarray, (n,), int64
        The source it became, -1 for none.
    belongs_to : dict
        Peak that a peak was merged into.
    middle : dict
        Place x, y of what a peak stands for, where that is not the peak: the middle of a trail.
    """

    x: Ints
    y: Ints
    score: FloatArray
    rule: npt.NDArray[np.str_]
    value: FloatArray
    bound: FloatArray
    source: npt.NDArray[np.int64]
    belongs_to: dict[int, int] = field(default_factory=dict)
    middle: dict[int, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, score: Image, x: Ints, y: Ints) -> Peaks:
        """Open the ledger with peaks that no rule has stopped yet."""
        n = len(x)
        nothing = np.full(n, np.nan)
        none = np.full(n, -1, np.int64)
        values = score[y, x].astype(float)
        return cls(x, y, values, np.full(n, "", "<U24"), nothing, nothing.copy(), none)

    def add(self, score: Image, at: Ints) -> Ints:
        """Open entries for places ``(n, 2)``, x and y, that are no peaks; return their numbers."""
        new = Peaks.of(score, at[:, 0], at[:, 1])
        index = np.arange(len(self.x), len(self.x) + len(at), dtype=np.int32)
        for name in ("x", "y", "score", "rule", "value", "bound", "source"):
            setattr(self, name, np.append(getattr(self, name), getattr(new, name)))
        return index

    def main(self, peak: int) -> int:
        """Peak of the source that a peak belongs to in the end."""
        while peak in self.belongs_to:
            peak = self.belongs_to[peak]
        return peak

    def stop(
        self,
        where: npt.ArrayLike,
        rule: str,
        value: npt.ArrayLike,
        bound: float,
    ) -> None:
        """Record a rule for those peaks (an index) that no earlier rule has stopped."""
        index = np.asarray(where)
        value = np.broadcast_to(np.asarray(value, float), index.shape)
        free = self.rule[index] == ""
        self.rule[index[free]] = rule
        self.value[index[free]] = value[free]
        self.bound[index[free]] = bound


def judge(peaks: Peaks, footprints: Footprints, mask: Mask, config: Config) -> None:
    """Stop the peaks that are too faint, on bad pixels, or part of a brighter one.

    Rules, in this order: ``threshold`` (value |score|), ``mask:PLANE`` (value 1, bound 0) and
    ``prominence`` (value: height above the saddle).

    Parameters
    ----------
    peaks : Peaks
        Changed in place.
    footprints : Footprints
        Connected pixels above the threshold.
    mask : ndarray, (ny, nx), uint32
        Mask of the difference.
    config : Config
        Threshold, planes and prominence.
    """
    size = np.abs(peaks.score)
    faint = np.flatnonzero(~(size > config.threshold))
    peaks.stop(faint, "threshold", size[faint], config.threshold)
    at = mask[peaks.y, peaks.x]
    for plane in MASK_PLANES:
        if plane in config.veto:
            peaks.stop(np.flatnonzero(at & bits(plane)), f"mask:{plane}", 1.0, 0.0)
    inside = np.flatnonzero(footprints.label >= 0)
    highest = np.zeros(len(footprints.start))
    np.maximum.at(highest, footprints.label[inside], size[inside])
    least = np.maximum(
        config.prominence, config.prominence_fraction * highest[footprints.label[inside]]
    )
    low = footprints.persistence[inside] < least
    for k, bound in zip(inside[low], least[low], strict=True):
        peaks.stop(np.array([k]), "prominence", footprints.persistence[k], float(bound))


def sample(
    peaks: Peaks,
    near: Mapping[str, FloatArray],
    radius: float,
    most: int,
    config: Config,
    seed: int,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32], FloatArray]:
    """Choose peaks below the threshold to be measured (DMS-REQ-0270).

    Parameters
    ----------
    peaks : Peaks
        The ledger, judged.
    near : mapping of str to ndarray (m, 2), pixel
        Places by the name of their list: ``object``, ``ephemeris``, ``user``.
    radius : float, pixel
        How near to a place.
    most : int
        Most peaks drawn at random, beside the cap of the configuration.
    config : Config
        Caps.
    seed : int
        Of the random draw.

    Returns
    -------
    index : ndarray of int, (k,)
        The peaks.
    selection : ndarray of int32, (k,)
        `SELECTION_BITS`.
    weight : ndarray, (k,)
        Peaks each one stands for: one over its chance of having been chosen.
    """
    size = np.abs(peaks.score)
    pool = np.flatnonzero((size > config.sub_threshold) & (peaks.rule == "threshold"))
    selection = np.zeros(len(peaks.x), np.int32)
    weight = np.zeros(len(peaks.x))
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(pool)[: min(most, config.sub_random)]
    selection[drawn] |= SELECTION_BITS["random"]
    weight[drawn] = len(pool) / max(len(drawn), 1)
    for name, places in near.items():
        close = _close(peaks, pool, np.asarray(places, float).reshape(-1, 2), radius)
        kept = close[np.argsort(-size[close], kind="stable")][: config.sub_near]
        selection[kept] |= SELECTION_BITS[name]
        weight[kept] = 1.0
    index = np.flatnonzero(selection)
    return index, selection[index], weight[index]


def _close(
    peaks: Peaks, pool: npt.NDArray[np.intp], places: FloatArray, radius: float
) -> npt.NDArray[np.intp]:
    places = places[np.isfinite(places).all(axis=1)]
    if len(places) == 0 or len(pool) == 0:
        return pool[:0]
    distance, _ = cKDTree(places).query(np.column_stack([peaks.x[pool], peaks.y[pool]]))
    return np.asarray(pool[distance < radius])


def sky_places(
    score: Image, mask: Mask, unusable: np.uint32, n: int, seed: int
) -> npt.NDArray[np.float64]:
    """Draw random empty places: usable centre, no |score| above 4 within 15 pixels.

    Parameters
    ----------
    score : ndarray, (ny, nx), float32
        Score image.
    mask : ndarray, (ny, nx), uint32
        Mask of the difference.
    unusable : uint32
        Bits of the planes that a centre must not have.
    n : int
        Number of places wanted.
    seed : int
        Of the random numbers.

    Returns
    -------
    ndarray, (m, 2), pixel
        At most n positions.
    """
    rng = np.random.default_rng(seed)
    ny, nx = score.shape
    if min(ny, nx) <= 40 or n == 0:
        return np.empty((0, 2))
    places = rng.uniform((16, 16), (nx - 17, ny - 17), size=(4 * n, 2))
    kept = []
    for x, y in places:
        box = np.s_[int(y) - 15 : int(y) + 17, int(x) - 15 : int(x) + 17]
        if (mask[int(y + 0.5), int(x + 0.5)] & unusable) == 0 and not np.any(
            np.abs(score[box]) > 4.0
        ):
            kept.append((x, y))
    return np.array(kept[:n]).reshape(-1, 2)
