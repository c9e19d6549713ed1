"""Smooth compact kernels as a few products of a column and a row.

A positive kernel that varies slowly, such as the square of a PSF, is all but separable: a few
terms of its singular value decomposition filter an image at a fraction of a transform's cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import add_row, compiled
from pipeline.exposure import FloatArray, Image

__all__ = ["Separable", "correlate"]

_TAIL = 1e-3
"""Share of a kernel that may lie outside of its box."""

_REST = 5e-3
"""Root of the share of a kernel's power that the terms left out may have."""


@dataclass(frozen=True, slots=True, eq=False)
class Separable:
    """Kernels as sums of products, all with the same number of terms.

    Attributes
    ----------
    columns, rows : ndarray, (n, terms, side), float32
        Factors.
    """

    columns: npt.NDArray[np.float32]
    rows: npt.NDArray[np.float32]

    @classmethod
    def of(cls, kernels: FloatArray) -> Separable:
        """Factorise positive kernels, (n, side, side), whose sums are kept but for the rims."""
        kernels = _trimmed(np.asarray(kernels, float))
        u, s, v = np.linalg.svd(kernels)
        rest = 1.0 - np.cumsum(s**2, axis=1) / (s**2).sum(1, keepdims=True)
        rest = np.sqrt(np.maximum(rest, 0.0) + 1e-15)
        terms = 1 + int(np.count_nonzero(rest.max(0) > _REST))
        columns = np.swapaxes(u[:, :, :terms] * s[:, None, :terms], 1, 2)
        rows = v[:, :terms]
        sums = np.einsum("kti,ktj->k", columns, rows)
        columns *= (kernels.sum((1, 2)) / sums)[:, None, None]
        return cls(
            np.ascontiguousarray(columns, np.float32), np.ascontiguousarray(rows, np.float32)
        )

    @property
    def half(self) -> int:
        """Half width of the kernels."""
        return int(self.rows.shape[-1] // 2)


def _trimmed(kernels: FloatArray) -> FloatArray:
    """Cut off the rims that hold next to nothing."""
    total = np.abs(kernels).sum((1, 2))
    for trim in range(kernels.shape[-1] // 2, 0, -1):
        inside = kernels[:, trim:-trim, trim:-trim]
        if np.all(np.abs(inside).sum((1, 2)) >= (1.0 - _TAIL) * total):
            return inside
    return kernels


def correlate(
    plane: Image, first: int, columns: Image, rows: Image, shape: tuple[int, int]
) -> Image:
    """Correlate a tile with a kernel given by its factors.

    Parameters
    ----------
    plane : ndarray, contiguous
        The tile with its rim.
    first : int
        Where in the plane, along both axes, the rim of half a kernel begins.
    columns, rows : ndarray, (terms, side)
        Factors of the kernel.
    shape : tuple of int
        Size of the tile.

    Returns
    -------
    ndarray, (ny, nx)
        Σ K(v, u) plane(y + v, x + u).
    """
    out = np.zeros(shape, np.float32)
    _correlate(plane, first, columns, rows, out)
    return out


@compiled
def _correlate(plane: Image, first: int, columns: Image, rows: Image, out: Image) -> None:
    height, width = out.shape
    terms, side = rows.shape
    line = np.empty(width, np.float32)
    for y in range(height + side - 1):
        row = plane[first + y]
        for t in range(terms):
            line[:] = 0
            for i in range(side):
                add_row(line, row[first + i : first + i + width], rows[t, i])
            for j in range(max(0, y - height + 1), min(side, y + 1)):
                add_row(out[y - j], line, columns[t, j])
