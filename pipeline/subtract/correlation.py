"""Undeclared noise autocovariances, measured in the difference itself.

A template found in an archive is a resampled coadd more often than not, and its noise is
correlated.  In the undecorrelated difference the static sky cancels, so its autocovariance is

    C(l) = s ρ_s(l) + t Σ_m ρ_t(m) A(l − m),    A = κ ⋆ κ,

and the few unknown lags of ρ_s and ρ_t follow from linear least squares with white noise as the
prior; what an image declares is known.  What is hard to tell apart does not matter: only the sum is
whitened.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray, Image, MatchingKernel
from pipeline.subtract.decorrelate import tile_of

__all__ = ["measured_correlation"]

_REGION = 512
_REACH = 3
"""Largest lag at which the images' own noise may be correlated."""

_LAGS = 9
"""Largest lag looked at in the difference."""

_PRIOR = {"science": 0.05, "template": 0.3}
"""Expected size of the correlations: it is templates that are resampled."""

_WHITE = 0.02
"""Correlations of neighbouring pixels below this are taken for errors of the measurement."""

_LEAST = 100_000
"""Blank pixels of a region from which its two dozen correlations are worth measuring."""

_CORE, _HALO, _DETECT = 5, 25, 4.0
"""Changed sources: boxcar that finds them, box that hides them, threshold."""


def measured_correlation(
    residual: Image,
    blank: npt.NDArray[np.uint8],
    kernel: MatchingKernel,
    powers: dict[str, Image],
    declared: Mapping[str, FloatArray | None],
    unknown: tuple[str, ...],
) -> dict[str, FloatArray]:
    """Measure the noise autocovariance of one or both images.

    Parameters
    ----------
    residual : ndarray, (ny, nx)
        Target minus matched source.
    blank : ndarray, (ny, nx)
        Non-zero where there is nothing but noise.
    kernel : MatchingKernel
        The matching kernel.
    powers : dict
        Coarse variances of ``science`` and ``template``.
    declared : mapping of str to ndarray, (cy, cx, k, k), or None
        Autocovariances of the images that are not to be measured, one in the middle; None where the
        noise is white.
    unknown : tuple of str
        Which of the two to measure.

    Returns
    -------
    dict
        For the names in `unknown` whose noise is not white an autocovariance per region,
        (ry, rx, 7, 7), one in the middle.  Regions with too few blank pixels count as white.
    """
    shape = kernel.shape
    regions = [max(1, round(size / _REGION)) for size in shape]
    out = {name: np.zeros((*regions, 2 * _REACH + 1, 2 * _REACH + 1)) for name in unknown}
    for values in out.values():
        values[..., _REACH, _REACH] = 1.0
    for j, rows in enumerate(_parts(shape[0], regions[0])):
        for i, columns in enumerate(_parts(shape[1], regions[1])):
            pixels, use = residual[rows, columns], blank[rows, columns] > 0
            if np.count_nonzero(use) < _LEAST:
                continue
            covariance, error = _autocovariance(pixels, use)
            x, y = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
            power = {name: float(_at(p, x, y, shape)) for name, p in powers.items()}
            known = _known(kernel, (x, y), power, declared, unknown)
            for name, lags in _solve(
                covariance - known, error, kernel, (x, y), power, unknown
            ).items():
                out[name][j, i] = lags
    coloured = {name: values for name, values in out.items() if not _looks_white(values)}
    if 0 < len(coloured) < len(out):  # what was ascribed to white noise belongs to the others
        return measured_correlation(residual, blank, kernel, powers, declared, tuple(coloured))
    return coloured


def _looks_white(values: FloatArray) -> bool:
    neighbours = values[..., [_REACH, _REACH + 1], [_REACH + 1, _REACH]].mean((0, 1))
    return bool(np.abs(neighbours).max() < _WHITE)


