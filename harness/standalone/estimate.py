"""What an image does not come with: masks, variances, a PSF."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, PsfError
from pipeline.exposure import Exposure, FloatArray, GridPsf, Image, Mask, PolynomialPsf, Psf
from pipeline.io.keywords import item_of
from pipeline.io.nodata import plateau
from pipeline.io.noise import checked_gain, given_variance, measured_gain, sky_blocks
from pipeline.io.planes import Planes, Raw
from pipeline.masks import bits
from pipeline.psfphot import fwhm, hollow
from pipeline.smooth import smooth_variance

__all__ = [
    "enclosed_flux",
    "flattened",
    "gain_of",
    "normalised_psf",
    "psf_of",
    "saturation_of",
    "scaled_psf",
    "variance_of",
    "without_cosmic_rays",
]

_BRIGHT = 20.0
_NOTICEABLE = 0.01
"""Photon noise of bright pixels over the sky's, as variances, that tells a gain."""

_SHARPEST = 1.6
"""Full width in pixels below which stars may look like cosmic rays."""

_MUCH_MASKED = 0.05
_HIDING = {
    "BAD": "are masked, --mask-bits leaves out harmless bits",
    "CR": "were taken for cosmic rays, as stars sharper than two pixels may be",
    "SAT": "are saturated",
    "NO_DATA": "have no data",
}
_SINGLE = (1e-30, 1e30)
"""Variances between which single precision has room for their products."""

_BETA = (2.0, 8.0)
"""Exponents of the wings of stars."""

_SKY, _FEW, _GOOD_FIT = 0.05, 30, 0.1
"""Variance of the sky over that of a star's peak; few stars; misfit of a core that still fits."""


def gain_of(planes: Planes, raw: Raw, mask: Mask, notes: list[str]) -> float | None:
    """Electrons per image unit, from the user, the header or the noise; None if none knows.

    Parameters
    ----------
    planes : Planes
        What the user says of the image.
    raw : Raw
        What its files say.
    mask : ndarray, (ny, nx)
        Non-zero pixels are left out where the gain is compared with the noise.
    notes : list of str
        What is unknown, or contradicts the noise, is added here.

    Returns
    -------
    float, optional
        Electrons per image unit.
    """
    found = item_of(raw.header, "gain", planes.keywords)
    gain = planes.gain or (found[1] if found else None)
    if gain is None:
        noise = item_of(raw.header, "read_noise", planes.keywords)
        gain = measured_gain(raw.image, mask != 0, noise[1] if noise else 0.0)
        notes.append(
            f"gain: no keyword, {gain:.4g} measured from the sky, its pedestal taken as 0"
            if gain
            else "gain unknown: photon noise of sources is left out of the variance"
        )
        return gain
    gain, contradiction = checked_gain(raw.image, mask != 0, gain)
    if contradiction:
        notes.append(contradiction)
    return gain


def saturation_of(planes: Planes, raw: Raw, notes: list[str]) -> float:
    """Saturation level, image units; that of a plateau where nobody says, else infinite.

    Parameters
    ----------
    planes : Planes
        What the user says of the image.
    raw : Raw
        What its files say.
    notes : list of str
        A level that was found in the pixels is added here.

    Returns
    -------
    float, image unit
        Saturation level.
    """
    found = item_of(raw.header, "saturation", planes.keywords)
    level = planes.saturation or (found[1] if found else None)
    if level is not None:
        return level
    level, note = plateau(raw.image)
    notes += [note] if np.isfinite(level) else []
    return level


