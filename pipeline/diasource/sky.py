"""From pixels to the sky: positions, local scales and the propagation of covariances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from pipeline.exposure import FloatArray
from pipeline.wcs import jacobian

__all__ = ["Frame", "propagate", "segment"]

_DEG = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The sky round some pixels.

    Attributes
    ----------
    ra, dec : ndarray, (n,), deg
        Positions.
    jacobian : ndarray, (n, 2, 2), deg / pixel
        Derivatives of (east, north) = (Δra cos dec, Δdec) to (x, y).
    """

    ra: FloatArray
    dec: FloatArray
    jacobian: FloatArray

    @classmethod
    def at(cls, wcs: WCS, x: FloatArray, y: FloatArray) -> Frame:
        """Evaluate a WCS and its derivatives at pixels ``(n,)``; NaN stays NaN."""
        known = np.isfinite(x) & np.isfinite(y)
        u, v = np.where(known, x, 0.0), np.where(known, y, 0.0)
        ra, dec, derivatives = jacobian(wcs, u, v)
        return cls(np.where(known, ra, np.nan), np.where(known, dec, np.nan), derivatives)

    def take(self, keep: npt.NDArray[np.bool_ | np.integer]) -> Frame:
        """Return the entries of a Boolean or integer index."""
        return Frame(self.ra[keep], self.dec[keep], self.jacobian[keep])

    @property
    def scale(self) -> FloatArray:
        """Mean pixel scale, ``(n,)``, arcsec per pixel."""
        return np.asarray(np.sqrt(np.abs(np.linalg.det(self.jacobian))) * _DEG)


def propagate(transform: FloatArray, cov: FloatArray) -> FloatArray:
    """T C Tᵀ for stacks of matrices ``(n, m, k)`` and ``(n, k, k)``.

    Parameters
    ----------
    transform : ndarray, (n, m, k)
        Derivatives T.
    cov : ndarray, (n, k, k)
        Covariances C.

    Returns
    -------
    ndarray, (n, m, m)
        Covariances of the transformed values.
    """
    return np.asarray(transform @ cov @ np.swapaxes(transform, -1, -2))


def segment(
    frame: Frame, a: FloatArray, b: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Length and bearing of vectors given in pixels.

    Parameters
    ----------
    frame : Frame
        Where they are.
    a, b : ndarray, (n,), pixel
        Components along x and y.

    Returns
    -------
    length : ndarray, (n,), arcsec
    bearing : ndarray, (n,), deg
        North through east, -180 to 180.
    transform : ndarray, (n, 2, 2)
        Derivatives of (length, bearing) to (a, b).
    """
    east, north = np.moveaxis(frame.jacobian @ np.stack([a, b], -1)[..., None], 1, 0)[..., 0]
    length = np.maximum(np.hypot(east, north), 1e-30)
    towards = np.empty((len(a), 2, 2))
    towards[:, 0] = np.stack([east, north], -1) / length[:, None] * _DEG
    towards[:, 1] = np.degrees(np.stack([north, -east], -1) / length[:, None] ** 2)
    return length * _DEG, np.degrees(np.arctan2(east, north)), towards @ frame.jacobian
