"""Periods by the floating-mean Lomb-Scargle periodogram (Zechmeister & Kürster 2009)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from pipeline.compiled import compiled
from pipeline.diaobject.config import Config
from pipeline.diaobject.groups import Groups
from pipeline.exposure import FloatArray

__all__ = ["log_false_alarm", "periods"]


_MOST_STEPS = 1e8


@compiled
def _periodograms(
    starts: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
    time: FloatArray,
    flux: FloatArray,
    weight: FloatArray,
    oversampling: float,
    top: float,
    out: FloatArray,
) -> None:
    """Fill `out` (m, 2) with the frequency and the power of each group's highest peak.

    Phases advance by rotation from one frequency to the next instead of by fresh sines; 10⁵
    rotations lose about 10⁻¹¹.
    """
    for g in range(len(starts)):
        n, s = count[g], starts[g]
        t, f, w = time[s : s + n] - time[s], flux[s : s + n], weight[s : s + n]
        w = w / w.sum()
        y = f - (w * f).sum()
        yy = (w * y * y).sum()
        step = 1.0 / (oversampling * (t[n - 1] - t[0]))
        c, sn = np.cos(2.0 * np.pi * step * t), np.sin(2.0 * np.pi * step * t)
        count_of_steps = top / step
        if not 0.0 < count_of_steps < _MOST_STEPS:
            out[g] = np.nan
            continue
        first = int(oversampling)
        a, b = np.cos(2.0 * np.pi * step * first * t), np.sin(2.0 * np.pi * step * first * t)
        best, frequency = -1.0, np.nan
        for k in range(first, int(count_of_steps) + 1):
            cs, ss, cc, cross, yc, ys = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(n):
                wa, wb = w[i] * a[i], w[i] * b[i]
                cs += wa
                ss += wb
                cc += wa * a[i]
                cross += wa * b[i]
                yc += wa * y[i]
                ys += wb * y[i]
                rotated = a[i] * c[i] - b[i] * sn[i]
                b[i] = a[i] * sn[i] + b[i] * c[i]
                a[i] = rotated
            sines = 1.0 - cc - ss * ss
            cc -= cs * cs
            cross -= cs * ss
            determinant = cc * sines - cross * cross
            if determinant > 1e-12:
                power = (sines * yc * yc + cc * ys * ys - 2.0 * cross * yc * ys) / determinant / yy
                if power > best:
                    best, frequency = power, k * step
        out[g, 0] = frequency
        out[g, 1] = best


def periods(
    groups: Groups, time: FloatArray, flux: FloatArray, error: FloatArray, config: Config
) -> dict[str, FloatArray]:
    """Best period of each light curve.

    Parameters
    ----------
    groups : Groups
        Rows of one object and band, in order of time.
    time, flux, error : ndarray, (n,), d, nJy, nJy
        Light curves.
    config : Config
        Limits and the grid of frequencies: from 1/span to `Config.period_max_frequency`.

    Returns
    -------
    dict of str to ndarray, (m,)
        ``period`` (d), ``periodPower`` (0 to 1) and ``periodLogFap``; NaN where there are too
        few points, too little time or no variation at all.
    """
    span = groups.max(time) - groups.min(time)
    varies = groups.max(flux) > groups.min(flux)
    usable = (groups.count >= config.period_min_points) & (span >= config.period_min_span) & varies
    result = {name: np.full(len(groups), np.nan) for name in ("period", "periodPower")}
    result["periodLogFap"] = np.full(len(groups), np.nan)
    if not usable.any():
        return result
    peak = np.full((int(usable.sum()), 2), np.nan)
    _periodograms(
        groups.starts[usable],
        groups.count[usable],
        np.ascontiguousarray(time, float),
        np.ascontiguousarray(flux, float),
        np.ascontiguousarray(error, float) ** -2.0,
        float(config.period_oversampling),
        float(config.period_max_frequency),
        peak,
    )
    scatter = np.sqrt(groups.mean((time - groups.spread(groups.mean(time))) ** 2))[usable]
    result["period"][usable] = 1.0 / peak[:, 0]
    result["periodPower"][usable] = np.clip(peak[:, 1], 0.0, 1.0)
    result["periodLogFap"][usable] = log_false_alarm(
        peak[:, 1], groups.count[usable], scatter, config.period_max_frequency
    )
    return result


def log_false_alarm(
    power: FloatArray, n: npt.NDArray[np.int64], scatter: FloatArray, top: float
) -> FloatArray:
    """log10 of the chance that pure noise has a peak at least as high (Baluev 2008).

    Parameters
    ----------
    power : ndarray, (m,)
        Height of the peak, 0 to 1.
    n : ndarray, (m,)
        Points of the light curve.
    scatter : ndarray, (m,), d
        Standard deviation of the epochs.
    top : float, d⁻¹
        Highest frequency searched.

    Returns
    -------
    ndarray, (m,)
        At most 0; bounded below by -300.
    """
    z = np.clip(power, 0.0, 1.0 - 1e-15)
    free = n - 3.0
    log_single = 0.5 * free * np.log1p(-z)
    log_gamma = 0.5 * np.log(2.0 / (n - 1.0)) + gammaln((n - 1.0) / 2.0) - gammaln(free / 2.0 + 0.5)
    bandwidth = top * np.sqrt(4.0 * np.pi) * scatter
    log_tau = (
        log_gamma
        + np.log(bandwidth)
        + 0.5 * (n - 4.0) * np.log1p(-z)
        + 0.5 * np.log(0.5 * (n - 1.0) * np.maximum(z, 1e-300))
    )
    tau = np.exp(np.minimum(log_tau, 700.0))
    false_alarm = np.exp(log_single - tau) - np.expm1(-tau)
    return np.asarray(np.log10(np.maximum(false_alarm, 1e-300)))
