"""The subtraction of two registered exposures, by an algorithm of choice."""

from __future__ import annotations

import importlib
import logging
from typing import Protocol, cast

import numpy as np

from pipeline.errors import SubtractionError
from pipeline.exposure import Difference, Exposure
from pipeline.subtract.config import ALGORITHMS, Config
from pipeline.subtract.psf_matching import RESIDUAL_SHARE

__all__ = ["Subtractor", "fine_tiles", "run", "subtractor", "wants_template_psf"]

_LOG = logging.getLogger(__name__)

_LEAST_TILE = 64


class Subtractor(Protocol):
    """An algorithm: two exposures on the same pixels to a difference, its score and its noise."""

    def __call__(self, science: Exposure, template: Exposure, config: Config) -> Difference:
        """Subtract.

        Parameters
        ----------
        science, template : Exposure
            Images on the same pixels; the science image has a PSF.
        config : Config
            What was chosen; tiles are no larger than a quarter of the image.

        Returns
        -------
        Difference
            In the flux unit of the science image, with the metrics of `measure`.

        Raises
        ------
        UnitError
            If the pair cannot be subtracted.
        """


def subtractor(name: str) -> Subtractor:
    """Find an algorithm, the function ``subtract`` of its module.

    Parameters
    ----------
    name : str
        One of `ALGORITHMS`.

    Returns
    -------
    Subtractor
        The algorithm.
    """
    return cast(Subtractor, importlib.import_module(ALGORITHMS[name]).subtract)


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
    does not come out white, Alard–Lupton measures it, and the images are subtracted again.

    With fewer than three sources the kernel is that which takes one PSF model to the other.  Its
    sum is one if both images are in nJy, otherwise that of the one or two sources there are.  The
    metrics then say ``nStamps`` 0.
    """
    config = fine_tiles(config or Config(), science.shape)
    if science.shape != template.shape:
        raise SubtractionError(
            "science and template are not on the same pixels",
            science=str(science.shape),
            template=str(template.shape),
        )
    if science.psf is None:
        raise SubtractionError("the science exposure has no PSF, so the difference can have none")
    if not np.isfinite(science.psf.at(science.shape[1] / 2, science.shape[0] / 2)).all():
        raise SubtractionError("the PSF of the science exposure is not finite")
    _LOG.info("subtracting by %s", config.algorithm)
    return subtractor(config.algorithm)(science, template, config)


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
    return difference.metrics["starLeft"] >= RESIDUAL_SHARE


def fine_tiles(config: Config, shape: tuple[int, int]) -> Config:
    """Make tiles small enough for four per axis: seeing and noise vary over small images too.

    Parameters
    ----------
    config : Config
        What was chosen.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    Config
        With `tile` at most a quarter of the shorter side, and 64 pixels at least.
    """
    tile = min(config.tile, max(_LEAST_TILE, min(shape) // 4))
    return config.model_copy(update={"tile": tile})
