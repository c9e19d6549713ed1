"""From pixels to a PSF: sources found, stars chosen among them, the model fitted.

What a star is follows from what a PSF does.  Sources pile up at the width of the stars, and nothing
real is sharper than a star.  Where galaxies or nebulae are more numerous, their pile is the higher
one, but a narrower one stands below it; both are then tried, and the one whose members one model
describes better is that of the stars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibrate.config import Config
from pipeline.calibrate.deblend import Separated, close_neighbours, separate
from pipeline.calibrate.detect import Detections, detect
from pipeline.calibrate.measure import Moments, aperture_flux, windowed_moments
from pipeline.calibrate.psf import SIDE, PsfFit, PsfStars, cut_stamps, fit_psf, held_out
from pipeline.calibrate.stars import (
    contamination,
    select_stars,
    sharpest_ridge,
    star_size,
)
from pipeline.calibrate.trails import on_trails
from pipeline.errors import PsfError
from pipeline.exposure import Exposure, FloatArray, Image, PolynomialPsf, Psf
from pipeline.masks import NO_SKY, bits
from pipeline.smooth import smooth_variance
from pipeline.statistics import GAUSS_FWHM

__all__ = ["ModelledPsf", "Sources", "find_sources", "model_psf", "separated", "sharpest_star"]

_FIRST_SIGMA = 1.8
_WIDE, _BRIGHTEST, _PEAKS_OF_A_RING = 4.0, 50, 3
"""Width that sees a star out of focus as one source, pixel; sources that tell; peaks on a ring."""

_SIGMA_RANGE = (0.8, 8.0)
_NO_SKY = bits(*NO_SKY)
_SHARPEST = 0.8
_GALAXIES = 1.25
"""χ² per pixel of stars left out from which on the stars are chosen more strictly."""

_APART, _NOTICEABLE = 1.2, 0.01
"""Least distance, in widths of the stars, and least flux, in that of a star, of its neighbours."""

_REFITS, _SAME_FLUX = 3, 0.001
"""The PSF is fitted again at most so often, while fluxes change by more."""


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Detections with their shapes.

    Attributes
    ----------
    noise : ndarray, (ny, nx), image unit squared
        Source-free variance.
    detections : Detections
        Peaks and footprints, brightest first.
    moments : Moments
        Their centroids and shapes.
    size : float, pixel
        Gaussian width of the stars.
    ridge : float, pixel
        Width of a narrower pile of sources below it; NaN where there is none.
    disturbed : ndarray, (n,)
        Neighbours' light in the core, relative to the source.
    blended : ndarray of bool, (n,)
        Worth fitting together with its neighbours.
    hollow : bool
        Whether stars are dark in their middles, as those far out of focus.
    """

    noise: Image
    detections: Detections
    moments: Moments
    size: float
    ridge: float
    disturbed: FloatArray
    blended: npt.NDArray[np.bool_]
    hollow: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ModelledPsf:
    """A PSF and the stars that made it.

    Attributes
    ----------
    fit : PsfFit
        The model.
    found : Sources
        The sources, measured with a filter as wide as those stars.
    index : ndarray of int, (n_stars,)
        Which of the sources made it.
    judged : dict
        See `held_out`.
    stars : PsfStars
        The candidates that `fit` chose from, freed from their neighbours.
    """

    fit: PsfFit
    found: Sources
    index: npt.NDArray[np.int64]
    judged: dict[str, float | None]
    stars: PsfStars


def find_sources(
    exposure: Exposure, config: Config | None = None, size: float | None = None
) -> Sources:
    """Detect and measure, with a filter that is made as wide as the stars turn out to be.

    Parameters
    ----------
    exposure : Exposure
        Without sky.
    config : Config, optional
        Thresholds.
    size : float, optional, pixel
        Width of the stars if it is known.

    Returns
    -------
    Sources
    """
    config = config or Config()
    noise = smooth_variance(exposure.variance, exposure.mask)
    sigma = _FIRST_SIGMA if size is None else float(np.clip(size, *_SIGMA_RANGE))
    hollow = False
    for attempt in range(3):
        detections = detect(exposure, noise, sigma=sigma, threshold=config.detection_threshold)
        if size is None and attempt == 0 and _several_peaks(detections):
            wide = detect(exposure, noise, sigma=_WIDE, threshold=config.detection_threshold)
            hollow = _hollow(detections, wide)
            sigma, detections = (_WIDE, wide) if hollow else (sigma, detections)
        moments = windowed_moments(exposure.image, exposure.mask, detections.x, detections.y, sigma)
        moments.ok[on_trails(detections)] = False
        bright = moments.size[_bright(moments, detections.snr, config.psf_snr)]
        mode = star_size(bright) if size is None else size
        if not np.isfinite(mode) or 0.75 < mode / sigma < 1.3:
            break
        sigma = float(np.clip(mode, *_SIGMA_RANGE))
    mode = mode if np.isfinite(mode) else sigma
    at = moments.x, moments.y, detections.snr
    blended = close_neighbours(*at, mode) & moments.ok
    ridge = sharpest_ridge(bright, mode) if size is None else float("nan")
    near = contamination(*at, mode, 20.0)
    return Sources(noise, detections, moments, mode, ridge, near, blended, hollow)


