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
from pipeline.subtract.masks import Halo, beside, halos, propagate
from pipeline.subtract.pixels import below, finish, residual, standing_out
from pipeline.subtract.prepare import WorkingImage
from pipeline.subtract.saturated import restore
from pipeline.subtract.wings import bright_stars, remove_wings

__all__ = [
    "Residual",
    "absolute",
    "blank_pixels",
    "convolved_and_target",
    "subtract_matched",
    "with_holes",
]

_UNFIT = (3.0, 5.0)
"""Mean square and largest pull near a pixel in the halo of a core from which on it is masked."""


@dataclass(slots=True, eq=False)
class Residual:
    """Target minus matched source, with what belongs to it; few planes, to save memory.

    Attributes
    ----------
    image : ndarray, (ny, nx)
        Target minus matched source, zero where unusable.
    raw : ndarray, (n,)
        The same at the unusable pixels, one after the other.
    model : ndarray, (ny, nx)
        Variance of the science image without what only it contains.
    scene : ndarray, (ny, nx)
        Light of the template above the sky, matched to the science image and in its unit.
    stars : ndarray, (n, 2), pixel
        Centres of the stars whose wings may show, the brightest first.
    mask : ndarray, (ny, nx), uint32
        Mask of the difference.
    usable, blank : ndarray of uint8, (ny, nx)
        Pixels that are not excluded, and those among them where the template shows nothing.
    """

    image: Image
    raw: Image
    model: Image
    scene: Image
    stars: FloatArray
    mask: Mask
    usable: npt.NDArray[np.uint8]
    blank: npt.NDArray[np.uint8]

    def whiten(
        self,
        filters: Filters,
        working: dict[str, WorkingImage],
        kernel: MatchingKernel,
        config: Config,
        background: Image | None = None,
    ) -> tuple[Image, Image, Image]:
        """Decorrelate, without a background; return image and variances in science units.

        The residual stays as it is, for another look with other filters.
        """
        source, target = convolved_and_target(kernel)
        signal = self.image
        if background is not None:
            sign = 1.0 if kernel.convolved == "template" else -_ratio(kernel)
            signal = signal - np.float32(sign) * background
        null = {"science": self.model, "template": working["template"].variance}
        image, null_variance = apply(filters, signal, null[source], null[target], config.tile)
        variance = self.model.copy()
        matched = kernel.convolved == "science"
        gain = filters.spread.sum((1, 2)) if matched else filters.target
        scale = -_ratio_terms(kernel) if matched else np.array([1.0])
        finish(
            image,
            null_variance,
            variance,
            working["science"].variance,
            self.raw,
            self.usable,
            self.mask,
            bits("NO_DATA"),
            float(np.median(gain)),
            _quadratic(scale),
        )
        return image, null_variance, variance


