"""A difference whose noise is white, before it is measured and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.exposure import (
    Difference,
    Exposure,
    FloatArray,
    GridPsf,
    Image,
    Mask,
    MatchingKernel,
)
from pipeline.masks import bits, flagged
from pipeline.subtract.pixels import region_sums

__all__ = ["Whitened"]

_REGIONS = (8, 4)


@dataclass(frozen=True, eq=False)
class Whitened:
    """Planes of a difference, in the unit of the science image, and what is known of them.

    Attributes
    ----------
    image : ndarray, (ny, nx)
        The difference; NaN where there are no data.
    null_variance, variance : ndarray, (ny, nx)
        Variances of its source-free model, and with the counts of what only the science image
        shows.
    mask : ndarray, (ny, nx), uint32
        Its mask.
    source_free : ndarray of uint8, (ny, nx)
        Non-zero where a pixel is not masked, the template shows nothing and nothing has changed.
    background : ndarray, (ny, nx), optional
        Structure of the sky that was subtracted.
    psf : GridPsf
        Point spread function of the difference, of unit flux.
    sky : ndarray, (6,)
        Quadratic that was taken off.
    """

    image: Image
    null_variance: Image
    variance: Image
    mask: Mask
    source_free: npt.NDArray[np.uint8]
    background: Image | None
    psf: GridPsf
    sky: FloatArray

    @cached_property
    def regions(self) -> FloatArray:
        """Sums of source-free pulls over 8 × 4 regions, see `region_sums`."""
        return region_sums(self.image, self.variance, self.source_free, *_REGIONS)

    def difference(
        self, science: Exposure, score: Image, kernel: MatchingKernel, metrics: Mapping[str, float]
    ) -> Difference:
        """Make the product.

        Parameters
        ----------
        science : Exposure
            The science image, whose description the difference inherits.
        score : ndarray, (ny, nx)
            The score, changed in place: NaN where there are no data.
        kernel : MatchingKernel
            The kernel between the images as given.
        metrics : mapping
            Numbers about the quality.

        Returns
        -------
        Difference
            The product.
        """
        score[flagged(self.mask, bits("NO_DATA"))] = np.nan
        exposure = science.replace(
            image=self.image,
            variance=self.variance,
            mask=self.mask,
            psf=self.psf,
            background=self.background,
            noise_correlation=None,
            provenance={},
        )
        return Difference(exposure, score, self.null_variance, kernel, metrics)
