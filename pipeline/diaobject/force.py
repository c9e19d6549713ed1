"""Forced photometry at every object in an image."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS

from pipeline.diaobject.config import Config
from pipeline.exposure import Difference, Exposure, FloatArray, Mask
from pipeline.ids import pack
from pipeline.pixelflags import pixel_flags
from pipeline.psfphot import ForcedFlux, forced_flux
from pipeline.schema import DIA_FORCED_SOURCE, to_numpy

__all__ = ["force"]

_LOGGER = logging.getLogger(__name__)
_FLAGS = (
    "bad", "cr", "edge", "nodata", "interpolated", "saturated", "suspect", "streak", "injected",
    "injected_template", "saturated_template",
)  # fmt: skip
_CORE = 2
_LIMIT = 3.0


def force(
    objects: pa.Table,
    difference: Difference,
    science: Exposure,
    config: Config = Config(),  # noqa: B008
    *,
    processed_mjd_tai: float,
    first_counter: int = 0,
) -> pa.Table:
    """Measure the flux on difference and visit image at each object's position.

    Objects whose first source came after this exposure are precovered, back to
    `Config.precovery_window` days; beyond that there is no row, nor is there one off the image.

    Parameters
    ----------
    objects : pyarrow.Table
        `DIA_OBJECT`, any part of the sky.
    difference : Difference
        The difference image.
    science : Exposure
        The visit image on the same pixels.
    config : Config
        Configuration.
    processed_mjd_tai : float, d
        Time stamp of the rows.
    first_counter : int
        Number of forced sources that this visit and detector have already; keeps ids unique.

    Returns
    -------
    pyarrow.Table
        `DIA_FORCED_SOURCE`, ordered by object.
    """
    exposure, info = difference.exposure, difference.exposure.info
    if exposure.wcs is None or exposure.psf is None or science.psf is None:
        raise ValueError("forced photometry needs coordinates and both PSFs")
    objects, x, y = _covered(objects, exposure.wcs, exposure, config)
    on_difference = forced_flux(
        exposure.image, exposure.variance, difference.null_variance, exposure.mask,
        exposure.psf, x, y, correlation=exposure.noise_correlation,
    )  # fmt: skip
    on_science = forced_flux(
        science.image, science.variance, None, science.mask, science.psf, x, y,
        correlation=science.noise_correlation,
    )  # fmt: skip
    ids = [pack(info.visit, info.detector, first_counter + k) for k in range(len(x))]
    columns = {
        "diaForcedSourceId": np.array(ids, np.int64),
        **{name: to_numpy(objects, name) for name in ("diaObjectId", "ra", "dec")},
        **_flux_columns(on_difference, on_science),
        "isPrecovery": to_numpy(objects, "firstDiaSourceMjdTai") > info.midpoint_mjd_tai,
        **_pixel_flags(exposure.mask, x, y),
    }
    return DIA_FORCED_SOURCE.to_arrow(
        columns,
        visit=info.visit,
        detector=info.detector,
        band=info.band,
        midpointMjdTai=info.midpoint_mjd_tai,
        timeProcessedMjdTai=processed_mjd_tai,
    )


def _covered(
    objects: pa.Table, wcs: WCS, exposure: Exposure, config: Config
) -> tuple[pa.Table, FloatArray, FloatArray]:
    """Objects on the image and not born too long after it, ordered by id, and their pixels."""
    objects = objects.take(np.argsort(to_numpy(objects, "diaObjectId")))
    early = to_numpy(objects, "firstDiaSourceMjdTai") - exposure.info.midpoint_mjd_tai
    x, y = np.zeros(0), np.zeros(0)
    if objects.num_rows:
        x, y = wcs.all_world2pix(to_numpy(objects, "ra"), to_numpy(objects, "dec"), 0)
    ny, nx = exposure.shape
    inside = (x >= -0.5) & (y >= -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
    rows = np.flatnonzero(inside & (early <= config.precovery_window))
    _LOGGER.info("forced photometry of %d objects, %d off the image or too late", len(rows),
                 len(inside) - len(rows))  # fmt: skip
    return objects.take(rows), x[rows], y[rows]


def _flux_columns(difference: ForcedFlux, science: ForcedFlux) -> dict[str, npt.NDArray[Any]]:
    return {
        "psfFlux": difference.flux,
        "psfFluxErr": difference.flux_err,
        "psfChi2": difference.chi2,
        "psfNdata": difference.ndata,
        "scienceFlux": science.flux,
        "scienceFluxErr": science.flux_err,
        "psfFlux_flag": difference.flag,
        "psfFlux_flag_edge": difference.edge,
        "psfFlux_flag_noGoodPixels": difference.no_good_pixels,
        "scienceFlux_flag": science.flag,
        "isUpperLimit": np.abs(difference.flux) < _LIMIT * difference.flux_err,
    }


def _pixel_flags(
    mask: Mask, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Planes within two pixels of each position."""
    ny, nx = mask.shape
    step = np.arange(-_CORE, _CORE + 1)
    rows = np.clip(np.rint(y).astype(int)[:, None, None] + step[:, None], 0, ny - 1)
    columns = np.clip(np.rint(x).astype(int)[:, None, None] + step, 0, nx - 1)
    found = np.bitwise_or.reduce(mask[rows, columns], axis=(1, 2))
    return pixel_flags(found, _FLAGS)
