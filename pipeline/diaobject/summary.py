"""Rows of DiaObject, computed afresh from all sources of each object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.diaobject.astrometry import Positions, mean_position, proper_motion
from pipeline.diaobject.config import Config
from pipeline.diaobject.features import light_curve_features, weighted_mean
from pipeline.diaobject.groups import Groups
from pipeline.diaobject.period import PERIODS, periods
from pipeline.exposure import FloatArray
from pipeline.schema import BANDS, DIA_OBJECT, to_numpy

__all__ = ["FLAG_BITS", "HISTORY", "forced_means", "summarise", "with_forced"]

FLAG_BITS = {
    1: ("psfFlux_flag", "centroid_flag", "apFlux_flag", "shape_flag", "forced_PsfFlux_flag"),
    2: ("pixelFlags_edge", "psfFlux_flag_edge", "pixelFlags_offimage"),
    4: ("pixelFlags_saturated", "pixelFlags_saturated_template"),
    8: ("isDipole",),
    16: ("pixelFlags_streak", "glint_trail", "isStreak", "isGlint"),
    32: ("pixelFlags_injected", "pixelFlags_injected_template"),
}
"""Bits of ``DiaObject.flags`` and the columns of DiaSource any of which sets them."""

HISTORY = (
    "diaSourceId", "visit", "detector", "diaObjectId", "midpointMjdTai", "band",
    "ra", "raErr", "dec", "decErr", "ra_dec_Cov", "scienceRa", "scienceRaErr", "scienceDec",
    "scienceDecErr", "scienceRa_scienceDec_Cov", "psfFlux", "psfFluxErr", "scienceFlux",
    "scienceFluxErr", "templateFlux", "templateFluxErr", *chain(*FLAG_BITS.values()),
)  # fmt: skip
"""Columns of ``DiaSource`` that objects are computed from."""

_SINGLE, _INFLATED = 64, 128
_FLUXES = ("midpointMjdTai", "band", "psfFlux", "psfFluxErr", "scienceFlux", "scienceFluxErr")
_Columns = dict[str, FloatArray]


def summarise(
    sources: pa.Table,
    forced: pa.Table | None,
    processed_mjd_tai: float,
    config: Config,
    *,
    former: pa.Table | None = None,
) -> pa.Table:
    """Compute the current state of every object in a table of sources.

    Parameters
    ----------
    sources : pyarrow.Table
        The columns `HISTORY` of ``DiaSource``, all rows of each object; rows without
        ``diaObjectId`` are left out.
    forced : pyarrow.Table, optional
        `DIA_FORCED_SOURCE`; rows of other objects are ignored.
    processed_mjd_tai : float, d
        Becomes ``validityStartMjdTai``.
    config : Config
        Limits.
    former : pyarrow.Table, optional
        `DIA_OBJECT`: earlier states of these objects, made with the same configuration.  The
        periods of a band without new rows are taken from them.

    Returns
    -------
    pyarrow.Table
        `DIA_OBJECT`, ordered by id.  The result does not depend on the order of the rows.
    """
    sources = _sorted(sources)
    if not sources.num_rows:
        return DIA_OBJECT.empty()
    groups = Groups.of(to_numpy(sources, "diaObjectId"))
    time = to_numpy(sources, "midpointMjdTai")
    columns: dict[str, npt.ArrayLike] = {
        "diaObjectId": groups.keys,
        "validityStartMjdTai": np.full(len(groups), processed_mjd_tai),
        "firstDiaSourceMjdTai": groups.min(time),
        "lastDiaSourceMjdTai": groups.max(time),
        "nDiaSources": groups.count,
    }
    positions = Positions.read(sources, config.position_default)
    place = mean_position(groups, positions, config.visit_floor)
    inflated = place.pop("inflated") > 1.0
    columns |= place
    columns |= _motion(sources, groups, positions, place["radecMjdTai"], config)
    columns |= _photometry(sources, groups, config, former)
    columns["flags"] = _flags(sources, groups, inflated)
    table = DIA_OBJECT.to_arrow(columns)
    return table if forced is None else with_forced(table, forced)


def with_forced(objects: pa.Table, forced: pa.Table) -> pa.Table:
    """Replace the statistics of forced fluxes in objects.

    Parameters
    ----------
    objects : pyarrow.Table
        `DIA_OBJECT`.
    forced : pyarrow.Table
        `DIA_FORCED_SOURCE`: all rows of these objects so far; others are ignored.

    Returns
    -------
    pyarrow.Table
        The objects with ``{b}_fpFluxMean``, ``…MeanErr``, ``…Sigma`` and ``…Ndata``.
    """
    means = forced_means(to_numpy(objects, "diaObjectId"), forced)
    for field in means.schema:
        at = objects.schema.get_field_index(field.name)
        objects = objects.set_column(at, field, means[field.name])
    return objects


def forced_means(ids: npt.NDArray[np.int64], forced: pa.Table) -> pa.Table:
    """Average forced fluxes.

    Parameters
    ----------
    ids : ndarray, (m,)
        ``diaObjectId``, ascending.
    forced : pyarrow.Table
        Columns ``diaObjectId band psfFlux psfFluxErr``; rows of other objects are ignored.

    Returns
    -------
    pyarrow.Table, m rows
        The columns ``{b}_fpFluxMean``, ``…MeanErr``, ``…Sigma`` and ``…Ndata`` of DiaObject.
    """
    row, order = _rows_of(ids, to_numpy(forced, "diaObjectId"))
    columns = _by_band(
        row, _band_numbers(forced)[order], len(ids), _forced_features,
        to_numpy(forced, "psfFlux")[order], to_numpy(forced, "psfFluxErr")[order],
    )  # fmt: skip
    kinds = [DIA_OBJECT[name] for name in columns]
    arrays = [kind.to_arrow(columns[kind.name], len(ids)) for kind in kinds]
    return pa.Table.from_arrays(arrays, schema=pa.schema([kind.arrow_field for kind in kinds]))


def _sorted(sources: pa.Table) -> pa.Table:
    """Rows with an object, ordered by object, time and source."""
    ids = to_numpy(sources, "diaObjectId")
    keys = (to_numpy(sources, "diaSourceId"), to_numpy(sources, "midpointMjdTai"), ids)
    order = np.lexsort(keys)
    return sources.select(HISTORY).take(order[ids[order] >= 0])


def _rows_of(
    ids: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of `ids` (sorted) that hold wanted ids, and the order that sorts these."""
    order = np.argsort(wanted, kind="stable")
    row = np.searchsorted(ids, wanted[order])
    known = row < len(ids)
    known[known] = ids[row[known]] == wanted[order][known]
    return row[known], order[known]


