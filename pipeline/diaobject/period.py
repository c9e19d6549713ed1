"""Periods by the floating-mean Lomb-Scargle periodogram (Zechmeister & Kürster 2009)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from pipeline.compiled import compiled
from pipeline.diaobject.config import Config
from pipeline.diaobject.groups import Groups
from pipeline.exposure import FloatArray

__all__ = ["PERIODS", "log_false_alarm", "periods"]

PERIODS = ("period", "periodPower", "periodLogFap")
"""Columns of ``DiaObject`` behind ``{b}_``."""

_Singles = npt.NDArray[np.float32]

_MOST_STEPS = 1e8
_HALF = 63  # frequencies on either side of the middle of a block
_SIDE, _WIDTH = _HALF + 1, 2 * _HALF + 1
_BLOCKS = 136  # that are searched together: their sums fit the cache of a core, a year one call


@compiled
def _middles(first: int, step: float, t: FloatArray, out: _Singles) -> None:
    """Cosines and sines of the middles of blocks, and of twice their frequency, ``(2, 2 m, n)``."""
    blocks = out.shape[1] // 2
    for i in range(len(t)):
        phase = 2.0 * np.pi * step * t[i]
        c, s = np.cos(phase * (first + _HALF)), np.sin(phase * (first + _HALF))
        a, b = np.cos(phase * _WIDTH), np.sin(phase * _WIDTH)
        for j in range(blocks):
            out[0, j, i], out[0, blocks + j, i] = c, s
            out[1, j, i], out[1, blocks + j, i] = c * c - s * s, 2.0 * c * s
            c, s = c * a - s * b, c * b + s * a


@compiled
def _offsets(
    step: float, t: FloatArray, y: FloatArray, w: FloatArray, once: _Singles, twice: _Singles
) -> None:
    """Weighted cosines and sines of the offsets within a block, of weights and of fluxes."""
    n = _SIDE
    for i in range(len(t)):
        c, s, wi, wy = 1.0, 0.0, w[i], w[i] * y[i]
        a, b = np.cos(2.0 * np.pi * step * t[i]), np.sin(2.0 * np.pi * step * t[i])
        for k in range(n):
            once[i, k], once[i, n + k] = wi * c, wi * s
            once[i, 2 * n + k], once[i, 3 * n + k] = wy * c, wy * s
            twice[i, k], twice[i, n + k] = wi * (c * c - s * s), wi * 2.0 * c * s
            c, s = c * a - s * b, c * b + s * a


@compiled
def _bounds(
    once: _Singles, twice: _Singles, count: int, error: np.float32, upper: _Singles
) -> float:
    """Fill upper bounds of powers, ``(2, m, offsets)``; return the largest lower bound.

    An error of a sum enters the power divided by the determinant; near zero anything is possible.
    """
    n, half, least = _SIDE, np.float32(0.5), np.full(_SIDE, np.float32(-1.0))
    blocks = upper.shape[1]
    for place in range(2 * blocks):
        side, j = place // blocks, place % blocks
        a, b, aa, bb = once[j], once[blocks + j], twice[j], twice[blocks + j]
        sign, to = np.float32(1 - 2 * side), upper[side, j]
        missing = count - j * _WIDTH - _HALF  # offsets from here on lie beyond the last frequency
        whole = missing >= n if side == 0 else missing > 0
        for k in range(n):
            cs, ss = a[k] - sign * b[n + k], b[k] + sign * a[n + k]
            yc, ys = a[2 * n + k] - sign * b[3 * n + k], b[2 * n + k] + sign * a[3 * n + k]
            cc = half + half * (aa[k] - sign * bb[n + k])
            p, q = cc - cs * cs, half + half - cc - ss * ss
            r = half * (bb[k] + sign * aa[n + k]) - cs * ss
            determinant = p * q - r * r
            inverse = np.float32(1.0) / determinant
            power = (q * yc * yc + p * ys * ys - (r + r) * yc * ys) * inverse
            sound = determinant > np.float32(10.0) * error
            off = error * inverse
            to[k] = power + off if sound else np.float32(np.inf)
            low = power - off if sound and whole else np.float32(-1.0)
            least[k] = low if low > least[k] else least[k]
        for k in range(0 if whole else n):
            if (missing - k if side == 0 else missing + k) <= 0:
                to[k] = np.float32(-np.inf)
    return float(least.max())


@compiled
def _power(frequency: float, t: FloatArray, y: FloatArray, w: FloatArray) -> float:
    """Power at a frequency of fluxes of unit variance; -1 where it is not defined."""
    cs, ss, cc, cross, yc, ys = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(t)):
        u, v = np.cos(2.0 * np.pi * frequency * t[i]), np.sin(2.0 * np.pi * frequency * t[i])
        cs += w[i] * u
        ss += w[i] * v
        cc += w[i] * u * u
        cross += w[i] * u * v
        yc += w[i] * y[i] * u
        ys += w[i] * y[i] * v
    p, q, r = cc - cs * cs, 1.0 - cc - ss * ss, cross - cs * ss
    determinant = p * q - r * r
    power = (q * yc * yc + p * ys * ys - 2.0 * r * yc * ys) / determinant
    return power if determinant > 1e-12 else -1.0


@compiled
def _improve(
    first: int,
    step: float,
    t: FloatArray,
    y: FloatArray,
    w: FloatArray,
    upper: _Singles,
    least: float,
    best: FloatArray,
) -> None:
    """Update `best`, number and power of the highest peak, where a power may reach `least`."""
    for side in range(2):
        for j in range(upper.shape[1]):
            bounds = upper[side, j]
            for k in range(len(bounds)):
                if bounds[k] >= least:
                    place = first + j * _WIDTH + _HALF + (k if side == 0 else -k)
                    exact = _power(place * step, t, y, w)
                    if exact > best[1] or (exact == best[1] and place < best[0]):
                        best[0], best[1] = place, exact


def _highest(
    t: FloatArray, y: FloatArray, w: FloatArray, step: float, first: int, number: int
) -> tuple[float, float]:
    """Frequency and power of the highest of `number` multiples of a step.

    Frequencies are those of the middle of a block plus or minus an offset, so that sums over the
    epochs are products of matrices.  These are of single precision and find the candidates; the
    powers of those are computed in double precision.
    """
    once = np.empty((len(t), 4 * _SIDE), np.float32)
    twice = np.empty((len(t), 2 * _SIDE), np.float32)
    _offsets(step, t, y, w, once, twice)
    best, error = np.array([first, -1.0]), np.float32(1e-6 * (10 + len(t)))
    for start in range(first, first + number, _BLOCKS * _WIDTH):
        count = min(first + number - start, _BLOCKS * _WIDTH)
        blocks = -(-count // _WIDTH)
        middles = np.empty((2, 2 * blocks, len(t)), np.float32)
        _middles(start, step, t, middles)
        upper = np.empty((2, blocks, _SIDE), np.float32)
        least = _bounds(middles[0] @ once, middles[1] @ twice, count, error, upper)
        _improve(start, step, t, y, w, upper, max(least, best[1]), best)
    return best[0] * step, best[1]


def _peaks(
    groups: Groups, time: FloatArray, flux: FloatArray, error: FloatArray, config: Config
) -> FloatArray:
    """Frequency and power of each group's highest peak, ``(m, 2)``."""
    t = time - groups.spread(time[groups.starts])
    w = error**-2.0
    w = w / groups.spread(groups.sum(w))
    y = flux - groups.spread(groups.sum(w * flux))
    y = y / groups.spread(np.sqrt(groups.sum(w * y * y)))
    oversampling, top = float(config.period_oversampling), float(config.period_max_frequency)
    peaks = np.full((len(groups), 2), np.nan)
    for g, (start, n) in enumerate(zip(groups.starts, groups.count, strict=True)):
        of = slice(start, start + n)
        step = 1.0 / (oversampling * t[start + n - 1])
        first = int(oversampling)
        if first <= top / step < _MOST_STEPS:
            number = int(top / step) - first + 1
            peaks[g] = _highest(t[of], y[of], w[of], step, first, number)
    return peaks


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
    result = {name: np.full(len(groups), np.nan) for name in PERIODS}
    if not usable.any():
        return result
    rows = usable[groups.index]
    part = Groups.of(groups.index[rows])
    t, y, e = (np.asarray(v, float)[rows] for v in (time, flux, error))
    peak = _peaks(part, t, y, e, config)
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
