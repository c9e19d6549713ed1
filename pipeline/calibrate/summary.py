"""The row of numbers that describes one visit image."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.compiled import compiled
from pipeline.exposure import (
    Exposure,
    FloatArray,
    Psf,
    VisitInfo,
    bits,
)
from pipeline.wcs import jacobian

__all__ = ["depth", "effective_time", "geometry", "pixel_summary", "psf_shape"]

_FWHM = float(np.sqrt(8.0 * np.log(2.0)))

# Zero point (AB magnitude of 1 electron/s) and dark sky (mag/arcsec²) that define the effective
# time: DECam at the zenith (zero points of decam legacypipe with 4.3 electrons per ADU; CTIO dark
# sky of the DECam exposure-time calculator), in seeing of 1 arcsec.
_FIDUCIAL = {
    "u": (24.9, 22.3),
    "g": (26.6, 22.0),
    "r": (26.8, 21.1),
    "i": (26.7, 20.3),
    "z": (26.5, 19.2),
    "y": (25.3, 18.1),
}
_FIDUCIAL_SEEING = 1.0


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
    gx, gy = np.meshgrid(*(np.linspace(0.1, 0.9, 5) * n for n in (shape[1], shape[0])))
    stamps = psf.stamps(gx.ravel(), gy.ravel())
    xx, yy, xy = _adaptive_moments(stamps).T
    area = stamps.sum(axis=(1, 2)) ** 2 / (stamps**2).sum(axis=(1, 2))
    return {
        "psfSigma": float(np.median(np.sqrt(0.5 * (xx + yy)))),
        "psfE1": float(np.median((xx - yy) / (xx + yy))),
        "psfE2": float(np.median(2.0 * xy / (xx + yy))),
        "psfArea": float(np.median(area)),
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


def depth(zero_point: float, area: float, sky_variance: float, snr: float = 5.0) -> float:
    """AB magnitude of a point source of a given signal-to-noise ratio.

    Parameters
    ----------
    zero_point : float, mag
        Magnitude of one electron.
    area : float, pixel
        Noise-equivalent area of the PSF.
    sky_variance : float, electron²
        Variance of a blank pixel.
    snr : float
        Signal-to-noise ratio, the source's own photons included.

    Returns
    -------
    float, mag
        From S = snr²/2 + sqrt(snr⁴/4 + snr² area variance) electrons.
    """
    signal = snr**2 / 2.0 + np.sqrt(snr**4 / 4.0 + snr**2 * area * sky_variance)
    return float(zero_point - 2.5 * np.log10(signal))


def effective_time(magnitude: float, info: VisitInfo, pixel_scale: float) -> float:
    """Exposure time that reaches the same depth under fiducial conditions.

    Parameters
    ----------
    magnitude : float, mag
        Depth at five sigma.
    info : VisitInfo
        Band and exposure time.
    pixel_scale : float, arcsec

    Returns
    -------
    float, s
        ``exptime 10^(0.8 (m - m_fiducial))``; NaN for a band without fiducial conditions.
    """
    if info.band not in _FIDUCIAL or not np.isfinite(magnitude):
        return float("nan")
    rate, sky = _FIDUCIAL[info.band]
    area = 4.0 * np.pi * (_FIDUCIAL_SEEING / _FWHM / pixel_scale) ** 2
    per_pixel = info.exptime * pixel_scale**2 * 10.0 ** (0.4 * (rate - sky))
    fiducial = depth(rate + 2.5 * np.log10(info.exptime), area, per_pixel)
    return float(info.exptime * 10.0 ** (0.8 * (magnitude - fiducial)))


def geometry(exposure: Exposure) -> dict[str, float | int]:
    """Middle, corners, size and pixel scale of an image, degrees and arcsec."""
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
    unused = bits("BAD", "SAT", "NO_DATA", "BLEED", "CR", "UNMASKEDNAN", "EDGEBLEED")

    planes = np.array([unused, bits("SAT"), bits("BAD"), bits("CR")], np.uint32)
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
def _counts(mask: Any, planes: Any) -> Any:
    """Pixels with any bit of each set of planes."""
    out = np.zeros(len(planes), np.int64)
    for i in range(mask.size):
        if mask[i] != 0:
            for k in range(len(planes)):
                out[k] += mask[i] & planes[k] != 0
    return out
