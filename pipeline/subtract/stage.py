"""From two registered exposures to a difference: the order of the steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.errors import SubtractionError
from pipeline.exposure import (
    Difference,
    Exposure,
    FloatArray,
    Image,
    Mask,
    MatchingKernel,
    Psf,
    bits,
    flagged,
)
from pipeline.subtract.basis import Basis
from pipeline.subtract.config import Config
from pipeline.subtract.convolve import convolve
from pipeline.subtract.correlation import measured_correlation
from pipeline.subtract.decorrelate import Filters, apply, design
from pipeline.subtract.fit import Fit, fit_kernel
from pipeline.subtract.masks import EXCLUDED, propagate
from pipeline.subtract.metrics import measure
from pipeline.subtract.pixels import below, finish, residual
from pipeline.subtract.planes import UNUSABLE, Layer, prepare
from pipeline.subtract.preconvolve import design_filter, filtered
from pipeline.subtract.saturated import restore
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
from pipeline.subtract.wings import bright_stars, remove_wings

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
    mask = _propagated(science, template, layers, kernel, config)
    usable = (~flagged(mask, EXCLUDED)).view(np.uint8)
    planes = _matched(science, template, layers, kernel, usable, config)
    powers = {name: layer.noise**2 for name, layer in layers.items()}
    blank = _blank(layers["template"], usable)
    return measured_correlation(planes.residual, blank, kernel, powers, unknown)


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
    source, target = _roles(fit.kernel)
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
        return find(layers["science"], layers["template"], config), config


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
    mask = _propagated(science, template, layers, kernel, config)
    usable = (~flagged(mask, EXCLUDED)).view(np.uint8)
    assert science.psf is not None
    planes = _matched(science, template, layers, kernel, usable, config)
    blank = _blank(layers["template"], usable)
    layers.update({name: layer.without_pixels() for name, layer in layers.items()})
    filters = _filters(layers, kernel, config, sky)
    psf = filters.psf(science.psf, kernel)
    if sky is not None:
        planes.lower(sky.background, kernel)
    if sky is not None or kernel.before is not None:
        filters, psf = filters.scaled(psf)
    image, null_variance, variance = planes.whiten(filters, layers, mask, kernel, config)
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
    return Difference(exposure, significance, null_variance, _absolute(kernel, layers), metrics)


def _about(width: float, background: Image | None, colour: Colour | None) -> dict[str, float]:
    """Metrics of what the images' own noise does not explain."""
    return {
        "scoreExcess": width,
        "excessNoise": 0.0 if colour is None else colour.share,
        "excessWidth": float("nan") if colour is None else colour.width,
        "backgroundRms": 0.0 if background is None else float(background[::3, ::3].std()),
    }


