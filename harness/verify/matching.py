"""True transients beside the sources of the catalogue, which is what users read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from harness.verify.context import Context

__all__ = ["Sources", "catalogued_sources", "match", "near"]

Sources = Mapping[str, npt.NDArray[Any]]
"""Columns of the sources of one unit."""

_SCALES = {"raErr": 3600.0, "decErr": 3600.0}
_NAMES = {
    "raErr": "east_err",
    "decErr": "north_err",
    "psfFlux": "flux_measured",
    "psfFluxErr": "flux_err",
    "trailFlux": "trail_flux",
    "trailFluxErr": "trail_err",
    "snr": "snr",
    "reliability": "reliability",
}
_SQL = f"""SELECT visit, detector, diaSourceId, ra, dec, {", ".join(_NAMES)} FROM DiaSource
WHERE NOT isSubThreshold AND NOT coalesce(isDeblendParent, false)
ORDER BY visit, detector, diaSourceId"""


def catalogued_sources(context: Context) -> dict[tuple[int, int], Sources]:
    """Return the detections of the catalogue, no deblend parents, by visit and detector.

    Parameters
    ----------
    context : Context
        The campaign.

    Returns
    -------
    dict
        Columns by unit; NULL reads NaN.
    """
    table = context.query(_SQL)
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    units = np.stack([columns.pop("visit"), columns.pop("detector")], axis=1)
    starts = np.flatnonzero(np.any(np.diff(units, axis=0, prepend=-1) != 0, axis=1))
    ends = [*starts[1:], len(units)]
    return {
        (int(units[i, 0]), int(units[i, 1])): {n: c[i:j] for n, c in columns.items()}
        for i, j in zip(starts, ends, strict=True)
    }


def match(
    rows: Iterable[Mapping[str, Any]], sources: Mapping[tuple[int, int], Sources]
) -> list[dict[str, Any]]:
    """Find the nearest detection of every transient.

    Parameters
    ----------
    rows : iterable of mapping
        Transients with ``visit``, ``detector``, ``ra``, ``dec`` in deg and ``reach`` in arcsec,
        beyond which a detection is another's.
    sources : mapping
        See `catalogued_sources`.

    Returns
    -------
    list of dict
        The rows with ``diaSourceId`` (None where nothing is near), ``distance``, ``east``,
        ``north`` and their errors in arcsec, and the fluxes of the source in nJy.
    """
    by_unit = defaultdict(list)
    for row in rows:
        by_unit[row["visit"], row["detector"]].append(row)
    return [
        {**row, **_nearest(row, sources.get(unit))}
        for unit, members in by_unit.items()
        for row in members
    ]


def near(rows: Iterable[Mapping[str, Any]], sources: Mapping[tuple[int, int], Sources]) -> set[int]:
    """Find the detections that are close to something true, their own or not.

    Parameters
    ----------
    rows : iterable of mapping
        With ``visit``, ``detector``, ``ra``, ``dec`` in deg and ``near`` in arcsec.
    sources : mapping
        See `catalogued_sources`.

    Returns
    -------
    set of int
        Their ``diaSourceId``.
    """
    found: set[int] = set()
    for row in rows:
        here = sources.get((row["visit"], row["detector"]))
        if here is not None and len(here["ra"]):
            close = np.hypot(*_offsets(row, here)) < row["near"]
            found.update(here["diaSourceId"][close].tolist())
    return found


def _offsets(row: Mapping[str, Any], sources: Sources) -> tuple[Any, Any]:
    """Offsets of detections to the east and to the north, arcsec."""
    east = (sources["ra"] - row["ra"]) * np.cos(np.radians(row["dec"])) * 3600.0
    return east, (sources["dec"] - row["dec"]) * 3600.0


def _nearest(row: Mapping[str, Any], sources: Sources | None) -> dict[str, Any]:
    nothing = dict.fromkeys(("diaSourceId", "flux_measured", "flux_err"))
    nothing["distance"] = float("inf")
    if sources is None or not len(sources["ra"]):
        return nothing
    east, north = _offsets(row, sources)
    distance = np.hypot(east, north)
    best = int(np.argmin(np.where(np.isnan(distance), np.inf, distance)))
    if not distance[best] <= row["reach"]:
        return nothing
    values = {new: float(sources[n][best]) * _SCALES.get(n, 1.0) for n, new in _NAMES.items()}
    return {
        "diaSourceId": int(sources["diaSourceId"][best]),
        "distance": float(distance[best]),
        "east": float(east[best]),
        "north": float(north[best]),
        **values,
    }
