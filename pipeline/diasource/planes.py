"""The pixels a measurement works on, in the one form that compiled loops take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.exposure import FloatArray, Image, Mask
from pipeline.psfphot import ForcedFlux, SplinePsf, forced_flux

__all__ = ["Planes"]


class Planes(NamedTuple):
    """Planes of one image, contiguous and of fixed types.

    Attributes
    ----------
    image, variance, null : ndarray, (ny, nx), float32
        Pixels, total variance and smooth source-free variance.
    mask : ndarray, (ny, nx), uint32
        Mask planes.
    bad : numpy.uint32
        Planes whose pixels are left out.
    """

    image: Image
    variance: Image
    null: Image
    mask: Mask
    bad: np.uint32

    @classmethod
    def of(
        cls, image: Image, variance: Image, null: Image | None, mask: Mask, bad: np.uint32
    ) -> Planes:
        """Bring planes into shape; without `null` every pixel weighs the same."""
        even = np.ones((1, 1), np.float32)
        return cls(
            np.ascontiguousarray(image, np.float32),
            np.ascontiguousarray(variance, np.float32),
            even if null is None else np.ascontiguousarray(null, np.float32),
            np.ascontiguousarray(mask, np.uint32),
            np.uint32(bad),
        )

    def forced_flux(self, psf: SplinePsf, at: FloatArray, radius: float = 8.0) -> ForcedFlux:
        """Fluxes of points at x and y of `at`, ``(n, 2)``, from pixels within `radius`."""
        return forced_flux(
            self.image, self.variance, self.null, self.mask, psf, *at.T, bad=self.bad, radius=radius
        )
