"""Numbers that say how good a difference is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray, Image, Mask
from pipeline.masks import NOT_IN_SCORE, bits, flagged
from pipeline.subtract.fit import Fit
from pipeline.subtract.whitened import Whitened

__all__ = ["in_columns", "in_rows", "lag1", "mean_lag1", "measure", "robust_std"]

_EXCLUDED = bits(*NOT_IN_SCORE)
_BOX = 5


def robust_std(values: npt.NDArray[np.floating]) -> float:
    """Half the distance of the percentiles 15.865 and 84.135; NaN without values.

    Parameters
    ----------
    values : ndarray, any shape
        Numbers.

    Returns
    -------
    float
        In the unit of the values.
    """
    if values.size == 0:
        return float("nan")
    low, high = np.percentile(values, [15.865, 84.135])
    return float(high - low) / 2.0


def measure(difference: Whitened, score: Image, fit: Fit) -> dict[str, float]:
    """Measure a difference.

    Parameters
    ----------
    difference : Whitened
        Its planes.
    score : ndarray, (ny, nx)
        Its score.
    fit : Fit
        The kernel fit.

    Returns
    -------
    dict
        Metrics by name.
    """
    image, variance, mask = difference.image, difference.variance, difference.mask
    blank, regions = difference.source_free, difference.regions
    kernel = fit.kernel
    fitted = kernel.fitted_stamps
    thin = np.s_[::3, ::3]
    quiet = blank[thin] > 0
    x, y = kernel.shape[1] / 2, kernel.shape[0] / 2
    chi2 = _star_chi2(image, variance, mask, fitted)
    ratio = kernel.sum_at(*(fitted.T[:2]))
    return {
        "nStamps": float(len(kernel.stamps)),
        "nStampsUsed": float(len(fitted)),
        "kernelOrder": float(kernel.order),
        "ratioOrder": float(fit.ratio_order),
        "kernelSum": float(kernel.sum_at([x], [y])[0]),
        "kernelSumScatter": float(ratio.std()) if len(fitted) else 0.0,
        "kernelCondition": kernel.condition,
        "stampChi2": float(np.median(fitted[:, 2])) if len(fitted) else float("nan"),
        "starChi2Mean": float(np.mean(chi2)) if len(chi2) else float("nan"),
        "starChi2P90": float(np.percentile(chi2, 90)) if len(chi2) else float("nan"),
        "pixelStd": robust_std((image[thin] / np.sqrt(variance[thin]))[quiet]),
        "scoreStd": robust_std(score[thin][quiet]),
        "lag1": mean_lag1(regions),
        "lag1X": mean_lag1(in_rows(regions)),
        "lag1Y": mean_lag1(in_columns(regions)),
        "lag1Max": float(np.nanmax(np.abs(lag1(regions)), initial=0.0)),
        "lag1Excess": _significant(lag1(regions), regions),
        "blankFraction": float(blank.mean()),
        "maskedFraction": float(flagged(mask, _EXCLUDED).mean()),
        "convolvedScience": float(kernel.convolved == "science"),
        "starLeft": fit.residual_share,
        "filteredBefore": float(kernel.before is not None),
    }


def _star_chi2(
    image: Image, variance: Image, mask: Mask, stamps: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mean χ² per pixel of the central 11 × 11 pixels of clean stamps."""
    out = []
    for x, y in stamps[:, :2].astype(int):
        box = np.s_[y - _BOX : y + _BOX + 1, x - _BOX : x + _BOX + 1]
        if not (mask[box] & _EXCLUDED).any():
            out.append(float(np.mean(image[box].astype(float) ** 2 / variance[box])))
    return np.array(out)


def in_rows(sums: FloatArray) -> FloatArray:
    """Keep the pairs of neighbours in a row alone.

    Parameters
    ----------
    sums : ndarray
        Result of `region_sums`.

    Returns
    -------
    ndarray
        For `lag1`.
    """
    return np.asarray(sums[..., [0, 1, 2, 5, 6]])


def in_columns(sums: FloatArray) -> FloatArray:
    """Keep the pairs of neighbours in a column alone.

    Parameters
    ----------
    sums : ndarray
        Result of `region_sums`.

    Returns
    -------
    ndarray
        For `lag1`.
    """
    out = sums[..., :5].copy()
    out[..., 3:] -= sums[..., 5:]
    return np.asarray(out)


def _significant(rho: FloatArray, regions: FloatArray) -> float:
    """Largest correlation beyond three standard errors, one over the root of the pairs."""
    beyond = np.abs(rho) - 3.0 / np.sqrt(np.maximum(regions[..., 3], 1.0))
    return float(np.nanmax(beyond, initial=0.0))


def mean_lag1(sums: FloatArray) -> float:
    """Mean autocorrelation at lag one of regions that have enough pixels, NaN if none has.

    Parameters
    ----------
    sums : ndarray
        Result of `region_sums`.

    Returns
    -------
    float
        Between -1 and 1.
    """
    return float(np.nanmean(lag1(sums)))


def lag1(sums: FloatArray) -> FloatArray:
    """Autocorrelation at lag one per region, from `region_sums`; NaN where there is too little.

    Parameters
    ----------
    sums : ndarray
        Result of `region_sums`.

    Returns
    -------
    ndarray
        One value per region.
    """
    count, total, square, pairs, product = np.moveaxis(sums[..., :5], -1, 0)
    enough = (count > 100) & (pairs > 100)
    count, pairs = np.where(enough, count, np.nan), np.where(enough, pairs, np.nan)
    mean = total / count
    return np.asarray((product / pairs - mean**2) / (square / count - mean**2))