def _matched(
    science: Exposure,
    template: Exposure,
    layers: dict[str, Layer],
    kernel: MatchingKernel,
    usable: npt.NDArray[np.uint8],
    config: Config,
) -> _Planes:
    """Subtract the matched source, cores and wings of bright stars included."""
    source = science if kernel.convolved == "science" else template
    clipped = source.has("SAT", "BLEED")
    planes = _Planes.match(layers, kernel, usable, clipped, config)
    saturated = science.has("SAT") | template.has("SAT")
    stars = bright_stars(layers["science"], layers["template"], saturated)
    remove_wings(planes.residual, usable, *stars, kernel.basis.shape[-1] // 2)
    return planes


def _filters(
    layers: dict[str, Layer], kernel: MatchingKernel, config: Config, sky: Sky | None
) -> Filters:
    """Design the decorrelation with what is known of the noise."""
    powers = {name: layer.noise**2 for name, layer in layers.items()}
    known = {name: layer.correlation for name, layer in layers.items()}
    excess = None if sky is None else sky.colour
    return design(kernel, powers, known, config.tile, whiten=config.decorrelate, excess=excess)


def _propagated(
    science: Exposure,
    template: Exposure,
    layers: dict[str, Layer],
    kernel: MatchingKernel,
    config: Config,
) -> Mask:
    masks = {
        "science": _with_holes(science.mask, layers["science"]),
        "template": _with_holes(template.mask, layers["template"]),
    }
    return propagate(masks, kernel, config.dilation_share, config.tile)


def _with_holes(mask: Mask, layer: Layer) -> Mask:
    """Flag pixels without a number or a positive variance that no other plane explains."""
    holes = layer.bad & ~flagged(mask, UNUSABLE)
    if not holes.any():
        return mask
    return np.where(holes, mask | bits("UNMASKEDNAN"), mask)


@dataclass(slots=True, eq=False)
class _Planes:
    """Full-size intermediate images; few, because memory is what a laptop lacks."""

    residual: Image  # target minus matched source, zero where unusable
    raw: Image  # the same at the unusable pixels, one after the other
    model: Image  # variance of the science image without what only it contains
    usable: npt.NDArray[np.uint8]

    @classmethod
    def match(
        cls,
        layers: dict[str, Layer],
        kernel: MatchingKernel,
        usable: npt.NDArray[np.uint8],
        clipped: npt.NDArray[np.bool_],
        config: Config,
    ) -> _Planes:
        """Convolve the source and subtract it from the target."""
        source, target = _roles(kernel)
        science = layers["science"]
        matched = convolve(layers[source].image, kernel, config.tile)
        restore(matched, layers[source], layers[target], clipped, kernel)
        model = np.empty_like(matched)
        raw = np.empty(usable.size - np.count_nonzero(usable), np.float32)
        residual(
            layers[target].image,
            matched,
            _quadratic(kernel.background),
            usable,
            science.sky,
            science.noise**2,
            float(science.slope),
            target == "science",
            _ratio(kernel),
            model,
            raw,
        )
        return cls(matched, raw, model, usable)

    def lower(self, background: Image | None, kernel: MatchingKernel) -> None:
        """Take a background, in science units, off the residual before it is whitened."""
        if background is not None:
            sign = 1.0 if kernel.convolved == "template" else -_ratio(kernel)
            self.residual -= np.float32(sign) * background

    def whiten(
        self,
        filters: Filters,
        layers: dict[str, Layer],
        mask: Mask,
        kernel: MatchingKernel,
        config: Config,
    ) -> tuple[Image, Image, Image]:
        """Decorrelate; return image, source-free variance and variance in science units."""
        source, target = _roles(kernel)
        null = {"science": self.model, "template": layers["template"].variance}
        image, null_variance = apply(
            filters, self.residual, null[source], null[target], config.tile
        )
        self.residual = np.zeros((0, 0), np.float32)  # its memory is needed
        matched = kernel.convolved == "science"
        gain = filters.spread.sum((1, 2)) if matched else filters.target
        scale = -_ratio_terms(kernel) if matched else np.array([1.0])
        finish(
            image,
            null_variance,
            self.model,
            layers["science"].variance,
            self.raw,
            self.usable,
            mask,
            bits("NO_DATA"),
            float(np.median(gain)),
            _quadratic(scale),
        )
        return image, null_variance, self.model


def _blank(layer: Layer, usable: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Mark usable pixels where the template shows nothing.

    The limit is high enough not to cut into the template's own noise, which would make what is
    left look quieter and less correlated than it is.
    """
    limit = layer.sky + np.float32(3.0) * layer.noise
    return below(layer.image, limit.astype(np.float32), usable)


def _roles(kernel: MatchingKernel) -> tuple[str, str]:
    """Name the convolved image and the one it has to match."""
    return ("template", "science") if kernel.convolved == "template" else ("science", "template")


def _ratio_terms(kernel: MatchingKernel) -> FloatArray:
    return np.asarray(kernel.basis.sum((1, 2)) @ kernel.coefficients)


def _ratio(kernel: MatchingKernel) -> float:
    """Kernel sum in the middle of the image."""
    return float(kernel.sum_at([kernel.shape[1] / 2], [kernel.shape[0] / 2])[0])


def _quadratic(terms: FloatArray) -> FloatArray:
    """Pad the terms of a polynomial to those of a quadratic."""
    return np.pad(np.asarray(terms, float), (0, 6 - len(terms)))


def _absolute(kernel: MatchingKernel, layers: dict[str, Layer]) -> MatchingKernel:
    """Turn the background between levelled images into that between the images as given."""
    source, target = _roles(kernel)
    background = _quadratic(kernel.background)
    background -= layers[source].level * _quadratic(_ratio_terms(kernel))
    background[0] += layers[target].level
    return replace(kernel, background=background)
