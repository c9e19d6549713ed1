"""From two registered exposures to a difference: the order of the steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.errors import SubtractionError
from pipeline.exposure import Difference, Exposure, Image, Mask, MatchingKernel, bits
from pipeline.subtract.config import Config
from pipeline.subtract.convolve import background_plane, convolve
from pipeline.subtract.decorrelate import Filters, apply, design
from pipeline.subtract.fit import Fit, fit_kernel
from pipeline.subtract.masks import EXCLUDED, propagate
from pipeline.subtract.metrics import measure
from pipeline.subtract.planes import Layer, prepare
from pipeline.subtract.score import score
from pipeline.subtract.stamps import Stamps, find

__all__ = ["run"]


def run(science: Exposure, template: Exposure, config: Config | None = None) -> Difference:
    """Subtract a template from a science exposure.

    Parameters
    ----------
    science : Exposure
        The image in which things have changed, with its PSF.
    template : Exposure
        The same sky on the same pixels; `noise_correlation` is respected.
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
        If they do not overlap, or fewer than three sources can be used for the kernel.
    """
    config = config or Config()
    if science.shape != template.shape:
        raise SubtractionError(
            "science and template are not on the same pixels",
            science=str(science.shape),
            template=str(template.shape),
        )
    if science.psf is None:
        raise SubtractionError("the science exposure has no PSF, so the difference can have none")
    layers = {"science": prepare(science, "science"), "template": prepare(template, "template")}
    _check_overlap(layers)
    stamps = find(layers["science"], layers["template"], config)
    convolved = _direction(stamps, config)
    fit = fit_kernel(stamps, convolved, science.shape, config)
    return _difference(science, template, layers, fit, config)


def _check_overlap(layers: dict[str, Layer]) -> None:
    common = ~(layers["science"].bad | layers["template"].bad)
    if np.count_nonzero(common) < 100:
        raise SubtractionError(
            "science and template have no usable pixels in common", common=int(common.sum())
        )


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
) -> Difference:
    kernel = fit.kernel
    source = kernel.convolved
    target = "science" if source == "template" else "template"
    matched = convolve(layers[source].image, kernel, config.tile)
    matched += background_plane(kernel)
    mask = propagate(
        {"science": science.mask, "template": template.mask},
        kernel,
        config.dilation_share,
        config.tile,
    )
    usable = (mask & EXCLUDED) == 0
    usable &= ~layers["science"].bad
    raw = layers[target].image - matched
    # What is unusable must not leak into its surroundings.
    clean = np.where(usable, raw, np.float32(0.0))
    null = _null_variances(layers, matched, kernel)
    filters = design(
        kernel,
        {name: layer.noise**2 for name, layer in layers.items()},
        {name: layer.correlation for name, layer in layers.items()},
        config.tile,
        whiten=config.decorrelate,
    )
    image, variance = apply(filters, clean, null[source], null[target], config.tile)
    image = np.where(usable, image, raw)
    image, variance, scale = _to_science(image, variance, kernel)
    blank = usable & _blank(
        layers[target], matched if source == "template" else layers[target].image
    )
    return _package(
        science,
        template,
        layers,
        fit,
        filters,
        image,
        variance,
        null,
        mask,
        usable,
        blank,
        scale,
        config,
    )


def _null_variances(
    layers: dict[str, Layer], matched: Image, kernel: MatchingKernel
) -> dict[str, Image]:
    """Variances without what is only in the science image: its counts come from the template."""
    science, template = layers["science"], layers["template"]
    if kernel.convolved == "template":
        static = matched
    else:
        ratio = np.float32(kernel.sum_at([kernel.shape[1] / 2], [kernel.shape[0] / 2])[0])
        static = (template.image - background_plane(kernel)) / ratio
    model = np.empty(science.shape, np.float32)
    _model_variance(static, science.sky, science.noise, float(science.slope), model)
    return {"science": model, "template": template.variance}


@compiled
def _model_variance(static: Image, sky: Image, noise: Image, slope: float, out: Image) -> None:
    """Bilinear sky variance plus the photon noise of the static scene."""
    ny, nx = static.shape
    ty, tx = sky.shape
    for y in range(ny):
        v = min(max((y + 0.5) * ty / ny - 0.5, 0.0), ty - 1.0)
        j = min(int(v), max(ty - 2, 0))
        j1 = min(j + 1, ty - 1)
        t = v - j
        for x in range(nx):
            u = min(max((x + 0.5) * tx / nx - 0.5, 0.0), tx - 1.0)
            i = min(int(u), max(tx - 2, 0))
            i1 = min(i + 1, tx - 1)
            s = u - i
            power, level = 0.0, 0.0
            for a, b, w in (
                (j, i, (1 - t) * (1 - s)),
                (j, i1, (1 - t) * s),
                (j1, i, t * (1 - s)),
                (j1, i1, t * s),
            ):
                power += w * noise[a, b] * noise[a, b]
                level += w * sky[a, b]
            out[y, x] = power + slope * max(static[y, x] - level, 0.0)


def _to_science(
    image: Image, variance: Image, kernel: MatchingKernel
) -> tuple[Image, Image, Image | None]:
    """Bring the sign and the scale of the science image back if it was convolved."""
    if kernel.convolved == "template":
        return image, variance, None
    ny, nx = kernel.shape
    y, x = np.mgrid[:ny, :nx]
    ratio = kernel.sum_at(x.ravel(), y.ravel()).reshape(ny, nx).astype(np.float32)
    return -image / ratio, variance / ratio**2, ratio


def _blank(layer: Layer, static: Image) -> npt.NDArray[np.bool_]:
    """Pixels where the static scene is below the noise."""
    ny, nx = layer.shape
    ty, tx = layer.sky.shape
    rows = np.minimum(np.arange(ny) * ty // ny, ty - 1)
    columns = np.minimum(np.arange(nx) * tx // nx, tx - 1)
    limit = (layer.sky + layer.noise)[rows][:, columns]
    return np.asarray(static < limit)


def _package(
    science: Exposure,
    template: Exposure,
    layers: dict[str, Layer],
    fit: Fit,
    filters: Filters,
    image: Image,
    null_variance: Image,
    null: dict[str, Image],
    mask: Mask,
    usable: npt.NDArray[np.bool_],
    blank: npt.NDArray[np.bool_],
    scale: Image | None,
    config: Config,
) -> Difference:
    assert science.psf is not None
    kernel = fit.kernel
    psf = filters.psf(science.psf, kernel)
    significance = score(image, null_variance, usable, psf, config.tile)
    # The science image's own counts, transients included, add to the quoted variance only.
    own = layers["science"].variance - null["science"]
    factor = filters.target if kernel.convolved == "template" else filters.spread.sum((1, 2))
    gain = np.float32(np.median(factor))
    variance = null_variance + gain * own / (scale**2 if scale is not None else np.float32(1.0))
    variance = np.maximum(variance, 0.25 * null_variance)
    metrics = measure(image, variance, significance, mask, blank, fit)
    missing = (mask & bits("NO_DATA")) != 0
    for plane in (image, variance, null_variance, significance):
        plane[missing] = np.nan
    exposure = science.replace(
        image=image,
        variance=variance,
        mask=mask,
        psf=psf,
        background=None,
        noise_correlation=None,
        provenance={},
    )
    return Difference(exposure, significance, null_variance, _absolute(kernel, layers), metrics)


def _absolute(kernel: MatchingKernel, layers: dict[str, Layer]) -> MatchingKernel:
    """Turn the background between levelled images into that between the images as given."""
    source = kernel.convolved
    target = "science" if source == "template" else "template"
    ratio = kernel.basis.sum((1, 2)) @ kernel.coefficients
    background = np.zeros(max(len(kernel.background), len(np.trim_zeros(ratio, "b"))))
    background[: len(kernel.background)] = kernel.background
    n = min(len(background), len(ratio))
    background[:n] -= ratio[:n] * layers[source].level
    background[0] += layers[target].level
    return replace(kernel, background=background)
