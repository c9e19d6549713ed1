"""Satellites: long thin footprints, and glints on a straight line."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.special import gammainc

from pipeline.compiled import compiled, pixel
from pipeline.diasource.detect import Footprints
from pipeline.exposure import FloatArray, Image

__all__ = ["along_streaks", "find_glints", "find_streaks", "line_scores"]

_MIN_LENGTH = 60.0
_MAX_RATIO = 0.15
_GLINTS = 5
_LINE_WIDTH = 1.5
_CHANCE = 1e-3
_LARGEST = 200
_APART = 20.0
_NEAR_STREAK = 3.0
_FARTHER = 2.0
"""How near to its line, in pixels, and how far beyond its ends, in lengths, a streak goes on."""
_STRONGEST = 4.0
"""No sample counts more, in σ: one star makes no line."""
_FEWEST_SAMPLES = 4


def find_streaks(footprints: Footprints, width: int) -> npt.NDArray[np.bool_]:
    """Footprints that are long and thin.

    Parameters
    ----------
    footprints : Footprints
        Pixels above the threshold.
    width : int, pixel
        Columns of the image.

    Returns
    -------
    ndarray, (n_footprints,), bool
        Longer than 60 pixels, at least seven times as long as wide (full axes of a uniform
        rectangle with the same second moments), and not along a column, where bleeds lie.
    """
    out = np.zeros(len(footprints.start) - 1, bool)
    for k in np.flatnonzero(np.diff(footprints.start) > _MIN_LENGTH):
        y, x = np.divmod(footprints.of(int(k)), width)
        minor, major = np.linalg.eigvalsh(np.cov(x, y))
        long_enough = np.sqrt(12.0 * major) > _MIN_LENGTH
        along_column = np.ptp(x) < 0.1 * np.ptp(y)
        out[k] = long_enough and minor < _MAX_RATIO**2 * major and not along_column
    return out


def along_streaks(
    footprints: Footprints, streaks: npt.NDArray[np.bool_], width: int
) -> npt.NDArray[np.bool_]:
    """Find the footprints in which streaks go on: masks, noise and stars cut trails to pieces.

    A line is fitted to the pixels of a streak; footprints whose centroid lies within three pixels
    of it and no farther from its ends than twice its length belong to it, and then tell the line.

    Parameters
    ----------
    footprints : Footprints
        Pixels above the threshold.
    streaks : ndarray, (n_footprints,), bool
        From `find_streaks`.
    width : int, pixel
        Columns of the image.

    Returns
    -------
    ndarray, (n_footprints,), bool
        The streaks and their pieces.
    """
    out = streaks.copy()
    if not streaks.any():
        return out
    label = np.repeat(np.arange(len(streaks)), np.diff(footprints.start))
    at = np.column_stack(np.divmod(footprints.pixels, width)[::-1]).astype(float)
    count = np.diff(footprints.start)
    centres = np.column_stack([np.bincount(label, c) / count for c in at.T])
    for k in np.flatnonzero(streaks):
        member = np.arange(len(streaks)) == k
        grown = member | _on_line(at[member[label]], centres)
        while (grown != member).any():
            member, grown = grown, grown | _on_line(at[grown[label]], centres)
        out |= grown
    return out


def _on_line(points: FloatArray, centres: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether places lie on the line through points, or not far beyond its ends."""
    middle = points.mean(axis=0)
    along = np.linalg.eigh(np.cov(points.T))[1][:, 1]
    place = (points - middle) @ along
    reach = _FARTHER * np.ptp(place)
    offset = centres - middle
    there = offset @ along
    near = np.abs(offset @ np.array([-along[1], along[0]])) < _NEAR_STREAK
    return np.asarray(near & (there > place.min() - reach) & (there < place.max() + reach))


