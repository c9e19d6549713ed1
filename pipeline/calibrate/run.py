"""The stage: from electrons to a visit image, in one visible list of steps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.calibrate import background, cosmicray
from pipeline.calibrate.astrometry import Astrometry, fit_astrometry, image_centre
from pipeline.calibrate.config import Config
from pipeline.calibrate.detect import with_footprints, with_wings
from pipeline.calibrate.noise import noise_ratio, rescaled
from pipeline.calibrate.photometry import (
    ApertureCorrection,
    ZeroPoint,
    aperture_correction,
    fit_zero_point,
    natural_fluxes,
)
from pipeline.calibrate.psfmodel import (
    ModelledPsf,
    Sources,
    find_sources,
    model_psf,
    separated,
    sharpest_star,
)
from pipeline.calibrate.refcat import ReferenceStars, reference_stars
from pipeline.calibrate.sources import Photometry, photometry, source_table
from pipeline.calibrate.summary import effective_time, geometry, pixel_summary, psf_shape
from pipeline.camera import Camera, ColourTerm, Passbands, Section
from pipeline.depth import depth, sky_variance
from pipeline.errors import ConfigError, PixelError, UnitError
from pipeline.exposure import NJY_ZERO_POINT, Exposure, PhotoCalib
from pipeline.masks import NO_SKY, bits
from pipeline.quantise import quantised
from pipeline.statistics import GAUSS_FWHM
from pipeline.wcs import pixel_scale

__all__ = ["Result", "Row", "run"]

_LOGGER = logging.getLogger(__name__)

Row = dict[str, float | int | str | None]

_MAG = 2.5 / float(np.log(10.0))
_NO_SKY = bits(*NO_SKY)
_CROWDED = 1.2  # noise of what is not detected over that of its photons
_ASTROMETRY_SNR = 10.0
_ENOUGH_STANDARDS = 8
_STELLAR = 0.15  # widths of standards differ from that of the PSF by less


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What comes out of the stage.

    Attributes
    ----------
    visit_image : Exposure
        In nJy, or in electrons where there is no zero point; background subtracted and kept.
    sources : pyarrow.Table
        Everything detected, brightest first.
    summary : dict
        The numbers of `pipeline.schema.VISIT_IMAGE` and some more.
    notes : tuple of str
        What was not done, and why.
    """

    visit_image: Exposure
    sources: pa.Table
    summary: Row
    notes: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Work:
    """The state of an exposure on its way through the stage."""

    exposure: Exposure
    config: Config
    passbands: Passbands
    notes: list[str] = field(default_factory=list)
    row: Row = field(default_factory=dict)


def run(
    exposure: Exposure,
    refcat: pa.Table | None,
    config: Config | None = None,
    *,
    psf_fwhm_min: float = 0.0,
    amplifiers: Sequence[Section] = (),
    passbands: Passbands | None = None,
) -> Result:
    """Calibrate one exposure of one detector.

    Parameters
    ----------
    exposure : Exposure
        In electrons, instrument signature removed.  World coordinates and, for images that were
        calibrated elsewhere, a zero point in `photo_calib` come from its header.
    refcat : pyarrow.Table, optional
        Reference stars, `pipeline.schema.REFCAT`.  Without it the header's world coordinates and
        zero point are kept as they are, and the notes say so.
    config : Config, optional
        Choices.
    psf_fwhm_min : float, arcsec
        A width below that of any star of the camera; 0 where unknown.
    amplifiers : sequence of Section
        Regions of the image whose variance is scaled separately, if it is scaled at all.
    passbands : Passbands, optional
        Of the camera; by default those of the generic one.

    Returns
    -------
    Result

    Raises
    ------
    PixelError
        Too few usable pixels, too many saturated ones.
    PsfError
        Too few stars.
    AstrometryError
        No credible match to the reference stars.
    PhotometryError
        No zero point although there are reference fluxes.

    Each of these errors has in `partial` the exposure as far as it came.
    """
    work = _Work(exposure, config or Config(), passbands or Camera.load("generic").passbands)
    try:
        return _calibrated(work, refcat, psf_fwhm_min, amplifiers)
    except UnitError as err:
        err.partial = work.exposure
        raise


