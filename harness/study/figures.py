"""Figures of a study, described by their numbers; `harness.drawing` draws them."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.study.completeness import completeness
from harness.study.sample import Sample
from harness.study.summary import SNR_EDGES
from pipeline.exposure import FloatArray

__all__ = ["completeness_figure", "figures"]

Description = dict[str, Any]

_THIRDS = ("faint", "middle", "bright")
_LEAST_IN_CELL = 5
_LIMIT_POINTS = 40


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
        _host_map(points),
        _detector_map(points),
        _over_stars(points),
        _events(summary),
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
    order = np.argsort(points.snr)[:: max(len(points) // _LIMIT_POINTS, 1)]
    shown = [[float(points.snr[k]), float(ideal[k])] for k in order if np.isfinite(ideal[k])]
    return {
        "title": "Completeness against true signal to noise; the noise alone allows the last curve",
        "type": "curve",
        "x": {"label": "true signal to noise", "log": True, "range": [3, 60]},
        "y": {"label": "fraction", "range": [0, 1]},
        "series": [*series, {"name": "noise limit", "points": shown, "line": True}],
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
        steps = _magnitude_steps(hosted)
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


def _magnitude_steps(sample: Sample) -> FloatArray:
    low, high = np.percentile(sample.magnitude, [1, 99]).tolist()
    return np.linspace(low, high, 7)


def _host_map(points: Sample) -> Description:
    """Map the detected fraction over surface brightness of the host and magnitude."""
    hosted = points.hosted()
    brightness, magnitude = hosted.numbers("hostSurfaceBrightness"), hosted.magnitude
    cells = []
    if len(hosted) >= 30:
        columns = _magnitude_steps(hosted)
        rows = np.log10(np.quantile(brightness, np.linspace(0, 1, 5)))
        cells = _cells(magnitude, np.log10(brightness), hosted.flags("detected"), columns, rows)
    return {
        "title": "Detected fraction over host and source",
        "type": "map",
        "x": {"label": "true AB magnitude on the difference"},
        "y": {"label": "host beneath it (log nJy per square arcsec)"},
        "z": {"label": "fraction detected", "range": [0, 1]},
        "series": [{"name": "", "points": cells}],
    }


def _detector_map(points: Sample) -> Description:
    """Map detected over the noise limit over the detector, all exposures together."""
    part = points.between(5.0, 50.0)
    x, y = part.numbers("x"), part.numbers("y")
    cells = []
    if len(part) >= 30:
        columns, rows = (np.linspace(0.0, v.max() + 1.0, 5) for v in (x, y))
        ideal = part.numbers("idealFraction")
        cells = _cells(x, y, part.flags("detected"), columns, rows, ideal)
    return {
        "title": "Detected over the noise limit in parts of the detector, true SNR 5 to 50",
        "type": "map",
        "x": {"label": "column (pixel)"},
        "y": {"label": "row (pixel)"},
        "z": {"label": "detected over the noise limit", "range": [0.8, 1.05]},
        "series": [{"name": "", "points": cells}],
    }


def _cells(
    x: FloatArray,
    y: FloatArray,
    found: npt.NDArray[np.bool_],
    columns: FloatArray,
    rows: FloatArray,
    ideal: FloatArray | None = None,
) -> list[list[float]]:
    """Found fraction (over the ideal one, where it is known) in cells of five sources or more."""
    out, known = [], np.isfinite(ideal) if ideal is not None else np.ones(len(x), bool)
    for (x0, x1), (y0, y1) in product(pairwise(columns), pairwise(rows)):
        inside = known & (x >= x0) & (x < x1) & (y >= y0) & (y <= y1)
        if inside.sum() >= _LEAST_IN_CELL:
            share = found[inside].mean() / (1.0 if ideal is None else ideal[inside].mean())
            out.append([float(v) for v in (x0, x1, y0, y1, share)])
    return out


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


def _events(summary: dict[str, Any]) -> Description:
    rows = [r for r in summary["events"] if r["n"]]
    return {
        "title": "Events detected in one visit, and in two",
        "type": "curve",
        "x": {"label": "AB magnitude at the peak"},
        "y": {"label": "fraction", "range": [0, 1]},
        "series": [
            {
                "name": f"{name} visit{'s' * (name == 'two')}",
                "points": [
                    [(r["low"] + r["high"]) / 2, r[key], r[f"{key}Low"], r[f"{key}High"]]
                    for r in rows
                ],
            }
            for name, key in (("one", "once"), ("two", "twice"))
        ],
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
