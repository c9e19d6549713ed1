"""What an image does not come with: masks, variances, a PSF."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.errors import PsfError
from pipeline.exposure import Exposure, Image, Mask, PolynomialPsf
from pipeline.io.keywords import item_of
from pipeline.io.noise import contradicting_gain, given_variance
from pipeline.io.planes import Planes, Raw
from pipeline.masks import NO_SKY, bits, flagged

__all__ = ["gain_of", "psf_of", "saturation_of", "variance_of"]

_BLOCK = 64
_BRIGHT = 20.0
_NOTICEABLE = 0.01
"""Photon noise of bright pixels over the sky's, as variances, that tells a gain."""

_CROWDED = 1.15
"""Width of the darker half over that of its wing from which on sources crowd; noise has one."""


def gain_of(planes: Planes, raw: Raw, mask: Mask, notes: list[str]) -> float | None:
    """Electrons per image unit, from the user or the header; None if neither knows.

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
        notes.append("gain unknown: photon noise of sources is left out of the variance")
        return None
    contradiction = contradicting_gain(raw.image, mask != 0, gain)
    if contradiction:
        notes.append(contradiction)
    return gain


def saturation_of(planes: Planes, raw: Raw) -> float:
    """Saturation level, image units; infinite where unknown.

    Parameters
    ----------
    planes : Planes
        What the user says of the image.
    raw : Raw
        What its files say.

    Returns
    -------
    float, image unit
        Saturation level.
    """
    found = item_of(raw.header, "saturation", planes.keywords)
    level = planes.saturation or (found[1] if found else None)
    return float("inf") if level is None else level


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
    excess = np.maximum(np.nan_to_num(raw.image) - sky, 0.0)
    how = "neighbouring pixels, for no sky is open" if crowded else "the measured sky noise"
    notes.append(f"no variance: from {how} ({np.median(noise):.4g} per pixel)")
    return np.asarray(noise**2 + (excess / gain if gain else 0.0), np.float32)


def _sky(image: Image, bad: npt.NDArray[np.bool_]) -> tuple[Image, Image, bool]:
    """Median and noise of blocks, bilinear between their centres, and whether sources crowd.

    Where they do, the darker half of the pixels scatters by faint stars: its wing falls off
    faster than that of a Gaussian.  What differs between neighbours is noise all the same.
    """
    from scipy.ndimage import zoom

    ny, nx = image.shape
    tiles = max(2, ny // _BLOCK), max(2, nx // _BLOCK)
    level, noise, wing, rough = np.full((4, *tiles), np.nan)
    curvature = _curvature(image)
    for j, rows in enumerate(np.array_split(np.arange(ny), tiles[0])):
        for i, columns in enumerate(np.array_split(np.arange(nx), tiles[1])):
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            good = ~bad[box] & np.isfinite(curvature[box])
            values = image[box][good]
            if values.size > 100:
                lowest, low, middle = np.percentile(values, [2.275, 15.865, 50.0])
                level[j, i], noise[j, i], wing[j, i] = middle, middle - low, low - lowest
                # Never empty, not even where the image is constant.
                dark = curvature[box][good][values <= middle]
                low, high = np.percentile(dark, [15.865, 84.135])
                rough[j, i] = 0.5 * (high - low)
    crowded = bool(np.nanmedian(noise) > _CROWDED * np.nanmedian(wing))
    noise = rough if crowded else noise
    for plane in (level, noise):
        plane[np.isnan(plane)] = np.nanmedian(plane)
    factor = ny / tiles[0], nx / tiles[1]
    wide = [zoom(p, factor, order=1, mode="nearest", grid_mode=True) for p in (level, noise)]
    return np.asarray(wide[0], np.float32), np.asarray(wide[1], np.float32), crowded


def _curvature(image: Image) -> Image:
    """Pixels against their four neighbours, with the scatter of one pixel in white noise."""
    out = np.full(image.shape, np.float32(np.nan))
    near = image[1:-1, :-2] + image[1:-1, 2:] + image[:-2, 1:-1] + image[2:, 1:-1]
    out[1:-1, 1:-1] = (4 * image[1:-1, 1:-1] - near) / np.float32(20.0**0.5)
    return out


def psf_of(exposure: Exposure, notes: list[str]) -> PolynomialPsf:
    """Model the PSF from the stars of an image.

    Parameters
    ----------
    exposure : Exposure
        Background included or not.
    notes : list of str
        What was found is added here.

    Returns
    -------
    PolynomialPsf
        Its variation follows the number of stars.

    Raises
    ------
    PsfError
        If no star qualifies.
    """
    from pipeline.calibrate import background
    from pipeline.calibrate.detect import detect
    from pipeline.calibrate.measure import aperture_flux, windowed_moments
    from pipeline.calibrate.psf import cut_stamps, fit_psf
    from pipeline.calibrate.stars import contamination, select_stars, star_size
    from pipeline.psfphot import smooth_variance

    # Of the background only a constant under a star matters here: coarse bins will do.
    coarse = background.Config(bin_side=2 * background.Config().bin_side)
    sky = background.model(exposure.image, exposure.variance, exposure.mask, coarse).image
    flat = exposure.replace(image=np.subtract(exposure.image, sky, out=sky))
    noise = smooth_variance(flat.variance, flat.mask)
    sigma = 1.8
    for _ in range(3):
        found = detect(flat, noise, sigma=sigma)
        moments = windowed_moments(flat.image, flat.mask, found.x, found.y, sigma)
        size = star_size(moments.size[moments.ok & (found.snr > 20)])
        if not np.isfinite(size) or 0.75 < size / sigma < 1.3:
            break
        sigma = float(np.clip(size, 0.8, 6.0))
    size = size if np.isfinite(size) else sigma
    disturbed = contamination(moments.x, moments.y, found.snr, size, 20.0)
    sample = select_stars(
        moments, found.snr, disturbed, flat.shape, saturation=flat.info.saturation
    )
    if not len(sample.index):
        raise PsfError("no star fit for a model of the PSF", sources=len(found))
    x, y = moments.x[sample.index], moments.y[sample.index]
    flux = aperture_flux(flat.image, x, y, 3.0 * size)
    keep = flux > 0
    bad = flagged(flat.mask, bits(*NO_SKY))
    gain = _electrons(flat, noise)  # the model weighs photons, which have no other unit
    stars = cut_stamps(
        flat.image * np.float32(gain), bad, noise * np.float32(gain**2),
        x[keep], y[keep], flux[keep] * gain,
    )  # fmt: skip
    fit = fit_psf(stars, flat.shape)
    notes.append(f"PSF of order {fit.psf.order} from {fit.n_stars} stars")
    return fit.psf


def _electrons(exposure: Exposure, sky: Image) -> float:
    """Electrons per image unit as the variance plane has them, whatever the unit.

    Where it has no photon noise of sources, the sky's noise is taken as that of 100 electrons.
    """
    bright = (exposure.mask == 0) & (exposure.image > _BRIGHT * np.sqrt(sky))
    flux = float(exposure.image[bright].sum(dtype=np.float64))
    photons = float((exposure.variance - sky)[bright].sum(dtype=np.float64))
    if photons > _NOTICEABLE * float(sky[bright].sum(dtype=np.float64)):
        return flux / photons
    return 10.0 / float(np.sqrt(np.median(sky)))
