"""Per-band statistics of many light curves.

All sums run over every row with a finite flux and a positive error; flags are ignored.
Difference fluxes are signed and may average to zero, so nothing is divided by a mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.diaobject.groups import Groups
from pipeline.exposure import FloatArray

__all__ = ["PERCENTILES", "light_curve_features", "weighted_mean"]

PERCENTILES = (5, 25, 50, 75, 95)
_STETSON_ROUNDS = 20


def weighted_mean(
    groups: Groups, flux: FloatArray, error: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Inverse-variance mean of each group and its standard error, both ``(m,)``.

    Parameters
    ----------
    groups : Groups
        Which measurement belongs to which of m objects.
    flux, error : ndarray, (n,), nJy
        Measurements and their standard errors.

    Returns
    -------
    mean, error : ndarray, (m,), nJy
        One per object.
    """
    weight = error**-2.0
    total = groups.sum(weight)
    return groups.sum(flux * weight) / total, total**-0.5


def light_curve_features(
    groups: Groups, time: FloatArray, flux: FloatArray, error: FloatArray
) -> dict[str, FloatArray]:
    """Compute the statistics of one flux for each object and band.

    Parameters
    ----------
    groups : Groups
        Rows of one object and band, in order of time.
    time, flux, error : ndarray, (n,), d, nJy, nJy
        Light curves, finite and with positive errors.

    Returns
    -------
    dict of str to ndarray, (m,)
        By the column's name behind ``{b}_psfFlux``; NaN where there are too few points.

    Notes
    -----
    ``Sigma``: sample standard deviation (n - 1).  ``Skew``: bias-corrected, G₁ of Joanes & Gill
    (1998).  ``MAD``: median of the absolute deviations from the median, unscaled.
    ``StetsonJ`` and ``StetsonK``: Stetson (1996, PASP 108, 851) for single observations, J with
    his re-weighted mean.
    ``MaxSlope``: largest rise over successive epochs; pairs at the same time are left out.
    """
    n = groups.count
    mean, mean_error = weighted_mean(groups, flux, error)
    residual = (flux - groups.spread(mean)) / error
    quantiles = groups.quantiles(flux, np.array(PERCENTILES) / 100.0)
    deviation = np.abs(flux - groups.spread(quantiles[PERCENTILES.index(50)]))
    slope, slope_error = _linear(groups, time, flux, error)
    stetson_j, stetson_k = _stetson(groups, flux, error)
    sigma, skew = _moments(groups, flux)
    named = {f"Percentile{p:02d}": q for p, q in zip(PERCENTILES, quantiles, strict=True)}
    return named | {
        "Mean": mean,
        "MeanErr": mean_error,
        "Sigma": sigma,
        "Ndata": n.astype(float),
        "Min": groups.min(flux),
        "Max": groups.max(flux),
        "MaxSlope": _max_slope(groups, time, flux),
        "ErrMean": groups.mean(error),
        "Chi2": groups.sum(residual**2),
        "Skew": skew,
        "MAD": groups.quantiles(deviation, [0.5])[0],
        "StetsonJ": stetson_j,
        "StetsonK": stetson_k,
        "LinearSlope": slope,
        "LinearSlopeErr": slope_error,
    }


def _moments(groups: Groups, flux: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sample standard deviation and bias-corrected skewness."""
    n = groups.count.astype(float)
    centred = flux - groups.spread(groups.mean(flux))
    second, third = groups.mean(centred**2), groups.mean(centred**3)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.sqrt(second * n / (n - 1.0))
        skew = np.sqrt(n * (n - 1.0)) / (n - 2.0) * third / second**1.5
    return np.where(n >= 2, sigma, np.nan), np.where((n >= 3) & (second > 0), skew, np.nan)


def _max_slope(groups: Groups, time: FloatArray, flux: FloatArray) -> FloatArray:
    slopes = np.full(len(flux), -np.inf)
    step = np.diff(time)
    same = (groups.index[1:] == groups.index[:-1]) & (step > 0)
    slopes[1:][same] = np.diff(flux)[same] / step[same]
    steepest = groups.max(slopes)
    return np.where(np.isfinite(steepest), steepest, np.nan)


def _linear(
    groups: Groups, time: FloatArray, flux: FloatArray, error: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Slope of a weighted straight line and its error."""
    weight = error**-2.0
    total = groups.sum(weight)
    t = time - groups.spread(groups.sum(weight * time) / total)
    spread = groups.sum(weight * t * t)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope, slope_error = groups.sum(weight * t * flux) / spread, spread**-0.5
    usable = groups.max(time) > groups.min(time)
    return np.where(usable, slope, np.nan), np.where(usable, slope_error, np.nan)


@compiled
def _stetson_sums(
    starts: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
    flux: FloatArray,
    error: FloatArray,
    out: FloatArray,
) -> None:
    """Fill `out` (m, 3): Σ sgn(δ²-1) √|δ²-1| about the re-weighted mean, Σ|δ| and Σδ²."""
    inverse = error**-2.0
    for g in range(len(starts)):
        first, last, n = starts[g], starts[g] + count[g], count[g]
        factor = np.sqrt(n / max(n - 1, 1))
        mean = plain = 0.0
        for k in range(_STETSON_ROUNDS):
            total = product = 0.0
            for i in range(first, last):
                delta = factor * (flux[i] - mean) / error[i] if k else 0.0
                weight = inverse[i] / (1.0 + (0.5 * delta) ** 2)
                total += weight
                product += weight * flux[i]
            former, mean = mean, product / total
            plain = plain if k else mean
            if k and mean == former:  # further rounds would change no bit
                break
        out[g] = 0.0
        for i in range(first, last):
            pair = (factor * (flux[i] - mean) / error[i]) ** 2 - 1.0
            delta = factor * (flux[i] - plain) / error[i]
            out[g, 0] += np.copysign(np.sqrt(abs(pair)), pair)
            out[g, 1] += abs(delta)
            out[g, 2] += delta**2


def _stetson(groups: Groups, flux: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
    n = groups.count
    sums = np.empty((len(groups), 3))
    _stetson_sums(groups.starts, n, flux, error, sums)
    j, modulus, square = sums.T / n
    k = modulus / np.sqrt(np.where(square > 0, square, np.nan))
    return np.where(n >= 2, j, np.nan), np.where(n >= 2, k, np.nan)
