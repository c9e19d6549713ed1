"""What became of the transients whose truth is known: completeness, biases, pulls, purity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.stats import binom_conf_interval
from scipy import optimize, special

from harness.reliability.evaluation import calibration_error, operating_point, rejected_at
from harness.verify.matching import catalogued_sources, match, near
from harness.verify.measurement import Evidence, NotApplicable
from harness.verify.metric import Sample
from harness.verify.sampling import Request, broken_units, measure_images
from pipeline.statistics import mad_std, median_error

if TYPE_CHECKING:
    from harness.verify.context import Context

__all__ = ["QUANTITIES", "Quantity", "Transients", "completeness_figure", "transients", "wilson"]

_POSITION = 0.5  # arcsec, the bound of "the right position"
_FAINT_FALSE = 1500
"""False detections that it takes to prove a purity of 95 % at nine of them per true one."""
_ENOUGH = 300
"""True and false detections of which the last percent can be told."""
_CLASS = 20
"""Detections of a class of which a tenth can be told."""


@dataclass(frozen=True, slots=True)
class Transients:
    """True transients with what the catalogue made of them.

    Attributes
    ----------
    rows : tuple of dict
        One per transient and visit: truth, match, ``alerted`` and, where it is not, ``lost``.
    sources : tuple of dict
        Detections above threshold with their SNR and whether they are true sources, in the same
        range of signal to noise; ``unclear`` are those near something true that is not their own.
    everything : tuple of dict
        The same without limits.
    faded : tuple of dict
        Like `rows`, what became fainter, with negative flux and ``trueSnr``.
    cut : float
        Least reliability of an alert.
    broken : str
        Units whose truth could not be told, and why; nothing of them is in here.
    """

    rows: tuple[dict[str, Any], ...]
    sources: tuple[dict[str, Any], ...] = ()
    everything: tuple[dict[str, Any], ...] = ()
    faded: tuple[dict[str, Any], ...] = ()
    cut: float = 0.0
    broken: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def between(self, low: float, high: float) -> Transients:
        """Unmasked ones in a range of true (sources: measured) signal to noise."""
        rows, faded = (
            tuple(r for r in side if not r["masked"] and low <= abs(r["trueSnr"]) < high)
            for side in (self.rows, self.faded)
        )
        sources = tuple(s for s in self.everything if low <= s["snr"] < high)
        return replace(self, rows=rows, sources=sources, faded=faded)

    def matched(self) -> list[dict[str, Any]]:
        """Those with a detection within half an arcsecond that are no trails."""
        return [r for r in self.rows if r["distance"] < _POSITION and not r["trailLength"]]


def transients(context: Context) -> Transients:
    """Collect the transients of all units, their sources in the catalogue and their alerts.

    Parameters
    ----------
    context : Context
        A campaign with truth; its memory keeps the result for the checks to come.

    Returns
    -------
    Transients
        Their rows, and the detections near them.
    """
    known: Transients | None = context.memory.get("transients")
    if known is None:
        known = context.memory["transients"] = _collected(context)
    return known


def _collected(context: Context) -> Transients:
    request = Request.of("transients", {})
    outcomes = measure_images(context, [request])[request]
    truth = (r for s in outcomes.values() if isinstance(s, Sample) for r in s.rows)
    unknown = {unit for unit, o in outcomes.items() if isinstance(o, str)}
    catalogued = {u: s for u, s in catalogued_sources(context).items() if u not in unknown}
    rows = match(truth, catalogued)
    alerts = {
        r["diaSourceId"]: r for r in context.rows("select diaSourceId, emitted, reason from alert")
    }
    for row in rows:
        alert = alerts.get(row["diaSourceId"])
        row["alerted"] = bool(alert and alert["emitted"] and row["distance"] < _POSITION)
        row["lost"] = _cause(row, alert)
    found = _detections(context, rows, near(rows, catalogued))
    detections = tuple(d for d in found if (d["visit"], d["detector"]) not in unknown)
    of = {d["diaSourceId"]: d for d in detections}
    for row in rows:
        own = of.get(row["diaSourceId"], {})
        row["owner"] = own.get("diaObjectId") or own.get("ssObjectId")
        row["blended"] = bool(own.get("blended"))
    brighter, faded = ([r for r in rows if (r["flux"] < 0) == side] for side in (False, True))
    cut = context.settings.alerts.reliability_min
    broken = broken_units(outcomes)
    return Transients(tuple(brighter), detections, detections, tuple(faded), cut, broken)


def _cause(row: dict[str, Any], alert: dict[str, Any] | None) -> str:
    if row["alerted"]:
        return ""
    if row["masked"]:
        return "masked"
    if row["diaSourceId"] is None:
        return "not detected"
    if row["distance"] >= _POSITION:
        return "wrong position"
    return str((alert or {}).get("reason") or "no alert")


def _detections(
    context: Context, rows: list[dict[str, Any]], close: set[int]
) -> list[dict[str, Any]]:
    real = {r["diaSourceId"] for r in rows if r["diaSourceId"] is not None}
    found = context.rows(
        "select s.visit, s.detector, s.diaSourceId, abs(s.snr) as snr, s.isNegative, "
        "s.reliability, s.diaObjectId, s.ssObjectId, s.parentDiaSourceId is not null as blended, "
        "coalesce(a.emitted, false) as emitted "
        "from DiaSource s left join alert a using (diaSourceId) "
        "where not s.isSubThreshold and not coalesce(s.isDeblendParent, false)"
    )
    return [
        {**f, "real": f["diaSourceId"] in real, "unclear": f["diaSourceId"] in close - real}
        for f in found
    ]


def wilson(successes: int, n: int, z: float = 1.0) -> tuple[float, float]:
    """Interval of a fraction after Wilson (1927).

    Parameters
    ----------
    successes, n : int
        Successes of trials.
    z : float
        Half width in standard deviations.

    Returns
    -------
    tuple of float
        Lower and upper end, inside 0 to 1.
    """
    if n == 0:
        return 0.0, 1.0
    confidence = special.erf(z / np.sqrt(2.0))
    low, high = binom_conf_interval(successes, n, confidence_level=confidence, interval="wilson")
    return float(low), float(high)


Found = tuple[float, float | None, int]


def _fraction(flags: list[bool]) -> Found:
    n, k = len(flags), sum(flags)
    low, high = wilson(k, n)
    return (k / n if n else float("nan")), 0.5 * (high - low), n


def _pulls(sample: Transients) -> np.ndarray[Any, Any]:
    rows = [r for r in sample.matched() if r["flux_measured"] is not None]
    return np.array([(r["flux_measured"] - r["flux"]) / r["flux_err"] for r in rows])


def _pull_width(sample: Transients) -> Found:
    pulls = _pulls(sample)
    width = mad_std(pulls) if len(pulls) > 2 else float("nan")
    return width, 1.17 * width / np.sqrt(max(len(pulls), 1)), len(pulls)


def _pull_mean(sample: Transients) -> Found:
    pulls = _pulls(sample)
    return (
        (float(np.median(pulls)) if len(pulls) else float("nan")),
        median_error(pulls),
        len(pulls),
    )


def _pull_small(sample: Transients) -> Found:
    return _fraction([bool(abs(p) < 5.0) for p in _pulls(sample)])


def _position_pull(sample: Transients) -> Found:
    rows = [r for r in sample.matched() if r["east_err"] > 0 and r["north_err"] > 0]
    pulls = np.array(
        [v for r in rows for v in (r["east"] / r["east_err"], r["north"] / r["north_err"])]
    )
    width = mad_std(pulls) if len(pulls) > 2 else float("nan")
    return width, 1.17 * width / np.sqrt(max(len(pulls), 1)), len(pulls)


def _position_rms(sample: Transients) -> Found:
    offsets = np.array([v for r in sample.matched() for v in (r["east"], r["north"])]) * 1000.0
    rms = mad_std(offsets) if len(offsets) > 2 else float("nan")
    return rms, 1.17 * rms / np.sqrt(max(len(offsets), 1)), len(offsets)


def _flux_bias(sample: Transients) -> Found:
    errors = np.array([100.0 * (r["flux_measured"] / r["flux"] - 1.0) for r in sample.matched()])
    return (
        (float(np.median(errors)) if len(errors) else float("nan")),
        median_error(errors),
        len(errors),
    )


def _snr50(sample: Transients) -> Found:
    """SNR at which half are detected, by the likelihood of Φ((snr − m) / w); error by curvature."""
    snr = np.array([r["trueSnr"] for r in sample.rows])
    hit = np.array([r["distance"] < 1.0 for r in sample.rows])

    def minus_log_likelihood(p: np.ndarray[Any, Any]) -> float:
        q = np.clip(special.ndtr((snr - p[0]) / np.exp(p[1])), 1e-4, 1 - 1e-4)
        return float(-np.sum(np.where(hit, np.log(q), np.log1p(-q))))

    best = optimize.minimize(minus_log_likelihood, np.array([5.0, 0.0]), method="Nelder-Mead")
    step = np.array([0.05, 0.0])
    curvature = (
        minus_log_likelihood(best.x + step) - 2 * best.fun + minus_log_likelihood(best.x - step)
    ) / step[0] ** 2
    return float(best.x[0]), float(1 / np.sqrt(max(curvature, 1e-6))), len(snr)


def _purity(sample: Transients) -> Found:
    return _fraction([bool(s["real"]) for s in sample.sources if s["emitted"]])


def _sides(
    sample: Transients, least: int, *, of_each: bool = False
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Reliabilities of the true and of the false detections.

    Raises
    ------
    NotApplicable
        If there are too few for the bound to mean anything.
    """
    clear = [s for s in sample.sources if s["reliability"] is not None and not s["unclear"]]
    real, false = (
        np.array([s["reliability"] for s in clear if s["real"] == side]) for side in (True, False)
    )
    if len(false) < least or (of_each and len(real) < least):
        raise NotApplicable(
            f"{len(real)} true and {len(false)} false detections are too few, it takes {least}"
        )
    return real, false