def _several_peaks(found: Detections) -> bool:
    """Whether the brightest footprints have several peaks each, as in a crowd and out of focus."""
    numbers, first = np.unique(found.footprint, return_index=True)
    brightest = numbers[np.argsort(first)][:_BRIGHTEST]
    peaks = np.bincount(found.footprint)[brightest]
    return bool(len(peaks)) and float(np.median(peaks)) >= _PEAKS_OF_A_RING


def _hollow(narrow: Detections, wide: Detections) -> bool:
    """Whether what a wide filter finds has no peak in its middle for a narrow one.

    The brightest sources of a crowd have one, whatever their neighbours: their peaks are apart by a
    pixel at most.  A star out of focus is a ring with peaks of noise on it; one with a radius above
    seven pixels is not closed by the wide filter either, and not recognised.
    """
    from scipy.spatial import cKDTree

    if not len(wide):
        return False
    middles = np.stack([wide.x, wide.y], axis=1)[:_BRIGHTEST]
    apart = cKDTree(np.stack([narrow.x, narrow.y], axis=1)).query(middles)[0]
    return float(np.mean(apart > 0.5 * _WIDE)) > 0.5


def _bright(moments: Moments, snr: FloatArray, snr_min: float) -> npt.NDArray[np.bool_]:
    """Brightest sources that are not saturated."""
    clean = moments.ok & ((moments.flags & _NO_SKY) == 0)
    for relax in (1.0, 2.5, 5.0):
        bright = clean & (snr > snr_min / relax)
        if int(bright.sum()) >= 10:
            break
    return np.asarray(bright)


def sharpest_star(exposure: Exposure, config: Config | None = None) -> float:
    """Width that no star undercuts: four fifths of that of the stars, along their minor axes.

    Parameters
    ----------
    exposure : Exposure
        Without sky.
    config : Config, optional
        Thresholds.

    Returns
    -------
    float, pixel
        Full width at half maximum; NaN where stars are rings, whose rims are as sharp as anything.
    """
    seen = find_sources(exposure, config)
    if seen.hollow:
        return float("nan")
    moments = seen.moments
    size = seen.ridge if np.isfinite(seen.ridge) else seen.size
    half = 0.5 * (moments.xx + moments.yy)
    spread = np.hypot(0.5 * (moments.xx - moments.yy), moments.xy)
    star = moments.ok & (np.abs(moments.size / size - 1.0) < 0.25) & (half > spread)
    narrow = np.sqrt(np.median((half - spread)[star])) if star.any() else size
    return _SHARPEST * GAUSS_FWHM * float(narrow)


def model_psf(exposure: Exposure, found: Sources, config: Config | None = None) -> ModelledPsf:
    """Select stars and fit the PSF.

    It is fitted again on stars freed from all other sources, whose light in the stamps' rims would
    pass for sky, until fluxes measured with it stay the same, and then freed from those that had
    no peak beside them.

    Parameters
    ----------
    exposure : Exposure
        In electrons, without sky.
    found : Sources
        Its sources.
    config : Config, optional
        Limits of the selection.

    Returns
    -------
    ModelledPsf

    Raises
    ------
    PsfError
        If too few stars qualify.
    """
    config = config or Config()
    usual: ModelledPsf | None
    strict: ModelledPsf | None
    try:
        usual = _modelled(exposure, found, config)
    except PsfError:
        if not np.isfinite(found.ridge):
            raise
        usual = None
    narrow = found if not np.isfinite(found.ridge) else find_sources(exposure, config, found.ridge)
    if usual is not None and narrow is found and not _misfit(usual) > _GALAXIES:
        return usual
    try:
        strict = _modelled(exposure, narrow, config, narrow.size)
    except PsfError:
        strict = None
    if usual is None or strict is None:
        model = strict or usual
        if model is None:
            raise PsfError("too few stars for a point spread function", required=1)
        return model
    return strict if _misfit(strict) < _misfit(usual) else usual


def _misfit(model: ModelledPsf) -> float:
    """χ² per pixel of stars that were left out, or of all where there are too few."""
    chi2 = model.judged["psfChi2"]
    return model.fit.chi2 if chi2 is None else chi2


