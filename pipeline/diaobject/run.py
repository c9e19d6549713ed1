"""Association of the sources of one visit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.diaobject.astrometry import DAYS_PER_YEAR, Positions, predicted_place
from pipeline.diaobject.config import Config
from pipeline.diaobject.counterparts import nearest_objects
from pipeline.diaobject.groups import Groups
from pipeline.diaobject.matching import Sky, match, nearby, newborn, within_reach
from pipeline.diaobject.solarsystem import Prediction, predict, solar_system_sources
from pipeline.diaobject.summary import HISTORY, summarise
from pipeline.exposure import FloatArray
from pipeline.schema import (
    DIA_OBJECT,
    DIA_OBJECT_HISTORY,
    DIA_OBJECT_TO_OBJECT_MATCH,
    SS_SOURCE,
    to_numpy,
)
from pipeline.sphere import displaced, unit_vectors

__all__ = ["PLACES", "Result", "candidates", "run"]

PLACES = (
    "diaObjectId", "ra", "raErr", "dec", "decErr", "ra_dec_Cov", "radecMjdTai", "pmRa", "pmDec",
)  # fmt: skip
"""Columns of ``DiaObject`` that say where an object is."""

_LOGGER = logging.getLogger(__name__)

_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Result:
    """What one visit changes.

    Attributes
    ----------
    sources : pyarrow.Table
        The visit's `DIA_SOURCE` rows, in the order given, with ``diaObjectId`` or ``ssObjectId``.
    objects : pyarrow.Table
        `DIA_OBJECT` rows that are new or have a new source, ordered by id.
    superseded : pyarrow.Table
        `DIA_OBJECT_HISTORY`: their former versions, closed.
    matches : pyarrow.Table
        `DIA_OBJECT_TO_OBJECT_MATCH` of these objects; replaces what was there.
    ss_sources : pyarrow.Table
        `SS_SOURCE` rows of the visit.
    new : ndarray of int64
        Ids of the objects born in this visit; they want precovery.
    metrics : mapping
        Counts.
    """

    sources: pa.Table
    objects: pa.Table
    superseded: pa.Table
    matches: pa.Table
    ss_sources: pa.Table
    new: _Integers
    metrics: Mapping[str, float]


def run(
    sources: pa.Table,
    objects: pa.Table,
    history: pa.Table,
    ephemeris: pa.Table | None = None,
    catalog: pa.Table | None = None,
    config: Config = Config(),  # noqa: B008
    *,
    forced: pa.Table | None = None,
    processed_mjd_tai: float,
) -> Result:
    """Associate the sources of one visit and recompute the objects they belong to.

    First come solar-system bodies, then known objects; what is left makes new objects, each
    named after its first source.  Deblend parents and sub-threshold rows take no part.

    Parameters
    ----------
    sources : pyarrow.Table
        `DIA_SOURCE` rows of one visit, all detectors.
    objects : pyarrow.Table
        `DIA_OBJECT`: current objects, at least those of this part of the sky.
    history : pyarrow.Table
        The columns `HISTORY` of ``DiaSource``: earlier sources of these objects.
    ephemeris : pyarrow.Table, optional
        `SS_EPHEMERIS`.
    catalog : pyarrow.Table, optional
        `OBJECT`, the deep catalogue.
    config : Config
        Configuration.
    forced : pyarrow.Table, optional
        `DIA_FORCED_SOURCE`: earlier forced measurements of these objects.
    processed_mjd_tai : float, d
        Time stamp of the new versions.

    Returns
    -------
    Result
        Only what this visit changes.  It does not depend on the order of any table's rows.

    Raises
    ------
    ValueError
        If the sources are not those of one visit, or the history holds this visit or later ones.
    """
    if not sources.num_rows:
        return _nothing(sources)
    time = _one_visit(sources, history)
    free = _associable(sources)
    ss_ids, ss_sources, predicted = _solar_system(sources, free, ephemeris, time, config)
    free &= ss_ids < 0
    ids, known = _known_objects(sources, free, objects, history, time, config)
    born = free & (ids < 0)
    ids[born] = _new_objects(sources.filter(pa.array(born)), config)
    sources = _with_column(_with_column(sources, "diaObjectId", ids), "ssObjectId", ss_ids)
    touched = np.unique(ids[ids >= 0])
    past = history.filter(pa.array(np.isin(to_numpy(history, "diaObjectId"), touched)))
    everything = pa.concat_tables([past.select(HISTORY), sources.select(HISTORY)])
    current = summarise(everything, forced, processed_mjd_tai, config, former=objects)
    matches = DIA_OBJECT_TO_OBJECT_MATCH.empty()
    if catalog is not None:
        matches = nearest_objects(current, catalog, config)
    closed = _superseded(objects, touched, processed_mjd_tai)
    new = np.unique(ids[born])
    metrics = {
        "nSources": sources.num_rows,
        "nSolarSystemPredicted": predicted,
        "nSolarSystemMatched": ss_sources.num_rows,
        "nMatched": known,
        "nNewObjects": len(new),
        "nNotAssociated": int(((ids < 0) & (ss_ids < 0)).sum()),
    }
    _LOGGER.info("%s", ", ".join(f"{name} {number}" for name, number in metrics.items()))
    return Result(sources, current, closed, matches, ss_sources, new, metrics)


def candidates(sources: pa.Table, objects: pa.Table, config: Config) -> _Integers:
    """Find the objects that the sources of a visit may belong to.

    Parameters
    ----------
    sources : pyarrow.Table
        `DIA_SOURCE` rows of one visit.
    objects : pyarrow.Table
        The columns `PLACES` of ``DiaObject``, any part of the sky.
    config : Config
        Radii.

    Returns
    -------
    ndarray of int64
        Ids, ascending.
    """
    if not sources.num_rows or not objects.num_rows:
        return np.zeros(0, np.int64)
    time = float(to_numpy(sources, "midpointMjdTai")[0])
    return within_reach(_sky(sources, config), _object_sky(objects, time, config), config)


def _nothing(sources: pa.Table) -> Result:
    return Result(
        sources,
        DIA_OBJECT.empty(),
        DIA_OBJECT_HISTORY.empty(),
        DIA_OBJECT_TO_OBJECT_MATCH.empty(),
        SS_SOURCE.empty(),
        np.zeros(0, np.int64),
        {},
    )


def _one_visit(sources: pa.Table, history: pa.Table) -> float:
    """Return the epoch of the visit; refuse several, or a history with later sources."""
    visits = np.unique(to_numpy(sources, "visit"))
    time = float(to_numpy(sources, "midpointMjdTai")[0])
    if len(visits) != 1:
        raise ValueError(f"sources of {len(visits)} visits instead of one")
    if np.any(to_numpy(history, "visit") == visits[0]):
        raise ValueError(f"visit {visits[0]} is already in the history")
    if np.any(to_numpy(history, "midpointMjdTai") > time):
        raise ValueError(f"the history reaches beyond visit {visits[0]}; process in order of time")
    return time


def _associable(sources: pa.Table) -> npt.NDArray[np.bool_]:
    """Neither deblend parents nor sub-threshold rows."""
    ids, parents = to_numpy(sources, "diaSourceId"), to_numpy(sources, "parentDiaSourceId")
    parent = to_numpy(sources, "isDeblendParent") | np.isin(ids, parents[parents >= 0])
    return np.asarray(~parent & ~to_numpy(sources, "isSubThreshold"))


def _sky(sources: pa.Table, config: Config) -> Sky:
    """Positions of sources with all errors that matter for finding them again.

    A star of template flux T whose images are misaligned by δ leaves a residual that shifts the
    centroid of a change ΔF by δ T / ΔF, often far beyond its statistical error.  Errors that are
    as large already know of it.
    """
    positions = Positions.read(sources, config.position_default)
    change = np.maximum(np.abs(to_numpy(sources, "psfFlux")), to_numpy(sources, "psfFluxErr"))
    ratio = np.nan_to_num(np.maximum(to_numpy(sources, "templateFlux"), 0.0) / change)
    pull = np.minimum(config.registration * 1e-3 * ratio, config.radius_max)
    known = 0.5 * np.trace(positions.covariance, axis1=1, axis2=2)
    missing = np.maximum(pull**2 - known, 0.0)
    covariance = positions.covariance + missing[:, None, None] * np.eye(2)
    return Sky(to_numpy(sources, "diaSourceId"), positions.ra, positions.dec, covariance)


def _solar_system(
    sources: pa.Table,
    free: npt.NDArray[np.bool_],
    ephemeris: pa.Table | None,
    time: float,
    config: Config,
) -> tuple[_Integers, pa.Table, int]:
    """Body of each source (-1: none), the SSSource rows, and how many bodies lie in the field."""
    ids = np.full(sources.num_rows, -1, np.int64)
    # a deficit is a body that was in the template
    rows = np.flatnonzero(free & ~to_numpy(sources, "isNegative"))
    if ephemeris is None or not ephemeris.num_rows or not len(rows):
        return ids, SS_SOURCE.empty(), 0
    sky = _sky(sources, config).take(rows)
    bodies = predict(ephemeris, time, config)
    targets = bodies.sky(config)
    inside = np.flatnonzero(nearby(sky, targets.ra, targets.dec, config.radius_max))
    i, j = match(sky, targets.take(inside), to_numpy(sources, "detector")[rows], config)
    matched, body = rows[i], inside[j]
    ids[matched] = bodies.ids[body]
    table = solar_system_sources(sources.take(matched), bodies, body, time)
    rank = _distance_rank(sky, i, bodies, body)
    return ids, _with_column(table, "diaDistanceRank", rank), len(inside)


def _distance_rank(sky: Sky, i: _Integers, bodies: Prediction, body: _Integers) -> _Integers:
    """1 + the number of sources that lie closer to the prediction than the matched one."""
    closeness = bodies.direction[body] @ unit_vectors(sky.ra, sky.dec).T
    own = closeness[np.arange(len(i)), i]
    return np.asarray(1 + (closeness > own[:, None]).sum(axis=1), np.int64)


def _known_objects(
    sources: pa.Table,
    free: npt.NDArray[np.bool_],
    objects: pa.Table,
    history: pa.Table,
    time: float,
    config: Config,
) -> tuple[_Integers, int]:
    """Object of each source, -1 where there is none, and the number of matches."""
    ids = np.full(sources.num_rows, -1, np.int64)
    rows = np.flatnonzero(free)
    if not len(rows) or not objects.num_rows:
        return ids, 0
    sky = _sky(sources, config).take(rows)
    chosen = within_reach(sky, _object_sky(objects, time, config), config)
    past = history.filter(pa.array(np.isin(to_numpy(history, "diaObjectId"), chosen)))
    places = _predicted_sky(past, time, config)
    i, j = match(sky, places, to_numpy(sources, "detector")[rows], config)
    ids[rows[i]] = places.ids[j]
    return ids, len(i)


def _new_objects(sources: pa.Table, config: Config) -> _Integers:
    """Names of the objects that new sources begin: that of the first of each."""
    first = newborn(_sky(sources, config), to_numpy(sources, "detector"), config)
    return np.asarray(to_numpy(sources, "diaSourceId")[first], np.int64)


def _predicted_sky(past: pa.Table, time: float, config: Config) -> Sky:
    """Where objects are at an epoch, from all their sources so far."""
    past = past.sort_by(
        [
            ("diaObjectId", "ascending"),
            ("midpointMjdTai", "ascending"),
            ("diaSourceId", "ascending"),
        ]
    )
    groups, sky = Groups.of(to_numpy(past, "diaObjectId")), _sky(past, config)
    positions = Positions(to_numpy(past, "midpointMjdTai"), sky.ra, sky.dec, sky.covariance)
    return Sky(groups.keys, *predicted_place(groups, positions, time, config))


def _object_sky(objects: pa.Table, time: float, config: Config) -> Sky:
    """Positions of objects at an epoch, moved by their proper motion where it is known."""
    positions = Positions.read(objects, config.position_default, time="radecMjdTai")
    years = np.nan_to_num((time - positions.time) / DAYS_PER_YEAR)
    east = np.nan_to_num(to_numpy(objects, "pmRa")) * years * 1e-3
    north = np.nan_to_num(to_numpy(objects, "pmDec")) * years * 1e-3
    ra, dec = displaced(positions.ra, positions.dec, east, north)
    return Sky(to_numpy(objects, "diaObjectId"), ra, dec, positions.covariance)


def _superseded(objects: pa.Table, touched: _Integers, end: float) -> pa.Table:
    former = objects.filter(pa.array(np.isin(to_numpy(objects, "diaObjectId"), touched)))
    columns = {name: former.column(name) for name in DIA_OBJECT.names}
    columns["validityEndMjdTai"] = np.full(former.num_rows, end)
    return DIA_OBJECT_HISTORY.to_arrow(columns)


def _with_column(table: pa.Table, name: str, values: FloatArray | _Integers) -> pa.Table:
    """Replace a column; negative integers become NULL."""
    field = table.schema.field(name)
    missing = np.asarray(values) < 0
    array = pa.array(np.asarray(values), field.type, mask=missing if missing.any() else None)
    return table.set_column(table.schema.get_field_index(name), field, array)