def _faint_completeness(ratio: float) -> Callable[[Transients], Found]:
    """Completeness of the cut that leaves 5 % false ones, for a number of them per true one."""

    def measure(sample: Transients) -> Found:
        real, false = _sides(sample, _FAINT_FALSE)
        value, _ = operating_point(real, false, ratio)
        low, high = wilson(round(value * len(real)), len(real))
        return value, 0.5 * (high - low), len(real) + len(false)

    return measure


def _rejected(sample: Transients) -> Found:
    real, false = _sides(sample, _ENOUGH, of_each=True)
    value = rejected_at(real, false)
    low, high = wilson(round(value * len(false)), len(false))
    return value, 0.5 * (high - low), len(real) + len(false)


def _calibration(sample: Transients) -> Found:
    real, false = _sides(sample, _ENOUGH, of_each=True)
    p = np.concatenate([real, false])
    truth = np.arange(len(p)) < len(real)
    return calibration_error(p, truth), float(0.5 / np.sqrt(len(p))), len(p)


def _worst_class(sample: Transients) -> Found:
    """Least part of a class that is as reliable as an alert has to be."""
    classes: dict[str, list[bool]] = {}
    for row in (*sample.rows, *sample.faded):
        if row["diaSourceId"] is None or not np.isfinite(row["reliability"]):
            continue
        kept = bool(row["reliability"] >= sample.cut)
        for name in _classes(row):
            classes.setdefault(name, []).append(kept)
    enough = {name: _fraction(kept) for name, kept in classes.items() if len(kept) >= _CLASS}
    if not enough:
        raise NotApplicable(f"no class has {_CLASS} detections")
    return min(enough.values())