def variance_of(raw: Raw, mask: Mask, gain: float | None, notes: list[str]) -> Image:
    """Variance plane: as given, or the measured noise of the sky plus photon noise.

    Parameters
    ----------
    raw : Raw
        The image.
    mask : ndarray
        Its mask.
    gain : float, optional
        Electrons per image unit.
    notes : list of str
        What was assumed is added here.

    Returns
    -------
    ndarray, (ny, nx), image unit squared
        The variance.
    """
    variance = given_variance(raw, mask != 0, notes)
    if variance is not None:
        if not variance.min() > 0:
            hollow = ~(variance > 0)
            broken = int(np.count_nonzero(hollow & (mask == 0)))
            if broken:
                notes.append(f"{broken} unmasked pixels without a positive variance: masked")
                mask[hollow] |= bits("BAD")
        return variance
    sky, noise, crowded = _sky(raw.image, mask != 0)
    typical = float(np.median(noise))
    if typical > 0 and not _SINGLE[0] < typical**2 < _SINGLE[1]:
        raise InputError(
            f"noise of {typical:.3g} per pixel is beyond single precision", path=raw.files[0],
            expected="1e-15 to 1e15", hint="multiply the image by a constant",
        )  # fmt: skip
    excess = np.maximum(np.nan_to_num(raw.image) - sky, 0.0)
    how = "neighbouring pixels, for no sky is open" if crowded else "the measured sky noise"
    notes.append(f"no variance: from {how} ({np.median(noise):.4g} per pixel)")
    return np.asarray(noise**2 + (excess / gain if gain else 0.0), np.float32)


def _sky(image: Image, bad: npt.NDArray[np.bool_]) -> tuple[Image, Image, bool]:
    """Level and noise of blocks, bilinear between their centres, and whether sources crowd."""
    from scipy.ndimage import zoom

    *planes, crowded = sky_blocks(image, bad)
    wide = []
    for plane in planes:
        known = plane[~np.isnan(plane)]
        plane[np.isnan(plane)] = np.median(known) if known.size else np.nan
        factor = image.shape[0] / plane.shape[0], image.shape[1] / plane.shape[1]
        smooth = zoom(plane, factor, order=1, mode="nearest", grid_mode=True)
        wide.append(np.asarray(smooth, np.float32))
    return wide[0], wide[1], crowded


def psf_of(
    exposure: Exposure, notes: list[str], name: str = "image"
) -> tuple[PolynomialPsf, float, dict[str, float]]:
    """Model the PSF from the stars of an image.

    Parameters
    ----------
    exposure : Exposure
        Background included or not.
    notes : list of str
        What was found is added here.
    name : str
        What messages call the image.

    Returns
    -------
    psf : PolynomialPsf
        Its variation follows the number of stars.
    enclosed : float
        Share of a star's light within `Psf.FLUX_RADIUS`.
    judged : dict
        ``psfChi2``, median χ² per pixel of stars that were left out of it in turn, and
        ``psfSkyErr``, relative error of its light that the sky leaves, and ``psfFluxErr``, of
        fluxes measured with it; not-a-number where there are too few.

    Raises
    ------
    PsfError
        If no star qualifies.
    """
    from pipeline.calibrate import Config
    from pipeline.calibrate.psf import flux_error
    from pipeline.calibrate.psfmodel import find_sources, model_psf

    flat = flattened(exposure)
    gain = _electrons(flat)  # the model weighs photons, which have no other unit
    flat = flat.replace(
        image=flat.image * np.float32(gain),
        variance=flat.variance * np.float32(gain**2),
        info=replace(flat.info, saturation=flat.info.saturation * gain),
    )
    config = Config(min_psf_stars=1)
    try:
        model = model_psf(flat, find_sources(flat, config), config)
    except PsfError as err:
        what = f"the {name} has no star fit for a model of the PSF"
        what = "; ".join([what, *_why_hidden(exposure)])
        raise PsfError(what, **err.numbers) from err
    chi2 = model.judged["psfChi2"]
    judged = "" if chi2 is None else f", χ² per pixel {chi2:.2f} on stars left out"
    notes.append(f"PSF of order {model.fit.psf.order} from {model.fit.n_stars} stars{judged}")
    share = enclosed_flux(model.fit.psf, flat.shape, few=model.fit.n_stars < _FEW)
    unsure = {
        "psfChi2": float("nan") if chi2 is None else chi2,
        "psfSkyErr": model.fit.sky_err or float("nan"),
        "psfFluxErr": flux_error(model.stars, model.fit, flat.shape),
    }
    return model.fit.psf, share, unsure


