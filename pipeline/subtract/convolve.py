"""Exact convolution with a kernel that varies over the image.

The kernel is Σ_t T_t(x, y) K_t(u, v) with polynomials T of the position, so the convolution is
Σ_t T_t · (K_t ⊗ image): one forward and a few inverse transforms per tile, and no approximation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray, Image, MatchingKernel
from pipeline.subtract.pixels import add_term, cut

__all__ = [
    "Tile",
    "centres",
    "convolve",
    "fft_size",
    "frequencies",
    "inner",
    "tiles",
    "transform",
]

Tile = tuple[slice, slice]


def tiles(shape: tuple[int, int], core: int) -> Iterator[Tile]:
    """Divide an image into even tiles of about `core` pixels, row by row.

    Parameters
    ----------
    shape : tuple of int, (ny, nx)
        Size of the image.
    core : int, pixel
        Side of a tile, about.

    Yields
    ------
    Tile
        Part of the image.
    """
    n = [max(1, round(size / core)) for size in shape]
    rows = np.arange(n[0] + 1) * shape[0] // n[0]
    columns = np.arange(n[1] + 1) * shape[1] // n[1]
    for j in range(n[0]):
        for i in range(n[1]):
            yield slice(int(rows[j]), int(rows[j + 1])), slice(int(columns[i]), int(columns[i + 1]))


def centres(shape: tuple[int, int], core: int) -> tuple[FloatArray, FloatArray]:
    """Columns and rows of the middles of all tiles, in their order.

    Parameters
    ----------
    shape : tuple of int, (ny, nx)
        Size of the image.
    core : int, pixel
        Side of a tile, about.

    Returns
    -------
    x, y : ndarray, (n_tiles,), pixel
        Middles of the tiles.
    """
    places = [
        ((columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2)
        for rows, columns in tiles(shape, core)
    ]
    x, y = np.array(places).T
    return x, y


def fft_size(shape: tuple[int, int], core: int, half: int) -> tuple[int, int]:
    """Size of the transforms that hold every tile and its rim of `half` pixels.

    Parameters
    ----------
    shape : tuple of int, (ny, nx)
        Size of the image.
    core : int, pixel
        Side of a tile, about.
    half : int, pixel
        Half size of the kernel.

    Returns
    -------
    tuple of int, (ny, nx)
        Lengths with small prime factors.
    """
    sizes = [-(-n // max(1, round(n / core))) + 2 * half for n in shape]
    return fft.next_fast_len(sizes[0], real=True), fft.next_fast_len(sizes[1], real=True)


def frequencies(size: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Angular frequencies of the half plane of a real transform.

    Parameters
    ----------
    size : tuple of int, (ny, nx)
        Size of the transform.

    Returns
    -------
    along_y, along_x : ndarray, (ny, 1) and (nx // 2 + 1,), radian per pixel
        Of its rows and columns.
    """
    return 2 * np.pi * fft.fftfreq(size[0])[:, None], 2 * np.pi * fft.rfftfreq(size[1])


def transform(kernel: FloatArray, size: tuple[int, int]) -> npt.NDArray[np.complex64]:
    """Transform a small kernel that begins at the origin: what it filters moves by its half.

    Parameters
    ----------
    kernel : ndarray, (side, side)
        The kernel.
    size : tuple of int, (ny, nx)
        Size of the transform.

    Returns
    -------
    ndarray, (ny, nx // 2 + 1), complex64
        Half plane of the real transform.
    """
    rows = fft.rfft(kernel.astype(np.float32), size[1])
    return np.asarray(fft.fft(rows, size[0], axis=0))


def inner(plane: Image, tile: Tile, first: int) -> Image:
    """Cut the tile out of a filtered plane; it begins at `first` along both axes.

    Parameters
    ----------
    plane : ndarray, (ny, nx), float32
        Filtered tile with its rim.
    tile : Tile
        The tile.
    first : int, pixel
        Row and column at which it begins.

    Returns
    -------
    ndarray, float32
        A view of the size of the tile.
    """
    rows, columns = tile[0].stop - tile[0].start, tile[1].stop - tile[1].start
    return plane[first : first + rows, first : first + columns]


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
    spectra = [transform(term, size) for term in terms]
    out, padded = np.empty(shape, np.float32), np.empty(size, np.float32)
    for tile in tiles(shape, core):
        ends = (tile[0].start, tile[0].stop, tile[1].start, tile[1].stop)
        cut(image, ends[0], ends[2], half, padded)
        spectrum = fft.rfft2(padded)
        for k, kernel_spectrum in enumerate(spectra):
            piece = fft.irfft2(kernel_spectrum * spectrum, size)
            add_term(piece, k, 2 * half, ends, out)
    return out