def _calibrated(
    work: _Work, refcat: pa.Table | None, psf_fwhm_min: float, amplifiers: Sequence[Section]
) -> Result:
    """Do the steps, one after the other."""
    _check_pixels(work)
    _subtract_sky(work)
    _remove_cosmic_rays(work, psf_fwhm_min)
    model = _model_psf(work)
    found, fit, stars = model.found, model.fit, model.index
    _check_noise(work, amplifiers)
    apart = separated(work.exposure, found, fit.psf, 3)
    fluxes = photometry(work.exposure, found.noise, apart, found.moments.ok)
    correction = _correct_aperture(work, fluxes, stars)
    reference = _references(work, refcat)
    matched = _tie_to_sky(work, found, fluxes, reference)
    zero = _tie_to_flux(work, found, fluxes, reference, matched)
    if zero is not None:
        # The flux scale is that of 12 pixels, known as well as the aperture correction is.
        err = np.hypot(zero.err, _MAG * np.hypot(correction.err, fit.sky_err))
        zero = replace(zero, err=float(err))
    return _finish(work, found, fluxes, stars, reference, matched, zero)


def _check_pixels(work: _Work) -> None:
    exposure, config = work.exposure, work.config
    thin = np.s_[::2, ::2]  # shares need no more
    mask = exposure.mask[thin]
    usable = ((mask & _NO_SKY) == 0) & np.isfinite(exposure.image[thin])
    usable &= exposure.variance[thin] > 0
    share, saturated = float(usable.mean()), float(((mask & bits("SAT")) != 0).mean())
    if saturated > config.max_saturated_fraction:
        raise PixelError(
            "the field is saturated", saturated=saturated, bound=config.max_saturated_fraction
        )
    if share < config.min_usable_fraction:
        raise PixelError("too few usable pixels", usable=share, required=config.min_usable_fraction)


def _subtract_sky(work: _Work) -> None:
    exposure = work.exposure
    sky = background.model(exposure.image, exposure.mask, work.config.background)
    work.exposure = exposure.replace(image=exposure.image - sky.image, background=sky.image)


def _remove_cosmic_rays(work: _Work, psf_fwhm_min: float) -> None:
    """Find what is sharper than any star, mark and fill it."""
    exposure = work.exposure
    fwhm = _sharpest_star(work, psf_fwhm_min)
    if not fwhm > 0:
        work.notes.append("cosmic rays not looked for: the sharpest possible star is unknown")
        work.row["nCosmicRays"] = None
        return
    rays = cosmicray.find(
        exposure.image, exposure.variance, exposure.mask, 0.0, fwhm, work.config.cosmic_rays
    )
    mask = exposure.mask.copy()
    mask[rays.mask] |= bits("CR", "INTRP")
    work.exposure = exposure.replace(image=rays.image, variance=rays.variance, mask=mask)


def _sharpest_star(work: _Work, psf_fwhm_min: float) -> float:
    """Width in pixels that no star undercuts: the camera's, else that of this image's stars."""
    wcs = work.exposure.wcs
    if psf_fwhm_min > 0 and wcs is not None:
        return psf_fwhm_min / 3600.0 / pixel_scale(wcs)
    return sharpest_star(work.exposure, work.config)


