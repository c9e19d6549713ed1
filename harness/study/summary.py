"""The numbers of a study: what `--json` prints, the report shows and studies are compared by."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from harness.study import estimates
from harness.study.completeness import CompletenessFit, completeness
from harness.study.estimates import Estimate, try_fit
from harness.study.events import efficiency_of_events
from harness.study.sample import Sample
from pipeline.exposure import FloatArray
from pipeline.schema import to_numpy

__all__ = ["SNR_EDGES", "efficiency_table", "pixel_scale", "summarise"]

SNR_EDGES = (3.0, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0, 50.0)
"""Bins of the completeness curve."""

_HEADLINE = (5.0, 6.0, 7.0, 10.0, 20.0, 50.0)
_STAGES = ("detected", "reliable", "alerted")
_THRESHOLDS = (5.0, 5.5, 6.0, 7.0, 10.0)
_SEEING_RATIOS = (0.0, 0.95, 1.1, 1.3, 1.6, float("inf"))
_DRAWS = 100

Numbers = dict[str, Any]


def summarise(rows: pa.Table, detections: pa.Table, paintings: pa.Table, study: str) -> Numbers:
    """Answer how complete, how accurate, how pure, and where sources were lost.

    Parameters
    ----------
    rows : pyarrow.Table
        `Study.rows`.
    detections, paintings : pyarrow.Table
        Tables ``detection`` and ``painting``.
    study : str
        Identifier.

    Returns
    -------
    dict
        See ``docs/study.md``; every number that cannot be told is None.
    """
    everything = Sample(rows)
    points = everything.points()
    summary: Numbers = {
        "studyId": study,
        "n": len(everything),
        "snr50": _snr50(points),
        "outcomes": dict(sorted(Counter(rows["outcome"].to_pylist()).items())),
        "lost": _losses(rows),
        "ratioToIdeal": _ratios(points),
        "curves": {
            name: _curves(part) for name, part in
            (("all", points), ("hostless", points.hostless()), ("hosted", points.hosted()))
        },
        "hostBrightness": _by_host(points),
        "seeingRatio": _by_seeing(points),
        "detectors": _by_detector(points),
        "events": efficiency_of_events(everything).to_pylist(),
        "flux": {"hostless": _flux(points.hostless()), "hosted": _flux(points.hosted())},
        "position": _position(points, paintings),
        "falseDetections": _false(detections, paintings),
        "chanceMatchRate": _chance(detections, everything),
        "exposureBootstrap": _bootstrap(points),
    }  # fmt: skip
    plain: Numbers = _plain(summary)
    return plain


def efficiency_table(rows: pa.Table) -> pa.Table:
    """Tabulate detection efficiency by band and true SNR, for codes that simulate surveys.

    Parameters
    ----------
    rows : pyarrow.Table
        `Study.rows`.

    Returns
    -------
    pyarrow.Table
        ``band snrLow snrHigh snr mag n detected detectedLow detectedHigh alerted alertedLow
        alertedHigh ideal``; fractions with their 95 % intervals, medians of SNR and magnitude.
    """
    points = Sample(rows).points()
    bands = np.array(points.table["band"].to_pylist(), dtype=str)
    parts = [_efficiency(points.where(bands == b), b) for b in sorted(set(bands))]
    return pa.Table.from_pylist([row for part in parts for row in part])


def _efficiency(points: Sample, band: str) -> list[Numbers]:
    out = []
    tables = {n: completeness(points.snr, points.flags(n), SNR_EDGES).to_pylist()
              for n in ("detected", "alerted")}  # fmt: skip
    for detected, alerted in zip(*tables.values(), strict=True):
        part = points.between(detected["low"], detected["high"])
        row = {"band": band, "snrLow": detected["low"], "snrHigh": detected["high"],
               "snr": detected["middle"],
               "mag": float(np.median(part.magnitude)) if len(part) else None,
               "n": detected["n"]}  # fmt: skip
        for name, values in (("detected", detected), ("alerted", alerted)):
            row |= {name: values["fraction"], f"{name}Low": values["fractionLow"],
                    f"{name}High": values["fractionHigh"]}  # fmt: skip
        out.append(row | {"ideal": _mean(part.numbers("idealFraction"))})
    return out


def _snr50(points: Sample) -> Numbers:
    half = estimates.half_found(points)
    limit = estimates.ideal_fit(points.between(0.0, 20.0), points.between(0.0, 20.0).snr)
    ideal = limit.at(0.5)[0] if limit is not None else None
    return {**_interval(half), "ideal": ideal}


def _interval(estimate: Estimate) -> Numbers:
    return {"value": estimate.value, "lo": estimate.low, "hi": estimate.high}


def _losses(rows: pa.Table) -> list[Numbers]:
    """Count by stage and rule, the most frequent first."""
    causes = Counter(
        (r["outcome"], r["stage"], r["rule"])
        for r in rows.select(["outcome", "stage", "rule"]).to_pylist()
        if r["outcome"] != "alerted"
    )
    order = sorted(causes.items(), key=lambda item: (-item[1], str(item[0])))
    return [{"outcome": o, "stage": s, "rule": r, "n": n} for (o, s, r), n in order]


def _ratios(points: Sample) -> list[Numbers]:
    """Divide the detected, reliable and alerted fractions by the ideal one, in bins of true SNR."""
    out = []
    for low, high in [(_HEADLINE[0], _HEADLINE[-1]), *pairwise(_HEADLINE)]:
        part = points.between(low, high)
        row: Numbers = {"snrLow": low, "snrHigh": high, "n": len(part)}
        for name in _STAGES:
            row[name] = _interval(estimates.found_over_ideal(part, name))
        out.append(row)
    return out


def _curves(points: Sample) -> Numbers:
    """Fits against SNR and magnitude, depths and the gap from the noise limit."""
    out: Numbers = {"n": len(points)}
    faint = points.between(0.0, 20.0)
    limit = estimates.ideal_fit(points, points.magnitude, falling=True)
    for name in _STAGES:
        curve = try_fit(points.magnitude, points.flags(name), falling=True)
        depths = {f"m{s}": _depth(points, name, curve, limit, s / 100) for s in (80, 50, 20)}
        by_snr = try_fit(faint.snr, faint.flags(name))
        out[name] = {"snr": _parameters(by_snr), "magnitude": _parameters(curve), **depths}
    return out


def _depth(
    points: Sample,
    stage: str,
    curve: CompletenessFit | None,
    limit: CompletenessFit | None,
    share: float,
) -> Numbers:
    """Magnitude at which a share is found; the gap from the noise limit is that in true SNR."""
    value, error = curve.at(share) if curve is not None else (np.nan, np.nan)
    gap = estimates.depth_gap(points, share, stage)
    ideal = limit.at(share)[0] if limit is not None else None
    return {"value": value, "error": error, "ideal": ideal,
            "gap": gap.value, "gapError": gap.error}  # fmt: skip


def _parameters(curve: CompletenessFit | None) -> Numbers | None:
    if curve is None:
        return None
    names = ("plateau", "m50", "width")
    out: Numbers = {n: {"value": getattr(curve, n), "error": curve.error(n)} for n in names}
    return out | {
        "covariance": curve.covariance.tolist(),
        "chi2": curve.chi2,
        "dof": curve.dof,
        "pValue": curve.p_value,
    }


def _by_host(points: Sample) -> list[Numbers]:
    """Completeness, depth and fluxes in thirds of the host's surface brightness."""
    return [
        {
            "low": low, "high": high, "n": len(part),
            "ratio": _interval(estimates.found_over_ideal(part.between(5.0, 50.0))),
            "gap50": _interval(estimates.depth_gap(part)), **_flux(part),
        }
        for low, high, part in points.host_thirds()
    ]  # fmt: skip


