"""Which exposures go into a template, and with which weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.wcs import WCS

from pipeline.errors import TemplateError
from pipeline.exposure import Exposure
from pipeline.masks import NOT_BLANK, bits
from pipeline.psfphot import middle_fwhm
from pipeline.template.config import Config
from pipeline.template.mapping import sky_mapping

__all__ = ["Input", "select"]


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """One candidate.

    Attributes
    ----------
    exposure : Exposure
        The visit image.
    fwhm : float, pixel
        Of its PSF, as a Gaussian of the same noise-equivalent area; NaN if unknown.
    median_variance : float
        Of its blank pixels.
    weight : float
        Share in the mean; zero if it is not used.
    reason : str
        Why it is not used; empty if it is.
    """

    exposure: Exposure
    fwhm: float
    median_variance: float
    weight: float = 0.0
    reason: str = ""


def select(
    inputs: Sequence[Exposure], wcs: WCS, shape: tuple[int, int], config: Config
) -> tuple[list[Input], list[Input], list[str]]:
    """Choose the inputs and their weights.

    Parameters
    ----------
    inputs : sequence of Exposure
        What is offered.
    wcs, shape
        The patch.
    config : Config
        Limits on number and seeing.

    Returns
    -------
    chosen, rejected : list of Input
        Ordered by visit and detector; the weights of the chosen sum to one.
    notes : list of str
        Why others were left out.

    Raises
    ------
    TemplateError
        If nothing is left.
    """
    everyone = sorted(
        (_candidate(e, wcs, shape) for e in inputs),
        key=lambda c: (c.exposure.info.visit, c.exposure.info.detector),
    )
    everyone = _by_seeing(everyone, config)
    chosen = [c for c in everyone if not c.reason]
    rejected = [c for c in everyone if c.reason]
    if not chosen:
        reasons = "; ".join(sorted({c.reason for c in rejected}))
        raise TemplateError(f"no usable template input: {reasons}", inputs=len(inputs))
    total = sum(1.0 / c.median_variance for c in chosen)
    chosen = [replace(c, weight=1.0 / c.median_variance / total) for c in chosen]
    notes = [
        f"template input {c.exposure.info.visit} {c.exposure.info.detector} left out: {c.reason}"
        for c in rejected
    ]
    return chosen, rejected, notes


def _candidate(exposure: Exposure, wcs: WCS, shape: tuple[int, int]) -> Input:
    thin = np.s_[::7, ::7]
    good = (exposure.mask[thin] & bits(*NOT_BLANK)) == 0
    values = exposure.variance[thin][good]
    values = values[np.isfinite(values) & (values > 0)]
    variance = float(np.median(values)) if values.size else float("nan")
    reason = ""
    if exposure.wcs is None:
        reason = "no sky coordinates"
    elif not values.size:
        reason = "no usable pixels"
    elif not _overlaps(exposure, wcs, shape):
        reason = "no overlap with the patch"
    return Input(exposure, middle_fwhm(exposure.psf, exposure.shape), variance, reason=reason)


def _overlaps(exposure: Exposure, wcs: WCS, shape: tuple[int, int]) -> bool:
    assert exposure.wcs is not None
    mapping = sky_mapping(exposure.wcs, wcs, shape, 64)
    ny, nx = exposure.shape
    inside = (mapping.x > 2) & (mapping.x < nx - 3) & (mapping.y > 2) & (mapping.y < ny - 3)
    return bool(inside.any())


def _by_seeing(everyone: list[Input], config: Config) -> list[Input]:
    """Leave out the softest while three remain, and all beyond the largest number."""
    usable = sorted((c for c in everyone if not c.reason), key=lambda c: c.fwhm)
    if not usable:
        return everyone
    limit = config.max_fwhm_ratio * usable[0].fwhm
    dropped: dict[int, str] = {}
    for rank, c in enumerate(usable):
        if config.max_inputs and rank >= config.max_inputs:
            dropped[id(c)] = f"beyond the {config.max_inputs} sharpest"
        elif rank >= 3 and c.fwhm > limit:
            dropped[id(c)] = f"FWHM {c.fwhm:.2f} px above {limit:.2f} px"
    return [replace(c, reason=dropped.get(id(c), c.reason)) for c in everyone]
