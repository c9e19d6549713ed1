"""Peaks and footprints of a score image.

A peak is a local extremum of the score.  A footprint is the set of pixels of one sign above the
threshold that hang together with a peak; footprints of the two signs never merge.  Within a
footprint a second peak counts as a source of its own by its *persistence*: how far the score
falls from it to the highest saddle that leads to a higher peak (Edelsbrunner, Letscher &
Zomorodian 2002, Discrete & Computational Geometry 28, 511).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image

__all__ = ["Footprints", "expected_peaks", "find_peaks", "flood"]

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Footprints:
    """The pixels above the threshold, footprint by footprint.

    Attributes
    ----------
    label : ndarray, (n_peaks,), int32
        Footprint of each peak, -1 for peaks below the threshold.
    persistence : ndarray, (n_peaks,)
        Height above the saddle to a higher peak; infinite for the highest of a footprint.
    start : ndarray, (n_footprints + 1,), int32
        Footprint k owns ``pixels[start[k]:start[k + 1]]``.
    pixels : ndarray, int32
        Flat indices into the image.
    """

    label: Ints
    persistence: FloatArray
    start: Ints
    pixels: Ints

    def of(self, k: int) -> Ints:
        """Flat indices of the pixels of footprint k."""
        return self.pixels[self.start[k] : self.start[k + 1]]


def find_peaks(score: Image, bound: float) -> tuple[Ints, Ints]:
    """Local extrema of a score image, the most significant first.

    Parameters
    ----------
    score : ndarray, (ny, nx)
        Signal in units of its noise; NaN where it is unknown.
    bound : float
        Only peaks with an absolute value above it.

    Returns
    -------
    x, y : ndarray, (n,), int32
        Pixels of the peaks, ordered by absolute score (falling), row, column.
    """
    if min(score.shape) < 3:
        return np.empty(0, np.int32), np.empty(0, np.int32)
    flat = _extrema(score, np.float32(bound))
    y, x = np.divmod(flat, np.int32(score.shape[1]))
    order = np.lexsort((x, y, -np.abs(score[y, x])))
    return x[order], y[order]


@compiled
def _extrema(score: Image, bound: np.float32) -> Ints:
    ny, nx = score.shape
    found = [np.int32(0) for _ in range(0)]
    for j in range(1, ny - 1):
        for i in range(1, nx - 1):
            s = score[j, i]
            if s > bound:
                sign = np.float32(1.0)
            elif s < -bound:
                sign = np.float32(-1.0)
            else:
                continue
            v, best = sign * s, True
            for b in range(-1, 2):
                for a in range(-1, 2):
                    t = sign * score[j + b, i + a]
                    earlier = b < 0 or (b == 0 and a < 0)
                    if t > v or (earlier and t == v):
                        best = False
            if best:
                found.append(np.int32(j * nx + i))
    out = np.empty(len(found), np.int32)
    for k in range(len(found)):
        out[k] = found[k]
    return out


def expected_peaks(psf: FloatArray, pixels: float, bound: float) -> float:
    """Peaks of both signs that white noise alone leaves in a matched filter.

    For high bounds u they are as many as the Euler characteristic of the pixels above u, N(u) =
    A √|Λ| (2π)^(-3/2) u exp(-u²/2) for each sign, with Λ the second derivatives of the noise's
    autocorrelation (Adler & Taylor 2007, Random Fields and Geometry, ch. 11), here from its
    logarithm one pixel away.  A pixel at distance
    d from a peak sees it lower by the factor 1 - dᵀΛd/2, on average over all d in a pixel.

    Parameters
    ----------
    psf : ndarray, (side, side)
        The filter.
    pixels : float
        Number of pixels A.
    bound : float
        Score u above which peaks count.

    Returns
    -------
    float
        Expected number.
    """
    stamp = np.asarray(psf, float)
    xx, yy, both = (
        -np.log(
            (stamp[: len(stamp) - j, : len(stamp) - i] * stamp[j:, i:]).sum() / (stamp**2).sum()
        )
        for j, i in ((0, 1), (1, 0), (1, 1))
    )
    curvature = np.array([[2.0 * xx, both - xx - yy], [both - xx - yy, 2.0 * yy]])
    nodes, weights = np.polynomial.legendre.leggauss(5)
    d = np.array(np.meshgrid(nodes, nodes)) / 2.0
    lower = 1.0 - 0.5 * np.einsum("aij,ab,bij->ij", d, curvature, d)
    u = bound / np.maximum(lower, 0.1)
    density = u * np.exp(-0.5 * u**2) * np.sqrt(np.linalg.det(curvature)) / (2.0 * np.pi) ** 1.5
    return float(2.0 * pixels * (np.outer(weights, weights) * density).sum() / 4.0)


def flood(score: Image, x: Ints, y: Ints, threshold: float) -> Footprints:
    """Grow the footprints of peaks and measure how far each peak stands above its saddle.

    Parameters
    ----------
    score : ndarray, (ny, nx)
        Score image.
    x, y : ndarray, (n,), int32
        Peaks in the order of `find_peaks`.
    threshold : float
        Footprints hold the pixels whose score exceeds it with the sign of the peak.

    Returns
    -------
    Footprints
        In the order of their highest peaks.
    """
    peaks = (y * np.int32(score.shape[1]) + x).astype(np.int32)
    return Footprints(*_flood(np.ascontiguousarray(score), peaks, np.float32(threshold)))


@compiled
def _flood(score: Image, peaks: Ints, threshold: np.float32) -> tuple[Ints, FloatArray, Ints, Ints]:
    ny, nx = score.shape
    height = score.ravel()
    owner = np.full(ny * nx, -1, np.int32)
    label = np.full(peaks.shape[0], -1, np.int32)
    start, pixels = [np.int32(0)], [np.int32(0) for _ in range(0)]
    for n in range(peaks.shape[0]):
        seed = int(peaks[n])
        if not abs(height[seed]) > threshold:
            continue
        if owner[seed] < 0:
            k = np.int32(len(start) - 1)
            sign = np.float32(1.0) if height[seed] > 0 else np.float32(-1.0)
            owner[seed] = k
            pixels.append(np.int32(seed))
            head = start[-1]
            while head < len(pixels):
                p = pixels[head]
                head += 1
                j, i = p // nx, p % nx
                for b in range(max(0, j - 1), min(ny, j + 2)):
                    for a in range(max(0, i - 1), min(nx, i + 2)):
                        q = b * nx + a
                        if owner[q] < 0 and sign * height[q] > threshold:
                            owner[q] = k
                            pixels.append(np.int32(q))
            start.append(np.int32(len(pixels)))
        label[n] = owner[seed]
    starts, members = np.empty(len(start), np.int32), np.empty(len(pixels), np.int32)
    for n in range(len(start)):
        starts[n] = start[n]
    for n in range(len(pixels)):
        members[n] = pixels[n]
    # `owner` is used again: rank of a pixel within its footprint, by falling height
    owner[:] = -1
    above = np.full(members.shape[0], np.inf)
    for f in range(starts.shape[0] - 1):
        part = slice(starts[f], starts[f + 1])
        _persist(height, nx, members[part], owner, above[part])
    persistence = np.full(peaks.shape[0], np.nan)
    for n in range(peaks.shape[0]):
        if label[n] >= 0:
            persistence[n] = above[starts[label[n]] + owner[peaks[n]]]
    return label, persistence, starts, members


@compiled
def _persist(height: Image, nx: int, members: Ints, rank: Ints, above: FloatArray) -> None:
    """Union-find over the pixels of one footprint in falling order of their height."""
    n = members.shape[0]
    value = np.empty(n)
    for m in range(n):
        value[m] = -abs(height[members[m]])
    order = np.argsort(value, kind="mergesort")
    root = np.arange(n)
    for r in range(n):
        p = members[order[r]]
        rank[p] = r
        best = -1
        for turn in range(2):
            for b in range(-1, 2):
                for a in range(-1, 2):
                    q = p + b * nx + a
                    if q < 0 or q >= rank.shape[0] or abs(q % nx - p % nx) > 1:
                        continue
                    m = rank[q]
                    if m < 0 or m >= r or height[q] * height[p] < 0:
                        continue
                    while root[m] != m:
                        root[m] = root[root[m]]
                        m = root[m]
                    if turn == 0:
                        best = m if best < 0 else min(best, m)
                    elif m != best:
                        above[m] = abs(height[members[order[m]]]) - abs(height[p])
                        root[m] = best
        if best >= 0:
            root[r] = best