def _by_seeing(points: Sample) -> list[Numbers]:
    """Completeness where the visit is sharper than its template, alike, and wider."""
    ratio = points.numbers("seeingRatio")
    out = []
    for low, high in pairwise(_SEEING_RATIOS):
        part = points.where((ratio >= low) & (ratio < high)).between(5.0, 50.0)
        found = _interval(estimates.found_over_ideal(part))
        out.append({"low": low, "high": high, "n": len(part), "ratio": found})
    return out


def _by_detector(points: Sample) -> list[Numbers]:
    part = points.between(5.0, 50.0)
    detector = part.numbers("detector")
    groups = [(int(d), part.where(detector == d)) for d in np.unique(detector)]
    return [
        {"detector": d, "n": len(g), "ratio": _interval(estimates.found_over_ideal(g))}
        for d, g in groups
    ]


def _flux(points: Sample) -> Numbers:
    """Bias and pull of the measured flux above the true SNR where selection plays no part."""
    bias, width = estimates.flux_bias(points), estimates.flux_pull_width(points)
    beyond, bright = (
        estimates.flux_bias_beyond_fit(points), estimates.flux_bias(points.between(20.0, np.inf))
    )  # fmt: skip
    response, left = estimates.flux_response(points), estimates.scene_score(points)
    return {
        "n": width.n,
        "bias": bias.value / 100.0,
        "biasError": bias.error / 100.0,
        "biasBeyondFit": beyond.value / 100.0,
        "biasBeyondFitError": beyond.error / 100.0,
        "biasBright": bright.value / 100.0,
        "biasBrightError": bright.error / 100.0,
        "pullWidth": width.value,
        "pullWidthError": width.error,
        "response": response.value / 100.0,
        "responseError": response.error / 100.0,
        "sceneScore": left.value,
        "sceneScoreError": left.error,
    }