def find_glints(at: FloatArray, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Find detections on straight lines on which chance cannot have put so many.

    Parameters
    ----------
    at : ndarray, (n, 2), pixel
        Detections, the most significant first.  Lines are sought among the first 200 that have
        no more significant one within 20 pixels.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    ndarray, (n,), bool
        Members (within 3 pixels) of lines with at least five detections within 1.5 pixels, where
        fewer than 0.001 such lines are expected among as many random positions (Poisson).  Lines
        along columns are left out: those are bad columns.
    """
    member = np.zeros(len(at), bool)
    at = np.asarray(at, float).reshape(-1, 2)
    few = at[_alone(at)[:_LARGEST]]
    n = len(few)
    if n < _GLINTS:
        return member
    i, j = np.triu_indices(n, 1)
    step = few[j] - few[i]
    length = np.hypot(*step.T)
    usable = (length > _MIN_LENGTH) & (np.abs(step[:, 0]) > 0.02 * length)
    normal = np.column_stack([-step[:, 1], step[:, 0]])[usable] / length[usable, None]
    offset = np.einsum("ij,ij->i", normal, few[i[usable]])
    density = n / (shape[0] * shape[1])
    expected = density * 2.0 * _LINE_WIDTH * float(np.hypot(*shape))
    for start in range(0, len(normal), 4096):
        s = slice(start, start + 4096)
        on_line = np.abs(normal[s] @ few.T - offset[s, None]) < _LINE_WIDTH
        count = on_line.sum(axis=1)
        # two of them define the line; P(at least k | mean) is the regularised gamma function
        chance = len(normal) * gammainc(np.maximum(count - 2, 1), expected)
        for k in np.flatnonzero((count >= _GLINTS) & (chance < _CHANCE)):
            member |= _on_segment(at, few[on_line[k]], normal[s][k], offset[s][k])
    return member


def _on_segment(
    at: FloatArray, points: FloatArray, normal: FloatArray, offset: float
) -> npt.NDArray[np.bool_]:
    """Find detections near a line, between the outermost of the points that define it."""
    along = np.array([normal[1], -normal[0]])
    ends = points @ along
    place = at @ along
    near = np.abs(at @ normal - offset) < 2.0 * _LINE_WIDTH
    return np.asarray(near & (place >= ends.min() - 1.0) & (place <= ends.max() + 1.0))


def _alone(at: FloatArray) -> npt.NDArray[np.intp]:
    """Return the indices of points that have no earlier one within 20 pixels."""
    if len(at) == 0:
        return np.empty(0, np.intp)
    near = cKDTree(at).query_pairs(_APART, output_type="ndarray")
    keep = np.ones(len(at), bool)
    keep[near.max(axis=1)] = False
    return np.flatnonzero(keep)


@compiled
def line_scores(
    score: Image,
    at: FloatArray,
    sign: FloatArray,
    angles: FloatArray,
    radii: FloatArray,
    out: FloatArray,
) -> None:
    """Look for a straight line of light through each place that goes on beyond a source.

    Samples of a matched filter 1.5 FWHM apart are nearly independent: the sum of such samples over
    the root of their number is in σ.  A satellite leaves many above any threshold on both sides, a
    source that moved none (a Radon transform of the surroundings, Nir, Zackay & Ofek 2018, AJ 156,
    229).

    Parameters
    ----------
    score : ndarray, (ny, nx)
        Signal in units of its noise; NaN where it is unknown.
    at : ndarray, (n, 2), pixel
        x and y of the places.
    sign : ndarray, (n,)
        1 or -1: sign of the light that is sought.
    angles : ndarray, (m,), radian
        Directions to try, from the rows on.
    radii : ndarray, (k,), pixel
        Distances of the samples on either side.
    out : ndarray, (n, 2)
        The strongest direction: both sides together, and the weaker side.  NaN where too little of
        the surroundings is known.
    """
    ny, nx = score.shape
    side, count = np.zeros(2), np.zeros(2)
    for k in range(at.shape[0]):
        out[k] = np.nan
        for angle in angles:
            dx, dy = np.cos(angle), np.sin(angle)
            side[:], count[:] = 0.0, 0.0
            for s in range(2 * len(radii)):
                r = radii[s // 2] * (1.0 - 2.0 * (s % 2))
                x, y = pixel(at[k, 0] + r * dx), pixel(at[k, 1] + r * dy)
                if not (0 <= x < nx and 0 <= y < ny) or np.isnan(score[y, x]):
                    continue
                side[s % 2] += min(max(sign[k] * score[y, x], -_STRONGEST), _STRONGEST)
                count[s % 2] += 1.0
            if count.max() < _FEWEST_SAMPLES:
                continue
            both = side.sum() / np.sqrt(count.sum())
            known = count >= _FEWEST_SAMPLES
            weaker = (side[known] / np.sqrt(count[known])).min()
            out[k, 0] = both if np.isnan(out[k, 0]) else max(out[k, 0], both)
            out[k, 1] = weaker if np.isnan(out[k, 1]) else max(out[k, 1], weaker)