def _classes(row: dict[str, Any]) -> list[str]:
    """Name what a transient counts as: its kind, and how it looks."""
    looks = {
        "faded": row["flux"] < 0,
        "trailed": bool(row["trailLength"]),
        "blended": row["blended"],
    }
    return [row["kind"], *(name for name, applies in looks.items() if applies)]


def _recovered(sample: Transients) -> Found:
    """Alerted at the right place with a flux within five standard errors; trails by their model."""
    return _fraction([bool(r["alerted"] and abs(_model_pull(r)) < 5.0) for r in sample.rows])


def _model_pull(row: dict[str, Any]) -> float:
    flux, error = row["flux_measured"], row["flux_err"]
    if row["trailLength"] and np.isfinite(row["trail_flux"]):
        flux, error = row["trail_flux"], row["trail_err"]
    return float((flux - row["flux"]) / error)


def _one_object(sample: Transients) -> Found:
    """Objects that the detections of one stationary transient fell to: one is right."""
    owners: dict[int, list[int | None]] = {}
    places: dict[int, list[float]] = {}
    for row in sample.matched():
        owners.setdefault(row["truthId"], []).append(row["owner"])
        places.setdefault(row["truthId"], []).append(row["dec"])
    still = {k for k, decs in places.items() if max(decs) - min(decs) < 0.1 / 3600.0}
    several = [o for k, o in owners.items() if len(o) > 1 and k in still]
    return _fraction([len(set(o)) == 1 for o in several])


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number about a sample of transients: its unit, and how value, error and n are found."""

    unit: str
    function: Callable[[Transients], Found]


QUANTITIES: dict[str, Quantity] = {
    "detected": Quantity("", lambda s: _fraction([r["distance"] < _POSITION for r in s.rows])),
    "alerted": Quantity("", lambda s: _fraction([bool(r["alerted"]) for r in s.rows])),
    "recovered": Quantity("", _recovered),
    "position": Quantity("mas", _position_rms),
    "position_pull_width": Quantity("", _position_pull),
    "flux_pull": Quantity("", _pull_small),
    "flux_pull_width": Quantity("", _pull_width),
    "flux_pull_mean": Quantity("", _pull_mean),
    "flux_bias": Quantity("%", _flux_bias),
    "snr50": Quantity("", _snr50),
    "purity": Quantity("", _purity),
    "faint_completeness_9": Quantity("", _faint_completeness(9.0)),
    "faint_completeness_4": Quantity("", _faint_completeness(4.0)),
    "artefacts_rejected": Quantity("", _rejected),
    "calibration_error": Quantity("", _calibration),
    "worst_class": Quantity("", _worst_class),
    "one_object": Quantity("", _one_object),
}
"""Every quantity a `curve` check may ask for."""

_EDGES = (3.0, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0, 40.0, 100.0, 1000.0)


def completeness_figure(sample: Transients) -> Evidence:
    """Describe the completeness curve: detected and alerted fractions in bins of true SNR.

    Parameters
    ----------
    sample : Transients
        Of a campaign.

    Returns
    -------
    Evidence
        For the report.
    """
    series: dict[str, list[list[float]]] = {"detected": [], "alerted": []}
    for low, high in pairwise(_EDGES):
        rows = sample.between(low, high).rows
        for name, flags in (
            ("detected", [r["distance"] < _POSITION for r in rows]),
            ("alerted", [bool(r["alerted"]) for r in rows]),
        ):
            if flags:
                ends = wilson(sum(flags), len(flags))
                series[name].append(
                    [float(np.sqrt(low * high)), sum(flags) / len(flags), *ends, len(flags)]
                )
    figure = {
        "type": "curve",
        "x": {"label": "true signal to noise", "log": True, "range": [3, 1000]},
        "y": {"label": "fraction recovered", "range": [0, 1]},
        "series": [{"name": n, "points": p} for n, p in series.items()],
    }
    return Evidence("completeness of true transients in unmasked pixels", "figure", figure)
