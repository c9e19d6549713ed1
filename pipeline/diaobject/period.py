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
_LANES = 16  # frequencies that advance together, as wide as vector registers need


@compiled
def _powers(
    first: int,
    step: float,
    t: FloatArray,
    y: FloatArray,
    w: FloatArray,
    yy: float,
    out: FloatArray,
) -> None:
    """Powers at the multiples of a step from the first on; `out` has full lanes.

    -1 where the power is not defined.  Phases advance by rotation instead of by fresh sines; 10⁵
    rotations lose about 10⁻¹¹.
    """
    n = len(t)
    turn = 2.0 * np.pi * step
    a, b, sums = np.empty((n, _LANES)), np.empty((n, _LANES)), np.empty((6, _LANES))
    for i in range(n):
        for k in range(_LANES):
            phase = 2.0 * np.pi * step * (first + k) * t[i]
            a[i, k], b[i, k] = np.cos(phase), np.sin(phase)
    cosines, sines = np.cos(turn * _LANES * t), np.sin(turn * _LANES * t)
    cs, ss, cc, cross, yc, ys = sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]
    for start in range(0, len(out), _LANES):
        sums[:] = 0.0
        for i in range(n):
            wi, wy, c, s, ai, bi = w[i], w[i] * y[i], cosines[i], sines[i], a[i], b[i]
            for k in range(_LANES):
                u, v = ai[k], bi[k]
                wu = wi * u
                cs[k] += wu
                ss[k] += wi * v
                cc[k] += wu * u
                cross[k] += wu * v
                yc[k] += wy * u
                ys[k] += wy * v
                ai[k] = u * c - v * s
                bi[k] = u * s + v * c
        for k in range(_LANES):
            p, q = cc[k] - cs[k] * cs[k], 1.0 - cc[k] - ss[k] * ss[k]
            r = cross[k] - cs[k] * ss[k]
            determinant = p * q - r * r
            power = q * yc[k] * yc[k] + p * ys[k] * ys[k] - 2.0 * r * yc[k] * ys[k]
            power /= determinant * yy
            out[start + k] = power if determinant > 1e-12 else -1.0


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
    """Fill `out` (m, 2) with the frequency and the power of each group's highest peak."""
    for g in range(len(starts)):
        n, s = count[g], starts[g]
        t, w = time[s : s + n] - time[s], weight[s : s + n]
        w = w / w.sum()
        y = flux[s : s + n] - (w * flux[s : s + n]).sum()
        yy = (w * y * y).sum()
        step = 1.0 / (oversampling * (t[n - 1] - t[0]))
        first = int(oversampling)
        if not first <= top / step < _MOST_STEPS:
            out[g] = np.nan
            continue
        number = int(top / step) - first + 1
        powers = np.empty((number // _LANES + 1) * _LANES)
        _powers(first, step, t, y, w, yy, powers)
        best = np.argmax(powers[:number])
        out[g, 0], out[g, 1] = (first + best) * step, powers[best]


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
