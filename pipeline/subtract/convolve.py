"""Exact convolution with a kernel that varies over the image.

The kernel is Σ_t T_t(x, y) K_t(u, v) with polynomials T of the position, so the convolution is
Σ_t T_t · (K_t ⊗ image): one forward and a few inverse transforms per tile, and no approximation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray, Image, MatchingKernel
from pipeline.subtract.pixels import combine

__all__ = ["Tile", "convolve", "cut", "fft_size", "inner", "padded_transform", "tiles"]

Tile = tuple[slice, slice]


def tiles(shape: tuple[int, int], core: int) -> Iterator[Tile]:
    """Divide an image into even tiles of about `core` pixels, row by row."""
    n = [max(1, round(size / core)) for size in shape]
    rows = np.arange(n[0] + 1) * shape[0] // n[0]
    columns = np.arange(n[1] + 1) * shape[1] // n[1]
    for j in range(n[0]):
        for i in range(n[1]):
            yield slice(int(rows[j]), int(rows[j + 1])), slice(int(columns[i]), int(columns[i + 1]))


def fft_size(shape: tuple[int, int], core: int, half: int) -> tuple[int, int]:
    """Size of the transforms that hold every tile and its rim of `half` pixels."""
    sizes = [-(-n // max(1, round(n / core))) + 2 * half for n in shape]
    return fft.next_fast_len(sizes[0], real=True), fft.next_fast_len(sizes[1], real=True)


def cut(image: npt.NDArray[Any], tile: Tile, half: int, size: tuple[int, int]) -> npt.NDArray[Any]:
    """Cut a tile with its rim, mirrored at the edge of the image, zeros beyond."""
    out = np.zeros(size, image.dtype)
    ny, nx = image.shape
    y0, y1, x0, x1 = (
        tile[0].start - half,
        tile[0].stop + half,
        tile[1].start - half,
        tile[1].stop + half,
    )
    if y0 >= 0 and x0 >= 0 and y1 <= ny and x1 <= nx:
        out[: y1 - y0, : x1 - x0] = image[y0:y1, x0:x1]
        return out
    rows = _mirror(np.arange(y0, y1), ny)
    columns = _mirror(np.arange(x0, x1), nx)
    out[: y1 - y0, : x1 - x0] = image[rows[:, None], columns]
    return out


def inner(planes: Image, tile: Tile, half: int) -> Image:
    """Take the rim off filtered tiles."""
    rows, columns = tile[0].stop - tile[0].start, tile[1].stop - tile[1].start
    return planes[..., half : half + rows, half : half + columns]


def _mirror(index: npt.NDArray[np.int_], size: int) -> npt.NDArray[np.int_]:
    index = np.abs(index)
    return np.clip(np.where(index >= size, 2 * size - 2 - index, index), 0, size - 1)


def padded_transform(kernels: FloatArray, size: tuple[int, int]) -> npt.NDArray[np.complex64]:
    """Transform small kernels, their middle moved to the origin."""
    half_y, half_x = kernels.shape[-2] // 2, kernels.shape[-1] // 2
    wide = np.zeros((*kernels.shape[:-2], *size), np.float32)
    for rows, from_rows in _wrapped(half_y):
        for columns, from_columns in _wrapped(half_x):
            wide[..., rows, columns] = kernels[..., from_rows, from_columns]
    return np.asarray(fft.rfft2(wide))


def _wrapped(half: int) -> tuple[tuple[slice, slice], ...]:
    """Where the upper and the lower half of a centred kernel go when its middle is the origin."""
    upper = slice(0, half + 1), slice(half, 2 * half + 1)
    return (upper, (slice(-half, None), slice(0, half))) if half else (upper,)


def convolve(image: Image, kernel: MatchingKernel, core: int) -> Image:
    """Convolve an image with a spatially varying kernel.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Finite everywhere; mirrored at its edges.
    kernel : MatchingKernel
        The kernel.
    core : int, pixel
        Size of the tiles.

    Returns
    -------
    ndarray, (ny, nx)
        κ ⊗ image.
    """
    shape = (int(image.shape[0]), int(image.shape[1]))
    half = kernel.basis.shape[-1] // 2
    size = fft_size(shape, core, half)
    terms = np.tensordot(kernel.coefficients.T, kernel.basis, axes=1)
    spectra = padded_transform(terms, size)
    out = np.empty(shape, np.float32)
    for tile in tiles(shape, core):
        spectrum = fft.rfft2(cut(image, tile, half, size))
        pieces = fft.irfft2(spectra * spectrum, size)
        combine(pieces, half, kernel.order, tile[0].start, tile[1].start, out[tile], shape)
    return out