def _why_hidden(exposure: Exposure) -> list[str]:
    """Say which planes of the mask may hide the stars."""
    shares = {name: float(exposure.has(name).mean()) for name in _HIDING}
    return [f"{s:.1%} of the pixels {_HIDING[n]}" for n, s in shares.items() if s > _MUCH_MASKED]


def flattened(exposure: Exposure) -> Exposure:
    """Subtract the sky, of which only a constant under a star matters here.

    Parameters
    ----------
    exposure : Exposure
        With its sky or without.

    Returns
    -------
    Exposure
        Without.
    """
    from pipeline.calibrate import background

    coarse = background.Config(bin_side=2 * background.Config().bin_side)
    sky = background.model(exposure.image, exposure.mask, coarse).image
    return exposure.replace(image=np.subtract(exposure.image, sky, out=sky))


def without_cosmic_rays(exposure: Exposure, notes: list[str]) -> Exposure:
    """Mark and fill what is sharper than any star of the image.

    Parameters
    ----------
    exposure : Exposure
        An image whose cosmic rays nobody has marked.
    notes : list of str
        How many there were is added here.

    Returns
    -------
    Exposure
        The same where nothing is sharper than the stars: below two pixels, or rings out of focus.
    """
    from pipeline.calibrate import cosmicray
    from pipeline.calibrate.psfmodel import sharpest_star

    flat = flattened(exposure)
    fwhm = sharpest_star(flat)
    if not fwhm > _SHARPEST:
        why = "stars are rings, out of focus" if np.isnan(fwhm) else "stars are as sharp"
        notes.append(f"cosmic rays not looked for: {why}")
        return exposure
    rays = cosmicray.find(flat.image, flat.variance, flat.mask, 0.0, fwhm)
    if not rays.found.any():
        return exposure
    notes.append(f"cosmic rays: {int(rays.found.sum())} pixels, marked and filled")
    image = np.where(rays.mask, rays.image - flat.image + exposure.image, exposure.image)
    mask = exposure.mask.copy()
    mask[rays.mask] |= bits("CR", "INTRP")
    variance = np.where(rays.mask, rays.variance, exposure.variance)
    return exposure.replace(image=image, variance=variance, mask=mask)


