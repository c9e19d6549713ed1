"""Rows of SSObject, computed afresh from all matched sources of each body."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.diaobject.groups import Groups
from pipeline.exposure import NJY_ZERO_POINT, FloatArray
from pipeline.schema import BANDS, SS_OBJECT, to_numpy

__all__ = ["summarise_bodies"]

_SLOPE = 0.15
_Integers = npt.NDArray[np.int64]
_MAG_PER_FLUX = 2.5 / np.log(10.0)


def summarise_bodies(sources: pa.Table, ss_sources: pa.Table) -> pa.Table:
    """Describe every solar-system body that has sources.

    The absolute magnitude is the weighted mean of the reduced magnitudes with the H, G phase
    function at G = 0.15 (Bowell et al. 1989), which asteroids share within a tenth of a
    magnitude; the slope itself needs more phase angles than a season has, so ``G12`` stays NULL
    and ``slope_fit_failed`` says so.  Quantities that need an orbit (MOID, Tisserand) are NULL.

    Parameters
    ----------
    sources : pyarrow.Table
        `DIA_SOURCE`; rows without ``ssObjectId`` are left out.
    ss_sources : pyarrow.Table
        `SS_SOURCE` of these sources.

    Returns
    -------
    pyarrow.Table
        `SS_OBJECT`, ordered by body.
    """
    keep = to_numpy(sources, "ssObjectId") >= 0
    joined = sources.filter(pa.array(keep)).sort_by(
        [("ssObjectId", "ascending"), ("midpointMjdTai", "ascending"), ("diaSourceId", "ascending")]
    )
    if not joined.num_rows:
        return SS_OBJECT.empty()
    groups = Groups.of(to_numpy(joined, "ssObjectId"))
    time = to_numpy(joined, "midpointMjdTai")
    geometry = _geometry(to_numpy(joined, "diaSourceId"), ss_sources)
    columns: dict[str, Any] = {
        "ssObjectId": groups.keys,
        "designation": _names(groups.keys, ss_sources),
        "nObs": groups.count,
        "arc": groups.max(time) - groups.min(time),
        "firstObservationMjdTai": groups.min(time),
        **_extendedness(groups, to_numpy(joined, "extendedness").astype(float)),
    }
    band = to_numpy(joined, "band")
    magnitude, error = _reduced(joined, geometry)
    for letter in BANDS:
        rows = np.flatnonzero(band == letter).astype(np.int64)
        fitted = _phase_curve(groups, rows, magnitude, error, geometry["phaseAngle"])
        columns |= {f"{letter}_{name}": values for name, values in fitted.items()}
    return SS_OBJECT.to_arrow(columns)


def _geometry(ids: _Integers, ss_sources: pa.Table) -> dict[str, FloatArray]:
    """Phase angle and distances of each source, NaN where there is no ephemeris row."""
    known = to_numpy(ss_sources, "diaSourceId")
    order = np.argsort(known)
    found = np.zeros(len(ids), bool)
    place = np.zeros(len(ids), np.int64)
    if len(known):
        place = order[np.minimum(np.searchsorted(known[order], ids), len(known) - 1)]
        found = known[place] == ids
    names = ("phaseAngle", "helioRange", "topoRange")
    if not len(known):
        return {name: np.full(len(ids), np.nan) for name in names}
    return {n: np.where(found, to_numpy(ss_sources, n)[place].astype(float), np.nan) for n in names}


def _names(ids: _Integers, ss_sources: pa.Table) -> list[str | None]:
    rows = zip(to_numpy(ss_sources, "ssObjectId"), to_numpy(ss_sources, "designation"), strict=True)
    known = dict(rows)
    return [known.get(number) for number in ids]


def _extendedness(groups: Groups, values: FloatArray) -> dict[str, FloatArray]:
    result = {
        f"extendedness{name}": np.full(len(groups), np.nan) for name in ("Min", "Median", "Max")
    }
    good = np.isfinite(values)
    part = Groups.of(groups.index[good])
    if len(part):
        low, middle, high = part.quantiles(values[good], [0.0, 0.5, 1.0])
        for name, found in (("Min", low), ("Median", middle), ("Max", high)):
            result[f"extendedness{name}"][part.keys] = found
    return result


def _reduced(sources: pa.Table, geometry: dict[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """AB magnitudes at 1 AU from Sun and observer and phase angle zero, and their errors."""
    flux = to_numpy(sources, "psfFlux").astype(float)
    error = to_numpy(sources, "psfFluxErr").astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        magnitude = NJY_ZERO_POINT - 2.5 * np.log10(flux)
        distance = 5.0 * np.log10(geometry["helioRange"] * geometry["topoRange"])
        reduced = magnitude - distance + 2.5 * np.log10(_phase(geometry["phaseAngle"]))
        return reduced, _MAG_PER_FLUX * error / flux


def _phase(angle: FloatArray) -> FloatArray:
    """Brightness relative to opposition at phase angles in degrees (Bowell et al. 1989)."""
    half = np.tan(np.radians(angle) / 2.0)
    first, second = np.exp(-3.33 * half**0.63), np.exp(-1.87 * half**1.22)
    return np.asarray((1.0 - _SLOPE) * first + _SLOPE * second)


def _phase_curve(
    groups: Groups, rows: _Integers, magnitude: FloatArray, error: FloatArray, angle: FloatArray
) -> dict[str, FloatArray]:
    """Absolute magnitude of each body in one band."""
    n = len(groups)
    result = {name: np.full(n, np.nan) for name in ("H", "HErr", "Chi2")}
    result |= {f"phaseAngle{name}": np.full(n, np.nan) for name in ("Min", "Max")}
    result |= {name: np.zeros(n) for name in ("nObs", "nObsUsed")}
    result["nObs"] += np.bincount(groups.index[rows], minlength=n)
    used = rows[np.isfinite(magnitude[rows]) & (error[rows] > 0)]
    part = Groups.of(groups.index[used])
    if len(part):
        at, m, sigma = part.keys, magnitude[used], error[used]
        total = part.sum(sigma**-2.0)
        mean = part.sum(m * sigma**-2.0) / total
        result["H"][at], result["HErr"][at] = mean, total**-0.5
        result["Chi2"][at] = part.sum(((m - part.spread(mean)) / sigma) ** 2)
        result["nObsUsed"][at] = part.count
        result["phaseAngleMin"][at] = part.min(angle[used])
        result["phaseAngleMax"][at] = part.max(angle[used])
    return result | {"slope_fit_failed": result["nObsUsed"] > 0}
