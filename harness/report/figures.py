"""Figures for the overview: residuals, light curves, stamps of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from harness.report.sheets import source_stamps, stamp_picture
from harness.verify.context import Context
from harness.verify.measurement import Evidence
from harness.verify.sampling import Picture

__all__ = ["overview_figures", "overview_pictures"]

_STAMPS = 12
_CURVES = 6


def overview_figures(context: Context, folder: Path) -> tuple[Evidence, ...]:
    """Draw what a reviewer wants to see first; what cannot be drawn is listed.

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
    if "DiaSource" not in context.columns:
        return ()
    figures: list[Evidence] = []
    for title, draw in (
        ("stamps", partial(_stamps, context, folder)),
        ("light curves", partial(_light_curves, context)),
        ("detections by signal to noise", partial(_histograms, context)),
    ):
        try:
            figures += draw()
        except (duckdb.Error, TypeError) as err:  # a table or a value is not there
            sentence = f"cannot be drawn: {' '.join(str(err).split())}"
            figures.append(Evidence(title, "text", sentence))
    return tuple(figures)


def overview_pictures(context: Context) -> list[Picture]:
    """List the drawings of the overview that need pixels.

    Parameters
    ----------
    context : Context
        The campaign.

    Returns
    -------
    list of Picture
        Stamps of the most reliable detections; none where the catalogue cannot name them.
    """
    try:
        return [stamp_picture(row) for row in _best_sources(context)]
    except (duckdb.Error, TypeError):  # `overview_figures` will say so
        return []


def _best_sources(context: Context) -> list[dict[str, Any]]:
    if "DiaSource" not in context.columns:
        return []
    return context.rows(
        "select visit, detector, x, y, snr, reliability, diaObjectId from DiaSource "
        "where not isSubThreshold and not isNegative and parentDiaSourceId is null "
        "and reliability is not null order by reliability desc, snr desc limit ?",
        [_STAMPS],
    )


def _stamps(context: Context, folder: Path) -> list[Evidence]:
    rows = _best_sources(context)
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
