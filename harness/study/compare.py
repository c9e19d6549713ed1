"""Did a change help: two studies of the same injections, compared source by source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import stats
from scipy.spatial import cKDTree

from harness.study.estimates import BRIGHT, try_fit
from harness.study.sample import Sample
from pipeline.errors import ConfigError
from pipeline.exposure import FloatArray
from pipeline.schema import to_numpy

__all__ = ["Comparison", "compare"]

ALPHA = 0.05
"""Chance that any metric is called where nothing has changed; shared among them (Bonferroni)."""

_DRAWS = 200
_LEAST = 10
_ROUNDING = 1e-4
_SAME_PLACE = 2.0
"""Farthest that the same detection moves, pixel."""
_SAME = ("x", "y", "flux", "kind")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of two studies, the first one being the reference.

    Attributes
    ----------
    name : str
        What is compared.
    first, second : float
        Its values.
    change, error : float
        Second minus first, and its standard error where one is estimated (else NaN).
    p_value : float
        Two-sided probability of such a change where nothing has changed.
    n : int
        Sources, pairs or detections it rests on.
    verdict : str
        ``better``, ``worse`` or ``same``.
    """

    name: str
    first: float
    second: float
    change: float
    error: float
    p_value: float
    n: int
    verdict: str

    def row(self) -> dict[str, Any]:
        """Return it as a mapping; what is not finite is None."""
        values = asdict(self)
        return {
            k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()
        }


@dataclass(frozen=True, slots=True)
class _Finding:
    """A comparison before it is judged; `loss` is positive where the second is worse."""

    name: str
    first: float
    second: float
    error: float
    p_value: float
    n: int
    loss: float

    def judged(self, alpha: float) -> Comparison:
        verdict = "same"
        if self.p_value < alpha and self.loss != 0:
            verdict = "worse" if self.loss > 0 else "better"
        return Comparison(
            self.name, self.first, self.second, self.second - self.first,
            self.error, self.p_value, self.n, verdict,
        )  # fmt: skip


def compare(
    first: pa.Table,
    second: pa.Table,
    detections: tuple[pa.Table, pa.Table] | None = None,
    *,
    seed: int = 1,
) -> list[Comparison]:
    """Compare two studies of the same injections.

    Parameters
    ----------
    first, second : pyarrow.Table
        `Study.rows` of both; the first one is the reference.
    detections : tuple of pyarrow.Table, optional
        Their tables ``detection``, for the false ones.
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of Comparison
        Fractions detected, reliable and alerted by McNemar's exact test; m50 by
        the influence of every source on both fits; flux bias, the scatter of fluxes and positions
        over the noise of the first, and the width of the flux pulls by a bootstrap over
        injections, the same draw on both sides; false detections by those that came and went.

    Raises
    ------
    ConfigError
        If the injections are not the same.
    """
    pair = _paired(first, second)
    rng = np.random.default_rng(seed)
    findings = [_mcnemar(name, pair) for name in ("detected", "reliable", "alerted")]
    findings += _measurements(pair, rng)
    if detections is not None:
        findings.append(_false(detections))
    return [finding.judged(ALPHA / len(findings)) for finding in findings]


def _paired(first: pa.Table, second: pa.Table) -> tuple[Sample, Sample]:
    """Return the point sources that could be found on both sides, in the same order."""
    a, b = (table.sort_by("injectionId") for table in (first, second))
    if a.num_rows != b.num_rows or not all(_same(a, b, name) for name in _SAME):
        raise ConfigError(
            "the studies do not hold the same injections",
            expected="one design on one set of images", hint="nightjar study WORKSPACE --against",
        )  # fmt: skip
    points = [set(Sample(t).points().table["injectionId"].to_pylist()) for t in (a, b)]
    keep = np.array([i in points[0] and i in points[1] for i in a["injectionId"].to_pylist()], bool)
    return Sample(a).where(keep), Sample(b).where(keep)


def _same(a: pa.Table, b: pa.Table, name: str) -> bool:
    if name == "kind":
        return bool(a[name].to_pylist() == b[name].to_pylist())
    return bool(np.allclose(to_numpy(a, name), to_numpy(b, name), rtol=1e-9, equal_nan=True))


def _mcnemar(name: str, pair: tuple[Sample, Sample]) -> _Finding:
    """Test whether as many sources were won as lost (McNemar 1947, exact)."""
    a, b = (sample.flags(name) for sample in pair)
    lost, won = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p_value = float(stats.binomtest(lost, lost + won).pvalue) if lost + won else 1.0
    n = len(a)
    error = float(np.sqrt(lost + won)) / max(n, 1)
    return _Finding(name, _mean(a), _mean(b), error, p_value, n, float(lost - won))


