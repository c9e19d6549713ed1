"""How good a difference is, whoever made it, against the truth and the best possible one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.pairs import GAIN, SKY, Pair
from pipeline.exposure import GridPsf
from pipeline.masks import bits
from pipeline.subtract.metrics import lag1, robust_std
from pipeline.subtract.pixels import region_sums
from pipeline.subtract.score import score

__all__ = ["Planes", "compare", "judge"]

_EDGE, _THRESHOLD = 30, 5.0
_CORE, _RING = 12, 22
"""Radii round saturated pixels: nobody is judged within the one, apart within the other."""


@dataclass
class Planes:
    """A difference in the flux unit of the science image."""

    image: Any
    variance: Any
    psf: GridPsf
    usable: Any
    null_variance: Any = None
    score: Any = None


def judge(pair: Pair, planes: Planes) -> dict[str, Any]:
    """Measure one difference; the score is made here unless it comes with the planes."""
    near, far = _saturated(pair)
    good = planes.usable & ~near & np.isfinite(planes.image) & (planes.variance > 0)
    good[:_EDGE] = good[-_EDGE:] = good[:, :_EDGE] = good[:, -_EDGE:] = False
    quiet = good & (pair.static < 0.5 * np.sqrt(SKY / GAIN)) & ~_boxes(pair.truth, good.shape, 14)
    image = np.where(good, planes.image, 0.0).astype(np.float32)
    variance = np.where(good, planes.variance, np.inf).astype(np.float32)
    null = variance if planes.null_variance is None else planes.null_variance
    significance = _score(planes, image, variance, good)
    width = robust_std(significance[quiet])
    regions = lag1(region_sums(image, variance, quiet.view(np.uint8), 8, 4))
    chi2 = _star_chi2(pair, image, variance, good)
    new, negative = (_false(sign * significance / width, good, pair.truth) for sign in (1.0, -1.0))
    flux = _forced(pair, planes.psf, image, variance, null, significance / width, good)
    return {
        "pixel std": robust_std((image / np.sqrt(variance))[quiet]),
        "score std": width,
        "lag-1, largest of 32 regions": float(np.nanmax(np.abs(regions))),
        "lag-1, mean": float(np.nanmean(regions)),
        "star chi2 mean": float(np.mean(chi2)),
        "star chi2 p90": float(np.percentile(chi2, 90)),
        "false near saturated cores": float(far[new].sum()),
        "false elsewhere": float((~far[new]).sum()),
        "false negative": float(len(negative[0])),
        "masked": float(1 - planes.usable[~near].mean()),
        "sources": flux,
    }


def compare(found: dict[str, Any], best: dict[str, Any]) -> dict[str, float]:
    """Replace the sources by numbers relative to those of the best possible difference."""
    ours, theirs = found["sources"], best["sources"]
    both = ours["valid"] & theirs["valid"]
    bright = both & (theirs["true"] > 20 * theirs["null"])
    weight = 1 / theirs["error"][bright] ** 2
    excess = (ours["flux"] - theirs["flux"])[bright]
    true_snr = (theirs["true"] / theirs["null"])[both]
    depth = [_snr50(true_snr, s["peak"][both]) for s in (ours, theirs)]
    pulls = [robust_std(((s["flux"] - s["true"]) / s["error"])[both]) for s in (ours, theirs)]
    slope = weight * theirs["true"][bright]
    slope /= slope @ theirs["true"][bright]
    return {name: value for name, value in found.items() if name != "sources"} | {
        "flux over the oracle's": 1 + float(np.sum(slope * excess)),
        "pull std over the oracle's": pulls[0] / pulls[1],
        "snr50 over the oracle's": depth[0] / depth[1],
        "snr50": depth[0],
        "false elsewhere, beyond the oracle's": found["false elsewhere"] - best["false elsewhere"],
    }  # fmt: skip


def _saturated(pair: Pair) -> tuple[Any, Any]:
    """Pixels within the two radii round saturated ones."""
    from scipy.ndimage import distance_transform_edt

    cores = ((pair.science.mask | pair.template.mask) & bits("SAT", "NO_DATA")) != 0
    distance = distance_transform_edt(~cores)
    return distance <= _CORE, distance <= _RING


def _boxes(truth: Any, shape: Any, half: int) -> Any:
    out = np.zeros(shape, bool)
    for x, y in zip(truth.x.astype(int), truth.y.astype(int), strict=True):
        out[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1] = True
    return out


def _score(planes: Planes, image: Any, variance: Any, good: Any) -> Any:
    if planes.score is not None:
        return np.where(good, planes.score, 0.0).astype(np.float32)
    x, y = (np.arange(128, n, 256.0) for n in (image.shape[1], image.shape[0]))
    cube = planes.psf.stamps(*(a.ravel() for a in np.meshgrid(x, y)))
    grid = GridPsf(cube.reshape(len(y), len(x), *cube.shape[1:]), x, y)
    return score(image, variance, good.view(np.uint8), grid, 256)


def _star_chi2(pair: Pair, image: Any, variance: Any, good: Any) -> Any:
    """χ² per pixel of 11 × 11 pixels at unsaturated stars of SNR 100 to 1000."""
    star = (pair.stars.shape == 0).all(1)
    noise = np.sqrt(SKY / GAIN + 3.0) * 2 * np.sqrt(np.pi) * 1.9
    snr = pair.stars.flux / np.sqrt(noise**2 + pair.stars.flux / GAIN)
    busy = _boxes(pair.truth, good.shape, 10)
    out = []
    for k in np.flatnonzero(star & (snr > 100) & (snr < 1000)):
        j, i = round(pair.stars.y[k]), round(pair.stars.x[k])
        box = np.s_[max(0, j - 5) : j + 6, max(0, i - 5) : i + 6]
        if good[box].size == 121 and good[box].all() and not busy[box].any():
            out.append(np.mean(image[box].astype(float) ** 2 / variance[box]))
    return np.array(out)


def _false(significance: Any, good: Any, truth: Any) -> tuple[Any, Any]:
    """Places of peaks above the threshold away from every transient."""
    from scipy.ndimage import maximum_filter
    from scipy.spatial import cKDTree

    y, x = np.nonzero(
        good & (significance >= _THRESHOLD) & (significance == maximum_filter(significance, 9))
    )
    if not len(x):
        return y, x
    near = cKDTree(np.column_stack([truth.x, truth.y])).query(np.column_stack([x, y]))[0] < 10
    return y[~near], x[~near]


def _forced(
    pair: Pair, psf: GridPsf, image: Any, variance: Any, null: Any, significance: Any, good: Any
) -> dict[str, Any]:
    """Fluxes with the difference's PSF at the true places, and the score there."""
    t = pair.truth
    names = ("flux", "null", "error", "peak")
    out: dict[str, Any] = {name: np.full(len(t.x), np.nan) for name in names}
    for k, (x, y) in enumerate(zip(t.x, t.y, strict=True)):
        i, j = round(x), round(y)
        box = np.s_[j - 10 : j + 11, i - 10 : i + 11]
        if not good[box].all() or good[box].size != 441:
            continue
        p = _shifted(psf.at(x, y), x - i, y - j)
        w = p / null[box]
        norm = (w * p).sum()
        out["flux"][k] = (w * image[box]).sum() / norm
        out["null"][k] = norm**-0.5
        out["error"][k] = np.sqrt((w**2 * variance[box]).sum()) / norm
        out["peak"][k] = significance[j - 2 : j + 3, i - 2 : i + 3].max()
    return out | {"true": t.flux, "valid": np.isfinite(out["flux"])}


def _shifted(stamp: Any, dx: float, dy: float) -> Any:
    """Stamp moved by a fraction of a pixel, cut to 21 × 21."""
    k, h = np.fft.fftfreq(stamp.shape[0]), stamp.shape[0] // 2
    wave = np.exp(-2j * np.pi * (k[:, None] * dy + k * dx))
    moved = np.real(np.fft.ifft2(np.fft.fft2(stamp) * wave))
    return moved[h - 10 : h + 11, h - 10 : h + 11]


def _snr50(true: Any, peak: Any) -> float:
    """SNR at which half of the sources exceed the threshold, by a logistic fit."""
    from scipy.optimize import minimize

    found = peak >= _THRESHOLD

    def loss(q: Any) -> float:
        z = np.clip((true - q[0]) / np.exp(q[1]), -30, 30)
        return float(np.sum(np.logaddexp(0, np.where(found, -z, z))))

    return float(minimize(loss, [5.0, -0.5], method="Nelder-Mead").x[0])
