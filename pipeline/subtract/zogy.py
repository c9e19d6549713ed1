"""Proper image subtraction for well-known PSFs (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27).

With the PSFs p and q of the science image N and of the template R, the ratio r of a star's flux in
N to that in R, and their noise powers s and t per pixel (equations 12 to 16, in units of N),

    D = (q N − r p R) √(s + r² t) / √(s |q|² + r² t |p|²)

is white, its PSF is p q √(s + r² t) / √(s |q|² + r² t |p|²), and a source of N keeps its flux.  The
score is the paper's S_corr without its astrometric term: D correlated with its PSF, over the root
of the variance that the two variance planes give it, the counts of new sources left out.

PSFs and noise are those of the middle of every tile, so D is proper where both vary slowly.  The
noise autocovariances that the images declare enter s and t; the ratio is fitted to stars by
cross-convolution, or one where both images are in nJy and fewer than three stars are left.

What it lacks beside `pipeline.subtract.alard_lupton`: PSF models are taken as they are, so their
errors stay at bright stars; the ratio is one number; registration errors are not modelled; the
wings and the saturated cores of bright stars are not restored; and noise that nobody declared is
not measured: the score is never rescaled.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.errors import ConfigError, SubtractionError
from pipeline.exposure import (
    Difference,
    Exposure,
    FloatArray,
    GridPsf,
    Image,
    Mask,
    MatchingKernel,
    Psf,
)
from pipeline.masks import NOT_IN_SCORE, bits, flagged
from pipeline.statistics import mad_std
from pipeline.subtract.background import (
    sky_polynomial,
    sky_structure,
    source_free,
    subtract_polynomial,
)
from pipeline.subtract.config import Config
from pipeline.subtract.convolve import Tile, centres, fft_size, inner, tiles, transform
from pipeline.subtract.decorrelate import (
    at_positions,
    centred,
    mean_power,
    noise_power,
    spectra,
)
from pipeline.subtract.fit import Fit
from pipeline.subtract.masks import propagate, spread
from pipeline.subtract.metrics import measure
from pipeline.subtract.pixels import cut, residual
from pipeline.subtract.prepare import WorkingImage, check_overlap, prepare_pair
from pipeline.subtract.residual import absolute, blank_pixels, with_holes
from pipeline.subtract.stamps import Stamps, find, resized
from pipeline.subtract.whitened import Whitened

__all__ = ["subtract"]

_LOG = logging.getLogger(__name__)

_SIZE = (128, 128)
_HALF, _PSF_HALF, _SCORE_HALF = 32, 20, 16
"""Half widths of the filters, of the PSF of the difference and of its part in the score."""

_POINT = 1e-5
"""Point source added to both PSFs of unit flux, so that D stays white, and its filters short, where
neither image has signal; of a star with PSFs p and q, this share of p - q is left."""

_RIDGE = 0.1
"""Regularises the expected scene, whose photons are part of the noise."""

_STAR = 7
"""Half width of the part of a stamp that tells the ratio of fluxes."""

_POOR = 1.5
"""Reduced χ² of cross-convolved stars from which on the PSF models are too poor."""

_CELL, _ROUNDS = 64, 5


@dataclass(frozen=True, slots=True, eq=False)
class _Filters:
    """Kernels of every tile, in the order of `tiles`.

    Attributes
    ----------
    image : dict of str to ndarray, (n, 65, 65)
        Difference = sum of the convolutions of ``science`` and ``template`` with these.
    score : dict of str to ndarray, (n, 65, 65)
        The same for the score.
    scene : ndarray, (n, 65, 65)
        Takes the template to the static part of the science image.
    psf : GridPsf
        PSF of the difference.
    gain, score_gain : ndarray, (n,)
        Variance of image and score over that of white noise of the variance planes.
    """

    image: dict[str, FloatArray]
    score: dict[str, FloatArray]
    scene: FloatArray
    psf: GridPsf
    gain: FloatArray
    score_gain: FloatArray


def subtract(science: Exposure, template: Exposure, config: Config) -> Difference:
    """Subtract properly; see `pipeline.subtract.run`.

    Parameters
    ----------
    science, template : Exposure
        The two images, with their PSFs.
    config : Config
        Tiles, stamps, background and dilation; no direction, and the noise is always white.

    Returns
    -------
    Difference
        Its kernel says what was compared in the middle of the image: the science image filtered
        with the template's PSF and the template convolved with that of the science image.

    Raises
    ------
    ConfigError
        If a direction is chosen, or that the noise stays correlated.
    SubtractionError
        If an image has no PSF, they do not overlap or nothing tells the photometric ratio.
    """
    _refuse(config)
    if science.psf is None or template.psf is None:
        raise SubtractionError("proper subtraction needs the PSFs of both images")
    psfs = {"science": science.psf, "template": template.psf}
    images = {"science": science, "template": template}
    working = prepare_pair(images)
    check_overlap(working)
    fit = _fit_ratio(working, psfs, science.unit == template.unit == "nJy", config)
    ratio = float(fit.kernel.coefficients[0, 0])
    filters = _design(working, psfs, ratio, config.tile)
    mask = _mask(images, working, filters, config)
    whitened, background, model = _difference(working, filters, mask, ratio, config)
    fit = replace(fit, kernel=replace(fit.kernel, background=background))
    significance = _score(whitened, working, filters, model, config.tile)
    metrics = {
        **measure(whitened, significance, fit),
        "scoreExcess": 1.0,
        "excessNoise": 0.0,
        "excessWidth": float("nan"),
        "backgroundRms": 0.0 if whitened.background is None else float(whitened.background.std()),
        "measuredColours": 0.0,
    }
    return whitened.difference(science, significance, absolute(fit.kernel, working), metrics)


def _refuse(config: Config) -> None:
    """Refuse what proper subtraction has no choice of."""
    if config.convolve != "auto":
        raise ConfigError(
            f"{config.convolve!r}", key="subtract.convolve",
            expected="auto: zogy filters both images",
        )  # fmt: skip
    if not config.decorrelate:
        raise ConfigError(
            "false", key="subtract.decorrelate", expected="true: the noise of zogy is white"
        )


def _fit_ratio(
    working: dict[str, WorkingImage], psfs: dict[str, Psf], calibrated: bool, config: Config
) -> Fit:
    """Ratio of the fluxes, as the sum of the kernel that the difference is described by."""
    shape = working["science"].shape
    try:
        stars: Stamps | None = find(
            working["science"], working["template"], config, 3 if calibrated else 1
        )
    except SubtractionError:
        if not calibrated:
            raise
        stars = None
    table = np.zeros((0, 4)) if stars is None else _star_ratios(stars, psfs, config.clip_sigma)
    ratio = 1.0 if stars is None else float(table[0, 4])
    _LOG.info(
        "photometric ratio %.4f from %s; %d stars, %d rejected", ratio,
        "the calibration" if stars is None else "cross-convolved stars",
        len(table), int((table[:, 3] == 0).sum()),
    )  # fmt: skip
    used = table[table[:, 3] > 0, 2]
    if len(used) and np.median(used) > _POOR:
        _LOG.warning("PSF models leave a χ² of %.2f at stars: zogy needs better", np.median(used))
    middle = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    kernels = {name: psf.at(*middle) for name, psf in psfs.items()}
    kernels = {name: kernel / kernel.sum() for name, kernel in kernels.items()}
    kernel = MatchingKernel(
        basis=kernels["science"][None],
        coefficients=np.array([[ratio]]),
        order=0,
        shape=shape,
        background=np.zeros(1),
        condition=1.0,
        stamps=table[:, :4],
        before=kernels["template"],
    )
    return Fit(kernel, ratio_order=0, gain=0.0, residual_share=float("nan"))


def _star_ratios(stars: Stamps, psfs: dict[str, Psf], clip: float) -> FloatArray:
    """Compare stars in both images, each convolved with the other's PSF.

    Returns
    -------
    ndarray, (n, 5)
        x, y, reduced χ², whether a star was used, and the ratio of them all.
    """
    side = stars.science.shape[-1]
    p, q = (_unit(psfs[name].stamps(stars.x, stars.y)) for name in ("science", "template"))
    size = (fft.next_fast_len(side + p.shape[-1], real=True),) * 2
    one, other = (
        _middle(fft.irfft2(spectra(cube, size) * spectra(psf, size), size))
        for cube, psf in ((stars.science, q), (stars.template, p))
    )
    product, square = (one * other).sum((1, 2)), (other**2).sum((1, 2))
    ratios, weight = product / square, np.sqrt(square)
    use = np.ones(len(ratios), bool)
    for _ in range(_ROUNDS):
        middle = np.median(ratios[use])
        use = np.abs(ratios - middle) <= clip * mad_std(ratios[use], middle)
    ratio = float(np.average(ratios[use], weights=weight[use]))
    variances = [
        resized(v, 2 * _STAR + 1).mean((1, 2))
        for v in (stars.science_variance, stars.template_variance)
    ]
    noise = variances[0] * _smoothed(q) + ratio**2 * variances[1] * _smoothed(p)
    chi2 = ((one - ratio * other) ** 2).mean((1, 2)) / noise
    return np.column_stack([stars.x, stars.y, chi2, use, np.full(len(chi2), ratio)])


def _smoothed(psfs: FloatArray) -> FloatArray:
    """Variance of white noise convolved with PSFs, its mean over the part of a stamp taken off."""
    from scipy.ndimage import uniform_filter

    side = 2 * _STAR + 1
    wide = np.pad(psfs, ((0, 0), (_STAR, _STAR), (_STAR, _STAR)))
    mean = uniform_filter(wide, (1, side, side), mode="constant")
    return np.asarray((psfs**2).sum((1, 2)) - (mean**2).sum((1, 2)))


def _unit(stamps: FloatArray) -> FloatArray:
    """Give stamps unit sum: a transfer function is one at the origin."""
    return np.asarray(stamps / stamps.sum((1, 2))[:, None, None])


def _middle(cube: FloatArray) -> FloatArray:
    """Cut the middle out of stamps centred on the first pixel, and take off its mean."""
    core = centred(cube, _STAR)
    return np.asarray(core - core.mean((1, 2))[:, None, None])


def _design(
    working: dict[str, WorkingImage], psfs: dict[str, Psf], ratio: float, tile: int
) -> _Filters:
    """Kernels of every tile, cut off at `_HALF`; all that follows is true of the cut ones."""
    shape = working["science"].shape
    x, y = centres(shape, tile)
    scale = {"science": 1.0, "template": -ratio}
    stamps = psfs["science"].stamps(x, y)
    p, q = (spectra(_unit(psf.stamps(x, y)), _SIZE) for psf in psfs.values())
    other = {"science": q + _POINT, "template": p + _POINT}
    power = {n: at_positions(w.noise**2, x, y, shape) for n, w in working.items()}
    noise = {
        name: power[name][:, None, None] * noise_power(w.correlation, x, y, shape, _SIZE)
        for name, w in working.items()
    }
    total = sum(noise[n] * np.abs(scale[n] * other[n]) ** 2 for n in noise)
    level = total[:, :1, :1]
    whiten = np.sqrt(level / total)
    kernels = {n: _kernel(scale[n] * other[n] * whiten) for n in noise}
    psf = _kernel(spectra(stamps, _SIZE) * spectra(kernels["science"], _SIZE), _PSF_HALF)
    flux = _flux(psf)
    kernels, psf = {n: k / flux for n, k in kernels.items()}, psf / flux
    matched = np.conj(spectra(resized(psf, 2 * _SCORE_HALF + 1), _SIZE))
    scores = {n: _kernel(spectra(k, _SIZE) * matched) for n, k in kernels.items()}
    scene = ratio * (1.0 + _RIDGE) * p * np.conj(q) / (np.abs(q) ** 2 + _RIDGE)
    columns, rows = np.unique(x), np.unique(y)
    cube = psf.reshape(len(rows), len(columns), *psf.shape[1:])
    return _Filters(
        kernels,
        scores,
        _kernel(scene),
        GridPsf(cube, columns, rows),
        _gain(kernels, noise, power),
        _gain(scores, noise, power),
    )


def _kernel(spectrum: npt.NDArray[np.complexfloating], half: int = _HALF) -> FloatArray:
    """Turn spectra into kernels."""
    return centred(fft.irfft2(spectrum, _SIZE), half)


def _flux(stamps: FloatArray) -> FloatArray:
    """Flux of stamps within the radius that defines it, (n, 1, 1)."""
    k = np.arange(stamps.shape[-1]) - stamps.shape[-1] // 2
    inside = np.hypot(k[:, None], k) <= Psf.FLUX_RADIUS
    return np.asarray(stamps[:, inside].sum(1)[:, None, None])


def _gain(
    kernels: dict[str, FloatArray], noise: dict[str, FloatArray], power: dict[str, FloatArray]
) -> FloatArray:
    """Variance of filtered noise over what the kernels make of white noise."""
    true, white = np.zeros(len(noise["science"])), np.zeros(len(noise["science"]))
    for name, kernel in kernels.items():
        true += mean_power(noise[name] * np.abs(spectra(kernel, _SIZE)) ** 2, _SIZE)
        white += power[name] * (kernel**2).sum((1, 2))
    return true / white


def _mask(
    images: dict[str, Exposure], working: dict[str, WorkingImage], filters: _Filters, config: Config
) -> Mask:
    """Mask of the difference: both masks grow with the filters of their images."""
    shape = working["science"].shape
    masks = {}
    for name, kernels in filters.image.items():
        given = with_holes(images[name].mask, working[name])
        middle, bridged = kernels[len(kernels) // 2], working[name].bridged
        masks[name] = spread(given, name, middle, config.dilation_share, bridged)
    point = np.ones((1, 1, 1))
    here = MatchingKernel(point, point[0], 0, shape, np.zeros(1), 1.0, np.zeros((0, 4)))
    return propagate(masks, here, config.dilation_share)


def _difference(
    working: dict[str, WorkingImage],
    filters: _Filters,
    mask: Mask,
    ratio: float,
    config: Config,
) -> tuple[Whitened, FloatArray, Image]:
    """Difference, its polynomial background and the source-free variance of the science image."""
    usable = (~flagged(mask, bits(*NOT_IN_SCORE))).view(np.uint8)
    model = _static_variance(working, filters, ratio, config.tile)
    squares = {n: k**2 for n, k in filters.image.items()}
    deep = working["template"].variance
    image = _filtered({n: w.image for n, w in working.items()}, filters.image, config.tile)
    null = _filtered({"science": model, "template": deep}, squares, config.tile, filters.gain)
    full = {"science": working["science"].variance, "template": deep}
    variance = _filtered(full, squares, config.tile, filters.gain)
    variance = np.maximum(variance, np.float32(0.25) * null)
    blank = blank_pixels(working["template"], usable)
    free = source_free(image, null, blank)
    background = sky_polynomial(image, null, free, config.background_order)
    subtract_polynomial(image, background)
    structure = sky_structure(image, null, free)
    holes = flagged(mask, bits("NO_DATA"))
    for plane in (image, null, variance):
        plane[holes] = np.nan
    made = Whitened(image, null, variance, mask, free, structure, filters.psf, background)
    return made, background, model


def _static_variance(
    working: dict[str, WorkingImage], filters: _Filters, ratio: float, tile: int
) -> Image:
    """Variance of the science image without what only it contains."""
    science, template = working["science"], working["template"]
    scene = _filtered({"template": template.image}, {"template": filters.scene}, tile)
    model, everywhere = np.empty_like(scene), np.ones(scene.shape, np.uint8)
    residual(
        science.image, scene, np.zeros(6), everywhere, science.sky, science.noise**2,
        float(science.inverse_gain), True, ratio, model, np.empty_like(model),
        np.empty(0, np.float32),
    )  # fmt: skip
    return model


def _score(
    whitened: Whitened,
    working: dict[str, WorkingImage],
    filters: _Filters,
    model: Image,
    tile: int,
) -> Image:
    """S_corr: matched filter over the root of its source-free variance; zero where excluded."""
    excluded = flagged(whitened.mask, bits(*NOT_IN_SCORE))
    psf = resized(filters.psf.cube.reshape(-1, *filters.psf.cube.shape[2:]), 2 * _SCORE_HALF + 1)
    clean = np.where(excluded, np.float32(0.0), whitened.image)
    signal = _filtered({"": clean}, {"": psf[:, ::-1, ::-1]}, tile)
    squares = {name: kernel**2 for name, kernel in filters.score.items()}
    planes = {"science": model, "template": working["template"].variance}
    noise = _filtered(planes, squares, tile, filters.score_gain)
    signal /= np.sqrt(np.maximum(noise, np.finfo(np.float32).tiny))
    signal[excluded] = 0.0
    return signal


def _filtered(
    planes: dict[str, Image],
    kernels: dict[str, FloatArray],
    core: int,
    gain: FloatArray | None = None,
) -> Image:
    """Sum of planes, each convolved tile by tile with its kernels."""
    first = next(iter(planes.values()))
    shape = (int(first.shape[0]), int(first.shape[1]))
    out = np.empty(shape, np.float32)
    for k, tile in enumerate(tiles(shape, core)):
        total = sum(_convolved(planes[n], kernels[n][k], tile, core) for n in planes)
        out[tile] = total if gain is None else np.float32(gain[k]) * total
    return out


def _convolved(plane: Image, kernel: FloatArray, tile: Tile, core: int) -> Image:
    """Convolve one tile of a plane, mirrored at its edges."""
    half = kernel.shape[-1] // 2
    size = fft_size((int(plane.shape[0]), int(plane.shape[1])), core, half)
    padded = np.empty(size, np.float32)
    cut(plane, tile[0].start, tile[1].start, half, padded)
    product = fft.rfft2(padded) * transform(kernel, size)
    return inner(fft.irfft2(product, size), tile, 2 * half)
