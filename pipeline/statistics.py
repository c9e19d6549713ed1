"""Robust statistics: widths of distributions with outliers, as standard deviations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "GAUSS_FWHM",
    "GAUSS_MEDIAN",
    "MAD_TO_SIGMA",
    "MEDIAN_ERROR",
    "clipped",
    "excess_scatter",
    "iqr_std",
    "mad_std",
    "median_error",
]

MAD_TO_SIGMA = 1.4826
"""Standard deviation over the median absolute deviation of a Gaussian, 1 / Φ⁻¹(3/4)."""

GAUSS_MEDIAN = 0.674490
"""Half of a Gaussian lies within this many standard deviations, Φ⁻¹(3/4)."""

GAUSS_FWHM = float(np.sqrt(8.0 * np.log(2.0)))
"""Full width at half maximum of a Gaussian over its standard deviation."""

MEDIAN_ERROR = 1.2533
"""Standard error of the median of a Gaussian sample over that of its mean, √(π/2)."""

_IQR_OF_GAUSSIAN = 1.3489795  # in standard deviations, 2 Φ⁻¹(3/4)


def mad_std(values: npt.NDArray[np.floating], about: float | None = None) -> float:
    """Return the standard deviation from the median absolute deviation.

    The definition of `astropy.stats.mad_std`, in the precision of the values.

    Parameters
    ----------
    values : ndarray
        Finite values of any shape.
    about : float, optional
        Where the deviations count from; by default the median.

    Returns
    -------
    float
        In units of the values; NaN without any.
    """
    if not values.size:
        return float("nan")
    middle = np.median(values) if about is None else about
    return float(MAD_TO_SIGMA * np.median(np.abs(values - middle)))


def excess_scatter(
    residual: npt.NDArray[np.floating], variance: npt.NDArray[np.floating], fitted: int = 0
) -> float:
    """Scatter s that puts half the residuals within 0.67 sqrt(v + s²); 0 if none is needed.

    The median does not see the few outliers that a sum of squares would take for scatter of all.

    Parameters
    ----------
    residual : ndarray, (n,)
        Finite residuals, n > `fitted`.
    variance : ndarray, (n,)
        What is known of their variance v.
    fitted : int
        Number of parameters that were fitted to them.

    Returns
    -------
    float
        In units of the residuals.
    """
    half = GAUSS_MEDIAN * float(np.sqrt((len(residual) - fitted) / len(residual)))

    def excess(s: float) -> float:
        return float(np.median(np.abs(residual) / np.sqrt(variance + s * s))) - half

    low, high = 0.0, float(np.abs(residual).max()) / half
    if excess(low) <= 0.0:
        return 0.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0.0 else (low, middle)
    return high


def clipped(values: npt.NDArray[np.floating], sigmas: float) -> npt.NDArray[np.floating]:
    """Values near their median.

    The mean of these is a level of pixels that are stored in steps, by which a median would move.

    Parameters
    ----------
    values : ndarray, (n,)
        Finite.
    sigmas : float
        Largest distance from the median, in `mad_std`.

    Returns
    -------
    ndarray, (m,)
        Those that are nearer, in their order.
    """
    near = np.abs(values - np.median(values)) < sigmas * mad_std(values)
    return np.asarray(values[near])


def median_error(values: npt.NDArray[np.floating]) -> float:
    """Return the standard error of the median of nearly Gaussian values, √(π / 2n) of theirs.

    Parameters
    ----------
    values : ndarray
        Finite values of any shape.

    Returns
    -------
    float
        In units of the values; NaN without any.
    """
    if not values.size:
        return float("nan")
    return MEDIAN_ERROR * mad_std(values) / float(np.sqrt(values.size))


def iqr_std(values: npt.NDArray[np.floating]) -> float:
    """Return the standard deviation from the interquartile range.

    Parameters
    ----------
    values : ndarray
        Finite values of any shape.

    Returns
    -------
    float
        In units of the values; NaN without any.
    """
    if not values.size:
        return float("nan")
    low, high = np.quantile(values, [0.25, 0.75])
    return float((high - low) / _IQR_OF_GAUSSIAN)
