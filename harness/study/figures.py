"""Figures of a study, described by their numbers; `harness.drawing` draws them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from harness.study.completeness import completeness
from harness.study.sample import Sample
from harness.study.summary import SNR_EDGES

__all__ = ["completeness_figure", "figures"]

Description = dict[str, Any]

_THIRDS = ("faint", "middle", "bright")


def figures(rows: pa.Table, summary: dict[str, Any]) -> list[Description]:
    """Describe the figures of the report.

    Parameters
    ----------
    rows : pyarrow.Table
        `Study.rows`.
    summary : dict
        From `harness.study.summary.summarise`.

    Returns
    -------
    list of dict
        ``title`` and the description that `harness.drawing.plots.draw_plot` takes.
    """
    points = Sample(rows).points()
    out = [
        {**completeness_figure(points), "marks": _mark(summary)},
        _against_magnitude(points),
        _over_hosts(points),
        _over_stars(points),
        _flux_bias(points),
        _false(summary),
    ]
    return [figure for figure in out if any(s["points"] for s in figure["series"])]


def completeness_figure(points: Sample) -> Description:
    """Describe completeness against true SNR, and the curve that the noise alone allows.

    Parameters
    ----------
    points : Sample
        Point sources outside masks.

    Returns
    -------
    dict
        As `figures`.
    """
    series = _stages(points, points.snr, SNR_EDGES)
    ideal = points.numbers("idealFraction")
    order = np.argsort(points.snr)[:: max(len(points) // 200, 1)]
    shown = [[float(points.snr[k]), float(ideal[k])] for k in order if np.isfinite(ideal[k])]
    return {
        "title": "Completeness against true signal to noise; the noise alone allows the last curve",
        "type": "curve",
        "x": {"label": "true signal to noise", "log": True, "range": [3, 60]},
        "y": {"label": "fraction", "range": [0, 1]},
        "series": [*series, {"name": "noise limit", "points": shown}],
    }


def _mark(summary: dict[str, Any]) -> list[Description]:
    half = summary["snr50"]["value"]
    return [{"x": half, "label": "50 %"}] if half else []


def _stages(points: Sample, x: Any, edges: Any) -> list[Description]:
    return [
        {"name": name, "points": _bins(x, points.flags(name), edges)}
        for name in ("detected", "reliable", "alerted")
    ]


def _bins(x: Any, flags: Any, edges: Any) -> list[list[float]]:
    return [
        [r["middle"], r["fraction"], r["fractionLow"], r["fractionHigh"]]
        for r in completeness(x, flags, edges).to_pylist()
        if r["n"]
    ]


def _against_magnitude(points: Sample) -> Description:
    magnitude = points.magnitude
    low, high = (np.nanpercentile(magnitude, p) for p in (1, 99)) if len(points) else (20.0, 25.0)
    return {
        "title": "Completeness against magnitude",
        "type": "curve",
        "x": {"label": "true AB magnitude on the difference"},
        "y": {"label": "fraction", "range": [0, 1]},
        "series": _stages(points, magnitude, np.linspace(low, high, 13)),
    }


def _over_hosts(points: Sample) -> Description:
    """Completeness against magnitude on hosts of each third of surface brightness."""
    hosted = points.hosted()
    series = []
    if len(hosted) >= 30:
        steps = np.linspace(*np.nanpercentile(hosted.magnitude, [1, 99]), 7)
        for name, (low, high, part) in zip(_THIRDS, points.host_thirds(), strict=True):
            bins = _bins(part.magnitude, part.flags("detected"), steps)
            series.append({"name": f"{name} hosts ({low:.0f} to {high:.0f})", "points": bins})
    return {
        "title": "Detected on galaxies, by the surface brightness beneath (nJy per square arcsec)",
        "type": "curve",
        "x": {"label": "true AB magnitude on the difference"},
        "y": {"label": "fraction", "range": [0, 1]},
        "series": series,
    }


def _over_stars(points: Sample) -> Description:
    part = points.between(6.0, 50.0)
    edges = [10, 20, 30, 50, 80, 130, 200, 400, 1000]
    bins = _bins(part.numbers("starDistance"), part.flags("detected"), edges)
    return {
        "title": "Detected above a true SNR of 6, near saturated stars",
        "type": "curve",
        "x": {"label": "distance to the nearest saturated star (pixel)", "log": True},
        "y": {"label": "fraction", "range": [0, 1]},
        "series": [{"name": "", "points": bins}],
    }


def _flux_bias(points: Sample) -> Description:
    series = []
    for name, sample in (("hostless", points.hostless()), ("hosted", points.hosted())):
        found = sample.where(sample.flags("detected"))
        pull = (found.numbers("psfFlux") - found.numbers("flux")) / found.numbers("psfFluxErr")
        dots = []
        for low, high in pairwise(SNR_EDGES):
            values = pull[(found.snr >= low) & (found.snr < high) & np.isfinite(pull)]
            if len(values) > 4:
                middle, error = np.mean(values), np.std(values) / len(values) ** 0.5
                x = float(np.sqrt(low * high))
                dots.append([x, float(middle), float(middle - error), float(middle + error)])
        series.append({"name": name, "points": dots})
    return {
        "title": "Mean flux pull: near the threshold those are found that noise makes brighter",
        "type": "points",
        "x": {"label": "true signal to noise", "log": True, "range": [3, 60]},
        "y": {"label": "(measured − true) / error"},
        "series": series,
        "marks": [{"y": 0.0, "label": "no bias"}],
    }


def _false(summary: dict[str, Any]) -> Description:
    rows = summary["falseDetections"]
    return {
        "title": "Detections that belong to no injection; the negative ones are the control",
        "type": "curve",
        "x": {"label": "threshold of the score"},
        "y": {"label": "per square degree"},
        "series": [
            {
                "name": name,
                "points": [[r["threshold"], r[name]] for r in rows if r[name] is not None],
            }
            for name in ("positive", "negative")
        ],
    }
