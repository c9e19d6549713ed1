"""Completeness: fractions with intervals, and a curve of three parameters with its covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import optimize, special, stats

from pipeline.exposure import FloatArray

__all__ = ["CompletenessFit", "completeness", "fit", "interval", "ratio_to_ideal"]

_LEAST = 1e-9
_GROUPS = 10
_COARSE = 400
"""Groups of sources on which the place to begin a fit is searched."""
_CLIMBS = 2
_FEWEST = 5
"""Sources within two widths of the middle of a curve that is to be believed."""


def interval(
    successes: npt.ArrayLike,
    trials: npt.ArrayLike,
    *,
    level: float = 0.95,
    method: str = "jeffreys",
) -> tuple[FloatArray, FloatArray]:
    """Confidence interval of a fraction.

    Parameters
    ----------
    successes, trials : array-like of int, (n,)
        Successes among trials.
    level : float
        Coverage.
    method : str
        ``jeffreys``: quantiles of the posterior for the prior Beta(½, ½), closed at 0 and 1;
        ``wilson``: the score interval (Brown, Cai & DasGupta 2001, Statistical Science 16, 101).

    Returns
    -------
    low, high : ndarray, (n,)
        0 and 1 without trials.

    Raises
    ------
    ValueError
        For another method.
    """
    k, n = np.broadcast_arrays(*(np.asarray(a, float) for a in (successes, trials)))
    tail = 0.5 * (1.0 - level)
    if method == "jeffreys":
        low = np.where(k > 0, special.betaincinv(k + 0.5, n - k + 0.5, tail), 0.0)
        high = np.where(k < n, special.betaincinv(k + 0.5, n - k + 0.5, 1 - tail), 1.0)
    elif method == "wilson":
        z, safe = special.ndtri(1.0 - tail), np.maximum(n, 1.0)
        middle = (k + z**2 / 2) / (safe + z**2)
        half = z / (safe + z**2) * np.sqrt(k * (safe - k) / safe + z**2 / 4)
        low, high = np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
    else:
        raise ValueError(f"unknown interval {method!r}")
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def completeness(
    x: npt.ArrayLike,
    found: npt.ArrayLike,
    edges: npt.ArrayLike,
    *,
    level: float = 0.95,
    method: str = "jeffreys",
) -> pa.Table:
    """Fraction found in bins.

    Parameters
    ----------
    x : array-like, (n,)
        True SNR, magnitude, or anything else.
    found : array-like of bool, (n,)
        Whether each was found.
    edges : array-like, (m + 1,)
        Rising edges of the bins; closed below, open above.
    level, method : float, str
        See `interval`.

    Returns
    -------
    pyarrow.Table
        ``low high middle n found fraction fractionLow fractionHigh``, one row per bin; ``middle``
        is the median of x in the bin, NULL like the fraction where the bin is empty.
    """
    values, flags, steps = np.asarray(x, float), np.asarray(found, bool), np.asarray(edges, float)
    bins = np.digitize(values, steps) - 1
    inside = (bins >= 0) & (bins < len(steps) - 1)
    n = np.bincount(bins[inside], minlength=len(steps) - 1)
    k = np.bincount(bins[inside & flags], minlength=len(steps) - 1)
    low, high = interval(k, n, level=level, method=method)
    middle = [float(np.median(values[bins == i])) if n[i] else None for i in range(len(n))]
    fraction = [k[i] / n[i] if n[i] else None for i in range(len(n))]
    return pa.table(
        {
            "low": steps[:-1], "high": steps[1:], "middle": pa.array(middle, pa.float64()),
            "n": n, "found": k, "fraction": pa.array(fraction, pa.float64()),
            "fractionLow": low, "fractionHigh": high,
        }
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class CompletenessFit:
    """The curve plateau · Φ(±(x − m50) / width), + for SNR and − for magnitudes.

    ``m50`` is where half of the plateau is reached.

    Attributes
    ----------
    plateau, m50, width : float
        The parameters.
    covariance : ndarray, (3, 3)
        Of these, from the expected information; a plateau at 1 has none of its own (NaN).
    chi2, dof, p_value : float, int, float
        Pearson's statistic in groups of equal size (Hosmer & Lemeshow 1980), its degrees of
        freedom and the probability of a larger one.
    falling : bool
        Whether the curve falls with x.
    """

    plateau: float
    m50: float
    width: float
    covariance: FloatArray
    chi2: float
    dof: int
    p_value: float
    falling: bool

    def __call__(self, x: npt.ArrayLike) -> FloatArray:
        """Evaluate the curve."""
        return _curve(np.array([self.plateau, self.m50, self.width]), np.asarray(x, float), self._s)

    @property
    def _s(self) -> float:
        return -1.0 if self.falling else 1.0

    def at(self, fraction: float) -> tuple[float, float]:
        """Return where the curve reaches a fraction, and the error; NaN above the plateau."""
        if not 0 < fraction < self.plateau:
            return float("nan"), float("nan")
        q, by = special.ndtri(fraction / self.plateau), self._slope_at(fraction)
        covariance = np.nan_to_num(self.covariance)
        return float(self.m50 + self._s * self.width * q), float(np.sqrt(by @ covariance @ by))

    def _slope_at(self, fraction: float) -> FloatArray:
        """Return the derivatives of `at` by plateau, m50 and width."""
        q = special.ndtri(fraction / self.plateau)
        density = np.exp(-0.5 * q**2) / np.sqrt(2 * np.pi)
        by_plateau = -self._s * self.width * fraction / self.plateau**2 / density
        return np.array([by_plateau, 1.0, self._s * q])

    def influence_at(self, fraction: float, x: npt.ArrayLike, found: npt.ArrayLike) -> FloatArray:
        """Return how far each source of the sample moved `at`, (n,); see `influence`."""
        return np.asarray(self.influence(x, found) @ self._slope_at(fraction))

    def influence(self, x: npt.ArrayLike, found: npt.ArrayLike) -> FloatArray:
        """Return what every source of the sample adds to the parameters, (n, 3).

        The sum of squares of the influences is the variance that a bootstrap over the sources
        tends to (the infinitesimal jackknife, Efron 1982).

        Parameters
        ----------
        x, found : array-like, (n,)
            The sample that was fitted.
        """
        p, values = np.array([self.plateau, self.m50, self.width]), np.asarray(x, float)
        expected = np.clip(_curve(p, values, self._s), _LEAST, 1 - _LEAST)
        residual = (np.asarray(found, float) - expected) / (expected * (1 - expected))
        return np.asarray(
            (residual * _slopes(p, values, self._s)).T @ np.nan_to_num(self.covariance)
        )

    def error(self, name: str) -> float:
        """Return the standard error of a parameter."""
        k = ("plateau", "m50", "width").index(name)
        return float(np.sqrt(self.covariance[k, k]))


def fit(
    x: npt.ArrayLike,
    found: npt.ArrayLike,
    *,
    falling: bool = False,
    start: CompletenessFit | None = None,
) -> CompletenessFit:
    """Fit a completeness curve to individual sources by maximum likelihood.

    Parameters
    ----------
    x : array-like, (n,)
        True SNR or magnitude of each source.
    found : array-like of bool or float, (n,)
        Whether it was found, or the chance that it is.
    falling : bool
        Whether completeness falls with x, as it does with magnitude.
    start : CompletenessFit, optional
        Where to begin; by default several places are tried.

    Returns
    -------
    CompletenessFit
        The parameters, their covariance and the goodness of fit.

    Raises
    ------
    ValueError
        If all or none were found, or hardly any lies where the curve falls: nothing says where
        and how steeply it does, and the covariance would be far too small.
    """
    values, flags = np.asarray(x, float), np.asarray(found, float)
    known = np.isfinite(values) & np.isfinite(flags)
    values, flags = values[known], flags[known]
    if not len(flags) or flags.min() >= 1 or flags.max() <= 0:
        raise ValueError("all or none of the sources were found: there is no curve to fit")
    sign = -1.0 if falling else 1.0
    best = _maximise(values, flags, sign, start)
    if np.count_nonzero(np.abs(values - best[1]) < 2.0 * best[2]) < _FEWEST:
        raise ValueError("found and lost do not overlap: too few sources lie where the curve falls")
    covariance = _covariance(best, values, sign)
    chi2, groups = _pearson(best, values, flags, sign)
    dof = max(groups - 3, 1)
    p_value = float(stats.chi2.sf(chi2, dof))
    plateau, m50, width = (float(v) for v in best)
    return CompletenessFit(plateau, m50, width, covariance, chi2, dof, p_value, falling)


def ratio_to_ideal(
    found: npt.ArrayLike, ideal: npt.ArrayLike, *, level: float = 0.95
) -> tuple[float, float, float]:
    """Found fraction over the fraction that the noise alone would leave.

    Parameters
    ----------
    found : array-like of bool, (n,)
        Which sources were found.
    ideal : array-like, (n,)
        Probability that an ideal detection finds each.
    level : float
        Coverage of the interval.

    Returns
    -------
    value, low, high : float
        The ratio and its interval: that of the fraction, over the ideal one; NaN without sources.
    """
    flags, chances = np.asarray(found, bool), np.asarray(ideal, float)
    expected = float(chances.mean()) if len(chances) else float("nan")
    if not expected > 0:
        return float("nan"), float("nan"), float("nan")
    low, high = interval(flags.sum(), len(flags), level=level)
    return float(flags.mean() / expected), float(low / expected), float(high / expected)


def _curve(p: FloatArray, x: FloatArray, sign: float) -> FloatArray:
    return np.asarray(p[0] * special.ndtr(sign * (x - p[1]) / p[2]))


def _maximise(
    x: FloatArray, found: FloatArray, sign: float, start: CompletenessFit | None
) -> FloatArray:
    """Climb from the best places of a grid on the means of groups, then with every source."""
    if start is not None:
        plateau = special.logit(min(start.plateau, 1 - 1e-6))
        best = np.array([plateau, start.m50, np.log(start.width)])
    else:
        coarse = _grouped(x, found)
        places = sorted(_grid(x), key=lambda q: _cost(q, *coarse, sign)[0])[:_CLIMBS]
        trials = [_climb(*coarse, sign, place) for place in places]
        best = min(trials, key=lambda t: float(t.fun)).x
    return _unpack(_climb(x, found, sign, best).x)


def _grid(x: FloatArray) -> list[FloatArray]:
    spread = max(float(np.std(x)), 1e-3)
    return [
        np.array([plateau, middle, np.log(width * spread)])
        for plateau in (3.0, 0.0)
        for middle in np.percentile(x, [10, 25, 50, 75, 90])
        for width in (0.03, 0.1, 0.3, 1.0)
    ]


def _grouped(x: FloatArray, found: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the means of neighbours in x, of single sources where they are few."""
    groups = np.array_split(np.argsort(x, kind="stable"), min(len(x), _COARSE))
    return np.array([x[g].mean() for g in groups]), np.array([found[g].mean() for g in groups])


