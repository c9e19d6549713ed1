"""Matching detections to reference stars without knowing the pointing well.

Every pair of a detection and a reference star votes for an offset, once per trial rotation; true
pairs agree on one cell, false ones spread.  The best cell starts a similarity fit whose radius
shrinks.  The match is accepted on the probability that chance alone gives as many pairs in *any*
of the hypotheses that could have been tried; a rule that counts fewer lets wrong matches through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray

__all__ = ["Match", "match", "pair"]

_CELL = 2.0
_RADII = (4.0, 3.0, 2.0, 1.5, 1.0, 1.0)
_SCALE_RANGE = 0.005


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """Pairs and the similarity that brings the detections onto the reference stars.

    Attributes
    ----------
    detection, reference : ndarray of int, (n,)
        Indices of the pairs.
    matrix : ndarray, (2, 2)
        Rotation and scale.
    offset : ndarray, (2,), arcsec
        ``reference = matrix @ detection + offset``.
    log_chance : float
        Natural logarithm of the expected number of chance matches as good as this one.
    """

    detection: npt.NDArray[np.int64]
    reference: npt.NDArray[np.int64]
    matrix: FloatArray
    offset: FloatArray
    log_chance: float

    def __len__(self) -> int:
        return len(self.detection)


def match(
    detections: FloatArray,
    references: FloatArray,
    *,
    max_offset: float = 60.0,
    max_rotation: float = 0.5,
    n_detections: int = 60,
    n_references: int = 120,
) -> Match | None:
    """Find the similarity between two lists of points.

    Parameters
    ----------
    detections, references : ndarray, (n, 2), arcsec
        Points in the tangent plane round the middle of the image, brightest first.
    max_offset : float, arcsec
        Largest offset along each axis.
    max_rotation : float, deg
        Largest rotation either way.
    n_detections, n_references : int
        How many of the brightest vote.

    Returns
    -------
    Match or None
        The best match; None if there is not even a pair of pairs.  Whether it is credible is in
        `Match.log_chance`.
    """
    d, r = detections[:n_detections], references[:n_references]
    if len(d) < 2 or len(r) < 2:
        return None
    reach = float(np.hypot(*d.T).max())
    step = 2.0 * _CELL / max(reach, 1.0)
    n_steps = int(np.ceil(np.radians(max_rotation) / step))
    candidates = [
        (*_vote(d, r, angle, max_offset), angle)
        for angle in step * np.arange(-n_steps, n_steps + 1)
    ]
    candidates.sort(key=lambda c: -c[0])
    best: Match | None = None
    hypotheses = _hypotheses(max_offset, np.radians(max_rotation), reach)
    for _, offset, angle in candidates[:4]:
        found = _refine(d, r, angle, offset, hypotheses)
        if found is not None and (best is None or found.log_chance < best.log_chance):
            best = found
    return best


def _rotation(angle: float) -> FloatArray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def _vote(
    d: FloatArray, r: FloatArray, angle: float, max_offset: float
) -> tuple[float, FloatArray]:
    """Votes in the best 2 × 2 cells and their mean offset."""
    turned = d @ _rotation(angle).T
    offsets = (r[None, :, :] - turned[:, None, :]).reshape(-1, 2)
    n = int(np.ceil(2.0 * max_offset / _CELL))
    cells = np.floor((offsets + max_offset) / _CELL).astype(np.int64)
    inside = ((cells >= 0) & (cells < n)).all(axis=1)
    offsets, cells = offsets[inside], cells[inside]
    counts = np.bincount(cells[:, 1] * n + cells[:, 0], minlength=n * n).reshape(n, n)
    sums = np.zeros((n + 1, n + 1))
    sums[1:, 1:] = counts.cumsum(axis=0).cumsum(axis=1)
    squares = sums[2:, 2:] - sums[:-2, 2:] - sums[2:, :-2] + sums[:-2, :-2]
    j, i = np.unravel_index(int(np.argmax(squares)), squares.shape)
    near = (np.abs(cells - np.array([i, j]) - 0.5) < 1.0).all(axis=1)
    middle = offsets[near].mean(axis=0) if near.any() else np.zeros(2)
    return float(squares[j, i]), middle


def _refine(
    d: FloatArray, r: FloatArray, angle: float, offset: FloatArray, hypotheses: float
) -> Match | None:
    matrix = _rotation(angle)
    for radius in _RADII:
        i, j = pair(d @ matrix.T + offset, r, radius)
        if len(i) < 2:
            return None
        matrix, offset = _similarity(d[i], r[j])
    i, j = pair(d @ matrix.T + offset, r, _RADII[-1])
    if len(i) < 2 or abs(np.sqrt(abs(np.linalg.det(matrix))) - 1.0) > _SCALE_RANGE:
        return None
    chance = _log_chance(d @ matrix.T + offset, r, len(i), hypotheses)
    return Match(i, j, matrix, offset, chance)


def pair(
    a: FloatArray, b: FloatArray, radius: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pair points that are each other's nearest neighbour within a radius.

    Parameters
    ----------
    a, b : ndarray, (n, 2) and (m, 2)
        Points.
    radius : float
        Largest distance.

    Returns
    -------
    tuple of ndarray
        Indices into both.
    """
    from scipy.spatial import cKDTree

    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    distance, forth = cKDTree(b).query(a, distance_upper_bound=radius)
    _, back = cKDTree(a).query(b)
    i = np.flatnonzero(np.isfinite(distance))
    i = i[back[forth[i]] == i]
    return i.astype(np.int64), forth[i].astype(np.int64)


def _similarity(p: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least-squares rotation, scale and shift from p to q."""
    p0, q0 = p.mean(axis=0), q.mean(axis=0)
    a, b = p - p0, q - q0
    norm = float((a**2).sum())
    c = float((a * b).sum()) / norm
    s = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / norm
    matrix = np.array([[c, -s], [s, c]])
    return matrix, q0 - matrix @ p0


def _hypotheses(max_offset: float, max_rotation: float, reach: float) -> float:
    """Distinct similarities within the search range at the final radius."""
    radius = _RADII[-1]
    shifts = (2.0 * max_offset) ** 2 / (np.pi * radius**2)
    turns = max(1.0, max_rotation * reach / radius)
    scales = max(1.0, _SCALE_RANGE * reach / radius)
    return float(shifts * turns * scales)


def _log_chance(moved: FloatArray, r: FloatArray, pairs: int, hypotheses: float) -> float:
    """Log of the expected number of hypotheses with at least as many chance pairs (Poisson)."""
    from scipy.stats import poisson

    low, high = moved.min(axis=0) - 5.0, moved.max(axis=0) + 5.0
    within = ((r >= low) & (r <= high)).all(axis=1)
    density = max(int(within.sum()), 1) / float(np.prod(high - low))
    expected = len(moved) * density * np.pi * _RADII[-1] ** 2
    return float(np.log(hypotheses) + poisson.logsf(pairs - 1, expected))
