"""Forced photometry at every object in an image."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.diaobject.config import Config
from pipeline.exposure import Difference, Exposure, Mask
from pipeline.ids import pack
from pipeline.pixelflags import pixel_flags
from pipeline.psfphot import forced_flux
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
    objects = objects.take(np.argsort(to_numpy(objects, "diaObjectId")))
    early = to_numpy(objects, "firstDiaSourceMjdTai") - info.midpoint_mjd_tai
    x, y = (
        exposure.wcs.all_world2pix(to_numpy(objects, "ra"), to_numpy(objects, "dec"), 0)
        if objects.num_rows
        else (np.zeros(0), np.zeros(0))
    )
    ny, nx = exposure.shape
    inside = (x >= -0.5) & (y >= -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
    rows = np.flatnonzero(inside & (early <= config.precovery_window))
    _LOGGER.info("forced photometry of %d objects, %d off the image or too late", len(rows),
                 len(inside) - len(rows))  # fmt: skip
    x, y, objects = x[rows], y[rows], objects.take(rows)
    on_difference = forced_flux(
        exposure.image, exposure.variance, difference.null_variance, exposure.mask,
        exposure.psf, x, y, correlation=exposure.noise_correlation,
    )  # fmt: skip
    on_science = forced_flux(
        science.image, science.variance, None, science.mask, science.psf, x, y,
        correlation=science.noise_correlation,
    )  # fmt: skip
    ids = [pack(info.visit, info.detector, first_counter + k) for k in range(len(rows))]
    flux, error = on_difference.flux, on_difference.flux_err
    columns = {
        "diaForcedSourceId": np.array(ids, np.int64),
        "diaObjectId": to_numpy(objects, "diaObjectId"),
        "ra": to_numpy(objects, "ra"),
        "dec": to_numpy(objects, "dec"),
        "psfFlux": flux,
        "psfFluxErr": error,
        "psfChi2": on_difference.chi2,
        "psfNdata": on_difference.ndata,
        "scienceFlux": on_science.flux,
        "scienceFluxErr": on_science.flux_err,
        "psfFlux_flag": on_difference.flag,
        "psfFlux_flag_edge": on_difference.edge,
        "psfFlux_flag_noGoodPixels": on_difference.no_good_pixels,
        "scienceFlux_flag": on_science.flag,
        "isUpperLimit": np.abs(flux) < _LIMIT * error,
        "isPrecovery": early[rows] > 0,
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
