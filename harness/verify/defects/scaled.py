"""Defects of pixels by their size: fluxes, noise, background, coordinates, masks of all images."""

from __future__ import annotations

import dataclasses

import numpy as np

from harness.verify.copy import Copy
from harness.verify.defect import defect, graded
from pipeline.exposure import Difference, Exposure
from pipeline.masks import MASK_PLANES, bits

__all__: list[str] = []


def _with(difference: Difference, **changes: object) -> Difference:
    return dataclasses.replace(difference, exposure=difference.exposure.replace(**changes))


@graded("visit-flux-scale", "AG-00-10/zero-point/bias-mean", 0.01, 0.03, faint=0.001)
def visit_flux_scale(copy: Copy, amount: float) -> None:
    """Make the pixels of all visit images larger by a share of {}."""
    factor = np.float32(1 + amount)
    copy.images(lambda e: e.replace(image=factor * e.image, variance=factor**2 * e.variance))


@graded("variance", "AG-00-10/variance/truthful", 0.1, -0.1, faint=0.004)
def variance(copy: Copy, amount: float) -> None:
    """Make the variance of a visit image larger by a share of {}."""
    copy.image(lambda e: e.replace(variance=np.float32(1 + amount) * e.variance))


@graded("half-gain", "AG-00-10/components/amplifiers-level", 0.03, 0.01, faint=0.0002)
def half_gain(copy: Copy, amount: float) -> None:
    """Make one half of the detector of all visit images brighter by a share of {}."""

    def change(e: Exposure) -> Exposure:
        assert e.background is not None
        image = e.image.copy()
        half = image.shape[1] // 2
        image[:, :half] += np.float32(amount) * (image + e.background)[:, :half]
        return e.replace(image=image)

    copy.images(change)


@graded("pedestal", "AG-00-10/background/blank-sky", 0.1, -0.1, faint=0.005)
def pedestal(copy: Copy, amount: float) -> None:
    """Raise the background of all visit images by {} of the pixel noise."""
    copy.images(
        lambda e: e.replace(
            image=e.image + np.float32(amount) * np.sqrt(np.median(e.variance[::8, ::8]))
        )
    )


@graded("difference-flux-scale", "AG-00-20/pixels/flux", 0.01, 0.03, faint=0.001)
def difference_flux_scale(copy: Copy, amount: float) -> None:
    """Make the pixels of all differences larger by a share of {}."""
    factor = np.float32(1 + amount)
    copy.differences(lambda d: _with(d, image=factor * d.exposure.image))


@graded("difference-variance", "AG-00-15/noise/scaled", 0.1, -0.1, faint=0.01)
def difference_variance(copy: Copy, amount: float) -> None:
    """Make the variances of all differences larger by a share of {}."""
    factor = np.float32(1 + amount)
    copy.differences(
        lambda d: dataclasses.replace(
            _with(d, variance=factor * d.exposure.variance), null_variance=factor * d.null_variance
        )
    )


@graded("score-scale", "AG-00-15/noise/score", 0.05, -0.05, faint=0.005)
def score_scale(copy: Copy, amount: float) -> None:
    """Make the scores of all differences larger by a share of {}."""
    factor = np.float32(1 + amount)
    copy.differences(lambda d: dataclasses.replace(d, score=factor * d.score))


@graded("shifted-wcs", "AG-00-10/wcs/offset", 0.03, 0.1, faint=0.002)
def shifted_wcs(copy: Copy, amount: float) -> None:
    """Move the coordinates of all visit images by {} arcsec in declination."""

    def change(e: Exposure) -> Exposure:
        assert e.wcs is not None
        wcs = e.wcs.deepcopy()
        wcs.wcs.crval = wcs.wcs.crval + np.array([0.0, amount / 3600.0])
        return e.replace(wcs=wcs)

    copy.images(change)


@defect("lost-quarter", "AG-00-10/components/area")
def lost_quarter(copy: Copy) -> None:
    """Lose a quarter of the detector of one visit image."""

    def change(e: Exposure) -> Exposure:
        mask = e.mask.copy()
        mask[: mask.shape[0] // 2, : mask.shape[1] // 2] |= np.uint32(bits("NO_DATA"))
        return e.replace(mask=mask)

    copy.image(change)


@defect("renumbered-planes", "AG-00-10/masks/saturated-counts")
def renumbered_planes(copy: Copy) -> None:
    """Move every plane of the masks of all visit images on by one bit."""
    top = np.uint32((1 << len(MASK_PLANES)) - 1)
    copy.images(lambda e: e.replace(mask=(e.mask << np.uint32(1)) & top))


@defect("renumbered-difference-planes", "AG-00-20/pixels/flags")
def renumbered_difference_planes(copy: Copy) -> None:
    """Move every plane of the masks of all differences on by one bit."""
    top = np.uint32((1 << len(MASK_PLANES)) - 1)
    copy.differences(lambda d: _with(d, mask=(d.exposure.mask << np.uint32(1)) & top))
