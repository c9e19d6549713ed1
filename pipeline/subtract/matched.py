"""One image minus the other, matched: the residual before its noise is whitened."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.exposure import Exposure, FloatArray, Image, Mask, MatchingKernel
from pipeline.masks import NO_SKY, NOT_IN_SCORE, bits, flagged
from pipeline.subtract.config import Config
from pipeline.subtract.convolve import convolve
from pipeline.subtract.decorrelate import Filters, apply
from pipeline.subtract.masks import Halo, halos, propagate
from pipeline.subtract.pixels import below, finish, residual, standing_out
from pipeline.subtract.planes import Layer
from pipeline.subtract.saturated import restore
from pipeline.subtract.wings import bright_stars, remove_wings

__all__ = ["Planes", "absolute", "match", "roles"]

_UNFIT = (3.0, 5.0)
"""Mean square and largest pull near a pixel in the halo of a core from which on it is masked."""


@dataclass(slots=True, eq=False)
class Planes:
    """Full-size intermediate images; few, because memory is what a laptop lacks.

    Attributes
    ----------
    residual : ndarray, (ny, nx)
        Target minus matched source, zero where unusable.
    raw : ndarray, (n,)
        The same at the unusable pixels, one after the other.
    model : ndarray, (ny, nx)
        Variance of the science image without what only it contains.
    mask : ndarray, (ny, nx), uint32
        Mask of the difference.
    usable, blank : ndarray of uint8, (ny, nx)
        Pixels that are not excluded, and those among them where the template shows nothing.
    """

    residual: Image
    raw: Image
    model: Image
    mask: Mask
    usable: npt.NDArray[np.uint8]
    blank: npt.NDArray[np.uint8]

    def lower(self, background: Image | None, kernel: MatchingKernel) -> None:
        """Take a background, in science units, off the residual before it is whitened."""
        if background is not None:
            sign = 1.0 if kernel.convolved == "template" else -_ratio(kernel)
            self.residual -= np.float32(sign) * background

    def whiten(
        self, filters: Filters, layers: dict[str, Layer], kernel: MatchingKernel, config: Config
    ) -> tuple[Image, Image, Image]:
        """Decorrelate; return image, source-free variance and variance in science units."""
        source, target = roles(kernel)
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
            self.mask,
            bits("NO_DATA"),
            float(np.median(gain)),
            _quadratic(scale),
        )
        return image, null_variance, self.model


def match(
    science: Exposure,
    template: Exposure,
    layers: dict[str, Layer],
    kernel: MatchingKernel,
    config: Config,
) -> Planes:
    """Subtract the matched source, cores and wings of bright stars included.

    Parameters
    ----------
    science, template : Exposure
        The two images.
    layers : dict of str to Layer
        Their working copies.
    kernel : MatchingKernel
        Takes one to the other; background relative to the levels of the layers.
    config : Config
        Tiles and dilation.

    Returns
    -------
    Planes
        The residual and what belongs to it.
    """
    source, target = roles(kernel)
    pair = {"science": science, "template": template}
    mask = _propagated(science, template, layers, kernel, config)
    doubtful = halos(pair[source].mask, kernel, config.dilation_share, config.tile)
    matched = convolve(layers[source].image, kernel, config.tile)
    clipped = pair[source].has("SAT", "BLEED")
    restore(matched, layers[source], layers[target], clipped, kernel)
    usable = (~flagged(mask, bits(*NOT_IN_SCORE))).view(np.uint8)
    model = np.empty_like(matched)
    raw = np.empty(usable.size - np.count_nonzero(usable), np.float32)
    residual(
        layers[target].image,
        matched,
        _quadratic(kernel.background),
        usable,
        layers["science"].sky,
        layers["science"].noise ** 2,
        float(layers["science"].slope),
        target == "science",
        _ratio(kernel),
        model,
        raw,
    )
    saturated = science.has("SAT") | template.has("SAT")
    stars = bright_stars(layers["science"], layers["template"], saturated)
    remove_wings(matched, usable, *stars, kernel.basis.shape[-1] // 2)
    for halo in doubtful:
        raw = _mask_unfit(halo, matched, raw, usable, mask, layers[target], layers[source], kernel)
    return Planes(matched, raw, model, mask, usable, _blank(layers["template"], usable))


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
    bridged = {name: layer.bridged for name, layer in layers.items()}
    return propagate(masks, kernel, config.dilation_share, config.tile, bridged)


def _with_holes(mask: Mask, layer: Layer) -> Mask:
    """Flag pixels without a number or a positive variance that no other plane explains."""
    holes = layer.bad & ~flagged(mask, bits(*NO_SKY))
    if not holes.any():
        return mask
    return np.where(holes, mask | bits("UNMASKEDNAN"), mask)


def _mask_unfit(
    halo: Halo,
    left: Image,
    raw: Image,
    usable: npt.NDArray[np.uint8],
    mask: Mask,
    target: Layer,
    source: Layer,
    kernel: MatchingKernel,
) -> Image:
    """Mask the parts of halos that do not vanish, in place; return the raw values with theirs."""
    power = float((kernel.middle() ** 2).sum())
    unfit = standing_out(
        halo.y, halo.x, left, usable, target.variance, source.variance, power, _UNFIT
    )
    y, x = halo.y[unfit], halo.x[unfit]
    places = np.concatenate([np.flatnonzero(usable == 0), y * left.shape[1] + x])
    values = np.concatenate([raw, left[y, x]])
    mask[y, x] |= bits(halo.plane)
    usable[y, x], left[y, x] = 0, 0.0
    return np.asarray(values[np.argsort(places)])


def _blank(layer: Layer, usable: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Mark usable pixels where the template shows nothing.

    The limit is high enough not to cut into the template's own noise, which would make what is
    left look quieter and less correlated than it is.
    """
    limit = layer.sky + np.float32(3.0) * layer.noise
    return below(layer.image, limit.astype(np.float32), usable)


def roles(kernel: MatchingKernel) -> tuple[str, str]:
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


def absolute(kernel: MatchingKernel, layers: dict[str, Layer]) -> MatchingKernel:
    """Turn the background between levelled images into that between the images as given."""
    source, target = roles(kernel)
    background = _quadratic(kernel.background)
    background -= layers[source].level * _quadratic(_ratio_terms(kernel))
    background[0] += layers[target].level
    return replace(kernel, background=background)