def _motion(
    sources: pa.Table, groups: Groups, difference: Positions, epoch: FloatArray, config: Config
) -> _Columns:
    """Proper motions from visit-image centroids, or those on the difference over blank sky.

    The centroid of a variable star's difference is not the star: it lies where star and template
    differ.  Where the template is dark the two agree.
    """
    science = Positions.read(sources, config.position_default, prefix="science")
    own = np.isfinite(science.ra) & np.isfinite(science.dec)
    template, error = to_numpy(sources, "templateFlux"), to_numpy(sources, "templateFluxErr")
    dark = np.abs(template) < config.static_template_snr * error
    usable = own | dark
    merged = Positions(
        difference.time,
        np.where(own, science.ra, difference.ra),
        np.where(own, science.dec, difference.dec),
        np.where(own[:, None, None], science.covariance, difference.covariance),
    )
    part = Groups.of(groups.index[usable])
    fitted = proper_motion(part, merged.take(usable), epoch[part.keys], config)
    columns = {name: np.full(len(groups), np.nan) for name in fitted}
    for name, values in fitted.items():
        columns[name][part.keys] = values
    return columns


def _photometry(
    sources: pa.Table, groups: Groups, config: Config, former: pa.Table | None
) -> _Columns:
    """Statistics of the fluxes within `Config.characterization_window` of the latest source."""
    time = to_numpy(sources, "midpointMjdTai")
    recent = time >= groups.spread(groups.max(time)) - config.characterization_window
    sources = sources.select(_FLUXES).filter(pa.array(recent))
    index, time = groups.index[recent], time[recent]
    band = _band_numbers(sources)
    earlier = None if former is None else _Earlier.of(groups.keys, former)

    def psf(part: Groups, flux: FloatArray, error: FloatArray, at: FloatArray) -> _Columns:
        found = light_curve_features(part, at, flux, error)
        named = {f"psfFlux{name}": values for name, values in found.items()}
        return named | _periods(part, at, flux, error, config, earlier)

    def science(part: Groups, flux: FloatArray, error: FloatArray) -> _Columns:
        return _mean_features("scienceFlux", part, flux, error)

    n = len(groups)
    flux, error = to_numpy(sources, "psfFlux"), to_numpy(sources, "psfFluxErr")
    columns = _by_band(index, band, n, psf, flux, error, time)
    flux, error = to_numpy(sources, "scienceFlux"), to_numpy(sources, "scienceFluxErr")
    return columns | _by_band(index, band, n, science, flux, error)


