"""Filling holes from the pixels round them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image
from pipeline.statistics import GAUSS_FWHM

__all__ = ["bridge", "fill_holes"]

_Flags = npt.NDArray[np.bool_]

_WIDEST, _BANKS = 3, 3
_SIGMA, _SNR = 1.3, 15.0
"""Width, in pixels, of the sharpest star and its peak over noise, for which bridges are built."""

_LEAST_ERROR = 0.02
"""Of any bridge, as a share of a star's flux: models of stars are no better."""


def _tables() -> tuple[FloatArray, FloatArray]:
    """Weights of the pixels on both banks of narrow gaps, (gap, pixel of it, pixel of the banks).

    The first are those of universal kriging with the autocovariance of Gaussian stars (Cressie
    1993, Statistics for Spatial Data, section 3.4): of the linear combinations that keep a sloping
    plane as it is, that with the least mean square error for stars anywhere.  The second
    interpolate linearly.
    """
    stars, lines = np.zeros((2, _WIDEST, _WIDEST, 2 * _BANKS))
    for gap in range(1, _WIDEST + 1):
        inside, banks = _pixels(gap)
        stars[gap - 1, :gap] = _kriging(banks, inside)
        share = (inside + 1) / (gap + 1)
        lines[gap - 1, :gap, _BANKS - 1 : _BANKS + 1] = np.column_stack([1 - share, share])
    return stars, lines


def _pixels(gap: int) -> tuple[FloatArray, FloatArray]:
    """Places of the pixels of a gap and of those on its banks, from the first of the gap on."""
    banks = np.concatenate([np.arange(-_BANKS, 0), np.arange(gap, gap + _BANKS)])
    return np.arange(gap, dtype=float), banks.astype(float)


def _kriging(known: FloatArray, wanted: FloatArray) -> FloatArray:
    n = len(known)
    matrix, right = np.zeros((n + 2, n + 2)), np.ones((n + 2, len(wanted)))
    matrix[:n, :n] = _covariance(known[:, None] - known) + np.identity(n) / _SNR**2
    matrix[n, :n], matrix[n + 1, :n] = 1.0, known
    matrix[:n, n:] = matrix[n:, :n].T
    right[:n], right[n + 1] = _covariance(known[:, None] - wanted), wanted
    return np.asarray(np.linalg.solve(matrix, right)[:n].T)


def _covariance(distance: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-(distance**2) / (4.0 * _SIGMA**2)))


_STARS, _LINES = _tables()


def bridge(
    image: Image,
    ys: npt.NDArray[np.int64],
    xs: npt.NDArray[np.int64],
    bad: _Flags,
    fwhm: float = GAUSS_FWHM * _SIGMA,
) -> npt.NDArray[np.float32]:
    """Fill gaps of up to three pixels between good ones, in place.

    Stars are known well from both sides of such a gap.  Gaps are bridged along rows or along
    columns, wherever they are narrower.

    Parameters
    ----------
    image : ndarray, (ny, nx), float32
        Changed where bridged.
    ys, xs : ndarray, (n,)
        Pixels to fill.
    bad : ndarray, (ny, nx), bool
        Unusable pixels, those to fill among them.
    fwhm : float, pixel
        Of the PSF, for the errors.

    Returns
    -------
    ndarray, (n,), float32
        Expected error as a share of the flux that a point source has in the gap; one where the
        gap is too wide, so that nothing was filled.
    """
    error: npt.NDArray[np.float32] = _errors(fwhm)[_bridge(image, ys, xs, bad, _STARS)]
    return error


def _errors(fwhm: float) -> npt.NDArray[np.float32]:
    """Root mean square error of gaps of every width over stars at all distances from the gap."""
    out = np.ones(_WIDEST + 1, np.float32)
    for gap in range(1, _WIDEST + 1):
        inside, banks = _pixels(gap)
        star = np.linspace(-3.0, gap + 2.0, 101)
        wanted, known = (np.exp(-4.0 * np.log(2.0) * ((u[:, None] - star) / fwhm) ** 2)
                         for u in (inside, banks))  # fmt: skip
        wrong = wanted - _STARS[gap - 1, :gap] @ known
        share = np.sqrt((wrong**2).sum() / (wanted**2).sum())
        out[gap] = np.clip(share, _LEAST_ERROR, 1.0)
    return out


