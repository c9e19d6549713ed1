"""Figures for the overview: residuals, light curves, stamps of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.report.sheets import source_stamps
from harness.verify.context import Context
from harness.verify.measurement import Evidence

__all__ = ["overview_figures"]

_STAMPS = 12
_CURVES = 6


def overview_figures(context: Context, folder: Path) -> tuple[Evidence, ...]:
    """Draw what a reviewer wants to see first; what cannot be drawn is left out.

    Parameters
    ----------
    context : Context
        The campaign.
    folder : path-like
        Where images are kept.

    Returns
    -------
    tuple of Evidence
        In the order of the report.
    """
    figures: list[Evidence] = []
    if "DiaSource" in context.columns:
        figures += _stamps(context, folder)
        figures += _light_curves(context)
        figures += _histograms(context)
    return tuple(figures)


def _stamps(context: Context, folder: Path) -> list[Evidence]:
    rows = context.rows(
        "select visit, detector, x, y, snr, reliability, diaObjectId from DiaSource "
        "where not isSubThreshold and not isNegative and parentDiaSourceId is null "
        "and reliability is not null order by reliability desc, snr desc limit ?",
        [_STAMPS],
    )
    for row in rows:
        numbers = f"SNR {row['snr']:.1f}, reliability {row['reliability']:.2f}"
        row["caption"] = f"{row['visit']}/{row['detector']} {numbers}"
    if not rows:
        return []
    title = "most reliable detections: science, template, difference"
    return [Evidence(title, "images", source_stamps(context, rows, folder))]


def _light_curves(context: Context) -> list[Evidence]:
    objects = context.rows(
        "select diaObjectId, max(snr) as top from DiaSource where diaObjectId is not null "
        "and not isSubThreshold group by 1 having count(*) > 1 "
        "order by count(*) desc, top desc, 1 limit ?",
        [_CURVES],
    )
    figures = []
    for entry in objects:
        rows = context.rows(
            "select midpointMjdTai as t, psfFlux as f, psfFluxErr as e from DiaForcedSource "
            "where diaObjectId = ? and psfFlux is not null order by t",
            [entry["diaObjectId"]],
        )
        if len(rows) > 1:
            figures.append(_light_curve(entry["diaObjectId"], rows))
    return figures


def _light_curve(name: int, rows: Sequence[dict[str, Any]]) -> Evidence:
    points = [
        [
            round(r["t"], 5),
            float(f"{r['f']:.5g}"),
            float(f"{r['f'] - r['e']:.5g}"),
            float(f"{r['f'] + r['e']:.5g}"),
        ]
        for r in rows
    ]
    figure = {
        "type": "points",
        "x": {"label": "date (TAI)", "date": True},
        "y": {"label": "forced difference flux / nJy"},
        "series": [{"name": "", "points": points}],
        "marks": [{"y": 0.0, "label": ""}],
    }
    return Evidence(f"forced light curve of object {name}", "figure", figure)


def _histograms(context: Context) -> list[Evidence]:
    rows = context.rows(
        "select least(floor(snr), 30) as low, count(*) as n from DiaSource "
        "where not isSubThreshold group by 1 order by 1"
    )
    if not rows:
        return []
    figure = {
        "type": "bars",
        "x": {"label": "signal to noise of the detection (30 and more in the last)"},
        "y": {"label": "sources per unit of signal to noise"},
        "series": [{"name": "", "points": [[r["low"], r["low"] + 1, r["n"]] for r in rows]}],
    }
    return [Evidence("detections by signal to noise", "figure", figure)]
