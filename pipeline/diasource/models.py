"""Models of a source on a difference image and their weighted least-squares fit.

Three models share one Levenberg–Marquardt loop:

======  =========================  =========================================================
model   parameters                 pixels
======  =========================  =========================================================
POINT   F, x, y                    F P(u − x)
TRAIL   F, x, y, a, b              F ∫ P(u − x − t (a, b)) dt,  t from −½ to ½
DIPOLE  F, Δ, x, y, a, b           (F + Δ/2) P(u − x − (a, b)/2) − (F − Δ/2) P(u − x + (a, b)/2)
======  =========================  =========================================================

The trail is that of Vereš et al. (2012, PASP 124, 1197) with the true PSF in place of a Gaussian.
Weights are 1/V_s (smooth, source-free); the covariance is the sandwich
A⁻¹ (Jᵀ w V w J) A⁻¹ with A = Jᵀ w J and the total variance V, and χ² is judged with V.
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import add_row, compiled, pixel
from pipeline.diasource.planes import Planes
from pipeline.exposure import FloatArray
from pipeline.psfphot import psf_box, psf_part

__all__ = [
    "DIPOLE",
    "POINT",
    "TRAIL",
    "beside",
    "cut",
    "evaluate",
    "fit",
    "fit_many",
    "invert",
]

POINT, TRAIL, DIPOLE = 0, 1, 2

# What `fit` and `fit_many` say of a fit beside its solution.
CHI2, LN_LIKELIHOOD, COST, STEPS, N_PIXELS, USABLE, CONVERGED, GAIN = range(8)

_MAX_STEPS = 30
_SHORTEST = 0.7
_LONGEST = 16  # trails in sides of the box; what is longer is no model of these pixels
_WIDEST = 1024.0  # pixel, radius of a box


@compiled
def cut(
    planes: Planes,
    ix: int,
    iy: int,
    radius: float,
    d: FloatArray,
    w: FloatArray,
    v: FloatArray,
) -> int:
    """Copy the disk of usable pixels round (ix, iy) into a box.

    Parameters
    ----------
    planes : Planes
        Pixels.
    ix, iy : int
        Middle pixel.
    radius : float, pixel
        Radius of the disk.
    d, w, v : ndarray, (n, n)
        Filled with pixels, weights 1/V_s and total variance; the weight is zero outside of the
        disk, outside of the image and on bad pixels.

    Returns
    -------
    int
        Pixels with weight.
    """
    image, variance, null, mask, bad = planes
    ny, nx = image.shape
    even = null.shape != image.shape
    n = d.shape[0]
    r = n // 2
    count = 0
    for j in range(n):
        for i in range(n):
            d[j, i], w[j, i], v[j, i] = 0.0, 0.0, 1.0
            x, y = ix + i - r, iy + j - r
            if x < 0 or y < 0 or x >= nx or y >= ny:
                continue
            if (i - r) ** 2 + (j - r) ** 2 > radius * radius or (mask[y, x] & bad) != 0:
                continue
            smooth = np.float32(1.0) if even else null[y, x]
            if not (np.isfinite(image[y, x]) and variance[y, x] > 0.0 and smooth > 0.0):
                continue
            d[j, i], w[j, i], v[j, i] = image[y, x], 1.0 / smooth, variance[y, x]
            count += 1
    return count


@compiled
def beside(
    x: float, y: float, a: float, b: float, reach: float, w: FloatArray, v: FloatArray
) -> int:
    """Leave out pixels that lie farther from a segment than other sources may.

    Parameters
    ----------
    x, y : float, pixel
        Its middle, from the middle of the box.
    a, b : float, pixel
        Its extent as a vector.
    reach : float, pixel
        Farthest distance of pixels from it.
    w, v : ndarray, (n, n)
        Weights and variance, from `cut`; w becomes zero where a pixel is left out.

    Returns
    -------
    int
        Pixels with weight.
    """
    n, count = w.shape[0], 0
    square = max(a * a + b * b, 1e-12)
    for j in range(n):
        for i in range(n):
            dx, dy = i - n // 2 - x, j - n // 2 - y
            t = min(max((dx * a + dy * b) / square, -0.5), 0.5)
            if (dx - t * a) ** 2 + (dy - t * b) ** 2 > reach * reach:
                w[j, i], v[j, i] = 0.0, 1.0
            count += w[j, i] > 0.0
    return count


@compiled
def evaluate(
    kind: int, theta: FloatArray, coef: FloatArray, order: int, m: FloatArray, jac: FloatArray
) -> None:
    """Pixels of a model and their derivatives.

    Parameters
    ----------
    kind : int
        POINT, TRAIL or DIPOLE.
    theta : ndarray, (k,)
        Parameters; positions from the middle of the box.
    coef, order : ndarray and int
        The PSF, as `psf_box` takes it.
    m, jac : ndarray, (n, n) and (k, n, n)
        Filled with the model and its derivatives.
    """
    n = m.shape[0]
    p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    jac[:] = 0.0
    if kind == POINT:
        psf_box(coef, theta[1], theta[2], order, p, px, py)
        for j in range(n):
            for i in range(n):
                jac[0, j, i] = p[j, i]
                jac[1, j, i] = -theta[0] * px[j, i]
                jac[2, j, i] = -theta[0] * py[j, i]
                m[j, i] = theta[0] * p[j, i]
    elif kind == TRAIL:
        m[:] = 0.0
        length = np.sqrt(theta[3] ** 2 + theta[4] ** 2)
        if not (length < _LONGEST * n and np.isfinite(theta[1] + theta[2])):
            m[:] = np.nan
            return
        # midpoints of pieces no longer than 0.9 px, each with the second-order end correction
        pieces = max(3, int(np.ceil(length / 0.9)))
        for k in range(pieces):
            t = (k + 0.5) / pieces - 0.5
            weight = 1.0 / pieces
            if k == 0 or k == pieces - 1:
                weight *= 25.0 / 24.0
            elif k == 1 or k == pieces - 2:
                weight *= 23.0 / 24.0 if pieces > 3 else 22.0 / 24.0
            x, y = theta[1] + t * theta[3], theta[2] + t * theta[4]
            bottom, top, left, right = psf_part(coef, x, y, order, p, px, py)
            for j in range(bottom, top):
                along_x, along_y = px[j, left:right], py[j, left:right]
                along_x *= weight * theta[0]
                along_y *= weight * theta[0]
                add_row(jac[0, j, left:right], p[j, left:right], weight)
                add_row(jac[1, j, left:right], along_x, -1.0)
                add_row(jac[2, j, left:right], along_y, -1.0)
                add_row(jac[3, j, left:right], along_x, -t)
                add_row(jac[4, j, left:right], along_y, -t)
        for j in range(n):
            for i in range(n):
                m[j, i] = theta[0] * jac[0, j, i]
    else:
        m[:] = 0.0
        for lobe in range(2):
            h = 0.5 - lobe
            f = 2.0 * h * theta[0] + 0.5 * theta[1]
            psf_box(coef, theta[2] + h * theta[4], theta[3] + h * theta[5], order, p, px, py)
            for j in range(n):
                for i in range(n):
                    jac[0, j, i] += 2.0 * h * p[j, i]
                    jac[1, j, i] += 0.5 * p[j, i]
                    jac[2, j, i] -= f * px[j, i]
                    jac[3, j, i] -= f * py[j, i]
                    jac[4, j, i] -= h * f * px[j, i]
                    jac[5, j, i] -= h * f * py[j, i]
                    m[j, i] += f * p[j, i]


@compiled
def invert(a: FloatArray, out: FloatArray) -> bool:
    """Invert a symmetric positive matrix by Gauss–Jordan steps on its unit-diagonal form.

    Parameters
    ----------
    a : ndarray, (k, k)
        Symmetric matrix; it stays as it is.
    out : ndarray, (k, k)
        Its inverse afterwards.

    Returns
    -------
    bool
        False, and `out` undefined, where the matrix is not positive definite to 1e-12.
    """
    k = a.shape[0]
    scale = np.empty(k)
    for i in range(k):
        if not a[i, i] > 0.0:
            return False
        scale[i] = 1.0 / np.sqrt(a[i, i])
    work = np.empty((k, k))
    for i in range(k):
        for j in range(k):
            work[i, j] = a[i, j] * scale[i] * scale[j]
            out[i, j] = 1.0 if i == j else 0.0
    for c in range(k):
        pivot = work[c, c]
        if not pivot > 1e-12:
            return False
        for j in range(k):
            work[c, j] /= pivot
            out[c, j] /= pivot
        for i in range(k):
            factor = work[i, c]
            if i != c and factor != 0.0:
                for j in range(k):
                    work[i, j] -= factor * work[c, j]
                    out[i, j] -= factor * out[c, j]
    for i in range(k):
        for j in range(k):
            out[i, j] *= scale[i] * scale[j]
    return True


@compiled
def _normal(
    d: FloatArray, w: FloatArray, m: FloatArray, jac: FloatArray, a: FloatArray, g: FloatArray
) -> float:
    """Fill A = JᵀwJ and g = Jᵀw(d − m); return Σ w (d − m)²."""
    k, n = jac.shape[0], d.shape[0]
    a[:] = 0.0
    g[:] = 0.0
    cost = 0.0
    for j in range(n):
        for i in range(n):
            if w[j, i] > 0.0:
                r = d[j, i] - m[j, i]
                cost += w[j, i] * r * r
                for s in range(k):
                    ws = w[j, i] * jac[s, j, i]
                    g[s] += ws * r
                    for t in range(s + 1):
                        a[s, t] += ws * jac[t, j, i]
    for s in range(k):
        for t in range(s):
            a[t, s] = a[s, t]
    return cost


@compiled
def fit(
    kind: int,
    theta: FloatArray,
    coef: FloatArray,
    order: int,
    d: FloatArray,
    w: FloatArray,
    v: FloatArray,
    reach: float,
    prior: FloatArray,
    cov: FloatArray,
    stats: FloatArray,
) -> bool:
    """Fit one model to one box of pixels (Levenberg–Marquardt).

    Parameters
    ----------
    kind : int
        POINT, TRAIL or DIPOLE.
    theta : ndarray, (k,)
        Starting point; the solution on return.
    coef, order : ndarray and int
        The PSF, as `psf_box` takes it.
    d, w, v : ndarray, (n, n)
        Pixels, weights and total variance, from `cut`.
    reach : float, pixel
        The centre may not move farther than this from where it started.
    prior : ndarray, (2,)
        What is known of the first parameter, the flux: its value and one over its variance
        (0 for nothing).
    cov : ndarray, (k, k)
        Filled with the sandwich covariance.
    stats : ndarray, (4,)
        Filled with χ² and −½ Σ [r²/V + ln 2πV], both with the total variance, Σ w r², and the
        number of steps.

    Returns
    -------
    bool
        Whether the fit converged within `reach`.  A trail that shrinks below 0.7 pixels is given
        up: its length has no linear error any more.
    """
    k, n = theta.shape[0], d.shape[0]
    at = 2 if kind == DIPOLE else 1
    x0, y0 = theta[at], theta[at + 1]
    m, jac = np.empty((n, n)), np.empty((k, n, n))
    a, g, inverse = np.empty((k, k)), np.empty(k), np.empty((k, k))
    trial_m, trial_jac = np.empty((n, n)), np.empty((k, n, n))
    evaluate(kind, theta, coef, order, m, jac)
    cost = _normal(d, w, m, jac, a, g) + _known(theta, prior, a, g)
    damping, converged, steps, stops = 1e-3, False, 0, 0
    trial, damped = np.empty(k), np.empty((k, k))
    while steps < _MAX_STEPS and stops < 4 and not converged:
        steps += 1
        damped[:] = a
        for s in range(k):
            damped[s, s] *= 1.0 + damping
        if not invert(damped, inverse):
            damping = max(10.0 * damping, 1e-3)
            if damping > 1e5:
                break
            continue
        gain = 0.0
        for s in range(k):
            step = 0.0
            for t in range(k):
                step += inverse[s, t] * g[t]
            gain += step * g[s]
            trial[s] = theta[s] + step
        moved = np.hypot(trial[at] - x0, trial[at + 1] - y0)
        if moved > reach:
            stops += 1
            trial[at] = x0 + (trial[at] - x0) * reach / moved
            trial[at + 1] = y0 + (trial[at + 1] - y0) * reach / moved
        trial_cost = np.inf
        # trails and dipoles longer than the box have left the data
        if kind == POINT or np.hypot(trial[k - 2], trial[k - 1]) < n:
            evaluate(kind, trial, coef, order, trial_m, trial_jac)
            trial_cost = prior[1] * (prior[0] - trial[0]) ** 2
            for j in range(n):
                for i in range(n):
                    trial_cost += w[j, i] * (d[j, i] - trial_m[j, i]) ** 2
        if trial_cost <= cost:
            # what is left to gain is far below the noise: the cost of good fits is about n
            converged = cost - trial_cost < max(1e-6 * cost, 1e-9)
            theta[:] = trial
            m, trial_m = trial_m, m
            jac, trial_jac = trial_jac, jac
            cost = _normal(d, w, m, jac, a, g) + _known(theta, prior, a, g)
            damping = max(damping * 0.1, 1e-9)
            if kind == TRAIL and np.hypot(theta[3], theta[4]) < _SHORTEST:
                converged = False
                break
        else:
            converged = gain < max(1e-6 * cost, 1e-9)
            damping *= 10.0
            if damping > 1e5:
                break
    _sandwich(w, v, jac, a, prior[1], cov)
    chi2, logs = 0.0, 0.0
    for j in range(n):
        for i in range(n):
            if w[j, i] > 0.0:
                chi2 += (d[j, i] - m[j, i]) ** 2 / v[j, i]
                logs += np.log(2.0 * np.pi * v[j, i])
    stats[CHI2], stats[LN_LIKELIHOOD] = chi2, -0.5 * (chi2 + logs)
    stats[COST], stats[STEPS] = cost, steps
    moved = np.hypot(theta[at] - x0, theta[at + 1] - y0)
    return converged and moved < 0.999 * reach and np.isfinite(cov[0, 0])


@compiled
def _known(theta: FloatArray, prior: FloatArray, a: FloatArray, g: FloatArray) -> float:
    """Add a prior on the first parameter to the normal equations; return its part of the cost."""
    miss = prior[0] - theta[0]
    a[0, 0] += prior[1]
    g[0] += prior[1] * miss
    return float(prior[1] * miss * miss)


@compiled
def _sandwich(
    w: FloatArray, v: FloatArray, jac: FloatArray, a: FloatArray, known: float, cov: FloatArray
) -> None:
    """A⁻¹ (JᵀwVwJ + known) A⁻¹, NaN where A is singular."""
    k, n = jac.shape[0], w.shape[0]
    inverse, meat = np.empty((k, k)), np.zeros((k, k))
    if not invert(a, inverse):
        cov[:] = np.nan
        return
    meat[0, 0] = known
    for j in range(n):
        for i in range(n):
            if w[j, i] > 0.0:
                weight = w[j, i] * w[j, i] * v[j, i]
                for s in range(k):
                    for t in range(k):
                        meat[s, t] += weight * jac[s, j, i] * jac[t, j, i]
    for s in range(k):
        for t in range(k):
            total = 0.0
            for p in range(k):
                for q in range(k):
                    total += inverse[s, p] * meat[p, q] * inverse[q, t]
            cov[s, t] = total


@compiled
def fit_many(
    kind: int,
    planes: Planes,
    coef: FloatArray,
    order: int,
    ix: FloatArray,
    iy: FloatArray,
    own: FloatArray,
    radius: FloatArray,
    reach: float,
    prior: FloatArray,
    corridor: float,
    theta: FloatArray,
    cov: FloatArray,
    stats: FloatArray,
) -> None:
    """Fit one model to many sources.

    Parameters
    ----------
    kind : int
        POINT, TRAIL or DIPOLE.
    planes : Planes
        Pixels.
    coef, order : ndarray (n, side, side) and int
        The PSF.
    ix, iy : ndarray, (n,)
        Middle pixels of the boxes.
    own : ndarray, (n, 4)
        The source as a point: x, y from the middle pixel; the flux to add to the pixels first
        (sources that were taken out of the image put themselves back); the flux of the point
        source that the model is compared with.
    radius : ndarray, (n,), pixel
        Radius of the disk of pixels.
    reach : float, pixel
        How far the centre may move.
    prior : ndarray, (n, 2)
        What is known of the fluxes beforehand, see `fit`.
    corridor : float, pixel
        Trails are fitted to pixels no farther than this from where they start; infinite for all.
    theta : ndarray, (n, k)
        Starting points; solutions on return.
    cov : ndarray, (n, k, k)
        Filled with covariances.
    stats : ndarray, (n, 8)
        Filled with χ², ln likelihood, Σ w r², steps, pixels, usable part of Σ P², converged,
        and by how much Σ w r² is below that of the point source.
    """
    for s in range(ix.shape[0]):
        if not 0.0 <= radius[s] <= _WIDEST:
            stats[s], theta[s], cov[s] = np.nan, np.nan, np.nan
            stats[s, CONVERGED] = 0.0
            continue
        n = 2 * int(np.ceil(radius[s])) + 1
        d, w, v = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
        count = cut(planes, pixel(ix[s]), pixel(iy[s]), radius[s], d, w, v)
        if kind == TRAIL and corridor < _WIDEST:
            start = theta[s]
            count = beside(start[1], start[2], start[3], start[4], corridor, w, v)
        p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
        psf_box(coef[s], own[s, 0], own[s, 1], order, p, px, py)
        total, good, reference = 0.0, 0.0, 0.0
        for j in range(n):
            for i in range(n):
                total += p[j, i] ** 2
                if w[j, i] > 0.0:
                    good += p[j, i] ** 2
                    d[j, i] += own[s, 2] * p[j, i]
                    reference += w[j, i] * (d[j, i] - own[s, 3] * p[j, i]) ** 2
        stats[s] = np.nan
        stats[s, N_PIXELS], stats[s, USABLE], stats[s, CONVERGED] = count, good / total, 0.0
        if count <= theta.shape[1] or good <= 0.0:
            theta[s] = np.nan
            cov[s] = np.nan
            continue
        done = fit(kind, theta[s], coef[s], order, d, w, v, reach, prior[s], cov[s], stats[s])
        stats[s, CONVERGED] = 1.0 if done else 0.0
        stats[s, GAIN] = reference - stats[s, COST]
