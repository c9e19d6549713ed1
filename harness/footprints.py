"""Which frames share sky: a tree of their centres finds candidates, their polygons decide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray
from pipeline.sphere import basis, radec, unit_vectors

__all__ = ["Indices", "overlapping_pairs", "shared_fractions"]

Indices = npt.NDArray[np.int64]
"""Places in a list."""

_BLOCK = 1024  # frames whose neighbours are looked for at a time
_SWELL = 1.0 + 1e-9  # of one polygon, so that edges of both that coincide are not counted twice


def overlapping_pairs(corners: FloatArray, least: float) -> Indices:
    """Find all pairs of frames that share enough sky.

    Parameters
    ----------
    corners : ndarray, (n, 8), deg
        RA and Dec of the four corners of each frame, in turn.
    least : float
        Shared fraction of the smaller one.

    Returns
    -------
    ndarray, (m, 2)
        Indices of both frames, the lower first.
    """
    polygons = _polygons(corners)
    blocks = (pairs[_measured(polygons, pairs) >= least] for pairs in _candidates(polygons))
    return np.concatenate([np.empty((0, 2), np.int64), *blocks])


def shared_fractions(corners: FloatArray, pairs: Indices) -> FloatArray:
    """Shared areas of pairs of frames in units of the smaller one.

    Parameters
    ----------
    corners : ndarray, (n, 8), deg
        RA and Dec of four corners in turn, in either sense, of convex polygons.
    pairs : ndarray, (m, 2)
        Indices of both frames.

    Returns
    -------
    ndarray, (m,)
        0 to 1; measured on the plane tangent at the centre of the first.
    """
    return _measured(_polygons(corners), pairs)


def _polygons(corners: FloatArray) -> FloatArray:
    """Corners as unit vectors, ``(n, 4, 3)``, counter-clockwise on the sky."""
    vectors = unit_vectors(corners[:, ::2], corners[:, 1::2])
    a, b, c, d = np.moveaxis(vectors, 1, 0)
    clockwise = np.einsum("nk,nk->n", np.cross(c - a, d - b), a + b + c + d) < 0
    vectors[clockwise] = vectors[clockwise, ::-1]
    return vectors


def _candidates(polygons: FloatArray) -> Iterator[Indices]:
    """Pairs whose circumscribed circles meet."""
    if not len(polygons):
        return
    centres, reach = _circles(polygons)
    tree = cKDTree(centres)
    for start in range(0, len(centres), _BLOCK):
        block = cKDTree(centres[start : start + _BLOCK])
        near = block.sparse_distance_matrix(tree, 2.0 * reach.max(), output_type="ndarray")
        pairs = np.stack([near["i"] + start, near["j"]], axis=1)
        meet = near["v"] <= reach[pairs[:, 0]] + reach[pairs[:, 1]]
        yield pairs[meet & (pairs[:, 0] < pairs[:, 1])]


def _measured(polygons: FloatArray, pairs: Indices) -> FloatArray:
    centres = polygons.sum(axis=1)
    axes = np.stack([centres, *basis(*radec(centres))], axis=1)
    shared = np.empty(len(pairs))
    _measure(polygons, *_circles(polygons), axes, pairs, np.empty((2, 4, 2)), shared)
    return shared


def _circles(polygons: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centres and radii of circles round the corners."""
    centres = polygons.mean(axis=1)
    return centres, np.linalg.norm(polygons - centres[:, None], axis=2).max(axis=1)


@compiled
def _measure(
    polygons: FloatArray,
    centres: FloatArray,
    reach: FloatArray,
    axes: FloatArray,
    pairs: Indices,
    plane: FloatArray,
    out: FloatArray,
) -> None:
    for k in range(len(pairs)):
        i, j = pairs[k, 0], pairs[k, 1]
        distance = 0.0
        for m in range(3):
            distance += (centres[i, m] - centres[j, m]) ** 2
        if distance > (reach[i] + reach[j]) ** 2:
            out[k] = 0.0
        elif _project(polygons[i], axes[i], plane[0]) and _project(polygons[j], axes[i], plane[1]):
            out[k] = _fraction(plane[0], plane[1])
        else:
            out[k] = 0.0


@compiled
def _project(polygon: FloatArray, axes: FloatArray, plane: FloatArray) -> bool:
    """Gnomonic projection in units of the centre's length; false beyond 90 degrees."""
    for k in range(4):
        x, y, z = polygon[k]
        depth = axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z
        if not depth > 0.0:
            return False
        for m in range(2):
            plane[k, m] = (axes[m + 1, 0] * x + axes[m + 1, 1] * y + axes[m + 1, 2] * z) / depth
    return True


@compiled
def _fraction(first: FloatArray, second: FloatArray) -> float:
    for m in range(2):
        middle = 0.25 * (second[0, m] + second[1, m] + second[2, m] + second[3, m])
        for k in range(4):
            second[k, m] = middle + (second[k, m] - middle) * _SWELL
    smaller = min(_area(first), _area(second))
    if not smaller > 0.0:
        return 0.0
    shared = 0.5 * (_edges_within(first, second) + _edges_within(second, first))
    return min(max(shared / smaller, 0.0), 1.0)


@compiled
def _area(polygon: FloatArray) -> float:
    twice = 0.0
    for k in range(4):
        n = (k + 1) % 4
        twice += polygon[k, 0] * polygon[n, 1] - polygon[k, 1] * polygon[n, 0]
    return 0.5 * twice


@compiled
def _edges_within(polygon: FloatArray, window: FloatArray) -> float:
    """Integral of x dy - y dx along the parts of a polygon's edges that a window contains.

    Every edge is clipped by the four half-planes of the window (Cyrus & Beck 1978).  By Green's
    theorem the integrals over both polygons add up to twice the area they share.
    """
    total = 0.0
    for k in range(4):
        n = (k + 1) % 4
        x, y = polygon[k]
        dx, dy = polygon[n, 0] - x, polygon[n, 1] - y
        enter, leave = 0.0, 1.0
        for w in range(4):
            v = (w + 1) % 4
            ex, ey = window[v, 0] - window[w, 0], window[v, 1] - window[w, 1]
            inside = ex * (y - window[w, 1]) - ey * (x - window[w, 0])
            gain = ex * dy - ey * dx
            if gain > 0.0:
                enter = max(enter, -inside / gain)
            elif gain < 0.0:
                leave = min(leave, -inside / gain)
            elif inside < 0.0:
                leave = -1.0
        if leave > enter:
            total += (leave - enter) * (x * dy - y * dx)
    return total