def _model_psf(work: _Work) -> ModelledPsf:
    """Find sources and fit the PSF to the stars among them."""
    exposure, config = work.exposure, work.config
    model = model_psf(exposure, find_sources(exposure, config), config)
    found, fit = model.found, model.fit
    _LOGGER.info("%d sources, stars of %.2f pixels", len(found.detections), found.size)
    if fit.psf.order < config.psf_order:
        work.notes.append(
            f"PSF of order {fit.psf.order} instead of {config.psf_order}: {fit.n_stars} stars"
        )
    _LOGGER.info("PSF of order %d from %d stars", fit.psf.order, fit.n_stars)
    exposure = exposure.replace(mask=with_footprints(exposure.mask, found.detections))
    mask = with_wings(
        exposure, found.noise, found.detections, found.size, config.detection_threshold
    )
    work.exposure = exposure.replace(psf=fit.psf, mask=mask)
    work.row["nSources"] = len(found.detections)
    work.row.update(psf_shape(fit.psf, exposure.shape))
    work.row.update(psfOrder=fit.psf.order, nPsfStars=fit.n_stars)
    work.row.update(model.judged)
    return model


def _check_noise(work: _Work, amplifiers: Sequence[Section]) -> None:
    """Measure the noise of the blank sky; scale the variance to it if that is wanted."""
    exposure, config = work.exposure, work.config
    work.row["noiseRatio"] = noise_ratio(exposure.image, exposure.variance, exposure.mask)
    work.row["varianceScale"] = 1.0
    if float(work.row["noiseRatio"] or 0.0) > _CROWDED:
        work.notes.append(
            f"crowded: undetected sources make the sky {work.row['noiseRatio']:.2f} times as noisy"
            " as its photons; the background contains their light"
        )
    if not config.rescale_variance:
        return
    variance, factors = rescaled(
        exposure.image, exposure.variance, exposure.mask, amplifiers, config.max_noise_correction
    )
    work.exposure = exposure.replace(variance=variance)
    work.row["varianceScale"] = float(np.mean(list(factors.values())))
    text = ", ".join(f"{region} {factor:.3f}" for region, factor in factors.items())
    work.notes.append(f"variance scaled to the noise of the blank sky: {text}")


def _correct_aperture(
    work: _Work, fluxes: Photometry, stars: npt.NDArray[np.int64]
) -> ApertureCorrection:
    area = np.pi * 12.0**2
    flux, aperture = fluxes.flux[stars], fluxes.aperture[stars]
    sky = float(np.median(work.exposure.variance[::8, ::8]))
    with np.errstate(divide="ignore", invalid="ignore"):
        err = np.sqrt(np.clip(flux, 0, None) + area * sky) / flux
    correction = aperture_correction(aperture, flux, err)
    work.row.update(apCorr=correction.value, apCorrErr=correction.err, nApCorrStars=correction.n)
    return correction


def _references(work: _Work, refcat: pa.Table | None) -> ReferenceStars | None:
    wcs, info, config = work.exposure.wcs, work.exposure.info, work.config
    if refcat is None or wcs is None:
        missing = "reference catalogue" if refcat is None else "world coordinates in the header"
        work.notes.append(f"world coordinates kept as they came: no {missing}")
        return None
    shape = work.exposure.shape
    centre = image_centre(wcs, shape)
    radius = 0.5 * float(np.hypot(*shape)) * pixel_scale(wcs) * 1.05 + config.max_offset / 3600.0
    return reference_stars(refcat, info.band, info.midpoint_mjd_tai, centre, radius)


