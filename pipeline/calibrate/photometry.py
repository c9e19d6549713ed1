"""Zero point from reference stars, and the aperture correction.

Colour terms bring the *standards* into the camera's natural system; the data are never touched.
Weights come from the expected flux of a star and not from the observed one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibrate.refcat import ReferenceStars
from pipeline.camera import ColourTerm
from pipeline.errors import PhotometryError, PsfError
from pipeline.exposure import NJY_ZERO_POINT, FloatArray
from pipeline.statistics import excess_scatter, mad_std

__all__ = [
    "ApertureCorrection",
    "ZeroPoint",
    "aperture_correction",
    "fit_zero_point",
    "natural_fluxes",
]

_MAG = 2.5 / np.log(10.0)
_CLIP = 3.0


@dataclass(frozen=True, slots=True)
class ZeroPoint:
    """Result of `fit_zero_point`.

    Attributes
    ----------
    njy : float, nJy
        Flux of one image unit.
    zero_point, err, scatter : float, mag
        AB magnitude of one image unit, its error, and the scatter beyond the expected noise.
    n : int
        Stars used.
    """

    njy: float
    zero_point: float
    err: float
    scatter: float
    n: int


@dataclass(frozen=True, slots=True)
class ApertureCorrection:
    """Flux within 12 pixels over PSF flux.

    Attributes
    ----------
    value, err : float
        Ratio and its standard error.
    n : int
        Stars used.
    """

    value: float
    err: float
    n: int


def natural_fluxes(stars: ReferenceStars, term: ColourTerm | None) -> FloatArray:
    """Fluxes of reference stars in the camera's natural system.

    Parameters
    ----------
    stars : ReferenceStars
        With the fluxes of all bands.
    term : ColourTerm, optional
        Of the band of the exposure; None where the catalogue is in the natural system.

    Returns
    -------
    ndarray, (n,), nJy
        NaN for stars outside the relation's range of colours.

    Raises
    ------
    PhotometryError
        If the relation needs a band that the catalogue lacks.
    """
    if term is None:
        return stars.flux
    if missing := [b for b in (term.blue, term.red) if b not in stars.fluxes]:
        raise PhotometryError("colour term needs a band that is not there", band=missing[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        colour = -2.5 * np.log10(stars.fluxes[term.blue] / stars.fluxes[term.red])
    shift = term.c0 + term.c1 * colour + term.c2 * colour**2
    valid = (colour >= term.low) & (colour <= term.high)
    return np.where(valid, stars.flux * 10.0 ** (-0.4 * shift), np.nan)


def fit_zero_point(
    flux: FloatArray,
    sky_variance: FloatArray,
    reference: FloatArray,
    reference_err: FloatArray,
    *,
    min_stars: int = 1,
    max_scatter: float = 0.2,
) -> ZeroPoint:
    """Scale between instrumental and reference fluxes.

    Parameters
    ----------
    flux : ndarray, (n,), electron
        PSF fluxes.
    sky_variance : ndarray, (n,), electron²
        Variance of the flux of a vanishing source at the same place.
    reference, reference_err : ndarray, (n,), nJy
        Fluxes of the same stars in the natural system; errors may be NaN.
    min_stars : int
        Fewest stars.
    max_scatter : float, mag
        Largest scatter beyond the noise: clouds or a wrong match.

    Returns
    -------
    ZeroPoint

    Raises
    ------
    PhotometryError
        Too few stars, or too much scatter.
    """
    good = np.isfinite(flux) & (flux > 0) & np.isfinite(reference) & (reference > 0)
    good &= np.isfinite(sky_variance)
    _enough(int(good.sum()), min_stars, len(flux))
    ratio = flux[good] / reference[good]
    noise = np.nan_to_num(reference_err[good]) / reference[good]
    fit = _clipped_scale(ratio, noise, sky_variance[good], reference[good])
    scale, err, scatter, n = fit
    _enough(n, min_stars, len(flux))
    if scatter > max_scatter:
        raise PhotometryError(
            "zero points of the stars disagree: clouds or a wrong match",
            scatter=scatter, bound=max_scatter, stars=n,
        )  # fmt: skip
    return ZeroPoint(
        1.0 / scale, NJY_ZERO_POINT + 2.5 * float(np.log10(scale)), _MAG * err / scale, scatter, n
    )


def _enough(n: int, least: int, matched: int) -> None:
    if n < max(least, 1):
        raise PhotometryError(
            "too few stars for a zero point", stars=n, required=max(least, 1), matched=matched
        )


def _clipped_scale(
    ratio: FloatArray, noise: FloatArray, sky: FloatArray, reference: FloatArray
) -> tuple[float, float, float, int]:
    """Weighted mean of the ratios with a fitted intrinsic scatter; 3σ clipping from the median."""
    scale = float(np.median(ratio))
    spread = mad_std(ratio / scale, 1.0)
    keep = np.abs(ratio / scale - 1.0) < max(5.0 * spread, 0.02)
    intrinsic = 0.0
    for _ in range(20):
        # The expected flux, scale x reference, sets the photon noise; the observed one never does.
        relative = sky / (scale * reference) ** 2 + 1.0 / (scale * reference) + noise**2
        residual = ratio[keep] / scale - 1.0
        intrinsic = excess_scatter(residual, relative[keep], fitted=1) if len(residual) > 2 else 0.0
        sigma = np.sqrt(relative + intrinsic**2)
        new = np.abs(ratio / scale - 1.0) < _CLIP * sigma
        if not new.any():
            break
        w = 1.0 / sigma[new] ** 2
        moved = float(np.sum(w * ratio[new]) / np.sum(w))
        settled = bool((new == keep).all()) and abs(moved / scale - 1.0) < 1e-6
        keep, scale = new, moved
        if settled:
            break
    w = 1.0 / (relative[keep] + intrinsic**2)
    return scale, scale / float(np.sqrt(w.sum())), _MAG * intrinsic, int(keep.sum())


def aperture_correction(
    aperture: FloatArray, psf_flux: FloatArray, err: FloatArray
) -> ApertureCorrection:
    """Clipped weighted mean of aperture over PSF flux.

    Parameters
    ----------
    aperture, psf_flux : ndarray, (n,)
        Fluxes of the PSF stars.
    err : ndarray, (n,)
        Errors of the aperture fluxes relative to the flux.

    Returns
    -------
    ApertureCorrection

    Raises
    ------
    PsfError
        If no star has both fluxes.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = aperture / psf_flux
    keep: npt.NDArray[np.bool_] = np.isfinite(ratio) & np.isfinite(err) & (err > 0)
    if not keep.any():
        raise PsfError("no star for the aperture correction", stars=0, required=1)
    for _ in range(4):
        middle = float(np.median(ratio[keep]))
        spread = max(mad_std(ratio[keep], middle), 1e-4)
        new = keep & (np.abs(ratio - middle) < 4.0 * np.maximum(spread, err))
        if not new.any() or (new == keep).all():
            break
        keep = new
    w = 1.0 / err[keep] ** 2
    value = float(np.sum(w * ratio[keep]) / np.sum(w))
    chi2 = float(np.sum(w * (ratio[keep] - value) ** 2)) / max(int(keep.sum()) - 1, 1)
    return ApertureCorrection(value, float(np.sqrt(max(chi2, 1.0) / np.sum(w))), int(keep.sum()))
