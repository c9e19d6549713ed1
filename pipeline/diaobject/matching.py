"""One-to-one matching of sources to predicted or remembered positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pipeline.diaobject.config import Config
from pipeline.exposure import FloatArray
from pipeline.sphere import ARCSEC, offsets, unit_vectors

__all__ = ["Sky", "match", "nearby", "newborn", "within_reach"]

_CANDIDATES = 8
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Sky:
    """Numbered positions with errors.

    Attributes
    ----------
    ids : ndarray, (n,)
        Unique numbers; ties are broken by them.
    ra, dec : ndarray, (n,), deg
        Positions.
    covariance : ndarray, (n, 2, 2), arcsec²
        Of ra cos(dec) and dec.
    """

    ids: _Integers
    ra: FloatArray
    dec: FloatArray
    covariance: FloatArray

    def __len__(self) -> int:
        """Return the number of positions."""
        return len(self.ids)

    def take(self, rows: npt.NDArray[np.generic]) -> Sky:
        """Select rows by index or by a boolean array."""
        return Sky(self.ids[rows], self.ra[rows], self.dec[rows], self.covariance[rows])


def nearby(sources: Sky, ra: FloatArray, dec: FloatArray, margin: float) -> npt.NDArray[np.bool_]:
    """Which positions, ``(n,)``, lie in the smallest cone round the sources plus a margin.

    Parameters
    ----------
    sources : Sky
        At least one position.
    ra, dec : ndarray, (n,), deg
        Positions to choose from.
    margin : float, arcsec
        Widening of the cone.

    Returns
    -------
    ndarray of bool, (n,)
        True inside the cone.
    """
    vectors = unit_vectors(sources.ra, sources.dec)
    centre = vectors.mean(axis=0)
    centre /= np.linalg.norm(centre)
    widest = np.arccos(np.clip((vectors @ centre).min(), -1.0, 1.0)) + margin * ARCSEC
    return np.asarray(unit_vectors(ra, dec) @ centre >= np.cos(min(widest + 1e-9, np.pi)))


def within_reach(sources: Sky, targets: Sky, config: Config) -> _Integers:
    """Ids of the objects that sources may belong to once their motion is known.

    Parameters
    ----------
    sources, targets : Sky
        Sources, and the mean positions of objects.
    config : Config
        Objects within twice its largest radius of a source are candidates.

    Returns
    -------
    ndarray of int64
        Ascending.
    """
    close = targets.take(nearby(sources, targets.ra, targets.dec, 10.0 * config.radius_max))
    if not len(close):
        return close.ids
    tree, reach = cKDTree(unit_vectors(sources.ra, sources.dec)), 2.0 * config.radius_max * ARCSEC
    chord, _ = tree.query(unit_vectors(close.ra, close.dec), distance_upper_bound=reach)
    return np.sort(close.ids[np.isfinite(chord)])


def match(
    sources: Sky, targets: Sky, detector: _Integers, config: Config
) -> tuple[_Integers, _Integers]:
    """Assign each source to at most one target, and each target one source of each detector.

    Pairs lie within ``radius_sigma`` combined errors in the direction from one to the other, or
    within ``radius_min``, and within ``radius_max``; they are taken in the order of their
    likelihood, then source id, then target
    id.  The likelihood knows χ² and the size of the errors: χ² alone would prefer whatever is
    known badly (Budavári & Szalay 2008, ApJ 679, 301).

    Parameters
    ----------
    sources, targets : Sky
        Positions with errors; `Config.position_floor` is added to the sum of both.
    detector : ndarray, (n,)
        Where each source was seen: detectors that overlap see the same target.
    config : Config
        Radii.

    Returns
    -------
    source, target : ndarray, (k,)
        Indices of the pairs, in the order of the sources.
    """
    if not len(sources) or not len(targets):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    i, j = _close_pairs(sources, targets, config.radius_max)
    d = np.stack(offsets(sources.ra[i], sources.dec[i], targets.ra[j], targets.dec[j]), axis=-1)
    total = sources.covariance[i] + targets.covariance[j] + config.position_floor**2 * np.eye(2)
    a, b, c = total[:, 0, 0], total[:, 1, 1], total[:, 0, 1]
    determinant = a * b - c * c
    chi2 = (b * d[:, 0] ** 2 + a * d[:, 1] ** 2 - 2.0 * c * d[:, 0] * d[:, 1]) / determinant
    cost = chi2 + np.log(determinant)
    distance = np.hypot(d[:, 0], d[:, 1])
    near = (chi2 <= config.radius_sigma**2) | (distance <= config.radius_min)
    near &= distance <= config.radius_max
    i, j = i[near], j[near]
    order = np.lexsort((targets.ids[j], sources.ids[i], cost[near]))
    return _greedy(i[order], j[order], detector)


def newborn(sources: Sky, detector: _Integers, config: Config) -> _Integers:
    """Find the first source of each new object: detectors that overlap see the same one.

    Parameters
    ----------
    sources : Sky, (n,)
        Sources of one visit that belong to no known object.
    detector : ndarray, (n,)
        Where each was seen.
    config : Config
        Radii.

    Returns
    -------
    ndarray, (n,)
        Index of the source that names the object; mostly that of the source itself.
    """
    first = np.arange(len(sources), dtype=np.int64)
    if len(np.unique(detector)) < 2:
        return first
    pairs = cKDTree(unit_vectors(sources.ra, sources.dec)).query_pairs(
        config.radius_max * ARCSEC, output_type="ndarray"
    )
    close = np.unique(pairs[detector[pairs[:, 0]] != detector[pairs[:, 1]]])
    for number in np.unique(detector[close])[1:]:
        rows = close[detector[close] == number]
        names = close[(detector[close] < number) & (first[close] == close)]
        i, j = match(sources.take(rows), sources.take(names), detector[rows], config)
        first[rows[i]] = names[j]
    return first


def _close_pairs(sources: Sky, targets: Sky, radius: float) -> tuple[_Integers, _Integers]:
    tree = cKDTree(unit_vectors(targets.ra, targets.dec), balanced_tree=False, compact_nodes=False)
    number = np.arange(1, min(_CANDIDATES, len(targets)) + 1)
    reach = 1.001 * radius * ARCSEC
    _, found = tree.query(unit_vectors(sources.ra, sources.dec), number, distance_upper_bound=reach)
    i, k = np.nonzero(found < len(targets))
    return i.astype(np.int64), found[i, k].astype(np.int64)


def _greedy(i: _Integers, j: _Integers, detector: _Integers) -> tuple[_Integers, _Integers]:
    """Take pairs in their order where neither the source nor the target there is taken."""
    of_source: dict[int, int] = {}
    taken: set[tuple[int, int]] = set()
    for a, b, where in zip(i.tolist(), j.tolist(), detector[i].tolist(), strict=True):
        if a not in of_source and (b, where) not in taken:
            of_source[a] = b
            taken.add((b, where))
    pairs = np.array(sorted(of_source.items()), np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
