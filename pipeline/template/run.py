"""From visit images to the template of a patch of sky."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS

from pipeline.errors import TemplateError
from pipeline.exposure import Exposure, FloatArray, Psf, VisitInfo
from pipeline.template.coadd import Stack
from pipeline.template.config import Config
from pipeline.template.noise import tile_centres
from pipeline.template.psf import coadd_psf, warped_psf
from pipeline.template.select import Input, select
from pipeline.template.warp import Warper

__all__ = ["Result", "run"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """A template and where it came from.

    Attributes
    ----------
    template : Exposure
        Coadd with variance, mask, PSF, noise autocovariance and provenance.
    inputs : pyarrow.Table
        One row per exposure that was offered: ``visit detector used weight fwhm medianVariance
        coverage clippedFraction reason``; the weights of those used sum to one.
    notes : tuple of str
        What a person should know.
    """

    template: Exposure
    inputs: pa.Table
    notes: tuple[str, ...]


def run(
    inputs: Sequence[Exposure], wcs: WCS, shape: tuple[int, int], config: Config | None = None
) -> Result:
    """Coadd exposures onto a patch of sky.

    Every input has one weight, the inverse of its median variance on the patch, so that the PSF
    does not depend on the flux of a source.

    Parameters
    ----------
    inputs : sequence of Exposure
        Visit images of one band in one unit; any mixture of visits and detectors.
    wcs : astropy.wcs.WCS
        Sky coordinates of the patch.
    shape : tuple of int, (ny, nx)
        Its size.
    config : Config, optional
        See `Config`.

    Returns
    -------
    Result
        The template and its inputs.

    Raises
    ------
    TemplateError
        If no input overlaps the patch, or units or bands are mixed.
    """
    config = config or Config()
    _check(inputs)
    chosen, rejected, notes = select(inputs, wcs, shape, config)
    warpers = [Warper.to(c.exposure, wcs, shape, config) for c in chosen]
    weights = np.array([c.weight for c in chosen])
    stack = Stack(warpers, weights.astype(np.float32), config)
    image, variance, mask = stack.coadd(shape)
    template = Exposure(
        image=image,
        variance=variance,
        mask=mask,
        info=_info(chosen),
        wcs=wcs,
        psf=_psf(warpers, weights, shape, config),
        photo_calib=chosen[0].exposure.photo_calib,
        unit=chosen[0].exposure.unit,
        noise_correlation=_noise(chosen, warpers, weights),
        provenance=_provenance(chosen),
    )
    notes = [*notes, *_count_note(len(chosen))]
    for note in notes:
        _LOGGER.info("%s", note)
    _LOGGER.info("template of %d inputs, %d left out", len(chosen), len(rejected))
    return Result(template, _table(chosen, rejected, stack), tuple(notes))


def _check(inputs: Sequence[Exposure]) -> None:
    if not inputs:
        raise TemplateError("a template needs at least one input", inputs=0)
    for what in ("unit", "band"):
        found = {e.unit if what == "unit" else e.info.band for e in inputs}
        if len(found) > 1:
            raise TemplateError(f"template inputs differ in {what}: {', '.join(sorted(found))}")


def _count_note(n: int) -> tuple[str, ...]:
    return (f"only {n} template input(s), fewer than 3",) if n < 3 else ()


def _psf(
    warpers: Sequence[Warper],
    weights: FloatArray,
    shape: tuple[int, int],
    config: Config,
) -> Psf | None:
    psfs = [warped_psf(w.exposure.psf, w.mapping, shape, config.psf_step) for w in warpers]
    grids = [p for p in psfs if p is not None]
    if len(grids) < len(psfs):
        return None
    x, y = np.meshgrid(grids[0].x, grids[0].y)
    inside = np.array([_inside(w, x, y) for w in warpers])
    defined = np.array([np.isfinite(p.cube).all((2, 3)) for p in grids])
    return coadd_psf(grids, weights[:, None, None] * (inside & defined))


def _inside(warper: Warper, x: FloatArray, y: FloatArray) -> npt.NDArray[np.bool_]:
    u, v = warper.mapping.at(x, y)
    ny, nx = warper.exposure.shape
    return (u >= 2) & (u <= nx - 4) & (v >= 2) & (v <= ny - 4)


def _noise(chosen: Sequence[Input], warpers: Sequence[Warper], weights: FloatArray) -> FloatArray:
    """Mean of the inputs' autocovariances, each by its share of the variance."""
    ty, tx = warpers[0].noise.shape[:2]
    ny, nx = warpers[0].shape
    x, y = np.meshgrid(tile_centres(nx, tx), tile_centres(ny, ty))
    share = np.array(
        [
            w * w * c.median_variance * _inside(p, x, y)
            for w, c, p in zip(weights, chosen, warpers, strict=True)
        ]
    )
    share[:, share.sum(0) == 0] = 1.0
    share /= share.sum(0)
    return np.asarray(np.einsum("nyx,nyxij->yxij", share, np.stack([w.noise for w in warpers])))


def _info(chosen: Sequence[Input]) -> VisitInfo:
    """Describe the coadd as a whole; it belongs to no visit."""
    infos = [c.exposure.info for c in chosen]
    weights = np.array([c.weight for c in chosen])
    midpoint = float(weights @ np.array([i.midpoint_mjd_tai for i in infos]))
    return replace(
        infos[0],
        visit=0,
        exptime=float(sum(i.exptime for i in infos)),
        midpoint_mjd_tai=midpoint,
        saturation=float(min(i.saturation for i in infos)),
    )


def _provenance(chosen: Sequence[Input]) -> dict[str, str | int | float | bool]:
    cards: dict[str, str | int | float | bool] = {"NTMPLIN": len(chosen)}
    for k, c in enumerate(chosen, start=1):
        cards[f"TMPLIN{k}"] = f"{c.exposure.info.visit}_{c.exposure.info.detector:02d}"
        cards[f"TMPLWT{k}"] = round(c.weight, 9)
    return cards


def _table(chosen: Sequence[Input], rejected: Sequence[Input], stack: Stack) -> pa.Table:
    assert stack.covered is not None
    assert stack.clipped is not None
    everyone = [*chosen, *rejected]
    nothing = [0] * len(rejected)
    covered = np.array([*stack.covered, *nothing], float)
    clipped = np.array([*stack.clipped, *nothing], float)
    size = stack.warpers[0].shape[0] * stack.warpers[0].shape[1]
    return pa.table(
        {
            "visit": pa.array([c.exposure.info.visit for c in everyone], pa.int64()),
            "detector": pa.array([c.exposure.info.detector for c in everyone], pa.int16()),
            "used": pa.array([not c.reason for c in everyone], pa.bool_()),
            "weight": pa.array([c.weight for c in everyone], pa.float64()),
            "fwhm": pa.array([c.fwhm for c in everyone], pa.float64(), from_pandas=True),
            "medianVariance": pa.array(
                [c.median_variance for c in everyone], pa.float64(), from_pandas=True
            ),
            "coverage": pa.array(covered / size, pa.float64()),
            "clippedFraction": pa.array(clipped / np.maximum(covered, 1), pa.float64()),
            "reason": pa.array([c.reason or None for c in everyone], pa.string()),
        }
    )
