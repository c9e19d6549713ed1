"""Tying an exposure without a reference catalogue to another exposure of the same field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.calibrate.astrometry import fit_astrometry, image_centre
from pipeline.calibrate.config import Config
from pipeline.calibrate.photometry import ZeroPoint, fit_zero_point
from pipeline.calibrate.refcat import ReferenceStars, reference_stars
from pipeline.calibrate.run import Result
from pipeline.errors import AstrometryError
from pipeline.exposure import NJY_ZERO_POINT, Exposure, FloatArray, PhotoCalib
from pipeline.quantise import quantised
from pipeline.schema import to_numpy
from pipeline.wcs import pixel_scale

__all__ = ["align"]

_SNR = 20.0


def align(result: Result, reference: pa.Table, config: Config | None = None) -> Result:
    """Bring a visit image onto the coordinates and the flux scale of a reference exposure.

    The fluxes of the reference need no zero point: the image is multiplied by the ratio, and
    stays in electrons, those of the reference.

    Parameters
    ----------
    result : Result
        A visit image that was calibrated without a reference catalogue.
    reference : pyarrow.Table
        `Result.sources` of the exposure to follow.
    config : Config, optional
        Choices, for the match.

    Returns
    -------
    Result
        New coordinates, pixels and sources; `photo_calib.njy_per_electron` holds the ratio of
        scales, and `summary` how well the two agree.

    Raises
    ------
    AstrometryError
        If the two exposures do not match.
    PhotometryError
        If their fluxes have no common scale.
    """
    config = config or Config()
    image = result.visit_image
    if image.wcs is None:
        raise AstrometryError("an image without world coordinates cannot be aligned", pairs=0)
    table = result.sources.filter(_usable(result.sources))
    stars = _as_references(reference, image.info.band, image_centre(image.wcs, image.shape))
    x, y = to_numpy(table, "x"), to_numpy(table, "y")
    scale = pixel_scale(image.wcs) * 3.6e6
    err = to_numpy(table, "xErr").astype(float) * scale
    fit = fit_astrometry(
        image.wcs, image.shape, x, y, err, stars,
        max_offset=config.max_offset, max_rotation=config.max_rotation,
        max_chance=config.max_chance, min_pairs=config.min_astrometry_stars,
    )  # fmt: skip
    flux, flux_err = to_numpy(table, "psfFlux")[fit.detection], to_numpy(table, "psfFluxErr")
    zero = fit_zero_point(
        flux, _sky_part(flux, flux_err[fit.detection]), stars.flux[fit.reference],
        stars.flux_err[fit.reference], max_scatter=config.max_zero_point_scatter,
    )  # fmt: skip
    aligned = _rescaled(result, zero, _unit(reference))
    note = (
        f"tied to a reference exposure: {len(fit)} stars, scale {zero.njy:.4f} ± {zero.err:.4f} mag"
    )
    row = {
        **aligned.summary,
        "astrometryRmsRa": fit.rms[0],
        "astrometryRmsDec": fit.rms[1],
        "nAstrometryStars": len(fit),
        "astrometryOrder": fit.order,
        "fluxScale": zero.njy,
        "fluxScaleErr": zero.err,
        "fluxScaleScatter": zero.scatter,
    }
    ra, dec = fit.wcs.all_pix2world(to_numpy(result.sources, "x"), to_numpy(result.sources, "y"), 0)
    sources = _with_column(_with_column(aligned.sources, "ra", ra), "dec", dec)
    visit = aligned.visit_image.replace(wcs=fit.wcs)
    return Result(visit, sources, row, (*result.notes, note))


def _usable(table: pa.Table) -> npt.NDArray[np.bool_]:
    bright = to_numpy(table, "psfFlux") > _SNR * to_numpy(table, "psfFluxErr")
    return np.asarray(bright & ~(to_numpy(table, "flag") | to_numpy(table, "saturated")))


def _as_references(table: pa.Table, band: str, centre: tuple[float, float]) -> ReferenceStars:
    """Give sources of an exposure the form of a reference catalogue at its epoch."""
    table = table.filter(_usable(table))
    mas = to_numpy(table, "xErr").astype(float) * _mas_per_pixel(table)
    renamed = pa.table(
        {
            "objectId": table["sourceId"],
            "ra": table["ra"],
            "dec": table["dec"],
            "raErr": mas,
            "decErr": mas,
            f"{band}Flux": table["psfFlux"],
            f"{band}FluxErr": table["psfFluxErr"],
        }
    )
    return reference_stars(renamed, band, 0.0, centre, 1.0)


def _mas_per_pixel(table: pa.Table) -> float:
    """Pixel scale, from how positions on the sky spread over how those on the detector do."""
    x, y, ra, dec = (to_numpy(table, name) for name in ("x", "y", "ra", "dec"))
    if len(x) < 3:
        return 300.0
    east = (ra - ra[0] + 180.0) % 360.0 - 180.0
    sky = np.hypot(np.std(east) * np.cos(np.radians(dec.mean())), np.std(dec))
    return float(sky / np.hypot(np.std(x), np.std(y)) * 3.6e6)


def _sky_part(flux: FloatArray, err: FloatArray) -> FloatArray:
    """Variance of the fluxes without the sources' own photons."""
    return np.maximum(err**2 - np.clip(flux, 0.0, None), 0.25 * err**2)


def _unit(table: pa.Table) -> str:
    """Return the unit of the fluxes of a source table."""
    metadata = table.schema.field("psfFlux").metadata or {}
    return str(metadata.get(b"unit", b"electron").decode())


def _rescaled(result: Result, zero: ZeroPoint, unit: str) -> Result:
    image, factor = result.visit_image, zero.njy
    f = np.float32(factor)
    background = None if image.background is None else image.background * f
    calib = _common_scale(image, zero, unit)
    visit = image.replace(
        image=image.image * f,
        variance=image.variance * np.float32(factor**2),
        background=background,
        photo_calib=calib,
        unit=unit,
        info=replace(image.info, saturation=image.info.saturation * factor),
    )
    sources = result.sources
    for name in ("psfFlux", "psfFluxErr", "apFlux"):
        sources = _with_column(sources, name, to_numpy(sources, name) * factor)
    row = dict(result.summary)
    for name in ("skyNoise",):
        value = row.get(name)
        row[name] = None if value is None else float(value) * factor
    row |= {"unit": unit, "zeroPoint": calib.zero_point, "zeroPointErr": calib.zero_point_err}
    row |= {"zeroPointScatter": calib.scatter, "nZeroPointStars": calib.n_stars}
    return Result(quantised(visit), sources, row, result.notes)


def _common_scale(image: Exposure, zero: ZeroPoint, unit: str) -> PhotoCalib:
    """Calibration after scaling: that of the reference, where it has one."""
    scale = zero.njy
    if image.unit == "nJy" and image.photo_calib is not None:
        scale *= image.photo_calib.njy_per_electron
    if unit != "nJy":
        return PhotoCalib(njy_per_electron=scale)
    magnitude = NJY_ZERO_POINT - 2.5 * float(np.log10(scale))
    return PhotoCalib(magnitude, zero.err, zero.scatter, zero.n, scale)


def _with_column(table: pa.Table, name: str, values: FloatArray) -> pa.Table:
    index = table.schema.get_field_index(name)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(values, from_pandas=True).cast(field.type))
