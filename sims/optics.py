"""The image of a point: atmosphere, optics and charge diffusion, smoothly varying over the sky.

The transfer function of long exposures through Kolmogorov turbulence is
``exp(-3.442 (λ k / 2π r0)^(5/3))`` (Fried 1966); telescope, filter thickness and charge diffusion
add a Gaussian.  Size and ellipticity follow a few long waves in the focal plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray
from pipeline.statistics import GAUSS_FWHM
from sims.streams import stream
from sims.waves import Waves

__all__ = ["INSTRUMENT_FWHM", "PROFILE_STEP", "PsfField", "profile_table"]

INSTRUMENT_FWHM = 0.45
"""Width of everything behind the atmosphere, arcsec (Gaussian)."""

PROFILE_STEP = 0.002
"""Step of the table of the transfer function, rad / pixel."""

_PROFILE_END = 7.0
_KOLMOGOROV_FWHM = 0.9758634299  # in units of λ / r0
_FRIED = 0.5 * 6.8838771822938
_WING = 0.14231  # 2^p Γ(1 + p/2) / (π |Γ(-p/2)|), p = 5/3: the r^(-11/3) wing of exp(-a k^p)
_SIZE, _SHEAR = 0.030, 0.015
_LENGTHS = (150.0, 400.0)  # mm


@dataclass(frozen=True, slots=True, eq=False)
class PsfField:
    """Point spread function of one visit.

    Attributes
    ----------
    fwhm : float, pixel
        Width in the mean over the focal plane, the pixel's own response not included.
    pixel_scale : float, arcsec
        Size of a pixel.
    size, g1, g2 : Waves
        Relative change of the size, and shear in pixel axes, over the focal plane.
    """

    fwhm: float
    pixel_scale: float
    size: Waves
    g1: Waves
    g2: Waves

    @classmethod
    def draw(
        cls, seed: int, visit: int, fwhm: float, pixel_scale: float, *, varying: bool = True
    ) -> PsfField:
        """Draw the PSF of a visit.

        Parameters
        ----------
        seed, visit : int
            Choose the stream.
        fwhm : float, arcsec
            Delivered width.
        pixel_scale : float, arcsec
            Size of a pixel.
        varying : bool
            Whether it varies over the focal plane.
        """
        rng = stream(seed, visit, 0, "psf")
        waves = [Waves.draw(rng, a * varying, _LENGTHS) for a in (_SIZE, _SHEAR, _SHEAR)]
        return cls(fwhm / pixel_scale, pixel_scale, *waves)

    def at(
        self, x_mm: npt.ArrayLike, y_mm: npt.ArrayLike
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Relative size and shears g1, g2 (pixel axes) at positions in the focal plane."""
        return 1.0 + self.size.at(x_mm, y_mm), self.g1.at(x_mm, y_mm), self.g2.at(x_mm, y_mm)

    @property
    def atmosphere_fwhm(self) -> float:
        """Width of the atmospheric part in pixels; widths of 5/3 powers nearly add in squares."""
        instrument = INSTRUMENT_FWHM / self.pixel_scale
        return float(np.sqrt(max(self.fwhm**2 - instrument**2, 0.25 * self.fwhm**2)))

    @property
    def wing(self) -> float:
        """Surface brightness of a unit source far out, times r^(11/3); pixel units."""
        wave = self.atmosphere_fwhm / _KOLMOGOROV_FWHM / (2 * np.pi)
        return float(_WING * _FRIED * wave ** (5 / 3))


def profile_table(psf: PsfField) -> FloatArray:
    """Transfer function of the mean PSF at multiples of `PROFILE_STEP`, rad / pixel.

    The pixel's response is not in it.

    Parameters
    ----------
    psf : PsfField
        Point spread function of an exposure.

    Returns
    -------
    ndarray, (n,)
        One at frequency zero.
    """
    k = np.arange(0.0, _PROFILE_END, PROFILE_STEP)
    size = psf.atmosphere_fwhm / _KOLMOGOROV_FWHM
    sigma = INSTRUMENT_FWHM / psf.pixel_scale / GAUSS_FWHM
    table = np.exp(-_FRIED * (k * size / (2 * np.pi)) ** (5 / 3) - 0.5 * (k * sigma) ** 2)
    table[-1] = 0.0
    return np.asarray(table)
