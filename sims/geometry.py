"""Pixels to sky and back, exactly, and the TPV header a telescope would have written.

The focal plane sees the sky through a radial distortion ``θ = r1 r + r3 r³``; a detector is a
shifted and slightly rotated rectangle in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.camera import Camera, Detector
from pipeline.exposure import FloatArray
from pipeline.sphere import basis, radec, unit_vectors

__all__ = ["DetectorGeometry", "Pointing", "tpv_cards"]

_CONVERGED = 1e-9
"""Largest error of an angle from the optical axis, rad: a fifth of a milliarcsecond."""


@dataclass(frozen=True, slots=True)
class Pointing:
    """Where the optical axis points and how the focal plane is turned.

    Attributes
    ----------
    ra, dec : float, deg
        Direction of the optical axis (ICRS).
    rotation : float, deg
        Small rotation of the sky in the focal plane, north towards east.
    """

    ra: float
    dec: float
    rotation: float = 0.0

    def _axes(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        t = np.radians(self.rotation)
        east, north = basis(self.ra, self.dec)
        return (
            unit_vectors(self.ra, self.dec),
            np.cos(t) * north + np.sin(t) * east,
            np.cos(t) * east - np.sin(t) * north,
        )

    def to_sky(
        self, angle: FloatArray, north: FloatArray, east: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Position, deg, at an angle [rad] from the axis in a direction (unit vector)."""
        axis, n, e = self._axes()
        across = north[..., None] * n + east[..., None] * e
        p = np.cos(angle)[..., None] * axis + np.sin(angle)[..., None] * across
        return radec(p)

    def from_sky(
        self, ra: npt.ArrayLike, dec: npt.ArrayLike
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Inverse of `to_sky`: the angle [rad] and the direction's two components."""
        axis, n, e = self._axes()
        p = unit_vectors(np.atleast_1d(ra), np.atleast_1d(dec))
        north, east = p @ n, p @ e
        across = np.hypot(north, east)
        safe = np.where(across > 0, across, 1.0)
        return np.arctan2(across, p @ axis), north / safe, east / safe


@dataclass(frozen=True, slots=True, eq=False)
class DetectorGeometry:
    """Mapping between the trimmed pixels of one detector and the sky.

    Attributes
    ----------
    camera : Camera
        The camera.
    detector : Detector
        The detector.
    """

    camera: Camera
    detector: Detector

    def to_plane(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Focal-plane position in mm of trimmed pixels."""
        det, pitch = self.detector, self.camera.pixel_size
        c, s = np.cos(np.radians(det.yaw_deg)), np.sin(np.radians(det.yaw_deg))
        u = (np.asarray(x, float) - 0.5 * (det.shape[1] - 1)) * pitch
        v = (np.asarray(y, float) - 0.5 * (det.shape[0] - 1)) * pitch
        return det.x_mm + c * u - s * v, det.y_mm + s * u + c * v

    def from_plane(self, x_mm: FloatArray, y_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Inverse of `to_plane`."""
        det, pitch = self.detector, self.camera.pixel_size
        c, s = np.cos(np.radians(det.yaw_deg)), np.sin(np.radians(det.yaw_deg))
        dx, dy = x_mm - det.x_mm, y_mm - det.y_mm
        x = (c * dx + s * dy) / pitch + 0.5 * (det.shape[1] - 1)
        y = (c * dy - s * dx) / pitch + 0.5 * (det.shape[0] - 1)
        return x, y

    def to_field(
        self, x: npt.ArrayLike, y: npt.ArrayLike
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Angle [rad] from the optical axis and direction (north, east) of pixels."""
        plane = self.camera.focal_plane
        x_mm, y_mm = self.to_plane(x, y)
        r = np.hypot(x_mm, y_mm)
        safe = np.where(r > 0, r, 1.0)
        angle = plane.radial[0] * r + plane.radial[1] * r**3
        north = (x_mm * plane.north[0] + y_mm * plane.north[1]) / safe
        east = (x_mm * plane.east[0] + y_mm * plane.east[1]) / safe
        return angle, north, east

    def to_sky(
        self, pointing: Pointing, x: npt.ArrayLike, y: npt.ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        """Right ascension and declination, deg, of trimmed pixels."""
        return pointing.to_sky(*self.to_field(x, y))

    def to_pixel(
        self, pointing: Pointing, ra: npt.ArrayLike, dec: npt.ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        """Trimmed pixels of positions in degrees; NaN where the distortion has no inverse."""
        plane = self.camera.focal_plane
        angle, north, east = pointing.from_sky(ra, dec)
        r1, r3 = plane.radial
        r = angle / r1
        for _ in range(4):  # Newton; converges to rounding in three steps
            r -= (r1 * r + r3 * r**3 - angle) / (r1 + 3.0 * r3 * r**2)
        known = (r >= 0.0) & (r1 + 3.0 * r3 * r**2 > 0.0)  # far away it ends at another root
        r = np.where(known & (np.abs(r1 * r + r3 * r**3 - angle) < _CONVERGED), r, np.nan)
        x_mm = r * (north * plane.north[0] + east * plane.east[0])
        y_mm = r * (north * plane.north[1] + east * plane.east[1])
        return self.from_plane(x_mm, y_mm)

    def pixel_angle(self, position_angle: FloatArray) -> FloatArray:
        """Angle from x towards y, rad, of a direction on the sky (deg, north through east)."""
        plane = self.camera.focal_plane
        n, e = np.cos(np.radians(position_angle)), np.sin(np.radians(position_angle))
        angle = np.arctan2(
            n * plane.north[1] + e * plane.east[1], n * plane.north[0] + e * plane.east[0]
        )
        return np.asarray(angle - np.radians(self.detector.yaw_deg))

    def outline(
        self, pointing: Pointing, margin: float = 0.0, steps: int = 9
    ) -> tuple[FloatArray, FloatArray]:
        """Sky positions, deg, on a grid that covers the detector and a margin in pixels."""
        ny, nx = self.detector.shape
        gx, gy = np.meshgrid(
            np.linspace(-margin, nx - 1 + margin, steps),
            np.linspace(-margin, ny - 1 + margin, steps),
        )
        return self.to_sky(pointing, gx.ravel(), gy.ravel())


def tpv_cards(geometry: DetectorGeometry, pointing: Pointing) -> dict[str, float | str]:
    """WCS of the raw frame as TPV cards: pointing, scale, and a cubic per axis.

    Parameters
    ----------
    geometry : DetectorGeometry
        The detector.
    pointing : Pointing
        As the header states it; its error is the error of the WCS.

    Returns
    -------
    dict
        Header cards in pixels of the raw frame.  The polynomial follows the optical model within
        a tenth of a milliarcsecond.
    """
    det = geometry.detector
    plane = geometry.camera.focal_plane
    # The nominal scale, as the headers have it: the first-order term makes up for it.
    scale = geometry.camera.pixel_scale / 3600.0
    first = det.amplifiers[0]
    off_x, off_y = first.data.x0 - first.trimmed.x0, first.data.y0 - first.trimmed.y0
    axis = geometry.from_plane(np.zeros(1), np.zeros(1))
    cd = np.array([plane.east, plane.north]) * scale
    ny, nx = det.shape
    gx, gy = (
        g.ravel() for g in np.meshgrid(np.linspace(0, nx - 1, 17), np.linspace(0, ny - 1, 33))
    )
    angle, north, east = geometry.to_field(gx, gy)
    t = np.radians(pointing.rotation)
    tangent = np.degrees(np.tan(angle))
    xi = tangent * (np.cos(t) * east + np.sin(t) * north)
    eta = tangent * (np.cos(t) * north - np.sin(t) * east)
    u, v = cd @ np.stack([gx - axis[0][0], gy - axis[1][0]])
    cards: dict[str, float | str] = {
        "CTYPE1": "RA---TPV",
        "CTYPE2": "DEC--TPV",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": pointing.ra,
        "CRVAL2": pointing.dec,
        "CRPIX1": float(axis[0][0] + 1 + off_x),
        "CRPIX2": float(axis[1][0] + 1 + off_y),
        "CD1_1": float(cd[0, 0]),
        "CD1_2": float(cd[0, 1]),
        "CD2_1": float(cd[1, 0]),
        "CD2_2": float(cd[1, 1]),
    }
    for axis_number, (a, b, target) in enumerate([(u, v, xi), (v, u, eta)], start=1):
        for k, value in _cubic(a, b, target).items():
            cards[f"PV{axis_number}_{k}"] = value
    return cards


def _cubic(a: FloatArray, b: FloatArray, target: FloatArray) -> dict[int, float]:
    # Calabretta et al. 2004, TPV: term 3 is the radius and stays zero.
    numbers = (0, 1, 2, 4, 5, 6, 7, 8, 9, 10)
    terms = [np.ones_like(a), a, b, a * a, a * b, b * b, a**3, a * a * b, a * b * b, b**3]
    # The columns span eight decades when taken about the optical axis: scale them.
    design = np.stack(terms, axis=1)
    norm = np.abs(design).max(axis=0)
    solution = np.linalg.lstsq(design / norm, target, rcond=None)[0] / norm
    values = dict(zip(numbers, (float(s) for s in solution), strict=True))
    return {k: values.get(k, 0.0) for k in range(11)}
