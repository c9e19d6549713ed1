"""The matching kernel of a pair: the direction, the stamps, the fit and a filter before it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import SubtractionError
from pipeline.exposure import Exposure, FloatArray
from pipeline.psfphot import hollow
from pipeline.subtract.basis import Basis
from pipeline.subtract.config import Config
from pipeline.subtract.fit import Fit, fit_kernel
from pipeline.subtract.preconvolve import design_filter, filtered
from pipeline.subtract.prepare import WorkingImage, check_overlap, prepare_pair
from pipeline.subtract.residual import convolved_and_target
from pipeline.subtract.stamps import Stamps, find, from_psfs, resized

__all__ = ["RESIDUAL_SHARE", "Match", "match_kernel"]

_LOG = logging.getLogger(__name__)

RESIDUAL_SHARE = 0.008
"""Share of their peak left of bright stars that calls for a filter of the image that is matched."""

_IMPROVEMENT = 0.5
"""Share of that share that may be left with the filter."""

_ALIKE = 0.98
"""Sharpness of the template over that of the science image from which on it is convolved."""

_SPARSE = {"kernel_half": 8, "stamp_half": 10, "stamp_snr": 8.0}  # 4 to 8 stars in 250 pixels


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """Two images and the kernel between them.

    Attributes
    ----------
    images : dict of str to Exposure
        ``science`` and ``template``; the one that is not convolved may have been filtered.
    fit : Fit
        The kernel and how it was found.
    """

    images: dict[str, Exposure]
    fit: Fit


def match_kernel(
    images: dict[str, Exposure], config: Config
) -> tuple[Match, dict[str, WorkingImage]]:
    """Find the kernel that takes one image to the other.

    Parameters
    ----------
    images : dict of str to Exposure
        ``science`` and ``template``, with the noise autocovariances that are known.
    config : Config
        Basis, spatial degrees, stamps.

    Returns
    -------
    match : Match
        The kernel and the images that it matches.
    working : dict of str to WorkingImage
        Working copies of these images.

    Raises
    ------
    PixelError
        If one of the images has no usable pixels.
    SubtractionError
        If the images do not overlap, or have too few sources in common and the template no PSF.
    """
    working = prepare_pair(images)
    check_overlap(working)
    try:
        stamps, config = _find_stamps(working, config, _rings(images))
    except SubtractionError:
        if images["template"].psf is None:
            raise
        return Match(images, _fit_psfs(images, working, config)), working
    fit = _fit(working, stamps, _direction(stamps, config), config)
    return _prefiltered(images, working, fit, config)


def _rings(images: dict[str, Exposure]) -> bool:
    """Whether the stars of either image are dark in their middles, as far out of focus."""
    return any(
        image.psf is not None and hollow(image.psf.at(image.shape[1] / 2, image.shape[0] / 2))
        for image in images.values()
    )


def _find_stamps(
    working: dict[str, WorkingImage], config: Config, rings: bool
) -> tuple[Stamps, Config]:
    """Find stamps; on small or empty fields smaller and fainter ones, for a smaller kernel."""
    try:
        return find(working["science"], working["template"], config, rings=rings), config
    except SubtractionError:
        smaller = {name: min(getattr(config, name), value) for name, value in _SPARSE.items()}
        config = config.model_copy(update=smaller)
        stamps = find(working["science"], working["template"], config, bridged=True, rings=rings)
    _LOG.info(
        "few sources: kernel of half width %d from %d stamps", config.kernel_half, len(stamps)
    )
    return stamps, config


def _direction(stamps: Stamps, config: Config) -> str:
    """Convolve the sharper image; when they are alike, the template."""
    science, template = stamps.sharpness
    convolved = config.convolve
    if convolved == "auto":
        convolved = "template" if template >= _ALIKE * science else "science"
    _LOG.info(
        "%s is convolved (%s); share of the flux in 3 x 3 pixels: science %.3f, template %.3f",
        convolved, config.convolve, science, template,
    )  # fmt: skip
    return convolved


def _fit(working: dict[str, WorkingImage], stamps: Stamps, convolved: str, config: Config) -> Fit:
    """Fit the kernel to the stamps."""
    correlation = working[convolved].correlation
    typical = None if correlation is None else correlation.mean((0, 1))
    return _logged(fit_kernel(stamps, convolved, working[convolved].shape, config, typical))


def _logged(fit: Fit) -> Fit:
    """Say which kernel was fitted."""
    kernel, used = fit.kernel, len(fit.kernel.fitted_stamps)
    _LOG.info(
        "kernel of spatial order %d (ratio %d) with %d functions from %d stamps, %d rejected; "
        "condition %.3g, bright stars keep %.4f of their peak", kernel.order, fit.ratio_order,
        len(kernel.basis), used, len(kernel.stamps) - used, kernel.condition, fit.residual_share,
    )  # fmt: skip
    return fit


def _fit_psfs(images: dict[str, Exposure], working: dict[str, WorkingImage], config: Config) -> Fit:
    """Fit the kernel to the PSF models where there are too few sources."""
    science, template = images["science"], images["template"]
    assert science.psf is not None
    assert template.psf is not None
    config = config.model_copy(update=_SPARSE)
    calibrated = science.unit == template.unit == "nJy"
    ratio = 1.0 if calibrated else find(working["science"], working["template"], config, 1).ratio
    _LOG.info(
        "too few sources: kernel from the PSF models, photometric ratio %.4f from %s",
        ratio, "the calibration" if calibrated else "the sources there are",
    )  # fmt: skip
    stamps = from_psfs(science.psf, template.psf, ratio, science.shape, config)
    fit = _logged(fit_kernel(stamps, _direction(stamps, config), science.shape, config))
    return replace(fit, kernel=replace(fit.kernel, stamps=np.zeros((0, 4))))


def _prefiltered(
    images: dict[str, Exposure], working: dict[str, WorkingImage], fit: Fit, config: Config
) -> tuple[Match, dict[str, WorkingImage]]:
    """Filter the image that is matched before it is, if that leaves much less of bright stars."""
    plain = Match(images, fit), working
    if fit.residual_share < RESIDUAL_SHARE or images["template"].psf is None:
        return plain
    source, target = convolved_and_target(fit.kernel)
    before = _design_filter(images[source], images[target], config)
    image = filtered(
        images[target], working[target], target, before, config.dilation_share, config.tile
    )
    images = {**images, target: image}
    others = prepare_pair(images)
    try:
        stamps = find(others["science"], others["template"], config)
        other = _fit(others, stamps, source, config)
    except SubtractionError:
        return plain
    better = other.residual_share <= _IMPROVEMENT * fit.residual_share
    _LOG.info(
        "bright stars keep %.4f of their peak, with the %s filtered before %.4f: filter %s",
        fit.residual_share, target, other.residual_share, "kept" if better else "dropped",
    )  # fmt: skip
    if not better:
        return plain
    return Match(images, replace(other, kernel=replace(other.kernel, before=before))), others


def _design_filter(source: Exposure, target: Exposure, config: Config) -> FloatArray:
    """Design the filter for the PSFs in the middle of the image."""
    assert source.psf is not None
    assert target.psf is not None
    middle = ((source.shape[1] - 1) / 2, (source.shape[0] - 1) / 2)
    basis = Basis.build(config.sigmas, config.degrees, config.kernel_half)
    one, other = source.psf.at(*middle), target.psf.at(*middle)
    return design_filter(resized(one[None], len(other))[0], other, basis)
