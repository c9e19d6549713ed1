"""Small geometry on the sphere, free of special cases at the poles and at 0h."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray

__all__ = ["ARCSEC", "basis", "displaced", "offsets", "radec", "unit_vectors"]

ARCSEC = float(np.pi / 180.0 / 3600.0)
"""One second of arc in radians."""


def unit_vectors(ra: npt.ArrayLike, dec: npt.ArrayLike) -> FloatArray:
    """Directions, ``(n, 3)``, of positions in degrees."""
    a, d = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def radec(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Right ascension (0 to 360) and declination in degrees of vectors of any length."""
    x, y, z = np.moveaxis(np.asarray(vectors, float), -1, 0)
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def basis(ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return unit vectors to the east and to the north, ``(n, 3)``, at positions in degrees."""
    a, d = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    east = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)], axis=-1)
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)], axis=-1)
    return east, north


def offsets(
    ra0: npt.ArrayLike, dec0: npt.ArrayLike, ra: npt.ArrayLike, dec: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Small displacements to the east and to the north.

    Parameters
    ----------
    ra0, dec0 : array-like, (n,), deg
        Where from.
    ra, dec : array-like, (n,), deg
        Where to, not more than a degree away.

    Returns
    -------
    east, north : ndarray, (n,), arcsec
        East includes the cosine of the declination.
    """
    east, north = basis(ra0, dec0)
    # the difference of the vectors keeps the digits that their dot products would lose
    step = unit_vectors(ra, dec) - unit_vectors(ra0, dec0)
    return np.sum(step * east, axis=-1) / ARCSEC, np.sum(step * north, axis=-1) / ARCSEC


def displaced(
    ra0: npt.ArrayLike, dec0: npt.ArrayLike, east: npt.ArrayLike, north: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Move positions (deg) by small angles (arcsec); the inverse of `offsets`."""
    to_east, to_north = basis(ra0, dec0)
    xi = np.asarray(east, float)[..., None] * ARCSEC
    eta = np.asarray(north, float)[..., None] * ARCSEC
    along = np.sqrt(1.0 - xi**2 - eta**2)
    return radec(along * unit_vectors(ra0, dec0) + xi * to_east + eta * to_north)
