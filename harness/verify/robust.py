"""Robust statistics of `astropy.stats`, and NaN where there are no values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from astropy import stats

__all__ = ["mad_std", "median_error"]


def mad_std(values: npt.NDArray[np.floating]) -> float:
    """Return the standard deviation from the median absolute deviation, exact for a Gaussian.

    Parameters
    ----------
    values : ndarray, any shape
        Finite numbers.

    Returns
    -------
    float
        In the unit of the values.
    """
    return float(stats.mad_std(values)) if len(values) else float("nan")


def median_error(values: npt.NDArray[np.floating]) -> float:
    """Return the standard error of the median of nearly Gaussian values, √(π / 2n) of theirs.

    Parameters
    ----------
    values : ndarray, (n,)
        Finite numbers.

    Returns
    -------
    float
        In the unit of the values.
    """
    return mad_std(values) * np.sqrt(0.5 * np.pi / len(values)) if len(values) else float("nan")