def _position(points: Sample, paintings: pa.Table) -> Numbers:
    """Residuals of bright ones, in arcsec, and pulls."""
    scale = pixel_scale(paintings)
    scatter = estimates.position_scatter(points, scale)
    part = points.where(points.flags("detected") & (points.snr >= 20.0))
    errors = np.concatenate([part.numbers("dxErr"), part.numbers("dyErr")])
    return {
        "n": scatter.n // 2,
        "rms": scatter.value,
        "rmsError": scatter.error,
        "beyondNoise": estimates.position_excess(points, paintings).value,
        "bias": estimates.position_bias(points, scale).value,
        "medianError": scale * float(np.nanmedian(errors)) if len(errors) else None,
        "pullWidth": estimates.position_pull_width(points).value,
    }


def pixel_scale(paintings: pa.Table) -> float:
    """Return the median side of a pixel of the table ``painting``, arcsec; NaN where it is empty.

    Parameters
    ----------
    paintings : pyarrow.Table
        Rows of `harness.study.tables.PAINTING`.

    Returns
    -------
    float
        In arcsec.
    """
    return float(np.median(to_numpy(paintings, "pixelScale"))) if paintings.num_rows else np.nan


def _false(detections: pa.Table, paintings: pa.Table) -> list[Numbers]:
    """Count detections that belong to no injection, per square degree.

    Positive ones hold the real transients of the field; the negative ones are the control.
    """
    area = float(to_numpy(paintings, "area").sum())
    snr = to_numpy(detections, "snr")
    free = to_numpy(detections, "injectionId") < 0
    reliable = to_numpy(detections, "reliable")
    out = []
    for bound in _THRESHOLDS:
        row: Numbers = {"threshold": bound, "area": area}
        for name, side in (("positive", snr >= bound), ("negative", snr <= -bound)):
            row[name] = float((free & side).sum() / area) if area else None
            row[f"{name}Reliable"] = float((free & side & reliable).sum() / area) if area else None
        out.append(row)
    return out


def _chance(detections: pa.Table, everything: Sample) -> Numbers:
    """Count matches of the injections turned by half a turn, per injection."""
    n, k = int(everything.flags("placed").sum()), int(to_numpy(detections, "chance").sum())
    return {"value": k / n if n else None, "matches": k, "n": n}


def _bootstrap(points: Sample) -> Numbers:
    """Scatter of the SNR at 50 % if other exposures of this kind had been taken."""
    part = points.between(0.0, 20.0)
    units = np.unique(part.unit)
    first = try_fit(part.snr, part.flags("detected"))
    if first is None or len(units) < 3:
        return {"exposures": len(units), "draws": 0, "snr50Error": None}
    rng = np.random.default_rng(1)
    rows = {int(u): np.flatnonzero(part.unit == u) for u in units}
    snr, flags, values = part.snr, part.flags("detected"), []
    for _ in range(_DRAWS):
        index = np.concatenate([rows[int(u)] for u in rng.choice(units, len(units))])
        again = try_fit(snr[index], flags[index], start=first)
        values += [again.at(0.5)[0]] if again is not None else []
    return {"exposures": len(units), "draws": len(values), "snr50Error": float(np.nanstd(values))}


def _mean(values: FloatArray) -> float | None:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else None


def _plain(value: Any) -> Any:
    """Turn numbers into those of JSON; what is not finite is missing."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