def fill_holes(
    image: Image, variance: Image, holes: _Flags, unusable: _Flags, reach: int
) -> _Flags:
    """Interpolate flagged pixels, in place.

    Narrow gaps are bridged, see `bridge`.  For the others, in each of the four directions (row,
    column, two diagonals) the nearest good pixels on both sides give a linear interpolation; the
    directions are averaged with weights 1/gap², so that a bad column is bridged along the rows and
    a bad row along the columns.  Where no direction has two sides (edges), the nearest good pixels
    count alone.

    The variance becomes that of the neighbours, interpolated linearly: what the pixel
    would have had if it had been good, and never the smaller scatter of an average, since the
    value is no measurement.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx), float32
        Changed where filled.
    holes : ndarray, (ny, nx), bool
        Pixels to fill.
    unusable : ndarray, (ny, nx), bool
        Further pixels that must not be used as neighbours.
    reach : int, pixel
        How far to look; wider holes keep their inner pixels as they are.

    Returns
    -------
    ndarray, (ny, nx), bool
        What was filled.
    """
    bad = holes | unusable
    filled = np.zeros(holes.shape, np.bool_)
    y, x = np.nonzero(holes)
    done = bridge(image, y, x, bad) < 1.0
    _bridge(variance, y, x, bad, _LINES)
    filled[y[done], x[done]] = True
    _fill(image, variance, holes & ~filled, bad, reach, filled)
    return filled


@compiled
def _bridge(
    image: Image,
    ys: npt.NDArray[np.int64],
    xs: npt.NDArray[np.int64],
    bad: _Flags,
    weights: FloatArray,
) -> npt.NDArray[np.int64]:
    """Fill narrow gaps; return their widths, zero where a gap is too wide."""
    width = np.zeros(len(ys), np.int64)
    for k in range(len(ys)):
        y, x = ys[k], xs[k]
        row, column = _gap(bad[y], x), _gap(bad[:, x], y)
        if row[0] > 0 and (column[0] == 0 or row[0] <= column[0]):
            image[y, x] = _between(image[y], x, row, weights)
            width[k] = row[0]
        elif column[0] > 0:
            image[y, x] = _between(image[:, x], y, column, weights)
            width[k] = column[0]
    return width


@compiled
def _gap(bad: _Flags, x: int) -> tuple[int, int]:
    """Width of the gap round a pixel of a line and where it begins; zero if too wide."""
    first, last = x, x
    while first > 0 and bad[first - 1] and x - first < _WIDEST:
        first -= 1
    while last < len(bad) - 1 and bad[last + 1] and last - x < _WIDEST:
        last += 1
    gap = last - first + 1
    if gap > _WIDEST or first < _BANKS or last >= len(bad) - _BANKS:
        return 0, 0
    for k in range(1, _BANKS + 1):
        if bad[first - k] or bad[last + k]:
            return 0, 0
    return gap, first


@compiled
def _between(line: Image, x: int, gap: tuple[int, int], weights: FloatArray) -> float:
    """Value of a pixel of a gap from its banks."""
    width, first = gap
    own, value = weights[width - 1, x - first], 0.0
    for k in range(_BANKS):
        value += own[k] * line[first - _BANKS + k]
        value += own[_BANKS + k] * line[first + width + k]
    return value


@compiled
def _fill(
    image: Image, variance: Image, holes: _Flags, bad: _Flags, reach: int, filled: _Flags
) -> None:
    ny, nx = holes.shape
    for y in range(ny):
        for x in range(nx):
            if not holes[y, x]:
                continue
            value = spread = weight = 0.0
            near = lone_spread = lone_weight = 0.0
            for direction in range(4):
                dx = 0 if direction == 1 else 1
                dy = 0 if direction == 0 else (-1 if direction == 3 else 1)
                ahead = behind = 0
                for d in range(1, reach + 1):
                    i, j = y + d * dy, x + d * dx
                    if i < 0 or i >= ny or j >= nx:
                        break
                    if not bad[i, j]:
                        ahead = d
                        break
                for d in range(1, reach + 1):
                    i, j = y - d * dy, x - d * dx
                    if i < 0 or i >= ny or j < 0:
                        break
                    if not bad[i, j]:
                        behind = d
                        break
                length = 2.0 if direction > 1 else 1.0  # squared length of one step
                if ahead and behind:
                    w = 1.0 / (length * (ahead + behind) ** 2)
                    t = ahead / (ahead + behind)
                    i, j = y + ahead * dy, x + ahead * dx
                    k, m = y - behind * dy, x - behind * dx
                    value += w * ((1 - t) * image[i, j] + t * image[k, m])
                    spread += w * ((1 - t) * variance[i, j] + t * variance[k, m])
                    weight += w
                elif ahead or behind:
                    d = ahead if ahead else -behind
                    w = 1.0 / (length * d**2)
                    near += w * image[y + d * dy, x + d * dx]
                    lone_spread += w * variance[y + d * dy, x + d * dx]
                    lone_weight += w
            if weight == 0.0:
                value, spread, weight = near, lone_spread, lone_weight
            if weight > 0.0:
                image[y, x] = value / weight
                variance[y, x] = spread / weight
                filled[y, x] = True