def _parts(size: int, n: int) -> list[slice]:
    edges = np.arange(n + 1) * size // n
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def _at(coarse: Image, x: float, y: float, shape: tuple[int, int]) -> np.floating:
    row, column = int(y * coarse.shape[0] / shape[0]), int(x * coarse.shape[1] / shape[1])
    box = np.s_[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    return np.median(coarse[box])


def _autocovariance(pixels: Image, use: npt.NDArray[np.bool_]) -> tuple[FloatArray, float]:
    """Covariance at lags up to `_LAGS`, (19, 19), and its standard error."""
    middle, spread = np.median(pixels[use]), np.percentile(pixels[use], [15.865, 84.135])
    use = use & (np.abs(pixels - middle) < 2.5 * (spread[1] - spread[0]))
    use &= ~_sources(np.where(use, pixels - middle, np.float32(0.0)))
    values = np.where(use, pixels - np.mean(pixels[use]), 0.0)
    size = [fft.next_fast_len(n + _LAGS, real=True) for n in pixels.shape]
    sums, counts = (_products(a.astype(np.float32), size) for a in (values, use))
    covariance = sums / np.maximum(counts, 1.0)
    return covariance, float(covariance[_LAGS, _LAGS] / np.sqrt(counts[_LAGS, _LAGS]))


def _sources(values: Image) -> npt.NDArray[np.bool_]:
    """Surroundings of what has changed: correlated light, not correlated noise."""
    from scipy.ndimage import uniform_filter

    smooth = uniform_filter(values, _CORE)
    low, high = np.percentile(smooth[::3, ::3], [15.865, 84.135])
    hot = np.abs(smooth) > _DETECT * 0.5 * (high - low)
    return np.asarray(uniform_filter(hot.astype(np.float32), _HALO) > 0.5 / _HALO**2)


def _products(plane: Image, size: list[int]) -> FloatArray:
    full = fft.irfft2(np.abs(fft.rfft2(plane, size)) ** 2, size)
    rolled = np.roll(full, (_LAGS, _LAGS), (0, 1))
    return np.asarray(rolled[: 2 * _LAGS + 1, : 2 * _LAGS + 1], float)


def _known(
    kernel: MatchingKernel,
    place: tuple[float, float],
    power: dict[str, float],
    declared: Mapping[str, FloatArray | None],
    unknown: tuple[str, ...],
) -> FloatArray:
    """Covariance of the difference if the noise of images to be measured were white."""
    total = np.zeros((2 * _LAGS + 1,) * 2)
    x, y = (np.array([value]) for value in place)
    for name, variance in power.items():
        lags = None if name in unknown else declared[name]
        own = np.ones((1, 1))
        if lags is not None:
            row, column = tile_of(lags.shape, x, y, kernel.shape)
            own = lags[row[0], column[0]]
        response = _response(kernel, place, name, _LAGS + own.shape[0] // 2)
        windows = np.lib.stride_tricks.sliding_window_view(response, own.shape)
        total += variance * np.einsum("yxvu,vu->yx", windows, own)
    return total


def _solve(
    excess: FloatArray,
    error: float,
    kernel: MatchingKernel,
    place: tuple[float, float],
    power: dict[str, float],
    unknown: tuple[str, ...],
) -> dict[str, FloatArray]:
    """Fit the unknown lags of one region to what white noise of these images leaves unexplained."""
    response = {name: _response(kernel, place, name, _LAGS + _REACH) for name in unknown}
    half = [
        (v, u) for v in range(_REACH + 1) for u in range(-_REACH, _REACH + 1) if (v, u) > (0, 0)
    ]
    rows = [
        power[name] * (_window(response[name], lag) + _window(response[name], _minus(lag)))
        for name in unknown
        for lag in half
    ]
    # A background that is left adds the same to all lags.
    design = np.array([*rows, np.full_like(excess, power["science"])])
    design = design.reshape(len(design), -1)
    prior = np.array([_PRIOR[name] for name in unknown for _ in half] + [1.0])
    matrix = design @ design.T / error**2 + np.diag(1.0 / prior**2)
    solution = np.linalg.solve(matrix, design @ excess.ravel() / error**2)[:-1]
    out = {}
    for name, values in zip(unknown, solution.reshape(len(unknown), -1), strict=True):
        lags = np.zeros((2 * _REACH + 1, 2 * _REACH + 1))
        lags[_REACH, _REACH] = 1.0
        for (v, u), value in zip(half, values, strict=True):
            lags[_REACH + v, _REACH + u] = lags[_REACH - v, _REACH - u] = value
        out[name] = lags
    return out


def _minus(lag: tuple[int, int]) -> tuple[int, int]:
    return -lag[0], -lag[1]


def _response(
    kernel: MatchingKernel, place: tuple[float, float], name: str, reach: int
) -> FloatArray:
    """Autocorrelation that the difference gives to white noise of an image, up to a lag."""
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    if name != kernel.convolved:
        out[reach, reach] = 1.0
        return out
    stamp = kernel.at(*place)
    size = 2 * stamp.shape[0] + 2 * reach
    full = np.fft.irfft2(np.abs(np.fft.rfft2(stamp, (size, size))) ** 2, (size, size))
    return np.asarray(np.roll(full, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1])


def _window(response: FloatArray, lag: tuple[int, int]) -> FloatArray:
    """Part of a response that a correlation at one lag moves into view."""
    y, x = _REACH - lag[0], _REACH - lag[1]
    return response[y : y + 2 * _LAGS + 1, x : x + 2 * _LAGS + 1]