def _tie_to_sky(
    work: _Work, found: Sources, fluxes: Photometry, reference: ReferenceStars | None
) -> Astrometry | None:
    if reference is None or work.exposure.wcs is None:
        work.row.update(astrometryRmsRa=None, astrometryRmsDec=None, nAstrometryStars=0)
        return None
    exposure, config = work.exposure, work.config
    assert exposure.wcs is not None
    err = fluxes.centroid_err(found.size) * 1000.0 * 3600.0
    err *= pixel_scale(exposure.wcs)
    usable = _for_astrometry(found, fluxes)
    order = usable[np.argsort(-fluxes.flux[usable], kind="stable")]
    fit = fit_astrometry(
        exposure.wcs, exposure.shape, fluxes.x[order], fluxes.y[order], err[order], reference,
        max_offset=config.max_offset, max_rotation=config.max_rotation,
        max_chance=config.max_chance, min_pairs=config.min_astrometry_stars,
    )  # fmt: skip
    fit = replace(fit, detection=order[fit.detection])
    _LOGGER.info(
        "%d reference stars matched with order %d: rms %.1f, %.1f mas; header %.2f arcsec off",
        len(fit), fit.order, *fit.rms, fit.offset,
    )  # fmt: skip
    work.exposure = exposure.replace(wcs=fit.wcs)
    work.row.update(
        astrometryRmsRa=fit.rms[0], astrometryRmsDec=fit.rms[1], nAstrometryStars=len(fit),
        astrometryOrder=fit.order, headerOffset=fit.offset, headerRotation=fit.rotation,
        chromaticRa=fit.chromatic[0], chromaticDec=fit.chromatic[1],
    )  # fmt: skip
    return fit


def _for_astrometry(found: Sources, fluxes: Photometry) -> npt.NDArray[np.int64]:
    """Pick sources with a centroid worth using: no saturation, about as small as a star."""
    saturated = (found.moments.flags & bits("SAT", "BLEED")) != 0
    size = found.moments.size / found.size
    good = ~fluxes.flag & ~saturated & (size > 0.6) & (size < 1.5)
    good &= fluxes.flux > _ASTROMETRY_SNR * fluxes.flux_err
    return np.flatnonzero(good)


def _colour_term(work: _Work) -> ColourTerm | None:
    """Return the term of the reference catalogue's system and the band; None for none."""
    system, terms = work.config.photometric_system, work.passbands.colour_terms
    if system == "natural":
        return None
    if system not in terms:
        raise ConfigError(
            f"the camera has no colour terms for {system!r}",
            key="calibrate.photometric_system",
            expected=" or ".join(["natural", *terms]),
        )
    return terms[system].get(work.exposure.info.band)


def _tie_to_flux(
    work: _Work,
    found: Sources,
    fluxes: Photometry,
    reference: ReferenceStars | None,
    matched: Astrometry | None,
) -> ZeroPoint | None:
    """Zero point from the matched standards, else from the header, else none."""
    config, info = work.config, work.exposure.info
    if reference is not None and matched is not None:
        standards = natural_fluxes(reference, _colour_term(work))
        if np.isfinite(standards[matched.reference]).any():
            i, j = _standards(found, fluxes, matched)
            return fit_zero_point(
                fluxes.flux[i], fluxes.sky_err[i] ** 2, standards[j], reference.flux_err[j],
                min_stars=config.min_photometry_stars, max_scatter=config.max_zero_point_scatter,
            )  # fmt: skip
        work.notes.append(f"no reference fluxes in {info.band}")
    header = work.exposure.photo_calib
    if header is not None and header.calibrated:
        work.notes.append(f"zero point {header.zero_point:.3f} mag taken from the header")
        njy = 10.0 ** (0.4 * (NJY_ZERO_POINT - header.zero_point))
        return ZeroPoint(njy, header.zero_point, header.zero_point_err, header.scatter, 0)
    work.notes.append("no zero point: fluxes stay in electrons")
    return None