def enclosed_flux(psf: Psf, shape: tuple[int, int], *, few: bool = False) -> float:
    """Share of a star's light within `Psf.FLUX_RADIUS`.

    Parameters
    ----------
    psf : Psf
        Of unit flux within that radius.
    shape : tuple of int, (ny, nx)
        Size of the image, in the middle of which the PSF is looked at.
    few : bool
        Whether so few stars made the PSF that the form of its core tells its light better than
        the noise and the sky in its rim.

    Returns
    -------
    float
        One over the light of the PSF, beyond the radius that of the Moffat function (1969, A&A 3,
        455) which fits the rings of the stamp; of few stars within it as well, if it fits.  For
        stars out of focus, see `_enclosed_ring`.
    """
    stamp = psf.at((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    half = stamp.shape[-1] // 2
    radius = np.hypot(*(np.mgrid[: len(stamp), : len(stamp)] - half))
    ring = np.rint(radius).astype(int).ravel()
    n = np.bincount(ring)[: half + 1]
    r, profile = (np.bincount(ring, v.ravel())[: half + 1] / n for v in (radius, stamp))
    if hollow(stamp):
        return _enclosed_ring(r, profile, n, psf.FLUX_RADIUS)
    peak, width, beta = _moffat(r, profile, n, float(fwhm(stamp)))
    edge = 1.0 + (psf.FLUX_RADIUS / width) ** 2
    beyond = np.pi * width**2 * peak * edge ** (1.0 - beta) / (beta - 1.0)
    inside = 1.0
    if few:
        model = peak * (1.0 + (radius / width) ** 2) ** -beta
        core = radius <= fwhm(stamp)
        if np.abs(model - stamp)[core].sum() < _GOOD_FIT * stamp[core].sum():
            inside = float(model[radius <= psf.FLUX_RADIUS].sum())
    return float(1.0 / (inside + beyond))


def _enclosed_ring(
    r: FloatArray, profile: FloatArray, n: npt.NDArray[np.int64], edge: float
) -> float:
    """Share of the light of a ring within a radius, beyond which it has the wing of turbulence.

    No Moffat function fits it.  With r^(-11/3) (Racine 1996, PASP 108, 699) from the mean of the
    two pixels inside the edge on, 6/5 π edge² of that mean lies beyond.
    """
    rim = (r > edge - 2.0) & (r <= edge)
    level = max(float((profile * n)[rim].sum() / n[rim].sum()), 0.0)
    return 1.0 / (1.0 + 1.2 * np.pi * edge**2 * level)


def _moffat(
    r: FloatArray, profile: FloatArray, n: npt.NDArray[np.int64], width: float
) -> tuple[float, float, float]:
    """Peak, width and exponent of A (1 + r²/w²)^-β, by least squares with n pixels per ring."""
    from scipy.optimize import least_squares

    top = max(float(profile.max()), 1e-9)  # a ring has nothing in the middle
    weight = np.sqrt(n / (np.maximum(profile, 0.0) + _SKY * top))

    def off(theta: FloatArray) -> FloatArray:
        peak, w, beta = np.exp(theta)
        return np.asarray(weight * (peak * (1.0 + (r / w) ** 2) ** -beta - profile))

    start = np.log([max(profile[0], 1e-9), width, 3.0])
    low, high = np.log([1e-9, 0.3, _BETA[0]]), np.log([1e3, 1e3, _BETA[1]])
    found = np.exp(least_squares(off, np.clip(start, low, high), bounds=(low, high)).x)
    return float(found[0]), float(found[1]), float(found[2])


def normalised_psf(psf: GridPsf) -> tuple[GridPsf, float]:
    """Give stamps of the whole light unit flux within `Psf.FLUX_RADIUS`.

    Parameters
    ----------
    psf : GridPsf
        Such as `pipeline.io.psfs.read_psf` returns.

    Returns
    -------
    psf : GridPsf
        Of unit flux within the radius at every node.
    enclosed : float
        Mean share of the light there.
    """
    k = np.arange(psf.side) - psf.side // 2
    inside = psf.cube[..., np.hypot(k[:, None], k) <= psf.FLUX_RADIUS].sum(axis=-1)
    return replace(psf, cube=psf.cube / inside[..., None, None]), float(inside.mean())


def scaled_psf(psf: Psf | None, factor: float) -> Psf | None:
    """Multiply a PSF by a number.

    Parameters
    ----------
    psf : Psf, optional
        Linear in stamps.
    factor : float
        The number.

    Returns
    -------
    Psf, optional
        None if there is none.
    """
    if isinstance(psf, PolynomialPsf):
        return replace(psf, coefficients=psf.coefficients * factor)
    if isinstance(psf, GridPsf):
        return replace(psf, cube=psf.cube * factor)
    return psf


def _electrons(exposure: Exposure) -> float:
    """Electrons per image unit as the variance plane has them, whatever the unit.

    Where it has no photon noise of sources, the sky's noise is taken as that of 100 electrons.
    """
    sky = smooth_variance(exposure.variance, exposure.mask)
    bright = (exposure.mask == 0) & (exposure.image > _BRIGHT * np.sqrt(sky))
    flux = float(exposure.image[bright].sum(dtype=np.float64))
    photons = float((exposure.variance - sky)[bright].sum(dtype=np.float64))
    if photons > _NOTICEABLE * float(sky[bright].sum(dtype=np.float64)):
        return flux / photons
    return 10.0 / float(np.sqrt(np.median(sky)))
