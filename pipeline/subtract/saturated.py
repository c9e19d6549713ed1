"""Saturated pixels of the convolved image as unknowns.

A clipped core leaves a halo as wide as the kernel in the difference.  The true values of its
pixels are what makes the difference vanish in the unsaturated surroundings: a small linear least
squares problem per core, solved with the kernel that is known already.  The core itself stays
masked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, MatchingKernel, polynomial_terms
from pipeline.subtract.prepare import WorkingImage

__all__ = ["groups", "restore"]

_MOST = 500
"""Pixels of the largest core that is solved."""

_RIDGE = 1e-5
_GAP = 2


def restore(
    matched: Image,
    source: WorkingImage,
    target: WorkingImage,
    saturated: npt.NDArray[np.bool_],
    kernel: MatchingKernel,
) -> int:
    """Solve for the saturated cores of the convolved image and correct its convolution.

    Parameters
    ----------
    matched : ndarray, (ny, nx)
        κ ⊗ source, changed in place.
    source, target : WorkingImage
        The convolved image and the one it has to match.
    saturated : ndarray of bool, (ny, nx)
        Saturated pixels of the source.
    kernel : MatchingKernel
        The kernel, background relative to the levels of the working.

    Returns
    -------
    int
        Number of cores solved.
    """
    y, x = np.nonzero(saturated)
    if not len(y):
        return 0
    label = groups(saturated.shape, y, x)
    solved = 0
    for k in range(int(label.max()) + 1):
        members = label == k
        if members.sum() <= _MOST:
            solved += _restore_core(matched, source, target, y[members], x[members], kernel)
    return solved


def groups(
    shape: tuple[int, ...], y: npt.NDArray[np.int64], x: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Label the connected groups of some pixels; gaps of a pixel do not divide them.

    Parameters
    ----------
    shape : tuple of int, (ny, nx)
        Size of the image.
    y, x : ndarray of int, (n,), pixel
        The pixels.

    Returns
    -------
    ndarray of int, (n,)
        Number of the group of each pixel.
    """
    rows = np.searchsorted(y, np.arange(shape[0] + 1))
    return _label(rows, y, x, _GAP)


@compiled
def _label(
    rows: npt.NDArray[np.int64],
    ys: npt.NDArray[np.int64],
    xs: npt.NDArray[np.int64],
    gap: int,
) -> npt.NDArray[np.int64]:
    """Label pixels that come row by row; row k begins at rows[k]."""
    label = np.full(len(ys), -1, np.int64)
    stack = np.empty(len(ys), np.int64)
    count = 0
    for start in range(len(ys)):
        if label[start] >= 0:
            continue
        label[start] = count
        stack[0], depth = start, 1
        while depth > 0:
            depth -= 1
            k = stack[depth]
            for v in range(max(0, ys[k] - gap), min(len(rows) - 1, ys[k] + gap + 1)):
                m = rows[v] + np.searchsorted(xs[rows[v] : rows[v + 1]], xs[k] - gap)
                while m < rows[v + 1] and xs[m] <= xs[k] + gap:
                    if label[m] < 0:
                        label[m] = count
                        stack[depth] = m
                        depth += 1
                    m += 1
        count += 1
    return label


def _restore_core(
    matched: Image,
    source: WorkingImage,
    target: WorkingImage,
    y: npt.NDArray[np.int64],
    x: npt.NDArray[np.int64],
    kernel: MatchingKernel,
) -> int:
    """Solve one core; zero if its surroundings say nothing."""
    half = kernel.basis.shape[-1] // 2
    ny, nx = matched.shape
    rows = slice(max(0, int(y.min()) - half), min(ny, int(y.max()) + half + 1))
    columns = slice(max(0, int(x.min()) - half), min(nx, int(x.max()) + half + 1))
    good = ~(target.bad[rows, columns] | source.bad[rows, columns])
    v, u = np.nonzero(good)
    v, u = v + rows.start, u + columns.start
    if len(v) < 3 * len(y):
        return 0
    response = _response(kernel.at(float(x.mean()), float(y.mean())), v, u, y, x)
    level = polynomial_terms(x.mean(), y.mean(), kernel.shape, 2)[0, : len(kernel.background)]
    residual = target.image[v, u] - matched[v, u] - float(level @ kernel.background)
    sigma = np.sqrt(
        target.variance[v, u] + kernel.sum_at(x.mean(), y.mean()) ** 2 * source.variance[v, u]
    )
    response /= sigma[:, None]
    matrix = response.T @ response
    matrix[np.diag_indices_from(matrix)] += _RIDGE * np.trace(matrix) / len(matrix)
    values = np.linalg.solve(matrix, response.T @ (residual / sigma))
    source.image[y, x] += values.astype(np.float32)
    _add(matched, kernel.at(float(x.mean()), float(y.mean())), y, x, values)
    return 1


def _response(
    kernel: FloatArray,
    v: npt.NDArray[np.int64],
    u: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    x: npt.NDArray[np.int64],
) -> FloatArray:
    """Kernel that carries core pixels (y, x) to their surroundings (v, u)."""
    half = kernel.shape[0] // 2
    dy, dx = v[:, None] - y + half, u[:, None] - x + half
    inside = (dy >= 0) & (dy <= 2 * half) & (dx >= 0) & (dx <= 2 * half)
    return np.where(inside, kernel[np.clip(dy, 0, 2 * half), np.clip(dx, 0, 2 * half)], 0.0)


def _add(
    matched: Image,
    kernel: FloatArray,
    y: npt.NDArray[np.int64],
    x: npt.NDArray[np.int64],
    values: FloatArray,
) -> None:
    ny, nx = matched.shape
    half = kernel.shape[0] // 2
    for v, u, value in zip(y.tolist(), x.tolist(), values, strict=True):
        y0, y1, x0, x1 = (
            max(0, v - half),
            min(ny, v + half + 1),
            max(0, u - half),
            min(nx, u + half + 1),
        )
        patch = kernel[y0 - v + half : y1 - v + half, x0 - u + half : x1 - u + half]
        matched[y0:y1, x0:x1] += (value * patch).astype(np.float32)
