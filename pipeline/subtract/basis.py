"""Kernel functions: polynomials on Gaussians (Alard & Lupton 1998), stored as products.

All functions but the first sum to zero, so that the sum of the kernel, the photometric ratio, is
the coefficient of the first alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.exposure import FloatArray, Image

__all__ = ["Basis"]


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Separable kernel functions and the mixing that makes their sums zero.

    Attributes
    ----------
    lines : ndarray, (n_lines, side)
        One-dimensional factors, a Gaussian times a power each.
    pairs : ndarray, (n, 2)
        Factors along y and along x of every product.
    mixing : ndarray, (n, n)
        Functions = mixing @ products.
    """

    lines: FloatArray
    pairs: FloatArray
    mixing: FloatArray

    @classmethod
    def build(cls, sigmas: tuple[float, ...], degrees: tuple[int, ...], half: int) -> Basis:
        """Set up the functions for Gaussians of some widths and polynomial degrees."""
        u = np.arange(-half, half + 1, dtype=float)
        lines: list[FloatArray] = []
        pairs: list[tuple[int, int]] = []
        for sigma, degree in zip(sigmas, degrees, strict=True):
            first = len(lines)
            gauss = np.exp(-0.5 * (u / sigma) ** 2)
            lines += [gauss * (u / sigma) ** p for p in range(degree + 1)]
            pairs += [
                (first + total - p, first + p)
                for total in range(degree + 1)
                for p in range(total + 1)
            ]
        factors, index = np.array(lines), np.array(pairs)
        return cls(factors, index, _mixing(factors, index))

    @property
    def size(self) -> int:
        """Number of functions."""
        return len(self.pairs)

    @property
    def functions(self) -> FloatArray:
        """The functions, ``(n, side, side)``; the first has sum one, the others zero."""
        products = self.lines[self.pairs[:, 0], :, None] * self.lines[self.pairs[:, 1], None, :]
        return np.tensordot(self.mixing, products, axes=1)

    def convolve(self, stamps: FloatArray, out: Image) -> None:
        """Convolve stamps with every function, keeping what is free of their edges.

        Single precision is enough: rounding is a thousandth of the noise.

        Parameters
        ----------
        stamps : ndarray, (n_stamps, size, size)
            Images.
        out : ndarray, (n_stamps, n, size - 2 half, size - 2 half), float32
            Becomes the convolutions.
        """
        n, size, side = len(stamps), stamps.shape[-1], self.lines.shape[1]
        inner = size - side + 1
        toeplitz = np.zeros((len(self.lines), inner, size), np.float32)
        for k in range(inner):
            toeplitz[:, k, k : k + side] = self.lines[:, ::-1]
        rows = stamps.transpose(1, 0, 2).astype(np.float32, order="C").reshape(size * n, size)
        along_x = [(rows @ line.T).reshape(size, n * inner) for line in toeplitz]
        for k, (j, i) in enumerate(self.pairs):
            both = (toeplitz[j] @ along_x[i]).reshape(inner, n, inner)
            out[:, k] = both.transpose(1, 0, 2)
        mixing = self.mixing.astype(np.float32)
        for product in out:
            flat = product.reshape(self.size, -1)
            flat[:] = mixing @ flat


def _mixing(lines: FloatArray, pairs: FloatArray) -> FloatArray:
    sums, norms = lines.sum(1), (lines**2).sum(1)
    total = sums[pairs[:, 0]] * sums[pairs[:, 1]]
    mixing = np.identity(len(pairs))
    mixing[0, 0] /= total[0]
    norm = np.sqrt(norms[pairs[:, 0]] * norms[pairs[:, 1]])
    # Even functions lose the part that has a sum; odd ones have none.
    mixing[1:, 0] = np.where(np.abs(total[1:]) > 1e-9 * norm[1:], -total[1:] / total[0], 0.0)
    products = lines[pairs[:, 0], :, None] * lines[pairs[:, 1], None, :]
    functions = np.tensordot(mixing[1:], products, axes=1)
    mixing[1:] /= np.sqrt((functions**2).sum((1, 2)))[:, None]
    return mixing
