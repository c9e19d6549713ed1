"""The row of numbers that describes one visit image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.camera import Passbands
from pipeline.compiled import compiled
from pipeline.depth import depth, grid_stamps
from pipeline.exposure import Exposure, FloatArray, Mask, Psf, VisitInfo
from pipeline.masks import NO_SKY, bits
from pipeline.psfphot import effective_area
from pipeline.statistics import GAUSS_FWHM
from pipeline.wcs import jacobian

__all__ = ["effective_time", "geometry", "pixel_summary", "psf_shape"]


def psf_shape(psf: Psf, shape: tuple[int, int]) -> dict[str, float]:
    """Width, ellipticity and noise-equivalent area of a PSF, medians over the image.

    Parameters
    ----------
    psf : Psf
        Evaluated on a 5 × 5 grid.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    dict
        ``psfSigma`` (pixel), ``psfE1``, ``psfE2`` ((xx − yy)/T, 2 xy/T), ``psfArea`` (pixel²).
    """
    stamps = grid_stamps(psf, shape)
    xx, yy, xy = _adaptive_moments(stamps).T
    return {
        "psfSigma": float(np.median(np.sqrt(0.5 * (xx + yy)))),
        "psfE1": float(np.median((xx - yy) / (xx + yy))),
        "psfE2": float(np.median(2.0 * xy / (xx + yy))),
        "psfArea": float(np.median(effective_area(stamps))),
    }


def _adaptive_moments(stamps: FloatArray) -> FloatArray:
    """Moments xx, yy, xy of centred stamps under the Gaussian that has the same, ``(n, 3)``."""
    k = np.arange(stamps.shape[1], dtype=float) - stamps.shape[1] // 2
    v, u = np.meshgrid(k, k, indexing="ij")
    terms = np.stack([np.ones_like(u), u * u, v * v, u * v], axis=-1).reshape(-1, 4)
    pixels = stamps.reshape(len(stamps), -1)
    moments = np.tile([4.0, 4.0, 0.0], (len(stamps), 1))
    live = np.arange(len(stamps))
    for _ in range(50):
        xx, yy, xy = moments[live].T
        q = np.stack([yy, xx, -2.0 * xy], axis=1) @ terms[:, 1:].T / (xx * yy - xy**2)[:, None]
        sums = (np.exp(-0.5 * q) * pixels[live]) @ terms
        new = 2.0 * sums[:, 1:] / sums[:, :1]
        sane = new[:, 0] * new[:, 1] - new[:, 2] ** 2 > 0.01
        moving = np.abs(new - moments[live]).max(axis=1) >= 1e-6
        moments[live[sane]] = new[sane]
        live = live[sane & moving]
        if len(live) == 0:
            break
    return moments


def effective_time(
    magnitude: float, info: VisitInfo, pixel_scale: float, passbands: Passbands
) -> float:
    """Exposure time that reaches the same depth under fiducial conditions.

    Parameters
    ----------
    magnitude : float, mag
        Depth at five sigma.
    info : VisitInfo
        Band and exposure time.
    pixel_scale : float, arcsec
        Side of a pixel.
    passbands : Passbands
        Zero point and dark sky of each band, and the seeing, of the fiducial conditions.

    Returns
    -------
    float, s
        ``exptime 10^(0.8 (m - m_fiducial))``; NaN for a band without fiducial conditions.
    """
    band = passbands.bands.get(info.band)
    if band is None or not np.isfinite(magnitude):
        return float("nan")
    rate, sky = band.zero_point, band.dark_sky
    area = 4.0 * np.pi * (passbands.fiducial_seeing / GAUSS_FWHM / pixel_scale) ** 2
    per_pixel = info.exptime * pixel_scale**2 * 10.0 ** (0.4 * (rate - sky))
    fiducial = depth(rate + 2.5 * np.log10(info.exptime), area, per_pixel)
    return float(info.exptime * 10.0 ** (0.8 * (magnitude - fiducial)))


def geometry(exposure: Exposure) -> dict[str, float | int]:
    """Middle, corners, size and pixel scale of an image, degrees and arcsec.

    Parameters
    ----------
    exposure : Exposure
        Any image; without world coordinates only its size is known.

    Returns
    -------
    dict
        ``xSize`` and ``ySize`` (pixel), ``ra`` and ``dec`` of the middle and of the four
        corners (deg), ``pixelScale`` (arcsec).
    """
    ny, nx = exposure.shape
    row: dict[str, float | int] = {"xSize": nx, "ySize": ny}
    if exposure.wcs is None:
        return row
    x, y = [(nx - 1) / 2, 0, 0, nx - 1, nx - 1], [(ny - 1) / 2, 0, ny - 1, ny - 1, 0]
    ra, dec = exposure.wcs.all_pix2world(x, y, 0)
    names = ("", "llc", "ulc", "urc", "lrc")
    for name, a, d in zip(names, ra, dec, strict=True):
        row[f"{name}ra"], row[f"{name}dec"] = float(a), float(d)
    *_, derivatives = jacobian(exposure.wcs, np.array(x[:1]), np.array(y[:1]))
    scale = 3600.0 * np.sqrt(abs(np.linalg.det(derivatives[0])))
    return {**row, "pixelScale": float(scale)}


def pixel_summary(exposure: Exposure, sky_variance: float) -> dict[str, float | int]:
    """Shares of masked pixels, sky level and noise.

    Parameters
    ----------
    exposure : Exposure
        In electrons, background subtracted.
    sky_variance : float, electron²
        Variance of a blank pixel.

    Returns
    -------
    dict
        ``skyBackground`` (electron), ``skyNoise`` (electron), ``fraction…``, ``nCosmicRays``
        (pixels).
    """
    mask, n = exposure.mask, exposure.mask.size
    planes = np.array([bits(*NO_SKY), bits("SAT"), bits("BAD"), bits("CR")], np.uint32)
    masked, saturated, bad, rays = (int(c) for c in _counts(mask.ravel(), planes))
    background = None if exposure.background is None else exposure.background[::8, ::8]
    return {
        "skyBackground": float("nan") if background is None else float(np.median(background)),
        "skyNoise": float(np.sqrt(sky_variance)),
        "fractionMasked": masked / n,
        "fractionSaturated": saturated / n,
        "fractionBad": bad / n,
        "nCosmicRays": rays,
    }


@compiled
def _counts(mask: Mask, planes: Mask) -> npt.NDArray[np.int64]:
    """Pixels with any bit of each set of planes."""
    out = np.zeros(len(planes), np.int64)
    for i in range(mask.size):
        if mask[i] != 0:
            for k in range(len(planes)):
                out[k] += mask[i] & planes[k] != 0
    return out
