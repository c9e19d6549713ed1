"""Observing conditions of a visit: seeing, sky, transparency, pointing, refraction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.exposure import NJY_ZERO_POINT, FloatArray
from sims.geometry import DetectorGeometry, Pointing
from sims.optics import PsfField
from sims.schedule import Visit, horizon
from sims.streams import stream
from sims.waves import Waves

__all__ = ["MEAN_GAIN", "REFERENCE_COLOUR", "Conditions", "airmass_of"]

MEAN_GAIN = 4.0
"""Electrons per ADU with which zero points and sky levels in ADU are read."""

REFERENCE_COLOUR = 0.8
"""g - i of the star that refraction leaves in place."""

_ZERO_POINT = {"u": 23.32, "g": 25.00, "r": 25.21, "i": 25.15, "z": 24.88, "y": 23.71}  # 1 ADU/s
_EXTINCTION = {"u": 0.63, "g": 0.173, "r": 0.090, "i": 0.054, "z": 0.060, "y": 0.058}
_SKY = {"u": 0.3, "g": 1.0, "r": 1.9, "i": 3.2, "z": 5.0, "y": 4.5}  # relative to g
# Differential chromatic refraction within a band, arcsec per magnitude of g - i and unit tan z.
_DCR = {"u": 0.060, "g": 0.040, "r": 0.012, "i": 0.005, "z": 0.003, "y": 0.002}
_POINTING_ERROR = 2.5  # arcsec
_GRADIENT = 1.0e-4  # per mm, two percent over the focal plane
_PATCHINESS = 0.08  # relative transmission per magnitude of mean extinction


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """Conditions of one visit.

    Attributes
    ----------
    visit : Visit
        The exposure.
    airmass : float
        At its middle.
    seeing : float, arcsec
        Delivered width of the PSF, the pixel's own response not included.
    sky : float, electron / pixel
        Sky collected over the exposure.
    gradient : tuple of float, 1 / mm
        Relative gradient of the sky over the focal plane.
    cloud : float, mag
        Mean extinction by thin clouds.
    clouds : Waves
        Relative change of their transmission over the focal plane.
    electrons_per_njy : float
        Electrons collected from a source of 1 nJy over the exposure.
    pointing, nominal : Pointing
        Where the telescope points, and the pointing that its header states.
    psf : PsfField
        Point spread function.
    zenith_angle : float, deg
        Direction of the zenith, north through east.
    refraction : float, arcsec / mag
        Shift away from the zenith per magnitude of g - i.
    """

    visit: Visit
    airmass: float
    seeing: float
    sky: float
    gradient: tuple[float, float]
    cloud: float
    clouds: Waves
    electrons_per_njy: float
    pointing: Pointing
    nominal: Pointing
    psf: PsfField
    zenith_angle: float
    refraction: float

    @classmethod
    def draw(
        cls,
        seed: int,
        visit: Visit,
        seeing: tuple[float, float],
        pixel_scale: float,
        cloud: float = 0.0,
    ) -> Conditions:
        """Draw the conditions of a visit.

        Parameters
        ----------
        seed : int
            Seed of the campaign.
        visit : Visit
            The exposure.
        seeing : tuple of float, arcsec
            Range of the delivered width.
        pixel_scale : float, arcsec
            Size of a pixel.
        cloud : float, mag
            Largest extinction by clouds.
        """
        rng = stream(seed, visit.number, 0, "conditions")
        altitude, zenith, _ = horizon(visit)
        airmass = airmass_of(altitude)
        width = float(rng.uniform(*seeing))
        sky_adu = rng.uniform(75.0, 130.0) * _SKY[visit.band] * visit.exptime / 86.0
        dim = float(rng.uniform(0.0, 1.0)) * cloud
        zero_point = (
            _ZERO_POINT[visit.band]
            + 2.5 * np.log10(MEAN_GAIN * visit.exptime)
            - _EXTINCTION[visit.band] * (airmass - 1.0)
            - dim
        )
        slope = rng.normal(0.0, _GRADIENT, 2)
        error = rng.normal(0.0, _POINTING_ERROR, 2) / 3600.0
        pointing = Pointing(visit.ra, visit.dec, float(rng.normal(0.0, 0.004)))
        nominal = Pointing(
            visit.ra + error[0] / np.cos(np.radians(visit.dec)), visit.dec + error[1]
        )
        return cls(
            visit=visit,
            airmass=airmass,
            seeing=width,
            sky=float(sky_adu * MEAN_GAIN),
            gradient=(float(slope[0]), float(slope[1])),
            cloud=dim,
            clouds=Waves.draw(rng, _PATCHINESS * dim, (100.0, 400.0)),
            electrons_per_njy=float(10.0 ** (0.4 * (zero_point - NJY_ZERO_POINT))),
            pointing=pointing,
            nominal=nominal,
            psf=PsfField.draw(seed, visit.number, width, pixel_scale),
            zenith_angle=zenith,
            refraction=_DCR[visit.band] / np.tan(np.radians(altitude)),
        )

    def sky_at(self, geometry: DetectorGeometry) -> FloatArray:
        """Sky of a detector as a plane: level at the first pixel and steps along x and y."""
        x, y = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
        x_mm, y_mm = geometry.to_plane(x, y)
        level = self.sky * (1.0 + self.gradient[0] * x_mm + self.gradient[1] * y_mm)
        return np.array([level[0], level[1] - level[0], level[2] - level[0]])


def airmass_of(altitude: float) -> float:
    """Relative air mass at an altitude in degrees (Pickering 2002).

    Parameters
    ----------
    altitude : float, deg
        Apparent altitude.

    Returns
    -------
    float
        Air mass, one in the zenith.
    """
    return float(1.0 / np.sin(np.radians(altitude + 244.0 / (165.0 + 47.0 * altitude**1.1))))
