"""What the classifier looks at: 24 numbers per source, none of them the score itself."""

from __future__ import annotations

import numpy as np

from pipeline.compiled import compiled
from pipeline.diasource.models import cut
from pipeline.diasource.planes import Planes
from pipeline.exposure import FloatArray
from pipeline.psfphot import psf_box

__all__ = ["STAMP_FEATURES", "stamp_features"]

STAMP_FEATURES = (
    "correlation",
    "concentration",
    "neighbourRatio",
    "negativeFraction",
    "peakResidual",
    "coreChi2",
    "ringRms",
    "ringMean",
    "varianceRatio",
    "sharpness",
    "coreGood",
    "worstMasked",
)
"""Features measured on the pixels of the difference, in the order of `stamp_features`."""


@compiled
def stamp_features(
    planes: Planes,
    coef: FloatArray,
    order: int,
    own: FloatArray,
    ix: FloatArray,
    iy: FloatArray,
    added: FloatArray,
    width: float,
    out: FloatArray,
) -> None:
    """Compare the pixels of a source with its PSF.

    Parameters
    ----------
    planes : Planes
        Pixels of the difference.
    coef, order : ndarray (n, side, side) and int
        The PSF.
    own : ndarray, (n, 3)
        Fitted PSF flux and position (from the middle pixel).
    ix, iy : ndarray, (n,)
        Middle pixels.
    added : ndarray, (n,)
        PSF flux to add at the fitted position.
    width : float, pixel
        FWHM of the PSF.
    out : ndarray, (n, 12)
        Within 1.5 FWHM: correlation with the PSF; brightest pixel over the model's; brightest
        over the mean of its four neighbours, in units of the model's same ratio; flux of the
        wrong sign over the sum of absolute values; largest |residual|/σ; χ² per pixel.  Between
        2.5 and 4 FWHM: rms and mean of D/σ.  At the centre: V/V_s; Laplacian over flux relative
        to the model's.  Within 1.5 FWHM: usable part of Σ P²; part of the pixels masked as bad.
    """
    r = int(np.ceil(4.0 * width))
    n = 2 * r + 1
    d, w, v = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for s in range(ix.shape[0]):
        out[s] = np.nan
        cut(planes, int(ix[s]), int(iy[s]), float(r), d, w, v)
        psf_box(coef[s], own[s, 1], own[s, 2], order, p, px, py)
        flux = own[s, 0]
        if not np.isfinite(flux) or flux == 0.0:
            continue
        sign = 1.0 if flux > 0.0 else -1.0
        pd, dd, pp, wrong, both, worst, chi2, core, bad = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0
        all_pp, ring, ring2, count = 0.0, 0.0, 0.0, 0
        top, tj, ti, mtop, mj, mi = -1e300, r, r, -1e300, r, r
        for j in range(n):
            for i in range(n):
                distance = np.hypot(i - r - own[s, 1], j - r - own[s, 2])
                if distance <= 1.5 * width:
                    all_pp += p[j, i] ** 2
                    if p[j, i] > mtop:
                        mtop, mj, mi = p[j, i], j, i
                    if w[j, i] == 0.0:
                        bad += 1
                        continue
                    value = d[j, i] + added[s] * p[j, i]
                    d[j, i] = value
                    core += 1
                    pd += p[j, i] * value
                    dd += value * value
                    pp += p[j, i] ** 2
                    both += abs(value)
                    wrong += max(0.0, -sign * value)
                    residual = (value - flux * p[j, i]) / np.sqrt(v[j, i])
                    worst = max(worst, abs(residual))
                    chi2 += residual * residual
                    if sign * value > top:
                        top, tj, ti = sign * value, j, i
                elif 2.5 * width <= distance <= 4.0 * width and w[j, i] > 0.0:
                    value = (d[j, i] + (added[s] - flux) * p[j, i]) / np.sqrt(v[j, i])
                    ring += value
                    ring2 += value * value
                    count += 1
        if core < 5 or pp == 0.0:
            continue
        out[s, 0] = sign * pd / np.sqrt(pp * dd)
        out[s, 1] = top / (abs(flux) * mtop)
        mean, m_mean = sign * _neighbours(d, tj, ti), _neighbours(p, mj, mi)
        out[s, 2] = np.arctan(mean / top) / np.arctan(m_mean / mtop)
        out[s, 3] = wrong / both
        out[s, 4] = worst
        out[s, 5] = chi2 / core
        if count > 10:
            out[s, 6] = np.sqrt(ring2 / count)
            out[s, 7] = sign * ring / np.sqrt(count)
        out[s, 8] = v[mj, mi] * w[mj, mi] if w[mj, mi] > 0.0 else 1.0
        out[s, 9] = (sign * d[mj, mi] - sign * _neighbours(d, mj, mi)) / (
            abs(flux) * (mtop - m_mean)
        )
        out[s, 10] = pp / all_pp
        out[s, 11] = bad / (bad + core)


@compiled
def _neighbours(d: FloatArray, j: int, i: int) -> float:
    return float(0.25 * (d[j - 1, i] + d[j + 1, i] + d[j, i - 1] + d[j, i + 1]))
