"""Geometry on the sphere, free of special cases at the poles and at 0h.

Vectorised over arrays of any shape and without units to unwrap: `astropy.coordinates` gives the
same numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray

__all__ = [
    "ARCSEC",
    "basis",
    "deproject",
    "displaced",
    "offsets",
    "project",
    "radec",
    "separation",
    "turned",
    "unit_vectors",
]

ARCSEC = float(np.pi / 180.0 / 3600.0)
"""One second of arc in radians."""


def unit_vectors(ra: npt.ArrayLike, dec: npt.ArrayLike) -> FloatArray:
    """Directions, ``(n, 3)``, of positions in degrees.

    Parameters
    ----------
    ra, dec : array-like, (n,), deg
        Positions.

    Returns
    -------
    ndarray, (n, 3)
        Cartesian components.
    """
    a, d = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    across = np.cos(d)
    return np.stack([across * np.cos(a), across * np.sin(a), np.sin(d)], axis=-1)


def radec(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Right ascension (0 to below 360) and declination in degrees of vectors of any length.

    Parameters
    ----------
    vectors : ndarray, (n, 3)
        Directions.

    Returns
    -------
    ra, dec : ndarray, (n,), deg
        Positions.
    """
    x, y, z = np.moveaxis(np.asarray(vectors, float), -1, 0)
    return turned(np.degrees(np.arctan2(y, x))), np.degrees(np.arctan2(z, np.hypot(x, y)))


def turned(angle: npt.ArrayLike) -> FloatArray:
    """Bring angles into one turn.

    Parameters
    ----------
    angle : array-like, deg
        Any angles.

    Returns
    -------
    ndarray, deg
        From 0 to, not including, 360: the remainder of a tiny negative number rounds to 360.
    """
    rest = np.asarray(angle, float) % 360.0
    return np.where(rest < 360.0, rest, 0.0)


def basis(ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return unit vectors to the east and to the north, ``(n, 3)``, at positions in degrees.

    Parameters
    ----------
    ra, dec : array-like, (n,), deg
        Positions.

    Returns
    -------
    east, north : ndarray, (n, 3)
        Cartesian components.
    """
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
    """Move positions (deg) by small angles (arcsec); the inverse of `offsets`.

    Parameters
    ----------
    ra0, dec0 : array-like, (n,), deg
        Positions to start from.
    east, north : array-like, (n,), arcsec
        Displacements in the tangent plane.

    Returns
    -------
    ra, dec : ndarray, (n,), deg
        Positions.
    """
    to_east, to_north = basis(ra0, dec0)
    xi = np.asarray(east, float)[..., None] * ARCSEC
    eta = np.asarray(north, float)[..., None] * ARCSEC
    along = np.sqrt(1.0 - xi**2 - eta**2)
    return radec(along * unit_vectors(ra0, dec0) + xi * to_east + eta * to_north)


def separation(
    ra0: npt.ArrayLike, dec0: npt.ArrayLike, ra: npt.ArrayLike, dec: npt.ArrayLike
) -> FloatArray:
    """Angles between directions, exact also for small ones (haversine formula).

    Parameters
    ----------
    ra0, dec0, ra, dec : array-like, (n,), deg
        The two directions.

    Returns
    -------
    ndarray, (n,), deg
    """
    d0, d = np.radians(np.asarray(dec0, float)), np.radians(np.asarray(dec, float))
    half_d = np.radians(np.asarray(dec, float) - dec0) / 2
    half_r = np.radians(np.asarray(ra, float) - ra0) / 2
    h = np.sin(half_d) ** 2 + np.cos(d) * np.cos(d0) * np.sin(half_r) ** 2
    return np.asarray(np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0)))))


def project(
    ra: npt.ArrayLike, dec: npt.ArrayLike, centre: tuple[npt.ArrayLike, npt.ArrayLike]
) -> FloatArray:
    """Gnomonic projection (Calabretta & Greisen 2002, section 5.1.3).

    Parameters
    ----------
    ra, dec : array-like, (n,), deg
        Positions.
    centre : tuple of array-like, (ra, dec), deg
        Point of tangency, or one of each position.

    Returns
    -------
    ndarray, (n, 2), deg
        East and north; NaN at 90 degrees from the centre and beyond.
    """
    a = np.radians(np.asarray(ra, float) - centre[0])
    d, d0 = np.radians(np.asarray(dec, float)), np.radians(np.asarray(centre[1], float))
    cosine = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    cosine = np.where(cosine > 0.0, cosine, np.nan)
    east = np.cos(d) * np.sin(a) / cosine
    north = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / cosine
    return np.asarray(np.degrees(np.stack([east, north], axis=-1)))


def deproject(plane: FloatArray, centre: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Inverse of `project`: right ascension and declination in degrees.

    Parameters
    ----------
    plane : ndarray, (n, 2), deg
        Gnomonic coordinates to the east and to the north.
    centre : tuple of float, deg
        Right ascension and declination of the tangent point.

    Returns
    -------
    ra, dec : ndarray, (n,), deg
        Positions.
    """
    east, north = np.radians(plane[..., 0]), np.radians(plane[..., 1])
    d0 = np.radians(centre[1])
    along = np.cos(d0) - north * np.sin(d0)
    ra = centre[0] + np.degrees(np.arctan2(east, along))
    dec = np.degrees(np.arctan2(np.sin(d0) + north * np.cos(d0), np.hypot(east, along)))
    return turned(ra), np.asarray(dec)