def subtract_matched(
    images: dict[str, Exposure],
    working: dict[str, WorkingImage],
    kernel: MatchingKernel,
    config: Config,
) -> Residual:
    """Subtract the matched source, cores and wings of bright stars included.

    Parameters
    ----------
    images : dict of str to Exposure
        ``science`` and ``template``.
    working : dict of str to WorkingImage
        Their working copies.
    kernel : MatchingKernel
        Takes one to the other; background relative to the levels of the working.
    config : Config
        Tiles and dilation.

    Returns
    -------
    Residual
        The residual and what belongs to it.
    """
    source, target = convolved_and_target(kernel)
    mask = _propagated(images, working, kernel, config)
    doubtful = halos(images[source].mask, kernel, config.dilation_share)
    matched = convolve(working[source].image, kernel, config.tile)
    clipped = images[source].has("SAT", "BLEED")
    restore(matched, working[source], working[target], clipped, kernel)
    usable = (~flagged(mask, bits(*NOT_IN_SCORE))).view(np.uint8)
    model, scene = np.empty_like(matched), np.empty_like(matched)
    raw = np.empty(usable.size - np.count_nonzero(usable), np.float32)
    residual(
        working[target].image,
        matched,
        _quadratic(kernel.background),
        usable,
        working["science"].sky,
        working["science"].noise ** 2,
        float(working["science"].inverse_gain),
        target == "science",
        _ratio(kernel),
        model,
        scene,
        raw,
    )
    saturated = images["science"].has("SAT") | images["template"].has("SAT")
    stars = bright_stars(working["science"], working["template"], saturated)
    remove_wings(matched, usable, *stars, kernel.basis.shape[-1] // 2)
    for halo in [*doubtful, *beside(mask)]:
        raw = _mask_unfit(
            halo, matched, raw, usable, mask, working[target], working[source], kernel
        )
    blank = blank_pixels(working["template"], usable)
    return Residual(matched, raw, model, scene, np.column_stack(stars), mask, usable, blank)


def _propagated(
    images: dict[str, Exposure],
    working: dict[str, WorkingImage],
    kernel: MatchingKernel,
    config: Config,
) -> Mask:
    masks = {name: with_holes(images[name].mask, w) for name, w in working.items()}
    bridged = {name: w.bridged for name, w in working.items()}
    return propagate(masks, kernel, config.dilation_share, bridged)


def with_holes(mask: Mask, working: WorkingImage) -> Mask:
    """Flag pixels without a number or a positive variance that no other plane explains.

    Parameters
    ----------
    mask : ndarray, (ny, nx), uint32
        Mask of the image.
    working : WorkingImage
        Its pixels and variance.

    Returns
    -------
    ndarray, (ny, nx), uint32
        A copy, or the same mask if there are none.
    """
    holes = working.bad & ~flagged(mask, bits(*NO_SKY))
    if not holes.any():
        return mask
    return np.where(holes, mask | bits("UNMASKEDNAN"), mask)


def _mask_unfit(
    halo: Halo,
    left: Image,
    raw: Image,
    usable: npt.NDArray[np.uint8],
    mask: Mask,
    target: WorkingImage,
    source: WorkingImage,
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
    return np.asarray(values[np.argsort(places, kind="stable")])  # of two runs that increase


def blank_pixels(template: WorkingImage, usable: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Mark usable pixels where the template shows nothing.

    The limit is high enough not to cut into the template's own noise, which would make what is
    left look quieter and less correlated than it is.

    Parameters
    ----------
    template : WorkingImage
        The template.
    usable : ndarray, (ny, nx), uint8
        One where a pixel can be used.

    Returns
    -------
    ndarray, (ny, nx), uint8
        One where it is empty as well.
    """
    limit = template.sky + np.float32(3.0) * template.noise
    return below(template.image, limit.astype(np.float32), usable)


def convolved_and_target(kernel: MatchingKernel) -> tuple[str, str]:
    """Name the convolved image and the one it has to match.

    Parameters
    ----------
    kernel : MatchingKernel
        The kernel.

    Returns
    -------
    convolved, target : str
        ``science`` and ``template``, or the other way round.
    """
    return ("template", "science") if kernel.convolved == "template" else ("science", "template")


def _ratio_terms(kernel: MatchingKernel) -> FloatArray:
    return np.asarray(kernel.basis.sum((1, 2)) @ kernel.coefficients)


def _ratio(kernel: MatchingKernel) -> float:
    """Kernel sum in the middle of the image."""
    return float(kernel.sum_at([kernel.shape[1] / 2], [kernel.shape[0] / 2])[0])


def _quadratic(terms: FloatArray) -> FloatArray:
    """Pad the terms of a polynomial to those of a quadratic."""
    return np.pad(np.asarray(terms, float), (0, 6 - len(terms)))


def absolute(kernel: MatchingKernel, working: dict[str, WorkingImage]) -> MatchingKernel:
    """Turn the background between levelled images into that between the images as given.

    Parameters
    ----------
    kernel : MatchingKernel
        The kernel between levelled images.
    working : dict of WorkingImage
        ``science`` and ``template``, with the levels that were taken off.

    Returns
    -------
    MatchingKernel
        With another background.
    """
    source, target = convolved_and_target(kernel)
    background = _quadratic(kernel.background)
    background -= working[source].level * _quadratic(_ratio_terms(kernel))
    background[0] += working[target].level
    return replace(kernel, background=background)