def _cost(q: FloatArray, x: FloatArray, found: FloatArray, sign: float) -> tuple[float, FloatArray]:
    """Return minus the log-likelihood and its gradient."""
    p = _unpack(q)
    value = np.clip(_curve(p, x, sign), _LEAST, 1 - _LEAST)
    likelihood = np.sum(found * np.log(value) + (1 - found) * np.log1p(-value))
    by = _slopes(p, x, sign) @ ((found - value) / (value * (1 - value)))
    return -float(likelihood), -by * np.array([p[0] * (1 - p[0]), 1.0, p[2]])


def _climb(
    x: FloatArray, found: FloatArray, sign: float, begin: FloatArray
) -> optimize.OptimizeResult:
    options = {"maxiter": 500, "ftol": 1e-13, "gtol": 1e-7}
    return optimize.minimize(
        _cost, begin, (x, found, sign), jac=True, method="L-BFGS-B", options=options
    )


def _unpack(q: FloatArray) -> FloatArray:
    """Plateau by the logistic function, width by the exponential: no bounds are needed."""
    return np.array([special.expit(np.clip(q[0], -30, 16)), q[1], np.exp(np.clip(q[2], -30, 30))])


def _covariance(p: FloatArray, x: FloatArray, sign: float) -> FloatArray:
    """Inverse of the expected information Σ ∂p ∂pᵀ / (p (1 − p))."""
    by = _slopes(p, x, sign)
    value = np.clip(_curve(p, x, sign), _LEAST, 1 - _LEAST)
    out = np.full((3, 3), np.nan)
    free = [0, 1, 2] if p[0] < 1 - 1e-5 else [1, 2]
    information = (by[free] / (value * (1 - value))) @ by[free].T
    out[np.ix_(free, free)] = np.linalg.pinv(information)
    return out


def _slopes(p: FloatArray, x: FloatArray, sign: float) -> FloatArray:
    """Return the derivatives of the curve by its parameters, (3, n)."""
    u = sign * (x - p[1]) / p[2]
    density = np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi)
    return np.array([special.ndtr(u), -p[0] * sign * density / p[2], -p[0] * density * u / p[2]])


def _pearson(p: FloatArray, x: FloatArray, found: FloatArray, sign: float) -> tuple[float, int]:
    """Pearson's χ² over groups in order of x in which both outcomes are expected."""
    order = np.argsort(x, kind="stable")
    value = _curve(p, x, sign)
    total, groups = 0.0, 0
    for part in np.array_split(order, min(_GROUPS, max(len(x) // 10, 3))):
        expected = value[part].sum()
        spread = float((value[part] * (1 - value[part])).sum())
        if spread > 1.0:
            total += float((found[part].sum() - expected) ** 2 / spread)
            groups += 1
    return total, groups
