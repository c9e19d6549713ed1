"""Alard–Lupton subtraction, its noise whitened by what is known of it.

    D = ψ ⊗ (N − κ ⊗ R − b)

with the science image N, the template R, the matching kernel κ (Alard & Lupton 1998, ApJ 503,
325; Alard 2000, A&AS 144, 363), the differential background b and the decorrelation ψ (Reiss &
Lupton, DMTN-021).  Where the science image is the sharper one, it is convolved instead.  The noise
that ψ whitens is that of one `NoiseModel`, refined until the difference shows nothing new.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.exposure import Difference, Exposure, FloatArray, Image
from pipeline.subtract.background import (
    sky_polynomial,
    sky_structure,
    source_free,
    subtract_polynomial,
)
from pipeline.subtract.config import Config
from pipeline.subtract.correlation import measured_correlation
from pipeline.subtract.decorrelate import design
from pipeline.subtract.excess import looks_wide, measure_excess, score_width, sky_dominated
from pipeline.subtract.fit import Fit
from pipeline.subtract.metrics import in_columns, in_rows, mean_lag1, measure
from pipeline.subtract.noise import NoiseModel
from pipeline.subtract.preconvolve import filtered
from pipeline.subtract.prepare import WorkingImage, prepare, prepare_pair
from pipeline.subtract.psf_matching import Match, match_kernel
from pipeline.subtract.residual import (
    Residual,
    absolute,
    convolved_and_target,
    subtract_matched,
)
from pipeline.subtract.scene import Scene, SceneNoise
from pipeline.subtract.score import score
from pipeline.subtract.whitened import Whitened

__all__ = ["Solution", "solve", "subtract", "subtract_again"]

_LOG = logging.getLogger(__name__)

_CORRELATED = 0.003
"""Correlation of neighbouring pixels of a difference that calls for a measurement of the noise."""

_MOST_MEASUREMENTS = 2
"""How often autocovariances are measured: a kernel fitted with the right noise shows them better.
With one excess for each set of them, the noise model is refined five times at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What was found about a pair: with it, a difference is linear in the images.

    Attributes
    ----------
    fit : Fit
        The matching kernel.
    working : mapping of str to WorkingImage
        Levels, skies and noise of ``science`` and ``template``; without their pixels.
    noise : NoiseModel
        What the difference is whitened with.
    sky : ndarray, (6,)
        Quadratic that is taken off the difference.
    structure : ndarray, (ny, nx), optional
        Structure of the sky that is taken off.
    noise_scale : ndarray, (ny, nx), optional
        What a constant scene adds to the noise of the score, see `Difference.noise_scale`.
    star_shifts : ndarray, (n, 5), pixel
        See `Difference.star_shifts`.
    metrics : mapping of str to float
        Those of the difference; ``scoreExcess`` is what its score is divided by besides.
    """

    fit: Fit
    working: Mapping[str, WorkingImage]
    noise: NoiseModel
    sky: FloatArray
    structure: Image | None
    noise_scale: Image | None
    star_shifts: FloatArray
    metrics: Mapping[str, float]


def subtract(science: Exposure, template: Exposure, config: Config) -> Difference:
    """Subtract with a fitted matching kernel; see `pipeline.subtract.run`.

    Parameters
    ----------
    science, template : Exposure
        The two images.
    config : Config
        See `Config`.

    Returns
    -------
    Difference
        With white noise, in the flux unit of the science image.
    """
    return solve(science, template, config)[0]


def solve(science: Exposure, template: Exposure, config: Config) -> tuple[Difference, Solution]:
    """Subtract, and return what `subtract_again` needs; see `subtract`.

    Parameters
    ----------
    science, template : Exposure
        The two images.
    config : Config
        See `Config`.

    Returns
    -------
    difference : Difference
        With white noise, in the flux unit of the science image.
    solution : Solution
        Kernel and noise of this pair.
    """
    images = {"science": science, "template": template}
    noise = NoiseModel.declared(images)
    match, working = match_kernel(noise.assigned(images), config)
    residual = _subtracted(match, working, config)
    former: tuple[NoiseModel, float] | None = None
    while True:  # until `_estimate_noise` finds nothing new
        whitened, significance, scene, wide = _drafted(residual, match, working, noise, config)
        found = whitened, significance, wide
        if former is not None and _colour(whitened) > former[1]:
            _LOG.info("the measured autocovariance whitens less than what was known: not used")
            noise, former = former[0].settled(_MOST_MEASUREMENTS), None
            del whitened, significance, scene, wide, found, residual
            match, working = match_kernel(noise.assigned(images), config)
            residual = _subtracted(match, working, config)
            continue
        refined = _estimate_noise(noise, *found, residual, match, working, config)
        if refined is noise:
            sky, structure = whitened.sky, whitened.background
            made = _measured(whitened, significance, scene, wide, match, working, noise, config)
            numbers = {n: w.numbers() for n, w in working.items()}
            return made, Solution(
                match.fit, numbers, noise, sky, structure,
                made.noise_scale, made.star_shifts, made.metrics,
            )  # fmt: skip
        measured = refined.correlations is not noise.correlations
        former = (noise, _colour(whitened)) if measured else None
        del whitened, significance, scene, wide, found
        if measured:
            del residual
            match, working = match_kernel(refined.assigned(images), config)
            residual = _subtracted(match, working, config)
        noise = refined


def subtract_again(
    science: Exposure, template: Exposure, solution: Solution, config: Config
) -> Difference:
    """Subtract images that differ from those of `solve` by sources, with its kernel and noise.

    Parameters
    ----------
    science, template : Exposure
        The two images.
    solution : Solution
        Of the same images without the sources.
    config : Config
        That of the solution.

    Returns
    -------
    Difference
        As that of `solve`, but for the sources.
    """
    images = solution.noise.assigned({"science": science, "template": template})
    kernel = solution.fit.kernel
    if kernel.before is not None:
        _, target = convolved_and_target(kernel)
        images[target] = filtered(
            images[target], prepare(images[target], target), target, kernel.before,
            config.dilation_share, config.tile,
        )  # fmt: skip
    match = Match(images, solution.fit)
    working = prepare_pair(images, solution.working)
    residual = _subtracted(match, working, config)
    whitened = _whiten(residual, match, working, solution.noise, config, solution)
    null_variance = whitened.null_variance
    significance = score(whitened.image, null_variance, residual.usable, whitened.psf, config.tile)
    width = np.float32(solution.metrics["scoreExcess"])
    significance /= width
    null_variance *= width**2
    if solution.noise_scale is not None:
        significance /= solution.noise_scale
    metrics = {**solution.metrics, **measure(whitened, significance, match.fit)}
    made = whitened.difference(images["science"], significance, absolute(kernel, working), metrics)
    return replace(made, noise_scale=solution.noise_scale, star_shifts=solution.star_shifts)


def _subtracted(match: Match, working: dict[str, WorkingImage], config: Config) -> Residual:
    """Subtract; the working images lose their pixels, whose memory others need."""
    residual = subtract_matched(match.images, working, match.fit.kernel, config)
    for name in working:
        working[name] = working[name].without_pixels()
    return residual


def _drafted(
    residual: Residual,
    match: Match,
    working: dict[str, WorkingImage],
    noise: NoiseModel,
    config: Config,
) -> tuple[Whitened, Image, Scene, npt.NDArray[np.bool_] | None]:
    """Whiten: difference, score, scene, and where the score tells its own noise."""
    whitened = _whiten(residual, match, working, noise, config)
    significance = score(
        whitened.image, whitened.null_variance, residual.usable, whitened.psf, config.tile
    )
    wide = _sky_of_wide_score(whitened, significance, residual.blank, config)
    scene = Scene(residual.scene, residual.usable, residual.stars)
    return whitened, significance, scene, wide


def _whiten(
    residual: Residual,
    match: Match,
    working: dict[str, WorkingImage],
    noise: NoiseModel,
    config: Config,
    known: Solution | None = None,
) -> Whitened:
    """Decorrelate a residual with what is known of its noise, and take its sky off."""
    kernel, science = match.fit.kernel, match.images["science"]
    assert science.psf is not None
    filters = design(
        kernel,
        {name: w.noise**2 for name, w in working.items()},
        {name: w.correlation for name, w in working.items()},
        config.tile,
        whiten=config.decorrelate,
        excess=noise.excess,
    )
    _log_noise(noise, working)
    filters = filters.in_place(science.psf, kernel)
    filters, psf = filters.scaled(filters.psf(science.psf, kernel))
    image, null_variance, variance = residual.whiten(
        filters, working, kernel, config, noise.background
    )
    free = source_free(image, null_variance, residual.blank)
    if known is None:
        sky, structure = _sky(image, null_variance, free, noise, config)
    else:
        sky, structure = known.sky, known.structure
        subtract_polynomial(image, sky)
        if structure is not None and noise.background is None:
            image -= structure
    return Whitened(image, null_variance, variance, residual.mask, free, structure, psf, sky)


def _sky(
    image: Image,
    variance: Image,
    free: npt.NDArray[np.uint8],
    noise: NoiseModel,
    config: Config,
) -> tuple[FloatArray, Image | None]:
    """Take off what is left of the sky; return its polynomial and all structure taken off."""
    sky = sky_polynomial(image, variance, free, config.background_order)
    subtract_polynomial(image, sky)
    if noise.excess is not None:
        return sky, noise.background
    return sky, sky_structure(image, variance, free)


def _log_noise(noise: NoiseModel, working: dict[str, WorkingImage]) -> None:
    """Say with which noise the difference is whitened."""
    for name, image in working.items():
        known = "measured" if name in noise.measured else "declared"
        _LOG.info(
            "%s: noise %.4g per pixel, %s",
            name,
            float(np.median(image.noise)),
            "taken as white" if image.correlation is None else f"autocovariance {known}",
        )


def _sky_of_wide_score(
    whitened: Whitened, significance: Image, blank: npt.NDArray[np.uint8], config: Config
) -> npt.NDArray[np.bool_] | None:
    """Pixels on which the noise of a score that looks too wide is measured; None if it does not."""
    if not (config.decorrelate and looks_wide(significance, blank)):
        return None
    return sky_dominated(whitened.variance, whitened.null_variance, blank)


def _estimate_noise(
    noise: NoiseModel,
    whitened: Whitened,
    significance: Image,
    wide: npt.NDArray[np.bool_] | None,
    residual: Residual,
    match: Match,
    working: dict[str, WorkingImage],
    config: Config,
) -> NoiseModel:
    """Refine the noise model by what the difference shows; the same model if nothing is new."""
    if wide is not None and noise.excess is None:
        excess = measure_excess(whitened.image, whitened.null_variance, significance, wide)
        if excess is not None:
            _LOG.info(
                "second look: correlated noise of %.4f of the variance and width %.1f px beyond "
                "that of the images", excess.share, excess.width,
            )  # fmt: skip
            return noise.with_excess(excess, whitened.background)
    if not config.decorrelate or noise.measurements >= _MOST_MEASUREMENTS:
        return noise
    if not _looks_correlated(whitened):
        return noise
    found = _measured_correlations(noise, residual, match, working)
    return noise.with_correlations(found) if found else noise


def _looks_correlated(whitened: Whitened) -> bool:
    """Whether noise that should be white correlates from pixel to pixel."""
    pixels = float(whitened.source_free.mean()) * whitened.image.size
    error = 1.0 / np.sqrt(max(2.0 * pixels, 1.0))
    return bool(abs(mean_lag1(whitened.regions)) > max(_CORRELATED, 5.0 * error))


def _colour(whitened: Whitened) -> float:
    """Larger of the correlations of neighbours in a row and in a column; infinite if unknown."""
    found = [abs(mean_lag1(f(whitened.regions))) for f in (in_rows, in_columns)]
    return max(found) if np.isfinite(found).all() else float("inf")


def _measured_correlations(
    noise: NoiseModel, residual: Residual, match: Match, working: dict[str, WorkingImage]
) -> dict[str, FloatArray]:
    """Noise autocovariances of images that declare none, where they are not white."""
    kernel, unknown = match.fit.kernel, noise.undeclared
    if not unknown or kernel.before is not None:
        return {}
    powers = {name: w.noise**2 for name, w in working.items()}
    found = measured_correlation(
        residual.image, residual.blank, kernel, powers, noise.correlations, unknown
    )
    _LOG.info(
        "neighbouring pixels correlate: noise autocovariance measured of %s",
        " and ".join(found) or "neither image, for none is found",
    )
    return found


def _measured(
    whitened: Whitened,
    significance: Image,
    scene: Scene,
    wide: npt.NDArray[np.bool_] | None,
    match: Match,
    working: dict[str, WorkingImage],
    noise: NoiseModel,
    config: Config,
) -> Difference:
    """Make the product, its score rescaled by what no model of the noise explains."""
    science = match.images["science"]
    assert science.psf is not None
    width = 1.0 if wide is None else score_width(significance, wide)
    if wide is not None:
        _LOG.info("score and its noise rescaled by %.4f", width)
        significance /= np.float32(width)
        whitened.null_variance[:] *= np.float32(width**2)
    background = whitened.background
    noise_scale: Image | None = None
    constant = SceneNoise()
    if config.scene_noise:
        noise_scale, constant = scene.count(significance, whitened, science.psf, config.tile)
    metrics = {
        **measure(whitened, significance, match.fit),
        "scoreExcess": width,
        "excessNoise": 0.0 if noise.excess is None else noise.excess.share,
        "excessWidth": float("nan") if noise.excess is None else noise.excess.width,
        "backgroundRms": 0.0 if background is None else float(background[::3, ::3].std()),
        "measuredColours": float(len(noise.measured)),
        **(constant.metrics if config.scene_noise else {}),
    }
    kernel = absolute(match.fit.kernel, working)
    made = whitened.difference(science, significance, kernel, metrics)
    return replace(made, noise_scale=noise_scale, star_shifts=constant.shifts)
