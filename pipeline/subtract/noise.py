"""Noise model of a subtraction: immutable, replaced by a better one from pass to pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from pipeline.exposure import Exposure, FloatArray, Image
from pipeline.subtract.excess import NoiseExcess

__all__ = ["NoiseModel"]


@dataclass(frozen=True, slots=True, eq=False)
class NoiseModel:
    """Noise of the two images and of their difference, as far as it is known.

    Attributes
    ----------
    correlations : mapping of str to ndarray, (cy, cx, k, k), or None
        Autocovariances of ``science`` and ``template``, one in the middle, see
        `Exposure.noise_correlation`; None where the noise is taken as white.
    measured : frozenset of str
        Names of the images whose autocovariance was measured, for they declare none.
    measurements : int
        How often autocovariances have been measured.
    excess : NoiseExcess, optional
        Correlated noise of the difference beyond that of the images.
    background : ndarray, (ny, nx), optional
        Structure of the sky found together with the excess, to be subtracted before the noise
        is whitened, `unit` of the science image.
    """

    correlations: Mapping[str, FloatArray | None]
    measured: frozenset[str] = frozenset()
    measurements: int = 0
    excess: NoiseExcess | None = None
    background: Image | None = None

    @classmethod
    def declared(cls, images: Mapping[str, Exposure]) -> NoiseModel:
        """Take what the images declare about themselves."""
        return cls(MappingProxyType({n: e.noise_correlation for n, e in images.items()}))

    @property
    def undeclared(self) -> tuple[str, ...]:
        """Names of the images that declare no autocovariance."""
        return tuple(n for n, c in self.correlations.items() if c is None or n in self.measured)

    def assigned(self, images: Mapping[str, Exposure]) -> dict[str, Exposure]:
        """Give the images the autocovariances of this model."""
        return {
            name: image.replace(noise_correlation=self.correlations[name])
            for name, image in images.items()
        }

    def with_excess(self, excess: NoiseExcess, background: Image | None) -> NoiseModel:
        """Add what the images do not explain."""
        return replace(self, excess=excess, background=background)

    def settled(self, measurements: int) -> NoiseModel:
        """Let so many measurements have been made: no autocovariance is measured any more."""
        return replace(self, measurements=measurements)

    def with_correlations(self, found: Mapping[str, FloatArray]) -> NoiseModel:
        """Add measured autocovariances; the excess beyond the old ones is forgotten."""
        return replace(
            self,
            correlations=MappingProxyType({**self.correlations, **found}),
            measured=self.measured | found.keys(),
            measurements=self.measurements + 1,
            excess=None,
            background=None,
        )
