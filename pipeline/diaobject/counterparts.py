"""Nearest stars and galaxies of the deep catalogue, and the chance that they are the object."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.spatial import cKDTree

from pipeline.diaobject.config import Config
from pipeline.exposure import FloatArray
from pipeline.schema import DIA_OBJECT_TO_OBJECT_MATCH, to_numpy
from pipeline.sphere import ARCSEC, unit_vectors

__all__ = ["nearest_objects"]

_LEAST_ERROR = 0.05


def nearest_objects(objects: pa.Table, catalog: pa.Table, config: Config) -> pa.Table:
    """Find the three nearest stars and the three nearest galaxies of each object.

    Parameters
    ----------
    objects : pyarrow.Table
        Columns ``diaObjectId ra dec raErr decErr``.
    catalog : pyarrow.Table
        `pipeline.schema.OBJECT`.
    config : Config
        Radius, numbers and prior.

    Returns
    -------
    pyarrow.Table
        `DIA_OBJECT_TO_OBJECT_MATCH`, ordered by object, type and rank.

    Notes
    -----
    The probability follows Sutherland & Saunders (1992): with f_i the density at the measured
    distance if entry i were the counterpart (a Gaussian of the position error; for galaxies the
    half-light radius is added to it), ρ the surface density of the catalogue here and Q the
    prior, P_i = L_i / (Σ L_j + 1 - Q) with L_i = Q f_i / ρ.
    """
    ids = to_numpy(objects, "diaObjectId")
    if not len(ids) or not catalog.num_rows:
        return DIA_OBJECT_TO_OBJECT_MATCH.empty()
    places = unit_vectors(to_numpy(objects, "ra"), to_numpy(objects, "dec"))
    kind = np.asarray(to_numpy(catalog, "objectType"), dtype=str)
    found = [
        _nearest(places, catalog.filter(pa.array(kind == name)), name, number, config)
        for name, number in (
            ("star", config.neighbour_stars),
            ("galaxy", config.neighbour_galaxies),
        )
    ]
    rows = {k: np.concatenate([part[k] for part in found]) for k in found[0]}
    error = 0.5 * (to_numpy(objects, "raErr") + to_numpy(objects, "decErr")) * 3600.0
    density = _density(places, catalog, config)
    rows["lnP"] = _ln_probability(rows, error, density, len(ids), config.neighbour_prior)
    order = np.lexsort((rows["rank"], rows["objectType"] == "galaxy", ids[rows["index"]]))
    rows["diaObjectId"] = ids[rows.pop("index")]
    del rows["radius"]
    return DIA_OBJECT_TO_OBJECT_MATCH.to_arrow({k: v[order] for k, v in rows.items()})


def _nearest(
    places: FloatArray, entries: pa.Table, name: str, number: int, config: Config
) -> dict[str, npt.NDArray[np.generic]]:
    """Rows (index of the object, objectId, dist, radius, rank) for one type."""
    number = min(number, entries.num_rows)
    if number:
        tree = cKDTree(unit_vectors(to_numpy(entries, "ra"), to_numpy(entries, "dec")))
        reach = config.neighbour_radius * ARCSEC
        chord, which = tree.query(places, k=np.arange(1, number + 1), distance_upper_bound=reach)
        inside = np.isfinite(chord)
        index, rank = np.nonzero(inside)
        which, chord = which[inside], chord[inside]
    else:
        index = rank = which = np.zeros(0, np.int64)
        chord = np.zeros(0)
    radius = np.nan_to_num(to_numpy(entries, "radius")[which])
    return {
        "index": index,
        "objectId": to_numpy(entries, "objectId")[which],
        "dist": 2.0 * np.arcsin(0.5 * chord) / ARCSEC,
        "radius": radius,
        "rank": rank + 1,
        "objectType": np.full(len(index), name, dtype=object),
    }


def _density(places: FloatArray, catalog: pa.Table, config: Config) -> FloatArray:
    """Entries per arcsec² within the search radius, at least one."""
    tree = cKDTree(unit_vectors(to_numpy(catalog, "ra"), to_numpy(catalog, "dec")))
    reach = config.neighbour_radius
    inside = tree.query_ball_point(places, reach * ARCSEC, return_length=True)
    return np.asarray(np.maximum(inside, 1.0) / (np.pi * reach**2))


def _ln_probability(
    rows: dict[str, npt.NDArray[np.generic]],
    error: FloatArray,
    density: FloatArray,
    n: int,
    prior: float,
) -> FloatArray:
    index = np.asarray(rows["index"], np.int64)
    sigma2 = np.maximum(error[index], _LEAST_ERROR) ** 2 + np.asarray(rows["radius"], float) ** 2
    distance = np.asarray(rows["dist"], float)
    ln_f = -0.5 * distance**2 / sigma2 - np.log(2.0 * np.pi * sigma2)
    ln_l = np.log(prior) + ln_f - np.log(density[index])
    total = np.full(n, np.log1p(-prior))
    np.logaddexp.at(total, index, ln_l)
    return np.asarray(ln_l - total[index])
