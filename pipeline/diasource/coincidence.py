"""Detections that turn out to lie on one place: they are one source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pipeline.exposure import FloatArray

__all__ = ["coincident"]


def coincident(
    places: Sequence[FloatArray], size: FloatArray, separation: float
) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Find, for every source, the brighter one that it cannot be told from.

    Parameters
    ----------
    places : sequence of ndarray, (n, 2), pixel
        Kinds of places of n sources, such as centroids and the centres of dipoles; NaN where a
        source has none of a kind.  Two sources with one place of a kind are one.
    size : ndarray, (n,)
        How bright they are; of equal ones the first counts as brighter.
    separation : float, pixel
        Least distance of two sources.

    Returns
    -------
    owner : ndarray of int, (n,)
        The nearest brighter source that is one itself, -1 for what is a source of its own.
    distance : ndarray, (n,), pixel
        How far that is, NaN for none.
    """
    owner, distance = np.full(len(size), -1, np.intp), np.full(len(size), np.nan)
    rank = np.empty(len(size), np.intp)
    rank[np.argsort(-size, kind="stable")] = np.arange(len(size))
    pairs, apart = _near(places, separation)
    fainter = np.argmax(rank[pairs], axis=1)[:, None]
    ordered = np.hstack(
        [np.take_along_axis(pairs, 1 - fainter, 1), np.take_along_axis(pairs, fainter, 1)]
    )
    # brighter ones first: whether they are sources themselves is known when it matters
    for k in np.lexsort((apart, rank[ordered[:, 1]])).tolist():
        bright, faint = ordered[k]
        if owner[bright] < 0 and owner[faint] < 0:
            owner[faint], distance[faint] = bright, apart[k]
    return owner, distance


def _near(
    places: Sequence[FloatArray], separation: float
) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Pairs ``(m, 2)`` of rows with a place nearer than the separation, and their distances."""
    pairs, distances = [np.empty((0, 2), np.intp)], [np.empty(0)]
    for at in places:
        rows = np.flatnonzero(np.isfinite(at).all(axis=1))
        if len(rows) < 2:
            continue
        found = rows[cKDTree(at[rows]).query_pairs(separation, output_type="ndarray")]
        apart = np.hypot(*(at[found[:, 0]] - at[found[:, 1]]).T)
        pairs.append(found[apart < separation])
        distances.append(apart[apart < separation])
    return np.concatenate(pairs), np.concatenate(distances)
