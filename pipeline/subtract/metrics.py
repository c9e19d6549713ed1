"""Numbers that say how good a difference is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exposure import Image, Mask
from pipeline.subtract.fit import Fit
from pipeline.subtract.masks import EXCLUDED

__all__ = ["measure", "robust_std"]

_GRID = (8, 4)
_BOX = 5


def robust_std(values: npt.NDArray[np.floating]) -> float:
    """Half the distance of the percentiles 15.865 and 84.135; NaN without values."""
    if values.size == 0:
        return float("nan")
    low, high = np.percentile(values, [15.865, 84.135])
    return float(high - low) / 2.0


def measure(
    image: Image,
    variance: Image,
    score: Image,
    mask: Mask,
    blank: npt.NDArray[np.bool_],
    fit: Fit,
) -> dict[str, float]:
    """Measure a difference.

    Parameters
    ----------
    image, variance, score : ndarray, (ny, nx)
        Planes of the difference.
    mask : ndarray, (ny, nx)
        Its mask.
    blank : ndarray of bool, (ny, nx)
        Unmasked pixels without sources in the template.
    fit : Fit
        The kernel fit.

    Returns
    -------
    dict
        Metrics by name.
    """
    kernel = fit.kernel
    used = kernel.stamps[:, 3] > 0
    pull = np.where(blank, image / np.sqrt(variance), 0.0)
    x, y = kernel.shape[1] / 2, kernel.shape[0] / 2
    chi2 = _star_chi2(image, variance, mask, kernel.stamps[used])
    ratio = kernel.sum_at(*(kernel.stamps[used].T[:2]))
    return {
        "nStamps": float(len(used)),
        "nStampsUsed": float(used.sum()),
        "kernelOrder": float(kernel.order),
        "ratioOrder": float(fit.ratio_order),
        "kernelSum": float(kernel.sum_at([x], [y])[0]),
        "kernelSumScatter": float(ratio.std()),
        "kernelCondition": kernel.condition,
        "stampChi2": float(np.median(kernel.stamps[used, 2])),
        "starChi2Mean": float(np.mean(chi2)) if len(chi2) else float("nan"),
        "starChi2P90": float(np.percentile(chi2, 90)) if len(chi2) else float("nan"),
        "pixelStd": robust_std(pull[blank][::7]),
        "scoreStd": robust_std(score[blank][::7]),
        "lag1Max": _lag1(np.clip(pull, -5, 5), blank),
        "blankFraction": float(blank.mean()),
        "maskedFraction": float(((mask & EXCLUDED) != 0).mean()),
        "convolvedScience": float(kernel.convolved == "science"),
    }


def _star_chi2(
    image: Image, variance: Image, mask: Mask, stamps: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mean χ² per pixel of the central 11 × 11 pixels of clean stamps."""
    out = []
    for x, y in stamps[:, :2].astype(int):
        box = np.s_[y - _BOX : y + _BOX + 1, x - _BOX : x + _BOX + 1]
        if not (mask[box] & EXCLUDED).any():
            out.append(float(np.mean(image[box].astype(float) ** 2 / variance[box])))
    return np.array(out)


def _lag1(pull: Image, blank: npt.NDArray[np.bool_]) -> float:
    """Largest autocorrelation at lag one, mean of both axes, over a grid of regions."""
    worst = 0.0
    rows = np.arange(_GRID[0] + 1) * pull.shape[0] // _GRID[0]
    columns = np.arange(_GRID[1] + 1) * pull.shape[1] // _GRID[1]
    for j in range(_GRID[0]):
        for i in range(_GRID[1]):
            box = np.s_[rows[j] : rows[j + 1], columns[i] : columns[i + 1]]
            value = lag1(pull[box], blank[box])
            worst = max(worst, abs(value)) if np.isfinite(value) else worst
    return worst


def lag1(z: Image, m: npt.NDArray[np.bool_]) -> float:
    """Autocorrelation at lag one of the blank pixels of a region, mean of both axes."""
    if m.sum() < 100:
        return float("nan")
    z = np.where(m, z - z[m].mean(), 0.0).astype(np.float32)
    power = float((z * z).sum()) / float(m.sum())
    pairs = [
        (z[:, 1:] * z[:, :-1], m[:, 1:] & m[:, :-1]),
        (z[1:] * z[:-1], m[1:] & m[:-1]),
    ]
    return float(np.mean([product.sum() / both.sum() for product, both in pairs])) / power
