"""Rubin's reference catalogues as they are stored: shards by trixel, positions and fluxes apart.

HiTS and other data sets of Rubin come with Gaia for positions and Pan-STARRS1 for fluxes, each cut
along the trixels of level 7 (`pipeline.htm`), angles in radians.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.spatial import cKDTree

from pipeline.errors import FileFormatError
from pipeline.exposure import FloatArray
from pipeline.htm import trixel_corners
from pipeline.io.catalogues import READERS, Columns
from pipeline.io.refcat import from_shard
from pipeline.schema import REFCAT
from pipeline.sphere import ARCSEC, unit_vectors

__all__ = ["merge_shards", "reaches"]

_MATCH = 1.0 * ARCSEC  # positions of the two catalogues are up to four years apart
_PLACE = ("objectId", "ra", "dec", "raErr", "decErr", "pmRa", "pmDec", "parallax", "epochMjdTai")


def reaches(number: int, centres: FloatArray, radius: float) -> bool:
    """Whether a trixel may share sky with one of some circles.

    Parameters
    ----------
    number : int
        The trixel.
    centres : ndarray, (n, 3)
        Middles of the circles.
    radius : float, deg
        Of each.

    Returns
    -------
    bool
        False only where there is none for sure.
    """
    corners = trixel_corners(number)
    middle = corners.mean(axis=0)
    middle /= np.linalg.norm(middle)
    size = np.arccos(np.clip(corners @ middle, -1.0, 1.0)).max()
    distance = np.arccos(np.clip(centres @ middle, -1.0, 1.0)).min()
    return bool(distance < size + np.radians(radius))


def merge_shards(
    positions: Sequence[Path], fluxes: Sequence[Path], centres: FloatArray, radius: float
) -> pa.Table:
    """Read reference stars whose positions and fluxes lie in two catalogues.

    Parameters
    ----------
    positions : sequence of Path
        Shards with the better positions and with proper motions.
    fluxes : sequence of Path
        Shards with ``{b}_flux``.
    centres : ndarray, (n, 3)
        Directions; stars further than `radius` from all of them are left out.
    radius : float, deg
        See there.

    Returns
    -------
    pyarrow.Table
        As `pipeline.schema.REFCAT`: stars that are in both, within an arcsecond.  What only the
        second has is mostly galaxies.

    Raises
    ------
    FileFormatError
        If a file is no shard, or no star is in both.
    """
    place, light = (_near(paths, centres, radius) for paths in (positions, fluxes))
    if not len(place["ra"]) or not len(light["ra"]):
        raise FileFormatError("the reference catalogues have no star here", path=fluxes[0].parent)
    tree = cKDTree(unit_vectors(place["ra"], place["dec"]))
    found, nearest = tree.query(unit_vectors(light["ra"], light["dec"]))
    order = np.flatnonzero(found < _MATCH)
    order = order[np.argsort(found[order], kind="stable")]  # of two at one star the nearer
    _, first = np.unique(nearest[order], return_index=True)
    rows = order[first]
    if not len(rows):
        raise FileFormatError("the two catalogues share no star", path=fluxes[0].parent)
    columns = {n: place[n][nearest[rows]] for n in _PLACE if n in place}
    columns |= {n: values[rows] for n, values in light.items() if "Flux" in n}
    return REFCAT.to_arrow(columns)


def _near(paths: Iterable[Path], centres: FloatArray, radius: float) -> Columns:
    """Stars of some shards within the radius of a centre, in the order of their numbers."""
    parts = []
    for path in paths:
        columns, header, _ = READERS[".fits"](path)
        if "coord_ra" not in columns:
            raise FileFormatError("missing column", path=path, key="coord_ra", expected="a shard")
        stars = from_shard(columns, header)
        away = np.max(unit_vectors(stars["ra"], stars["dec"]) @ centres.T, axis=1, initial=-1.0)
        parts.append({n: v[away > np.cos(np.radians(radius))] for n, v in stars.items()})
    names = set(parts[0]).intersection(*parts)
    joined = {n: np.concatenate([part[n] for part in parts]) for n in sorted(names)}
    _, first = np.unique(joined["objectId"], return_index=True)
    return {n: values[first] for n, values in joined.items()}