def _standards(
    found: Sources, fluxes: Photometry, matched: Astrometry
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pick matched stars that are bright and alone, as far as enough of them remain.

    Faint stars stand on the light of undetected galaxies, which the sky does not contain.  What is
    wider than the PSF, or has no width, is no star although the catalogue may list it.
    """
    i, j = matched.detection, matched.reference
    snr = fluxes.flux[i] / fluxes.flux_err[i]
    off = np.abs(found.moments.size[i] / found.size - 1.0)
    stars = off < np.maximum(_STELLAR, 3.0 / snr)  # three times the noise of a width
    choices = [
        stars & (snr > least) & (found.disturbed[i] < most)
        for least, most in ((50.0, 0.01), (20.0, 0.01), (20.0, 0.03))
    ]
    for good in choices:
        if int(good.sum()) >= _ENOUGH_STANDARDS:
            return i[good], j[good]
    return i[stars], j[stars]


def _finish(
    work: _Work,
    found: Sources,
    fluxes: Photometry,
    stars: npt.NDArray[np.int64],
    reference: ReferenceStars | None,
    matched: Astrometry | None,
    zero: ZeroPoint | None,
) -> Result:
    """Scale to nJy, put the pixels on their grid, fill table and summary."""
    exposure = work.exposure
    scale, unit = (1.0, "electron") if zero is None else (zero.njy, "nJy")
    _summarise(work, found, zero, scale)
    n = len(found.detections)
    flags = {
        "isPsfStar": _marked(n, stars),
        "isAstrometryStar": _marked(n, None if matched is None else matched.detection),
        "isPhotometryStar": _marked(
            n, None if zero is None or matched is None else matched.detection
        ),
    }
    ids = np.full(n, -1, np.int64)
    if reference is not None and matched is not None:
        ids[matched.detection] = reference.ids[matched.reference]
    sources = source_table(
        exposure.info, found.detections, found.moments, fluxes, exposure.wcs,
        scale=scale, unit=unit, sigma=found.size, flags=flags, reference=ids,
    )  # fmt: skip
    for note in work.notes:
        _LOGGER.info("%s", note)
    if zero is not None:
        _LOGGER.info("zero point %.4f mag from %d stars", zero.zero_point, zero.n)
    work.row["notes"] = "; ".join(work.notes)
    visit = _scaled(exposure, zero, scale, unit)
    return Result(visit, sources, _plain(work.row), tuple(work.notes))


def _plain(row: Row) -> Row:
    """Turn NumPy scalars into Python numbers."""
    return {key: v.item() if isinstance(v, np.generic) else v for key, v in row.items()}


def _marked(n: int, index: npt.NDArray[np.int64] | None) -> npt.NDArray[np.bool_]:
    out = np.zeros(n, bool)
    if index is not None:
        out[index] = True
    return out


def _summarise(work: _Work, found: Sources, zero: ZeroPoint | None, scale: float) -> None:
    exposure, row = work.exposure, work.row
    info = exposure.info
    variance = sky_variance(found.noise)
    row.update(visit=info.visit, detector=info.detector, band=info.band, field=info.field)
    row.update(midpointMjdTai=info.midpoint_mjd_tai, exposureTime=info.exptime)
    row.update(airmass=info.airmass, unit="electron" if zero is None else "nJy")
    row.update(geometry(exposure))
    row.update(pixel_summary(exposure, variance))
    row["skyNoise"] = float(np.sqrt(variance)) * scale
    pixel = float(row.get("pixelScale") or np.nan)
    row["psfFwhm"] = float(row["psfSigma"] or np.nan) * GAUSS_FWHM * pixel
    if zero is not None:
        row.update(zeroPoint=zero.zero_point, zeroPointErr=zero.err)
        row.update(zeroPointScatter=zero.scatter, nZeroPointStars=zero.n)
        limit = depth(zero.zero_point, float(row["psfArea"] or np.nan), variance)
        row.update(depth5=limit, effectiveTime=effective_time(limit, info, pixel, work.passbands))


def _scaled(exposure: Exposure, zero: ZeroPoint | None, scale: float, unit: str) -> Exposure:
    """Multiply all planes and round them to the grid that files keep."""
    factor = np.float32(scale)
    sky = exposure.background
    calib = PhotoCalib()
    if zero is not None:
        calib = PhotoCalib(zero.zero_point, zero.err, zero.scatter, zero.n, scale)
    return quantised(
        exposure.replace(
            image=exposure.image * factor,
            variance=exposure.variance * np.float32(scale**2),
            background=None if sky is None else sky * factor,
            info=replace(exposure.info, saturation=exposure.info.saturation * scale),
            photo_calib=calib,
            unit=unit,
        )
    )
