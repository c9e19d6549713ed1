"""The ideal curve: what a matched filter finds where there is nothing but the noise.

A source is found when the score reaches the threshold somewhere within the matching radius: the
search for the highest pixel finds a little more than one look at the true place would (50 % at
4.85 instead of 5 for σ_PSF = 1.8 pixels), a place between pixels a little less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray

__all__ = ["IdealCurve", "ideal_curve"]

_GRID = np.concatenate([[0.0, 1.0], np.arange(2.0, 9.01, 0.25), [10.0, 12.0]])
_NOTHING = 1e-12
_OFFSETS = (-1.0 / 3.0, 0.0, 1.0 / 3.0)


@dataclass(frozen=True, slots=True, eq=False)
class IdealCurve:
    """Probability of detection against true SNR.

    Attributes
    ----------
    snr, fraction : ndarray, (n,)
        The curve, linear in between.
    """

    snr: FloatArray
    fraction: FloatArray

    def __call__(self, snr: npt.ArrayLike) -> FloatArray:
        """Evaluate at |SNR|."""
        return np.asarray(np.interp(np.abs(np.asarray(snr, float)), self.snr, self.fraction))

    @property
    def snr50(self) -> float:
        """True SNR of which half are found."""
        return float(np.interp(0.5, self.fraction, self.snr))


def ideal_curve(
    psf: FloatArray,
    *,
    threshold: float = 5.0,
    radius: float = 2.5,
    photons: float = 0.0,
    trials: int = 2000,
    seed: int = 1,
) -> IdealCurve:
    """Simulate the score around sources of known SNR.

    Parameters
    ----------
    psf : ndarray, (side, side)
        PSF of the difference, centred.
    threshold : float
        Least score of a detection.
    radius : float, pixel
        How far from the source its highest score may be.
    photons : float
        Inverse gain over the noise of a pixel: the variance of a pixel, in units of that of the
        empty image, grows by this per σ of flux in it.  Zero leaves out the source's own noise.
    trials : int
        Noise fields per SNR and sub-pixel place.
    seed : int
        Of the fields.

    Returns
    -------
    IdealCurve
        For white noise, averaged over places within a pixel.
    """
    given = np.ascontiguousarray(psf, float)
    return _simulated(given.tobytes(), given.shape[0], threshold, radius, photons, trials, seed)


@lru_cache(maxsize=4)
def _simulated(
    psf: bytes, side: int, threshold: float, radius: float, photons: float, trials: int, seed: int
) -> IdealCurve:
    """Simulate; the realisations of one image ask for the same curve."""
    rng = np.random.default_rng(seed)
    unit = np.frombuffer(psf).reshape(side, side)
    unit = unit / np.sqrt((unit**2).sum())
    reach = int(np.ceil(radius))
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    draws = rng.standard_normal((trials, len(u)))
    total = np.zeros(len(_GRID))
    for dy in _OFFSETS:
        for dx in _OFFSETS:
            near = np.hypot(u - dx, v - dy) <= radius
            filters, field = _filters(unit, u[near], v[near]), draws[:, near]
            source = _shifted(unit, dx, dy).ravel()
            empty = filters @ filters.T
            counts = (filters * np.maximum(source, 0.0)) @ filters.T
            for k, snr in enumerate(_GRID):
                root, used = _root(empty + photons * snr * counts)
                score = snr * (filters @ source) + field[:, used] @ root
                total[k] += np.mean(score.max(axis=1) >= threshold)
    fraction = np.maximum.accumulate(total / len(_OFFSETS) ** 2)
    return IdealCurve(_GRID, fraction)


def _filters(unit: FloatArray, u: FloatArray, v: FloatArray) -> FloatArray:
    """Return the matched filter at whole pixels, one row each."""
    side = unit.shape[0]
    pad = int(max(np.abs(u).max(), np.abs(v).max()))
    wide = np.pad(unit, pad)
    rows = [
        wide[pad - b : pad - b + side, pad - a : pad - a + side].ravel()
        for a, b in zip(u.astype(int), v.astype(int), strict=True)
    ]
    return np.array(rows)


def _shifted(image: FloatArray, dx: float, dy: float) -> FloatArray:
    side = image.shape[0]
    ky = 2 * np.pi * np.fft.fftfreq(side)[:, None]
    kx = 2 * np.pi * np.fft.rfftfreq(side)[None, :]
    return np.asarray(fft.irfft2(fft.rfft2(image) * np.exp(-1j * (kx * dx + ky * dy)), image.shape))


def _root(covariance: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return a matrix R with RᵀR the covariance, and which eigenvalues its rows belong to.

    The covariance is nearly singular for a wide PSF; rows of nothing are left out.
    """
    values, vectors = np.linalg.eigh(covariance)
    used = values > _NOTHING * values[-1]
    return np.asarray((vectors[:, used] * np.sqrt(values[used])).T), used
