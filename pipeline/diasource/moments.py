"""Adaptive second moments with errors that hold at every signal-to-noise ratio.

The moments M are those of the elliptical Gaussian weight that matches the source (Bernstein &
Jarvis 2002, AJ 123, 583): with u = pixel − centre and W = exp(−½ uᵀ M⁻¹ u) they solve

    G₁ = Σ W D u = 0   and   G₂ = Σ W D (u uᵀ − M/2) = 0.

G is linear in the pixels, so its covariance follows from their variance, and the errors of the
solution are those of an estimating equation, J⁻¹ Cov(G) J⁻ᵀ with the full derivative J = ∂G/∂θ;
a Gauss–Newton covariance would take the PSF for a Gaussian.

Faint sources take *one* step from the moments of the PSF, M = M_psf − J⁻¹ G with J from the PSF
times the flux: it always exists and stays nearly Gaussian.  Bright or clearly extended ones are
iterated.  Both signs of flux are treated alike.
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import compiled, pixel
from pipeline.diasource.models import cut, invert
from pipeline.diasource.planes import Planes
from pipeline.exposure import FloatArray
from pipeline.psfphot import psf_box

__all__ = ["measure_moments"]

# Columns of `measure_moments`: moments, those of the PSF, their covariance, how they were found.
XX, XY, YY, PSF_XX, PSF_XY, PSF_YY = range(6)
VAR_XX, COV_XX_XY, COV_XX_YY, VAR_XY, COV_XY_YY, VAR_YY = range(6, 12)
ONE_STEP, STATE, COVERED = range(12, 15)
N_COLUMNS = 15
GOOD, FAILED, NO_PIXELS, RAN_AWAY = range(4)  # values of STATE


@compiled
def _inverse(mxx: float, mxy: float, myy: float) -> tuple[float, float, float]:
    det = mxx * myy - mxy * mxy
    return myy / det, -mxy / det, mxx / det


@compiled
def _equations(
    d: FloatArray, v: FloatArray, theta: FloatArray, g: FloatArray, jac: FloatArray, c: FloatArray
) -> None:
    """Fill G, its derivative and its covariance at θ = (x, y, Mxx, Mxy, Myy)."""
    n = d.shape[0]
    r = n // 2
    mxx, mxy, myy = theta[2], theta[3], theta[4]
    qxx, qxy, qyy = _inverse(mxx, mxy, myy)
    g[:] = 0.0
    jac[:] = 0.0
    c[:] = 0.0
    q, s = np.empty(5), np.empty(5)
    for j in range(n):
        for i in range(n):
            ux, uy = i - r - theta[0], j - r - theta[1]
            ax, ay = qxx * ux + qxy * uy, qxy * ux + qyy * uy
            exponent = ux * ax + uy * ay
            if exponent > 36.0:
                continue
            w = np.exp(-0.5 * exponent)
            q[0], q[1] = ux, uy
            q[2], q[3], q[4] = ux * ux - 0.5 * mxx, ux * uy - 0.5 * mxy, uy * uy - 0.5 * myy
            s[0], s[1] = ax, ay  # ∂ ln W / ∂θ
            s[2], s[3], s[4] = 0.5 * ax * ax, ax * ay, 0.5 * ay * ay
            wd, wv = w * d[j, i], w * w * v[j, i]
            for a in range(5):
                g[a] += wd * q[a]
                for b in range(5):
                    jac[a, b] += wd * q[a] * s[b]
                    c[a, b] += wv * q[a] * q[b]
            jac[0, 0] -= wd
            jac[1, 1] -= wd
            jac[2, 0] -= 2.0 * wd * ux
            jac[3, 0] -= wd * uy
            jac[3, 1] -= wd * ux
            jac[4, 1] -= 2.0 * wd * uy
            for a in range(2, 5):
                jac[a, a] -= 0.5 * wd


@compiled
def _solve(jac: FloatArray, g: FloatArray, step: FloatArray, inverse: FloatArray) -> bool:
    """Solve J step = −G by way of the inverse, with pivots from the normal matrix."""
    k = g.shape[0]
    normal, half = np.zeros((k, k)), np.empty((k, k))
    for a in range(k):
        for b in range(k):
            for e in range(k):
                normal[a, b] += jac[e, a] * jac[e, b]
    if not invert(normal, half):
        return False
    for a in range(k):
        step[a] = 0.0
        for b in range(k):
            inverse[a, b] = 0.0
            for e in range(k):
                inverse[a, b] += half[a, e] * jac[b, e]
            step[a] -= inverse[a, b] * g[b]
    return True


@compiled
def _spread(inverse: FloatArray, c: FloatArray, cov: FloatArray) -> None:
    """J⁻¹ C J⁻ᵀ of the three moments."""
    for a in range(3):
        for b in range(3):
            total = 0.0
            for p in range(5):
                for q in range(5):
                    total += inverse[a + 2, p] * c[p, q] * inverse[b + 2, q]
            cov[a, b] = total


@compiled
def _approach(d: FloatArray, theta: FloatArray) -> None:
    """One step towards the matching weight, exact for Gaussians: M = (C⁻¹ − M_w⁻¹)⁻¹.

    C is the covariance of the weighted source; θ stays as it is where that makes no sense.
    """
    n = d.shape[0]
    r = n // 2
    mxx, mxy, myy = theta[2], theta[3], theta[4]
    qxx, qxy, qyy = _inverse(mxx, mxy, myy)
    s, sx, sy, cxx, cxy, cyy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(n):
        for i in range(n):
            ux, uy = i - r - theta[0], j - r - theta[1]
            exponent = ux * (qxx * ux + qxy * uy) + uy * (qxy * ux + qyy * uy)
            if exponent > 36.0:
                continue
            wd = np.exp(-0.5 * exponent) * d[j, i]
            s += wd
            sx += wd * ux
            sy += wd * uy
            cxx += wd * ux * ux
            cxy += wd * ux * uy
            cyy += wd * uy * uy
    if s == 0.0:
        return
    cxx, cxy, cyy = cxx / s, cxy / s, cyy / s
    inner = cxx * cyy - cxy * cxy
    if not (inner > 0.0 and cxx > 0.0):
        return
    a, b, e = cyy / inner - qxx, -cxy / inner - qxy, cxx / inner - qyy
    outer = a * e - b * b
    if not (outer > 0.0 and a > 0.0):
        return
    limit = 4.0 * (mxx + myy)
    if (a + e) / outer > limit or (a + e) / outer < 0.25 * (mxx + myy):
        return
    theta[2], theta[3], theta[4] = e / outer, -b / outer, a / outer
    theta[0] += min(1.0, max(-1.0, 2.0 * sx / s))
    theta[1] += min(1.0, max(-1.0, 2.0 * sy / s))


@compiled
def _iterate(d: FloatArray, v: FloatArray, theta: FloatArray, largest: float) -> bool:
    """Approach, then Newton's method on G = 0 with steps of at most half of the size.

    A weight that shrinks onto one pixel also solves the equations: sizes below a quarter of the
    first one are no solution.
    """
    g, jac, c = np.empty(5), np.empty((5, 5)), np.empty((5, 5))
    step, inverse = np.empty(5), np.empty((5, 5))
    x0, y0, smallest = theta[0], theta[1], 0.25 * (theta[2] + theta[4])
    for _ in range(4):
        _approach(d, theta)
    for _ in range(40):
        _equations(d, v, theta, g, jac, c)
        if not _solve(jac, g, step, inverse):
            return False
        size = theta[2] + theta[4]
        worst = abs(step[2]) + 2.0 * abs(step[3]) + abs(step[4])
        shift = np.hypot(step[0], step[1])
        factor = min(1.0, 0.5 * size / max(worst, 1e-30), 1.0 / max(shift, 1e-30))
        for a in range(5):
            theta[a] += factor * step[a]
        if theta[2] <= 0.0 or theta[4] <= 0.0 or theta[2] * theta[4] <= 1.02 * theta[3] ** 2:
            return False
        size = theta[2] + theta[4]
        if not smallest < size < largest or np.hypot(theta[0] - x0, theta[1] - y0) > 4.0:
            return False
        if worst < 1e-7 * size and shift < 1e-6:
            return True
    return False


@compiled
def measure_moments(
    planes: Planes,
    coef: FloatArray,
    order: int,
    own: FloatArray,
    ix: FloatArray,
    iy: FloatArray,
    radius: int,
    added: FloatArray,
    snr: FloatArray,
    out: FloatArray,
) -> None:
    """Moments of sources, of the PSF under them, and their covariance.

    Parameters
    ----------
    planes : Planes
        Pixels.
    coef, order : ndarray (n, side, side) and int
        The PSF.
    own : ndarray, (n, 3)
        Fitted PSF flux and position (from the middle pixel).
    ix, iy : ndarray, (n,)
        Middle pixels.
    radius : int, pixel
        Half the side of the box.
    added : ndarray, (n,)
        PSF flux to add at the fitted position (sources taken out of the image before).
    snr : ndarray, (n,)
        PSF flux over its error; decides whether to iterate.
    out : ndarray, (n, N_COLUMNS)
        Moments of source and PSF, pixel², with the covariance of the source's; whether found in
        one step (1) or iterated (0); the state; usable part of the PSF.
    """
    n = 2 * radius + 1
    d, w, v = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    zero, noisy = np.zeros((n, n)), np.empty((5, 5))
    g, jac, c = np.empty(5), np.empty((5, 5)), np.empty((5, 5))
    step, inverse, cov = np.empty(5), np.empty((5, 5)), np.empty((3, 3))
    theta, start = np.empty(5), np.empty(5)
    for k in range(ix.shape[0]):
        out[k] = np.nan
        out[k, ONE_STEP], out[k, STATE] = 1.0, NO_PIXELS
        flux = own[k, 0]
        if not np.isfinite(flux) or flux == 0.0:
            continue
        used = cut(planes, pixel(ix[k]), pixel(iy[k]), float(radius), d, w, v)
        psf_box(coef[k], own[k, 1], own[k, 2], order, p, px, py)
        out[k, COVERED] = _complete(d, w, v, p, flux, added[k])
        if used == 0 or out[k, COVERED] < 0.3:
            continue
        out[k, STATE] = FAILED
        start[0], start[1] = own[k, 1], own[k, 2]
        start[2], start[3], start[4] = _second(p)
        if not _iterate(p, zero, start, 4.0 * radius * radius):
            continue
        out[k, PSF_XX], out[k, PSF_XY], out[k, PSF_YY] = start[2], start[3], start[4]
        # G of the PSF vanishes here; that of the data over J of the PSF is the step
        _equations(p, v, start, g, jac, c)
        _equations(d, v, start, g, noisy, c)
        if not _solve(flux * jac, g, step, inverse):
            continue
        for a in range(5):
            theta[a] = start[a] + step[a]
        _spread(inverse, c, cov)
        _store(out[k], theta, cov)
        out[k, STATE] = GOOD
        ratio = (theta[2] + theta[4]) / (start[2] + start[4])
        sigma = np.sqrt(max(cov[0, 0] + 2.0 * cov[0, 2] + cov[2, 2], 0.0)) / (start[2] + start[4])
        if snr[k] >= 20.0 or ratio > 1.3 + 3.0 * sigma:
            theta[:] = start
            if not _iterate(d, v, theta, float(radius * radius)):
                out[k, STATE] = GOOD if snr[k] < 50.0 else FAILED
                continue
            _equations(d, v, theta, g, jac, c)
            if _solve(jac, g, step, inverse):
                _spread(inverse, c, cov)
                _store(out[k], theta, cov)
                out[k, ONE_STEP] = 0.0
                if np.hypot(theta[0] - own[k, 1], theta[1] - own[k, 2]) > 3.0:
                    out[k, STATE] = RAN_AWAY


@compiled
def _complete(
    d: FloatArray, w: FloatArray, v: FloatArray, p: FloatArray, flux: float, added: float
) -> float:
    """Put the model where pixels are missing, return to the others what was taken out of them.

    The result is the usable part of Σ P².
    """
    total, good = 0.0, 0.0
    for j in range(p.shape[0]):
        for i in range(p.shape[1]):
            total += p[j, i] ** 2
            if w[j, i] > 0.0:
                good += p[j, i] ** 2
                d[j, i] += added * p[j, i]
            else:
                d[j, i], v[j, i] = flux * p[j, i], 0.0
    return good / total


@compiled
def _store(row: FloatArray, theta: FloatArray, cov: FloatArray) -> None:
    row[XX], row[XY], row[YY] = theta[2], theta[3], theta[4]
    row[VAR_XX], row[COV_XX_XY], row[COV_XX_YY] = cov[0, 0], cov[0, 1], cov[0, 2]
    row[VAR_XY], row[COV_XY_YY], row[VAR_YY] = cov[1, 1], cov[1, 2], cov[2, 2]


@compiled
def _second(p: FloatArray) -> tuple[float, float, float]:
    """Gaussian with the stamp's noise-equivalent area, where Newton's method starts."""
    total, square = 0.0, 0.0
    for j in range(p.shape[0]):
        for i in range(p.shape[1]):
            total += p[j, i]
            square += p[j, i] ** 2
    variance = total * total / square / (4.0 * np.pi)
    return variance, 0.0, variance
