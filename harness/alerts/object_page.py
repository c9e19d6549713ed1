"""One object or body on a page: light curve, stamps of its alerts, sources, neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.alerts.entries import read_alerts
from harness.alerts.page import as_card, open_templates
from harness.catalog import Catalog
from harness.drawing.lightcurve import Epoch, curve_as_svg
from harness.workspace import Workspace, atomic, translate_os_errors
from pipeline.errors import ConfigError

__all__ = ["write_object"]

Row = dict[str, Any]

_SOURCES = """SELECT s.diaSourceId, s.visit, s.detector, s.midpointMjdTai, s.band, s.psfFlux,
  s.psfFluxErr, s.snr, s.reliability, coalesce(a.emitted, false) AS alerted, a.reason
FROM DiaSource s LEFT JOIN alert a USING (diaSourceId)
WHERE (s.diaObjectId = $1 OR s.ssObjectId = $1) AND NOT coalesce(s.isSubThreshold, false)
ORDER BY s.midpointMjdTai, s.diaSourceId"""
_FORCED = """SELECT midpointMjdTai, band, psfFlux, psfFluxErr FROM DiaForcedSource f
WHERE diaObjectId = ? AND NOT EXISTS (FROM DiaSource s WHERE s.diaObjectId = f.diaObjectId
  AND s.visit = f.visit AND NOT coalesce(s.isSubThreshold, false)) ORDER BY midpointMjdTai"""
_NEIGHBOURS = """SELECT objectId, objectType, rank, dist, lnP FROM DiaObject_To_Object_Match
WHERE diaObjectId = ? ORDER BY dist"""
_SHOWN = {
    "sources": ("diaSourceId", "visit", "detector", "midpointMjdTai", "band", "psfFlux",
                "psfFluxErr", "snr", "reliability", "alerted", "reason"),
    "neighbours": ("objectId", "objectType", "rank", "dist", "lnP"),
}  # fmt: skip


def write_object(space: Workspace, number: int, path: Path) -> int:
    """Write the page of an object or of a solar-system body.

    Parameters
    ----------
    space : Workspace
        The campaign's folder.
    number : int
        ``diaObjectId`` or ``ssObjectId``.
    path : Path
        HTML file to write.

    Returns
    -------
    int
        Number of its sources.

    Raises
    ------
    ConfigError
        If nothing of that number has been seen.
    """
    with Catalog(space.catalog, read_only=True) as catalog:
        sources = catalog.rows(_SOURCES, [number])
        forced = catalog.rows(_FORCED, [number])
        neighbours = catalog.rows(_NEIGHBOURS, [number])
        facts = _facts(catalog, number)
    if not sources:
        raise ConfigError(
            f"no object or body {number} has been seen", path=space.root,
            hint=f"nightjar export {space.root} DiaObject objects.csv lists them",
        )  # fmt: skip
    text = (
        open_templates()
        .get_template("inspect.html.j2")
        .render(
            number=number,
            curve=curve_as_svg(_epochs(sources, forced), 640, 220),
            cards=_cards(space, sources),
            tables={"sources": sources, "neighbours": neighbours},
            columns=_SHOWN,
            facts=facts,
        )
    )
    with translate_os_errors(path), atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return len(sources)


def _facts(catalog: Catalog, number: int) -> Row:
    """Columns of the object or body that are not NULL."""
    for table, key in (("DiaObject", "diaObjectId"), ("SSObject", "ssObjectId")):
        rows = catalog.rows(f'SELECT * FROM "{table}" WHERE "{key}" = ?', [number])
        if rows:
            return {name: value for name, value in rows[0].items() if value is not None}
    return {}


def _epochs(sources: Sequence[Row], forced: Sequence[Row]) -> list[Epoch]:
    kinds = [("alert" if row["alerted"] else "source", row) for row in sources]
    kinds += [("forced", row) for row in forced]
    return [
        Epoch(row["midpointMjdTai"], row["psfFlux"], _error(row), str(row["band"] or ""), kind)
        for kind, row in kinds
        if row["psfFlux"] is not None
    ]


def _error(row: Mapping[str, Any]) -> float:
    return float("nan") if row["psfFluxErr"] is None else float(row["psfFluxErr"])


def _cards(space: Workspace, sources: Sequence[Row]) -> list[Row]:
    """Cards of the sources that were alerted, as far as their files can be read."""
    units = dict.fromkeys((s["visit"], s["detector"]) for s in sources if s["alerted"])
    files = [space.alerts(*unit) for unit in units]
    wanted = {row["diaSourceId"] for row in sources}
    cards = [
        as_card(packet)
        for packet in read_alerts(files, troubles=[])
        if packet["diaSourceId"] in wanted
    ]
    return [card | {"curve": ""} for card in cards]