@dataclass(frozen=True, slots=True, eq=False)
class _Earlier:
    """Periods of objects as they were known, ``(m, bands)`` each, and the latest epoch then."""

    last: FloatArray
    count: FloatArray
    columns: _Columns

    @classmethod
    def of(cls, ids: npt.NDArray[np.int64], former: pa.Table) -> _Earlier:
        row, order = _rows_of(ids, to_numpy(former, "diaObjectId"))

        def known(name: str) -> FloatArray:
            values = np.full(len(ids), np.nan)
            values[row] = to_numpy(former, name)[order]
            return values

        def by_band(name: str) -> FloatArray:
            return np.stack([known(f"{b}_{name}") for b in BANDS], axis=1).ravel()

        columns = {name: by_band(name) for name in PERIODS}
        return cls(known("lastDiaSourceMjdTai"), by_band("psfFluxNdata"), columns)


def _periods(
    groups: Groups,
    time: FloatArray,
    flux: FloatArray,
    error: FloatArray,
    config: Config,
    earlier: _Earlier | None,
) -> _Columns:
    """Periods of objects and bands; those whose rows have not changed keep what they had."""
    if earlier is None:
        return periods(groups, time, flux, error, config)
    last = earlier.last[groups.keys // len(BANDS)]
    same = (groups.max(time) <= last) & (groups.count == earlier.count[groups.keys])
    rows = ~same[groups.index]
    fresh = periods(Groups.of(groups.keys[groups.index[rows]]), time[rows], flux[rows], error[rows],
                    config)  # fmt: skip
    columns = {name: values[groups.keys] for name, values in earlier.columns.items()}
    for name, values in fresh.items():
        columns[name][~same] = values
    return columns


def _forced_features(groups: Groups, flux: FloatArray, error: FloatArray) -> _Columns:
    return _mean_features("fpFlux", groups, flux, error)


def _mean_features(prefix: str, groups: Groups, flux: FloatArray, error: FloatArray) -> _Columns:
    mean, mean_error = weighted_mean(groups, flux, error)
    scatter = groups.sum((flux - groups.spread(groups.mean(flux))) ** 2)
    sigma = np.sqrt(scatter / np.maximum(groups.count - 1, 1))
    return {
        f"{prefix}Mean": mean,
        f"{prefix}MeanErr": mean_error,
        f"{prefix}Sigma": np.where(groups.count >= 2, sigma, np.nan),
        f"{prefix}Ndata": groups.count.astype(float),
    }


def _band_numbers(table: pa.Table) -> npt.NDArray[np.int64]:
    """Place of each row's filter in `BANDS`, -1 for others."""
    number = pc.index_in(table["band"], value_set=pa.array(BANDS)).fill_null(-1)
    return np.asarray(number.to_numpy(), np.int64)


def _by_band(
    index: npt.NDArray[np.int64],
    band: npt.NDArray[np.int64],
    n: int,
    features: Callable[..., _Columns],
    flux: FloatArray,
    error: FloatArray,
    *more: FloatArray,
) -> _Columns:
    """Call a function on the usable points of each object and band.

    Parameters
    ----------
    index : ndarray, (k,)
        Object of each row, ascending.
    band : ndarray, (k,)
        Place of each row's filter in `BANDS`, -1 for others.
    n : int
        Number of objects.
    features : callable
        Takes groups, flux, error and `more`; returns columns of one value per group.
    flux, error, *more : ndarray, (k,)
        Measurements.

    Returns
    -------
    dict of str to ndarray, (n,)
        ``{b}_{name}``; NaN where there are no points, 0 for counts.
    """
    good = np.isfinite(flux) & np.isfinite(error) & (error > 0) & (band >= 0)
    key = index * len(BANDS) + band
    order = np.flatnonzero(good)[np.argsort(key[good], kind="stable")]
    groups = Groups.of(key[order])
    columns = features(groups, *(v[order].astype(float) for v in (flux, error, *more)))
    result: _Columns = {}
    for name, values in columns.items():
        grid = np.full(n * len(BANDS), 0.0 if name.endswith("Ndata") else np.nan)
        grid[groups.keys] = values
        result |= {f"{b}_{name}": grid[k :: len(BANDS)] for k, b in enumerate(BANDS)}
    return result


def _flags(
    sources: pa.Table, groups: Groups, inflated: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    flags = _SINGLE * (groups.count == 1) + _INFLATED * inflated
    for bit, names in FLAG_BITS.items():
        marked = np.any([to_numpy(sources, name) for name in names], axis=0)
        flags = flags + bit * (groups.sum(marked) > 0)
    return np.asarray(flags, np.int64)
