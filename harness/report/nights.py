"""Data quality and performance night by night (DMS-REQ-0097, DMS-REQ-0099), from the catalogue."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import duckdb

from harness.catalog import QueryError
from harness.system.text import one_line
from harness.verify.context import Context

__all__ = ["nights"]

_Page = dict[str, object]

_NIGHT = "floor(startMjdUtc - 0.5)"
"""MJD of the evening of a night, which begins at noon UTC as observing days of Rubin do."""
_MJD_ZERO = date(1858, 11, 17)

_VISITS = f"select {_NIGHT} as night, visit, band, field, role, startMjdUtc, airmass from exposure"
_IMAGES = """select visit, count(*) as frames, median(zeroPoint) as zero, max(zeroPointScatter) as
 scatter, median(psfFwhm) as seeing, median(sqrt(psfE1 * psfE1 + psfE2 * psfE2)) as ellipticity,
 median(skyBackground) as sky, median(depth5) as depth,
 max(greatest(astrometryRmsRa, astrometryRmsDec)) as astrometry, sum(nCosmicRays)::bigint as rays
 from visit_image group by visit"""
_DIFFERENCES = """select visit, count(*) as differences, median(depth5) as difference_depth,
 median(scoreStd) as score_std, sum(nDiaSources)::bigint as sources
 from difference_image group by visit"""
_ALERTS = "select visit, count(*) filter (emitted) as alerts from alert group by visit"
_UNITS = "select visit, detector, stage, status, cause, message, attempts, cpuS, wallS from unit"

_QUALITY = {
    "visit": "visit",
    "band": "band",
    "field": "field",
    "start / h UTC": "hour",
    "airmass": "airmass",
    "frames": "frames",
    "zero point / mag": "zero",
    "worst scatter of standards / mag": "scatter",
    "seeing / arcsec": "seeing",
    "ellipticity": "ellipticity",
    "sky / electron": "sky",
    "worst astrometric rms / mas": "astrometry",
    "5 σ depth / mag": "depth",
    "pixels of cosmic rays": "rays",
    "differences": "differences",
    "5 σ depth of differences / mag": "difference_depth",
    "σ of score": "score_std",
    "sources": "sources",
    "alerts": "alerts",
}
_FIGURES = {"seeing": "seeing / arcsec", "zero": "zero point / mag", "depth": "5 σ depth / mag"}


def nights(context: Context) -> list[_Page]:
    """Describe every night of a campaign.

    Parameters
    ----------
    context : Context
        The campaign.

    Returns
    -------
    list of dict
        ``{"night", "visits", "frames", "failed", "recovered", "alerts", "quality", "performance",
        "failures", "figures"}`` in the order of time: ISO date of the evening, counts, and
        evidence as in the rest of the report. Missing values are None; a catalogue that cannot
        answer gives one entry with ``problem``.
    """
    if not {"exposure", "visit_image", "unit"} <= context.columns.keys():
        return []
    try:
        visits, units = _visits(context), context.rows(_UNITS)
    except (duckdb.Error, QueryError) as err:
        return [{"night": None, "problem": f"cannot be read: {one_line(err)}"}]
    dates = sorted({v["night"] for v in visits if v["night"] is not None})
    return [_night(d, [v for v in visits if v["night"] == d], units) for d in dates]


def _visits(context: Context) -> list[dict[str, Any]]:
    """One row per visit: what was observed, and what became of it."""
    visits = {r["visit"]: r for r in context.rows(_VISITS)}
    asked = {"visit_image": _IMAGES, "difference_image": _DIFFERENCES, "alert": _ALERTS}
    for table, query in asked.items():
        for row in context.rows(query) if table in context.columns else ():
            visits.get(row["visit"], {}).update(row)
    for visit in visits.values():
        start = visit["startMjdUtc"]
        visit["hour"] = None if start is None else (start - visit["night"]) * 24.0 % 24.0
    return sorted(visits.values(), key=lambda v: (v["startMjdUtc"] or 0.0, v["visit"]))


def _night(
    mjd: float, visits: Sequence[Mapping[str, Any]], units: Iterable[Mapping[str, Any]]
) -> _Page:
    numbers = {v["visit"] for v in visits}
    own = [u for u in units if u["visit"] in numbers]
    failed = [u for u in own if u["status"] != "done"]
    recovered = [u for u in own if u["status"] == "done" and (u["attempts"] or 0) > 1]
    return {
        "night": (_MJD_ZERO + timedelta(days=mjd)).isoformat(),
        "visits": len(visits),
        "frames": sum(v.get("frames") or 0 for v in visits),
        "failed": len(failed),
        "recovered": len(recovered),
        "alerts": sum(v.get("alerts") or 0 for v in visits),
        "quality": _table(
            _QUALITY, [[_value(v.get(k)) for k in _QUALITY.values()] for v in visits]
        ),
        "performance": _performance(own),
        "failures": _failures([*failed, *recovered]),
        "figures": [_figure(key, text, visits) for key, text in _FIGURES.items()],
    }


def _table(columns: Iterable[str], rows: Sequence[Sequence[object]]) -> _Page:
    return {"columns": list(columns), "rows": rows}


def _performance(units: Sequence[Mapping[str, Any]]) -> _Page:
    """Work by stage, in the order of first appearance in the pipeline."""
    from harness.tasks import stages

    rows = []
    for stage in stages():
        own = [u for u in units if u["stage"] == stage]
        times = {k: [u[k] for u in own if u[k] is not None] for k in ("cpuS", "wallS")}
        done = sum(u["status"] == "done" for u in own)
        again = sum((u["attempts"] or 0) > 1 for u in own)
        if own:
            cpu, wall = sum(times["cpuS"]), max(times["wallS"], default=None)
            rows.append([stage, done, len(own) - done, again, _value(cpu), _value(wall)])
    names = ("stage", "done", "failed or blocked", "tried again", "CPU in all / s", "longest / s")
    return _table(names, rows)


def _failures(units: Sequence[Mapping[str, Any]]) -> _Page:
    """List what failed, of which kind, and whether another attempt mended it."""
    names = ("visit", "detector", "stage", "status", "cause", "attempts", "message")
    return _table(names, [[u[n] for n in names] for u in units])


def _figure(key: str, text: str, visits: Sequence[Mapping[str, Any]]) -> _Page:
    """Draw a quantity over the hours of the night, one series per band."""
    points: dict[str, list[list[float]]] = {}
    for visit in visits:
        value = _value(visit.get(key))
        if isinstance(value, float) and visit["hour"] is not None:
            points.setdefault(str(visit["band"]), []).append([_since_noon(visit), value])
    data = {
        "type": "points",
        "x": {"label": "time since noon UTC / h"},
        "y": {"label": text},
        "series": [{"name": b, "points": p} for b, p in sorted(points.items())],
    }
    return {"title": text.partition(" / ")[0], "kind": "figure", "data": data}


def _since_noon(visit: Mapping[str, Any]) -> float:
    return float(round((visit["startMjdUtc"] - visit["night"] - 0.5) * 24.0, 3))


def _value(value: object) -> object:
    """Plain numbers with five digits, None for what is no number."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None
