"""Robust statistics, the few that the metrics need."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["mad_std", "median_error"]


def mad_std(values: npt.NDArray[Any]) -> float:
    """Return the standard deviation from the median absolute deviation, exact for a Gaussian."""
    if not len(values):
        return float("nan")
    return float(1.4826022 * np.median(np.abs(values - np.median(values))))


def median_error(values: npt.NDArray[Any]) -> float:
    """Return the standard error of the median of nearly Gaussian values."""
    return float(1.2533 * mad_std(values) / np.sqrt(len(values))) if len(values) else float("nan")
