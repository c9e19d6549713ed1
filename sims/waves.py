"""Smooth random functions of the position in the focal plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray

__all__ = ["Waves"]


@dataclass(frozen=True, slots=True, eq=False)
class Waves:
    """A sum of a few sine waves.

    Attributes
    ----------
    modes : ndarray, (n, 4)
        Amplitude, wave vector (rad / mm) and phase of each.
    """

    modes: FloatArray

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        amplitude: float,
        lengths: tuple[float, float],
        n: int = 5,
    ) -> Waves:
        """Draw waves.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of the numbers.
        amplitude : float
            Largest excursion the sum can have is `amplitude` times `n`; its rms is about
            ``0.53 amplitude √n``.
        lengths : tuple of float, mm
            Range of the wave lengths.
        n : int
            Number of waves.
        """
        direction = rng.uniform(0, 2 * np.pi, n)
        number = 2 * np.pi / rng.uniform(*lengths, n)
        strength = amplitude * rng.uniform(0.5, 1.0, n)
        phase = rng.uniform(0, 2 * np.pi, n)
        columns = [strength, number * np.cos(direction), number * np.sin(direction), phase]
        return cls(np.stack(columns, axis=1))

    def at(self, x_mm: npt.ArrayLike, y_mm: npt.ArrayLike) -> FloatArray:
        """Return the values at positions in the focal plane; any shape."""
        x, y = np.asarray(x_mm, float)[..., None], np.asarray(y_mm, float)[..., None]
        a, kx, ky, phase = self.modes.T
        return np.asarray((a * np.sin(kx * x + ky * y + phase)).sum(axis=-1))