def _mean(flags: npt.NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _measurements(pair: tuple[Sample, Sample], rng: np.random.Generator) -> list[_Finding]:
    """Compare the depth, and what is measured of the bright ones found on both sides."""
    depths = [_depth(name, pair) for name in ("detected", "reliable")]
    out = [finding for finding in depths if finding is not None]
    both = pair[0].flags("detected") & pair[1].flags("detected") & (pair[0].snr >= BRIGHT)
    a, b = (sample.where(both) for sample in pair)
    if len(a) >= _LEAST:
        ratios = _ratio(a), _ratio(b)
        out.append(_bootstrap("flux bias", ratios, _median, rng, abs))
        pulls = _pull(a), _pull(b)
        out.append(_bootstrap("flux pull width", pulls, _width, rng, lambda w: abs(w - 1.0)))
        noise = a.numbers("sigmaNull")
        fluxes = _residual(a) / noise, _residual(b) / noise
        out.append(_bootstrap("flux scatter", fluxes, _width, rng, float))
        distances = a.numbers("distance") * a.snr, b.numbers("distance") * b.snr
        out.append(_bootstrap("position scatter", distances, _median, rng, float))
    return out


def _ratio(sample: Sample) -> FloatArray:
    return sample.numbers("psfFlux") / sample.numbers("flux") - 1.0


def _residual(sample: Sample) -> FloatArray:
    return sample.numbers("psfFlux") - sample.numbers("flux")


def _pull(sample: Sample) -> FloatArray:
    return _residual(sample) / sample.numbers("psfFluxErr")


def _depth(name: str, pair: tuple[Sample, Sample]) -> _Finding | None:
    """Compare the magnitudes at half of the plateau; their errors know that they are paired."""
    magnitude, flags = pair[0].magnitude, [sample.flags(name) for sample in pair]
    if any(f.all() or f.sum() < 2 * _LEAST for f in flags):
        return None
    first, second = (try_fit(magnitude, f, falling=True) for f in flags)
    if first is None or second is None:
        return None
    curves = first, second
    a, b = (c.influence(magnitude, f)[:, 1] for c, f in zip(curves, flags, strict=True))
    error = float(np.sqrt(np.sum((b - a) ** 2)))
    change = second.m50 - first.m50
    return _Finding(
        f"m50 {name}", first.m50, second.m50, error, _p_value(change, error), len(magnitude),
        -change,
    )  # fmt: skip


def _p_value(change: float, error: float) -> float:
    if change == 0 or (error == 0 and abs(change) < _ROUNDING):
        return 1.0
    return float(2 * stats.norm.sf(abs(change) / error)) if error > 0 else 0.0


def _median(values: FloatArray) -> FloatArray:
    return np.asarray(np.median(values, axis=-1))


def _width(values: FloatArray) -> FloatArray:
    return np.asarray(stats.median_abs_deviation(values, axis=-1, scale="normal"))


def _bootstrap(
    name: str,
    values: tuple[FloatArray, FloatArray],
    statistic: Callable[[FloatArray], FloatArray],
    rng: np.random.Generator,
    cost: Callable[[float], float],
) -> _Finding:
    """Find the error of the change by drawing the same sources on both sides."""
    first, second = (float(statistic(v)) for v in values)
    n = len(values[0])
    index = rng.integers(n, size=(_DRAWS, n))
    error = float(np.std(statistic(values[1][index]) - statistic(values[0][index])))
    p_value = _p_value(second - first, error)
    return _Finding(name, first, second, error, p_value, n, cost(second) - cost(first))


def _false(detections: tuple[pa.Table, pa.Table]) -> _Finding:
    """Test whether as many detections that belong to no injection appeared as disappeared.

    Those of both sides are paired by place and sign, so that what stays does not count as noise.
    """
    spots = [_unowned(table) for table in detections]
    first, second = (sum(map(len, s.values())) for s in spots)
    kept = sum(_pairs(spots[0][k], spots[1][k]) for k in spots[0].keys() & spots[1].keys())
    gone, new = first - kept, second - kept
    p_value = float(stats.binomtest(new, new + gone).pvalue) if new + gone else 1.0
    return _Finding(
        "false detections", float(first), float(second), float(np.sqrt(new + gone)), p_value,
        kept + new + gone, float(new - gone),
    )  # fmt: skip


def _unowned(table: pa.Table) -> dict[tuple[int, ...], FloatArray]:
    """Places of detections without an injection, by image, realisation and sign."""
    free = table.filter(pa.array(to_numpy(table, "injectionId") < 0))
    groups: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    columns = [to_numpy(free, n).tolist() for n in ("visit", "detector", "realisation", "snr")]
    places = [to_numpy(free, n).tolist() for n in "xy"]
    for *where, snr, x, y in zip(*columns, *places, strict=True):
        groups.setdefault((*where, int(np.sign(snr))), []).append((x, y))
    return {key: np.array(spots, float) for key, spots in groups.items()}


def _pairs(first: FloatArray, second: FloatArray) -> int:
    """Count mutual nearest neighbours within `_SAME_PLACE`."""
    distance, there = cKDTree(second).query(first, distance_upper_bound=_SAME_PLACE)
    _, back = cKDTree(first).query(second)
    index = np.flatnonzero(np.isfinite(distance))
    return int(np.sum(back[there[index]] == index))
