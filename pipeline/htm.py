"""Hierarchical triangular mesh: the trixels by which Rubin's reference catalogues are cut.

Kunszt, Szalay & Thakar (2001): an octahedron whose faces are divided into four by the middles of
their edges, again and again.  The number of a trixel is 8 to 15 for a face, S0 to N3, and four
times that of its parent plus 0 to 3 below.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray

__all__ = ["trixel", "trixel_corners"]

_AXES = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], float)
_FACES = _AXES[
    [[1, 5, 2], [2, 5, 3], [3, 5, 4], [4, 5, 1], [1, 0, 4], [4, 0, 3], [3, 0, 2], [2, 0, 1]]
]


def trixel(vectors: FloatArray, level: int) -> npt.NDArray[np.int64]:
    """Find the trixel that holds each direction.

    Parameters
    ----------
    vectors : ndarray, (n, 3)
        Directions, see `pipeline.sphere.unit_vectors`.
    level : int
        Divisions of a face; 7 in Rubin's catalogues.

    Returns
    -------
    ndarray, (n,), int64
        Numbers from ``8 · 4^level`` to below ``16 · 4^level``.
    """
    directions = np.atleast_2d(vectors)
    inside = np.stack([_depth(directions, face) for face in _FACES], axis=1)
    number = np.argmax(inside, axis=1)
    triangles = _FACES[number]
    number = number.astype(np.int64) + 8
    for _ in range(level):
        parts = _divided(triangles)
        inside = np.stack([_depth(directions, parts[:, k]) for k in range(4)], axis=1)
        child = np.argmax(inside, axis=1)
        triangles = parts[np.arange(len(child)), child]
        number = 4 * number + child
    return np.asarray(number, np.int64)


def trixel_corners(number: int) -> FloatArray:
    """Corners of a trixel.

    Parameters
    ----------
    number : int
        Of any level.

    Returns
    -------
    ndarray, (3, 3)
        Three directions.

    Raises
    ------
    ValueError
        If there is no such trixel.
    """
    steps = []
    while number > 15:
        number, child = divmod(number, 4)
        steps.append(child)
    if number < 8:
        raise ValueError("numbers of trixels begin with 8")
    triangle = _FACES[number - 8]
    for child in reversed(steps):
        triangle = _divided(triangle[None])[0, child]
    return np.asarray(triangle, float)


def _depth(vectors: FloatArray, triangles: FloatArray) -> FloatArray:
    """Smallest sine of the distances inside the three edges; negative outside."""
    edges = np.cross(triangles, np.roll(triangles, -1, axis=-2))
    edges /= np.linalg.norm(edges, axis=-1, keepdims=True)
    return np.asarray((edges @ vectors[..., None])[..., 0].min(axis=-1))


def _divided(triangles: FloatArray) -> FloatArray:
    """Four children, ``(n, 4, 3, 3)``: those at the three corners and the middle one."""
    a, b, c = np.moveaxis(triangles, -2, 0)
    u, v, w = (_middle(*pair) for pair in ((b, c), (a, c), (a, b)))
    parts = [(a, w, v), (b, u, w), (c, v, u), (u, v, w)]
    return np.stack([np.stack(part, axis=-2) for part in parts], axis=-3)


def _middle(a: FloatArray, b: FloatArray) -> FloatArray:
    total = a + b
    return np.asarray(total / np.linalg.norm(total, axis=-1, keepdims=True))
