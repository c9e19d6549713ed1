"""The numbers of a study: what `--json` prints, the report shows and studies are compared by."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import special

from harness.study.completeness import CompletenessFit, completeness, fit, ratio_to_ideal
from harness.study.sample import Sample
from pipeline.exposure import FloatArray
from pipeline.schema import to_numpy
from pipeline.statistics import mad_std, median_error

__all__ = ["SNR_EDGES", "efficiency_table", "summarise"]

SNR_EDGES = (3.0, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0, 50.0)
"""Bins of the completeness curve."""

_HEADLINE = (5.0, 6.0, 7.0, 10.0, 20.0, 50.0)
_STAGES = ("detected", "reliable", "alerted")
_THRESHOLDS = (5.0, 5.5, 6.0, 7.0, 10.0)
_BRIGHT = 7.0
"""True SNR from which fluxes and positions are judged: below, only lucky ones are found."""
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
    part = points.between(0.0, 20.0)
    curve = _try_fit(part.snr, part.flags("detected"))
    ideal = _ideal_at(part.snr, part.numbers("idealFraction"), 0.5)
    if curve is None:
        return {"value": None, "lo": None, "hi": None, "ideal": ideal}
    value, error = curve.at(0.5)
    return {"value": value, "lo": value - 1.96 * error, "hi": value + 1.96 * error, "ideal": ideal}


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
            value, lo, hi = ratio_to_ideal(part.flags(name), part.numbers("idealFraction"))
            row[name] = {"value": value, "lo": lo, "hi": hi}
        out.append(row)
    return out


def _curves(points: Sample) -> Numbers:
    """Fits against SNR and magnitude, depths and the gap from the noise limit."""
    out: Numbers = {"n": len(points)}
    ideal = points.numbers("idealFraction")
    for name in _STAGES:
        flags, faint = points.flags(name), points.snr < 20.0
        by_snr = _try_fit(points.snr[faint], flags[faint])
        by_mag = _try_fit(points.magnitude, flags, falling=True)
        depths = {
            f"m{share}": _depth(by_mag, points.magnitude, ideal, share / 100)
            for share in (80, 50, 20)
        }
        out[name] = {"snr": _parameters(by_snr), "magnitude": _parameters(by_mag), **depths}
    return out


def _depth(
    curve: CompletenessFit | None, magnitude: FloatArray, ideal: FloatArray, share: float
) -> Numbers:
    limit = _ideal_at(magnitude, ideal, share)
    value, error = curve.at(share) if curve is not None else (float("nan"), float("nan"))
    gap = None if limit is None else limit - value
    return {"value": value, "error": error, "ideal": limit, "gap": gap}


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
    """Completeness in thirds of the host's surface brightness."""
    hosted = points.hosted()
    brightness = hosted.numbers("hostSurfaceBrightness")
    if len(hosted) < 6:
        return []
    edges = np.quantile(brightness, [0, 1 / 3, 2 / 3, 1])
    out = []
    for low, high in pairwise(edges):
        part = hosted.where((brightness >= low) & (brightness <= high)).between(5.0, 50.0)
        value, lo, hi = ratio_to_ideal(part.flags("detected"), part.numbers("idealFraction"))
        ratio = {"value": value, "lo": lo, "hi": hi}
        out.append({"low": low, "high": high, "n": len(part), "ratio": ratio, **_flux(part)})
    return out


def _flux(points: Sample) -> Numbers:
    """Bias and pull of the measured flux above the true SNR where selection plays no part."""
    part = points.where(points.flags("detected") & (points.snr >= _BRIGHT))
    ratio = part.numbers("psfFlux") / part.numbers("flux") - 1.0
    pull = (part.numbers("psfFlux") - part.numbers("flux")) / part.numbers("psfFluxErr")
    pull = pull[np.isfinite(pull)]
    return {
        "n": len(pull),
        "bias": _median(ratio),
        "biasError": median_error(ratio[np.isfinite(ratio)]),
        "pullMedian": _median(pull),
        "pullWidth": _width(pull),
        "pullWidthError": 1.17 * _width(pull) / max(len(pull), 1) ** 0.5,
    }


def _position(points: Sample, paintings: pa.Table) -> Numbers:
    """Residuals of bright ones, in arcsec, and pulls."""
    part = points.where(points.flags("detected") & (points.snr >= 20.0))
    scale = float(np.median(to_numpy(paintings, "pixelScale"))) if paintings.num_rows else np.nan
    offsets = np.concatenate([part.numbers("dx"), part.numbers("dy")])
    errors = np.concatenate([part.numbers("dxErr"), part.numbers("dyErr")])
    wide = points.where(points.flags("detected") & (points.snr >= _BRIGHT))
    pulls = np.concatenate([wide.numbers(f"d{c}") / wide.numbers(f"d{c}Err") for c in "xy"])
    return {
        "n": len(part),
        "rms": scale * _width(offsets),
        "biasX": scale * _median(part.numbers("dx")),
        "biasY": scale * _median(part.numbers("dy")),
        "medianError": scale * _median(errors),
        "pullWidth": _width(pulls[np.isfinite(pulls)]),
    }


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
    first = _try_fit(part.snr, part.flags("detected"))
    if first is None or len(units) < 3:
        return {"exposures": len(units), "draws": 0, "snr50Error": None}
    rng = np.random.default_rng(1)
    rows = {int(u): np.flatnonzero(part.unit == u) for u in units}
    snr, flags, values = part.snr, part.flags("detected"), []
    for _ in range(_DRAWS):
        index = np.concatenate([rows[int(u)] for u in rng.choice(units, len(units))])
        again = _try_fit(snr[index], flags[index], start=first)
        values += [again.at(0.5)[0]] if again is not None else []
    return {"exposures": len(units), "draws": len(values), "snr50Error": float(np.nanstd(values))}


def _try_fit(x: FloatArray, found: Any, **options: Any) -> CompletenessFit | None:
    if len(x) < 20:
        return None
    try:
        return fit(x, found, **options)
    except ValueError:
        return None


def _ideal_at(x: FloatArray, ideal: FloatArray, share: float) -> float | None:
    """Where the ideal curve reaches a fraction: a cubic in its probit."""
    near = np.isfinite(ideal) & (ideal > 0.02) & (ideal < 0.98)
    if near.sum() < 20:
        return None
    shape = np.polyfit(special.ndtri(ideal[near]), x[near], 3)
    return float(np.polyval(shape, special.ndtri(share)))


def _mean(values: FloatArray) -> float | None:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else None


def _median(values: FloatArray) -> float:
    good = values[np.isfinite(values)]
    return float(np.median(good)) if len(good) else float("nan")


def _width(values: FloatArray) -> float:
    good = values[np.isfinite(values)]
    return mad_std(good)


def _plain(value: Any) -> Any:
    """Turn numbers into those of JSON; what is not finite is missing."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
