"""From two registered exposures to a difference: the order of the steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.errors import SubtractionError
from pipeline.exposure import Difference, Exposure, FloatArray, Image, MatchingKernel, Psf
from pipeline.masks import bits, flagged
from pipeline.subtract.basis import Basis
from pipeline.subtract.config import Config
from pipeline.subtract.correlation import measured_correlation
from pipeline.subtract.decorrelate import Filters, design
from pipeline.subtract.fit import Fit, fit_kernel
from pipeline.subtract.matched import absolute, match, roles
from pipeline.subtract.metrics import measure
from pipeline.subtract.planes import Layer, prepare
from pipeline.subtract.preconvolve import design_filter, filtered
from pipeline.subtract.score import score
from pipeline.subtract.sky import (
    Colour,
    Sky,
    colour,
    dark_sky,
    looks_wide,
    noise_excess,
    structure,
    without_changes,
)
from pipeline.subtract.stamps import Stamps, find, from_psfs, resized

__all__ = ["run", "wants_template_psf"]

_LEAST_TILE = 64
_MUCH, _BETTER = 0.008, 0.5
"""Share of their peak left of bright stars that calls for a filter of the image that is matched,
and the share of that share that may be left with the filter."""

_COLOURED, _ROUNDS = 0.003, 2
"""Correlation of neighbouring pixels of a difference that calls for a measurement of the noise,
and how often: a kernel fitted with the right noise shows it better."""

_SPARSE = {"kernel_half": 8, "stamp_half": 10, "stamp_snr": 8.0}  # 4 to 8 stars in 250 pixels


def run(science: Exposure, template: Exposure, config: Config | None = None) -> Difference:
    """Subtract a template from a science exposure.

    Parameters
    ----------
    science : Exposure
        The image in which things have changed, with its PSF.
    template : Exposure
        The same sky on the same pixels.
    config : Config, optional
        See `Config`.

    Returns
    -------
    Difference
        In the flux unit of the science image.  NaN where either image has no data.

    Raises
    ------
    PixelError
        If one of the images has no usable pixels.
    SubtractionError
        If they do not overlap, or fewer than three sources can be used for the kernel and the
        template has no PSF, or nothing tells the photometric ratio.

    Notes
    -----
    The images' `noise_correlation` is respected.  Where an image declares none and the difference
    does not come out white, it is measured, and the images are subtracted again.

    With fewer than three sources the kernel is that which takes one PSF model to the other.  Its
    sum is one if both images are in nJy, otherwise that of the one or two sources there are.  The
    metrics then say ``nStamps`` 0.
    """
    config = _fine_tiles(config or Config(), science.shape)
    if science.shape != template.shape:
        raise SubtractionError(
            "science and template are not on the same pixels",
            science=str(science.shape),
            template=str(template.shape),
        )
    if science.psf is None:
        raise SubtractionError("the science exposure has no PSF, so the difference can have none")
    made, fit = _subtracted(science, template, config)
    pair = {"science": science, "template": template}
    coloured: dict[str, FloatArray] = {}
    for _ in range(_ROUNDS if config.decorrelate else 0):
        if not _looks_coloured(made):
            break
        found = _measured_colours(science, template, fit, config)
        if not found:
            break
        del made  # its memory is needed
        coloured |= found
        told = {n: e.replace(noise_correlation=coloured.get(n, e.noise_correlation))
                for n, e in pair.items()}  # fmt: skip
        made, fit = _subtracted(told["science"], told["template"], config)
    return replace(made, metrics={**made.metrics, "measuredColours": float(len(coloured))})


def _subtracted(science: Exposure, template: Exposure, config: Config) -> tuple[Difference, Fit]:
    """Subtract with the noise that the images declare."""
    layers = _prepared(science, template)
    _check_overlap(layers)
    assert science.psf is not None
    try:
        stamps, config = _stamps(layers, config)
    except SubtractionError:
        if template.psf is None:
            raise
        config = config.model_copy(update=_SPARSE)
        calibrated = science.unit == template.unit == "nJy"
        ratio = 1.0 if calibrated else find(layers["science"], layers["template"], config, 1).ratio
        fit = _fit_psfs(science.psf, template.psf, ratio, science.shape, config)
    else:
        fit = _fit(layers, stamps, _direction(stamps, config), config)
        science, template, layers, fit = _preconvolved(science, template, layers, fit, config)
    made = _difference(science, template, layers, fit, config, None)
    if isinstance(made, Sky):  # a second look; the planes of the first are gone by now
        layers.update(_prepared(science, template))
        made = _difference(science, template, layers, fit, config, made)
    assert isinstance(made, Difference)
    return made, fit


def _looks_coloured(difference: Difference) -> bool:
    """Whether noise that should be white correlates from pixel to pixel."""
    pixels = difference.metrics["blankFraction"] * difference.score.size
    error = 1.0 / np.sqrt(max(2.0 * pixels, 1.0))
    return bool(abs(difference.metrics["lag1"]) > max(_COLOURED, 5.0 * error))


def _measured_colours(
    science: Exposure, template: Exposure, fit: Fit, config: Config
) -> dict[str, FloatArray]:
    """Noise autocovariances of images that declare none, where they are not white."""
    pair, kernel = {"science": science, "template": template}, fit.kernel
    unknown = tuple(name for name, e in pair.items() if e.noise_correlation is None)
    if not unknown or kernel.before is not None:
        return {}
    layers = _prepared(science, template)
    planes = match(science, template, layers, kernel, config)
    powers = {name: layer.noise**2 for name, layer in layers.items()}
    return measured_correlation(planes.residual, planes.blank, kernel, powers, unknown)


def wants_template_psf(difference: Difference) -> bool:
    """Tell whether bright stars keep so much that the template's PSF would help to do better.

    Parameters
    ----------
    difference : Difference
        Made by `run` of a template without a PSF.

    Returns
    -------
    bool
        Whether `run` would try a filter if the template had one.
    """
    return difference.metrics["starLeft"] >= _MUCH


def _fit(layers: dict[str, Layer], stamps: Stamps, convolved: str, config: Config) -> Fit:
    correlation = layers[convolved].correlation
    typical = None if correlation is None else correlation.mean((0, 1))
    return fit_kernel(stamps, convolved, layers[convolved].shape, config, typical)


def _preconvolved(
    science: Exposure, template: Exposure, layers: dict[str, Layer], fit: Fit, config: Config
) -> tuple[Exposure, Exposure, dict[str, Layer], Fit]:
    """Filter the image that is matched before it is, if that leaves much less of bright stars."""
    if fit.left < _MUCH or template.psf is None:
        return science, template, layers, fit
    pair = {"science": science, "template": template}
    source, target = roles(fit.kernel)
    before = _filter(pair[source], pair[target], config)
    pair[target] = filtered(
        pair[target], layers[target], target, before, config.dilation_share, config.tile
    )
    others = _prepared(pair["science"], pair["template"])
    try:
        stamps = find(others["science"], others["template"], config)
        other = _fit(others, stamps, source, config)
    except SubtractionError:
        return science, template, layers, fit
    if other.left > _BETTER * fit.left:
        return science, template, layers, fit
    other = replace(other, kernel=replace(other.kernel, before=before))
    return pair["science"], pair["template"], others, other


def _filter(source: Exposure, target: Exposure, config: Config) -> FloatArray:
    """Design the filter for the PSFs in the middle of the image."""
    assert source.psf is not None
    assert target.psf is not None
    middle = ((source.shape[1] - 1) / 2, (source.shape[0] - 1) / 2)
    basis = Basis.build(config.sigmas, config.degrees, config.kernel_half)
    one, other = source.psf.at(*middle), target.psf.at(*middle)
    return design_filter(resized(one[None], len(other))[0], other, basis)


def _prepared(science: Exposure, template: Exposure) -> dict[str, Layer]:
    return {"science": prepare(science, "science"), "template": prepare(template, "template")}


def _fine_tiles(config: Config, shape: tuple[int, int]) -> Config:
    """Four tiles per axis at least: seeing and noise vary over small images too."""
    tile = min(config.tile, max(_LEAST_TILE, min(shape) // 4))
    return config.model_copy(update={"tile": tile})


def _check_overlap(layers: dict[str, Layer]) -> None:
    common = ~(layers["science"].bad | layers["template"].bad)
    if np.count_nonzero(common) < 100:
        raise SubtractionError(
            "science and template have no usable pixels in common", common=int(common.sum())
        )


def _stamps(layers: dict[str, Layer], config: Config) -> tuple[Stamps, Config]:
    """Find stamps; on small or empty fields smaller and fainter ones, for a smaller kernel."""
    try:
        return find(layers["science"], layers["template"], config), config
    except SubtractionError:
        smaller = {name: min(getattr(config, name), value) for name, value in _SPARSE.items()}
        config = config.model_copy(update=smaller)
        return find(layers["science"], layers["template"], config, bridged=True), config


def _fit_psfs(
    science: Psf, template: Psf, ratio: float, shape: tuple[int, int], config: Config
) -> Fit:
    """Fit the kernel to the PSF models where there are too few sources."""
    stamps = from_psfs(science, template, ratio, shape, config)
    fit = fit_kernel(stamps, _direction(stamps, config), shape, config)
    return replace(fit, kernel=replace(fit.kernel, stamps=np.zeros((0, 4))))


def _direction(stamps: Stamps, config: Config) -> str:
    """Convolve the sharper image; when they are alike, the template."""
    if config.convolve != "auto":
        return config.convolve
    science, template = stamps.sharpness
    return "template" if template >= 0.98 * science else "science"


def _difference(
    science: Exposure,
    template: Exposure,
    layers: dict[str, Layer],
    fit: Fit,
    config: Config,
    sky: Sky | None,
) -> Difference | Sky:
    """Subtract with what is known of the sky, or return what has been found out about it."""
    kernel = fit.kernel
    assert science.psf is not None
    planes = match(science, template, layers, kernel, config)
    mask, blank = planes.mask, planes.blank
    layers.update({name: layer.without_pixels() for name, layer in layers.items()})
    filters = _filters(layers, kernel, config, sky)
    psf = filters.psf(science.psf, kernel)
    if sky is not None:
        planes.lower(sky.background, kernel)
    if sky is not None or kernel.before is not None:
        filters, psf = filters.scaled(psf)
    image, null_variance, variance = planes.whiten(filters, layers, kernel, config)
    calm = without_changes(image, null_variance, blank)
    background = structure(image, null_variance, calm) if sky is None else sky.background
    significance = score(image, null_variance, planes.usable, psf, config.tile)
    width = 1.0
    if config.decorrelate and looks_wide(significance, blank):
        dark = dark_sky(variance, null_variance, blank)
        found = colour(image, null_variance, significance, dark) if sky is None else None
        if found is not None:
            return Sky(background, found)
        width = noise_excess(significance, dark)
        significance /= np.float32(width)
        null_variance *= np.float32(width**2)
    metrics = measure(image, variance, significance, mask, calm, fit)
    metrics |= _about(width, background, None if sky is None else sky.colour)
    significance[flagged(mask, bits("NO_DATA"))] = np.nan
    exposure = science.replace(
        image=image,
        variance=variance,
        mask=mask,
        psf=psf,
        background=background,
        noise_correlation=None,
        provenance={},
    )
    return Difference(exposure, significance, null_variance, absolute(kernel, layers), metrics)


def _about(width: float, background: Image | None, colour: Colour | None) -> dict[str, float]:
    """Metrics of what the images' own noise does not explain."""
    return {
        "scoreExcess": width,
        "excessNoise": 0.0 if colour is None else colour.share,
        "excessWidth": float("nan") if colour is None else colour.width,
        "backgroundRms": 0.0 if background is None else float(background[::3, ::3].std()),
    }


def _filters(
    layers: dict[str, Layer], kernel: MatchingKernel, config: Config, sky: Sky | None
) -> Filters:
    """Design the decorrelation with what is known of the noise."""
    powers = {name: layer.noise**2 for name, layer in layers.items()}
    known = {name: layer.correlation for name, layer in layers.items()}
    excess = None if sky is None else sky.colour
    return design(kernel, powers, known, config.tile, whiten=config.decorrelate, excess=excess)
