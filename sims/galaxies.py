"""Sérsic galaxies in Fourier space: Hankel transforms of truncated profiles.

The table is made once by `build_table` with GalSim's own profile and kept as a small file; asking
GalSim for the transform of a truncated profile costs minutes.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray

__all__ = ["STEP", "TRUNCATION", "build_table", "reach", "sersic_indices", "transforms"]

STEP = 0.004
"""Step of the transforms in q = k r_h."""

TRUNCATION = 5.0
"""Profiles end at this many half-light radii."""

_END = 160.0
_INDICES = (1.0, 2.0, 4.0)
_FILE = Path(__file__).parent / "data" / "sersic.npz"
_NODES = 2500


def sersic_indices() -> tuple[float, ...]:
    """Sérsic indices that a galaxy can have; sources hold the position in this tuple.

    Returns
    -------
    tuple of float
        Ascending.
    """
    return _INDICES


def _surface_brightness(index: float, radius: FloatArray) -> FloatArray:
    import galsim

    profile = galsim.Sersic(index, half_light_radius=1.0, trunc=TRUNCATION)
    return np.array([profile.xValue(float(r), 0.0) for r in radius])


def build_table(path: Path = _FILE) -> None:
    """Compute the transforms and write them.

    Parameters
    ----------
    path : path-like
        The npz file: ``u`` (square roots of q) and ``transform``, one row per index; ``radius``
        and ``brightness``, the profiles of unit flux and unit half-light radius.

    Notes
    -----
    G(q) = 2π ∫ I(r) J0(q r) r dr on Gauss-Legendre nodes in t with r = R t², which puts them where
    the cusp of a de Vaucouleurs profile is.
    """
    from scipy.special import j0

    t, w = np.polynomial.legendre.leggauss(_NODES)
    t, w = 0.5 * (t + 1.0), 0.5 * w
    r = TRUNCATION * t**2
    measure = 2 * np.pi * r * (2 * TRUNCATION * t) * w
    u = np.linspace(0.0, np.sqrt(_END), 2400)
    kernel = j0(np.outer(u**2, r))
    rows = [kernel @ (measure * _surface_brightness(n, r)) for n in _INDICES]
    radius = np.linspace(0.02, TRUNCATION * 0.999, 250)
    brightness = [_surface_brightness(n, radius) for n in _INDICES]
    np.savez_compressed(
        path,
        u=u,
        transform=np.array([g / g[0] for g in rows]).astype(np.float32),
        radius=radius,
        brightness=np.array(brightness).astype(np.float32),
    )


@lru_cache(maxsize=1)
def transforms() -> FloatArray:
    """Return the transforms, ``(n_indices, n_q)``, at multiples of `STEP`; unity at q = 0."""
    from scipy.interpolate import CubicSpline

    with np.load(_FILE) as f:
        u, rows = f["u"], f["transform"].astype(float)
    q = np.arange(0.0, _END, STEP)
    table = np.array([CubicSpline(u, row)(np.sqrt(q)) for row in rows])
    table[:, -1] = 0.0
    return np.ascontiguousarray(table)


@lru_cache(maxsize=1)
def _profiles() -> tuple[FloatArray, FloatArray]:
    with np.load(_FILE) as f:
        return f["radius"].astype(float), f["brightness"].astype(float)


def reach(
    index: npt.NDArray[np.int64], flux: FloatArray, radius: FloatArray, level: float
) -> FloatArray:
    """Radius in pixels out to which galaxies are brighter than a level.

    Parameters
    ----------
    index : ndarray of int, (n,)
        Position in `sersic_indices`.
    flux : ndarray, (n,)
        Total fluxes.
    radius : ndarray, (n,), pixel
        Half-light radii along the major axis.
    level : float
        Flux per pixel.

    Returns
    -------
    ndarray, (n,), pixel
        Radii along the major axis.
    """
    nodes, brightness = _profiles()
    out = np.zeros(len(flux))
    for i, profile in enumerate(brightness):
        mine = np.flatnonzero(index == i)
        wanted = level * radius[mine] ** 2 / np.maximum(flux[mine], 1e-30)
        out[mine] = radius[mine] * np.interp(-wanted, -profile, nodes)
    return out