def _modelled(
    exposure: Exposure, found: Sources, config: Config, size: float | None = None
) -> ModelledPsf:
    """Fit the PSF to the sources of a size, or of their most frequent one."""
    moments = found.moments
    sample = select_stars(
        moments,
        found.detections.snr,
        found.disturbed,
        exposure.shape,
        saturation=exposure.info.saturation,
        size=size,
        snr_min=config.psf_snr,
        max_disturbance=config.max_disturbance,
        max_stars=config.max_psf_stars,
    )
    x, y = moments.x[sample.index], moments.y[sample.index]
    core = aperture_flux(exposure.image, x, y, 3.0 * found.size)
    index, core = sample.index[core > 0], core[core > 0]
    bad = (exposure.mask & _NO_SKY) != 0
    stars = cut_stamps(exposure.image, bad, found.noise, moments.x[index], moments.y[index], core)
    fit = _fitted(stars, exposure, config)
    which = moments.ok & _reaching(found, index)

    def freed(image: Image, psf: PolynomialPsf) -> PsfStars:
        at = apart.x[index], apart.y[index]
        return cut_stamps(image, bad, found.noise, *at, core).plus(psf, apart.flux[index])

    for _ in range(_REFITS):
        psf = fit.psf
        apart = separated(exposure, found, psf, 2, which)
        fit = _fitted(freed(apart.residual, psf), exposure, config)
        if abs(_flux_ratio(psf, fit.psf, apart.x[index], apart.y[index]) - 1.0) < _SAME_FLUX:
            break
    # Not sooner: a PSF that is wrong leaves what would pass for sources.
    residual, made = exposure.replace(image=apart.residual), index[fit.kept]
    rest = _without_hidden(residual, found, psf, made, config)
    stars = freed(rest, psf)
    fit = _fitted(stars, exposure, config)
    judged = held_out(stars, fit, exposure.shape, ~found.blended[index])
    return ModelledPsf(fit, found, index[fit.kept], judged, stars)


def _reaching(found: Sources, index: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell sources whose light, as far as a stamp of the PSF goes, reaches the stamps of stars."""
    from scipy.spatial import cKDTree

    at = np.stack([found.moments.x, found.moments.y], axis=1)
    return np.asarray(cKDTree(at[index]).query(at, p=np.inf)[0] < SIDE)


def _without_hidden(
    residual: Exposure, found: Sources, psf: Psf, index: npt.NDArray[np.int64], config: Config
) -> Image:
    """Take away what shows beside stars when all sources are taken away."""
    x, y = _hidden(residual, found, index, config).T
    which = np.ones(len(x), bool)
    freed = separate(residual.image, found.noise, residual.mask, psf, x, y, which, sweeps=2)
    return freed.residual


def _hidden(
    residual: Exposure, found: Sources, index: npt.NDArray[np.int64], config: Config
) -> FloatArray:
    """Find places ``(n, 2)`` of sources on the slopes of stars, which have no peak of their own.

    They show where the sources found are taken away, farther from them than what a wrong model
    leaves, and brighter.  Only the surroundings of the stars are looked at, one above the other.
    """
    from scipy.spatial import cKDTree

    at = np.stack([found.moments.x, found.moments.y], axis=1)
    half = SIDE // 2 + int(np.ceil(3.0 * found.size))
    corner, k = np.rint(at[index]).astype(int) - half, np.arange(2 * half + 1)
    ny, nx = residual.shape
    v = (corner[:, 1, None, None] + k[:, None]).clip(0, ny - 1)
    u = (corner[:, 0, None, None] + k).clip(0, nx - 1)
    tall = (-1, len(k))
    around = residual.replace(
        image=residual.image[v, u].reshape(tall), mask=residual.mask[v, u].reshape(tall),
        variance=residual.variance[v, u].reshape(tall),
    )  # fmt: skip
    noise = found.noise[v, u].reshape(tall)
    seen = detect(around, noise, sigma=found.size, threshold=config.detection_threshold)
    star, row = np.divmod(seen.y, len(k))
    places = np.stack([seen.x, row], axis=1) + corner[star]
    bright = seen.snr > _NOTICEABLE * found.detections.snr[index][star]
    within = np.hypot(*(places - at[index][star]).T) < SIDE // 2
    within &= ((places >= 0) & (places < (nx, ny))).all(axis=1)
    places = np.unique(places[bright & within], axis=0)
    apart = cKDTree(at).query(places)[0] > _APART * GAUSS_FWHM * found.size
    return np.asarray(places[apart], float)


def _flux_ratio(one: Psf, other: Psf, x: FloatArray, y: FloatArray) -> float:
    """Mean over places of the flux that a PSF finds in another one."""
    first, second = one.stamps(x, y), other.stamps(x, y)
    return float((first * second).sum() / (first**2).sum())


def _fitted(stars: PsfStars, exposure: Exposure, config: Config) -> PsfFit:
    return fit_psf(
        stars, exposure.shape, max_order=config.psf_order, min_stars=config.min_psf_stars
    )


def separated(
    exposure: Exposure,
    found: Sources,
    psf: Psf,
    sweeps: int,
    which: npt.NDArray[np.bool_] | None = None,
) -> Separated:
    """Take the light of sources apart, see `separate`.

    Parameters
    ----------
    exposure : Exposure
        Without sky.
    found : Sources
        Its sources.
    psf : Psf
        Its point spread function.
    sweeps : int
        How many times to go over all of them.
    which : ndarray of bool, (n,), optional
        Sources to fit; the blended ones by default.

    Returns
    -------
    Separated
    """
    return separate(
        exposure.image, found.noise, exposure.mask, psf, found.moments.x, found.moments.y,
        found.blended if which is None else which, sweeps=sweeps,
    )  # fmt: skip
