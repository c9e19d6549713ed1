"""Which frames share sky: a tree of their centres finds candidates, their polygons decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray
from pipeline.sphere import basis, radec, unit_vectors

__all__ = ["Indices", "connected", "shared_fractions", "shared_sky"]

Indices = npt.NDArray[np.int64]
"""Places in a list."""

_BLOCK = 1024  # frames whose neighbours are looked for at a time
_LEAST_CELL = 1e-6  # rad: frames without extent have cells too
_SWELL = 1.0 + 1e-9  # of one polygon, so that edges of both that coincide are not counted twice


class _Sky(NamedTuple):
    """Frames on the sphere.

    Attributes
    ----------
    polygons : ndarray, (n, 4, 3)
        Corners as unit vectors, counter-clockwise on the sky.
    centres, reach : ndarray, (n, 3) and (n,)
        Circles round the corners.
    axes : ndarray, (n, 3, 3)
        Sum of the corners, whose length is the unit of a projection, east and north.
    """

    polygons: FloatArray
    centres: FloatArray
    reach: FloatArray
    axes: FloatArray


def connected(corners: FloatArray, least: float) -> Indices:
    """Divide frames into groups that are connected by overlap.

    Parameters
    ----------
    corners : ndarray, (n, 8), deg
        RA and Dec of the four corners of each frame, in turn.
    least : float
        Shared fraction of the smaller one that connects two frames.

    Returns
    -------
    ndarray, (n,)
        The first frame of the group of each.  Only frames in neighbouring cells of the sky, as
        wide as the widest frame, are compared; what is connected already is not measured, and no
        list of pairs is made: a thousand visits of one place have as many pairs as 1e8.
    """
    n = len(corners)
    if not n:
        return np.empty(0, np.int64)
    sky = _sky(corners)
    order, starts, beside = _cells(sky.centres, max(2.0 * sky.reach.max(), _LEAST_CELL))
    label, plane = np.arange(n), np.empty((2, 4, 2))
    _connect(
        sky.polygons[order], sky.centres[order], sky.reach[order], sky.axes[order],
        order, starts, beside, least, plane, label,
    )  # fmt: skip
    first = np.full(n, n)
    np.minimum.at(first, label, order)
    group = np.empty(n, np.int64)
    group[order] = first[label]
    return group


def shared_sky(first: FloatArray, second: FloatArray, least: float) -> tuple[Indices, FloatArray]:
    """Find the pairs of frames, one of each list, that share enough sky.

    Parameters
    ----------
    first, second : ndarray, (n, 8) and (m, 8), deg
        RA and Dec of the four corners of each frame, in turn.
    least : float
        Shared fraction of the smaller one.

    Returns
    -------
    pairs : ndarray, (k, 2)
        Indices in both lists, in order.
    fractions : ndarray, (k,)
        What they share, as `shared_fractions`.
    """
    sky, n = _sky(np.concatenate([first, second])), len(first)
    found, shares = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for pairs in _candidates(sky, n):
        fractions = _measured(sky, pairs)
        enough = fractions >= least
        found.append(pairs[enough] - (0, n))
        shares.append(fractions[enough])
    pairs = np.concatenate(found)
    order = np.lexsort(pairs.T[::-1])
    return pairs[order], np.concatenate(shares)[order]


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
    return _measured(_sky(corners), pairs)


def _sky(corners: FloatArray) -> _Sky:
    vectors = unit_vectors(corners[:, ::2], corners[:, 1::2])
    a, b, c, d = np.moveaxis(vectors, 1, 0)
    clockwise = np.einsum("nk,nk->n", np.cross(c - a, d - b), a + b + c + d) < 0
    vectors[clockwise] = vectors[clockwise, ::-1]
    total = vectors.sum(axis=1)
    centres = 0.25 * total
    reach = np.linalg.norm(vectors - centres[:, None], axis=2).max(axis=1)
    return _Sky(vectors, centres, reach, np.stack([total, *basis(*radec(total))], axis=1))


def _candidates(sky: _Sky, n: int) -> Iterator[Indices]:
    """Pairs of one of the first ``n`` and one of the others whose circumscribed circles meet."""
    centres, reach = sky.centres, sky.reach
    if not 0 < n < len(centres):
        return
    tree = cKDTree(centres[n:])
    for start in range(0, n, _BLOCK):
        block = cKDTree(centres[start : min(start + _BLOCK, n)])
        near = block.sparse_distance_matrix(tree, 2.0 * reach.max(), output_type="ndarray")
        pairs = np.stack([near["i"] + start, near["j"] + n], axis=1)
        yield pairs[near["v"] <= reach[pairs[:, 0]] + reach[pairs[:, 1]]]


def _cells(centres: FloatArray, side: float) -> tuple[Indices, Indices, Indices]:
    """Frames in the order of their cells, where each cell starts, and the cells beside each.

    Of two cells beside one another only the later one, ``-1`` if there is none; itself first.
    """
    cell = np.floor(centres / side).astype(np.int64)
    cell -= cell.min(axis=0) - 1
    weight = np.array([(cell[:, 1].max() + 2) * (cell[:, 2].max() + 2), cell[:, 2].max() + 2, 1])
    key = cell @ weight
    order = np.argsort(key, kind="stable")
    known, starts = np.unique(key[order], return_index=True)
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ weight
    wanted = known[:, None] + np.sort(steps[steps >= 0])
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return order, np.append(starts, len(key)), np.where(known[at] == wanted, at, -1)


def _measured(sky: _Sky, pairs: Indices) -> FloatArray:
    shared, plane = np.empty(len(pairs)), np.empty((2, 4, 2))
    _measure(*sky, pairs, plane, shared)
    return shared


@compiled
def _connect(
    polygons: FloatArray,
    centres: FloatArray,
    reach: FloatArray,
    axes: FloatArray,
    order: Indices,
    starts: Indices,
    beside: Indices,
    least: float,
    plane: FloatArray,
    label: Indices,
) -> None:
    """Give all frames that are connected one label; frames are in the order of their cells.

    What two frames share is measured on the plane of that which was given first, for another
    plane gives a slightly other fraction.
    """
    for step in range(beside.shape[1]):  # first within the cells, where most are joined
        for cell in range(len(beside)):
            other = beside[cell, step]
            if other < 0:
                continue
            for i in range(starts[cell], starts[cell + 1]):
                mine = _first(label, i)
                for j in range(i + 1 if other == cell else starts[other], starts[other + 1]):
                    theirs = _first(label, j)
                    if mine == theirs:
                        continue
                    a, b = (i, j) if order[i] < order[j] else (j, i)
                    if _share(polygons, centres, reach, axes, a, b, plane) >= least:
                        mine, theirs = min(mine, theirs), max(mine, theirs)
                        label[theirs] = mine
    for i in range(len(label)):
        label[i] = _first(label, i)


@compiled
def _first(label: Indices, i: int) -> int:
    """First frame with the label of a frame; the way to it is made shorter."""
    while label[i] != i:
        label[i] = label[label[i]]
        i = label[i]
    return i


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
        out[k] = _share(polygons, centres, reach, axes, pairs[k, 0], pairs[k, 1], plane)


@compiled
def _share(
    polygons: FloatArray,
    centres: FloatArray,
    reach: FloatArray,
    axes: FloatArray,
    i: int,
    j: int,
    plane: FloatArray,
) -> float:
    """Shared fraction of two frames, on the plane tangent at the first."""
    distance = 0.0
    for m in range(3):
        distance += (centres[i, m] - centres[j, m]) ** 2
    if distance > (reach[i] + reach[j]) ** 2:
        return 0.0
    if _project(polygons[i], axes[i], plane[0]) and _project(polygons[j], axes[i], plane[1]):
        return _fraction(plane[0], plane[1])
    return 0.0


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
