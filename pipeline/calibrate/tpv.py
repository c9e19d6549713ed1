"""World coordinates as numbers that can be corrected and stay FITS-standard.

A correction is folded into what the standard already offers, so that any reader sees the same
sky: a rigid rotation of the sphere changes CRVAL; a linear correction multiplies the TPV
polynomials (or the CD matrix of TAN and TAN-SIP); quadratic and cubic corrections add to the TPV
coefficients of the same monomials.  No refit of a fit, no tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS, Sip

from pipeline.exposure import FloatArray
from pipeline.sphere import basis, deproject, project, unit_vectors
from pipeline.wcs import canonical, to_header

__all__ = ["Coordinates", "deproject", "project"]

# TPV coefficients of axis 2 multiply the monomials of axis 1 with x and y exchanged.
_EXCHANGED: tuple[int, ...] = (0, 2, 1, 3, 6, 5, 4, 10, 9, 8, 7, 11)
_EXCHANGED += (16, 15, 14, 13, 12, 22, 21, 20, 19, 18, 17, 23)
_EXCHANGED += (30, 29, 28, 27, 26, 25, 24, 38, 37, 36, 35, 34, 33, 32, 31, 39)
# Number of the coefficient of x^i y^j on axis 1.
_MONOMIALS: tuple[tuple[int, int, int], ...] = (
    *((0, 0, 0), (1, 1, 0), (2, 0, 1), (4, 2, 0), (5, 1, 1), (6, 0, 2)),
    *((7, 3, 0), (8, 2, 1), (9, 1, 2), (10, 0, 3)),
)
_N_PV = 40


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """Coefficients of TAN, TPV or TAN-SIP coordinates, and the object made of them.

    Attributes
    ----------
    crval : ndarray, (2,), deg
        Point of tangency.
    crpix : ndarray, (2,), pixel
        Reference pixel, counted from 1.
    cd : ndarray, (2, 2), deg / pixel
        Linear part.
    pv : ndarray, (2, 40), optional
        TPV coefficients; None for TAN and TAN-SIP.
    sip : astropy.wcs.Sip, optional
        SIP distortion.
    wcs : astropy.wcs.WCS
        The same for evaluation.
    """

    crval: FloatArray
    crpix: FloatArray
    cd: FloatArray
    pv: FloatArray | None
    sip: Sip | None
    wcs: WCS = field(init=False)

    def __post_init__(self) -> None:
        """Build the object that evaluates the coefficients."""
        wcs = WCS(naxis=2)
        kind = "TPV" if self.pv is not None else "TAN" if self.sip is None else "TAN-SIP"
        wcs.wcs.ctype = [f"RA---{kind}", f"DEC--{kind}"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = self.crval, self.crpix, self.cd
        wcs.wcs.radesys = "ICRS"
        if self.pv is not None:
            cards = [(i + 1, k, float(self.pv[i, k])) for i in (0, 1) for k in range(_N_PV)]
            wcs.wcs.set_pv([card for card in cards if card[2] != 0.0 or card[1] == 1])
        wcs.sip = self.sip
        wcs.wcs.set()
        object.__setattr__(self, "wcs", wcs)

    @classmethod
    def of(cls, wcs: WCS) -> Coordinates:
        """Take the coefficients out of an astropy object.

        They are read from the header it would write, since wcslib keeps TPV in memory as TAN with
        a distortion of its own.
        """
        header = to_header(wcs)
        pv = None
        if str(header["CTYPE1"]).endswith("TPV"):
            pv = np.zeros((2, _N_PV))
            pv[:, 1] = 1.0
            for key, value in header.items():
                if found := re.fullmatch(r"PV([12])_(\d+)", key):
                    pv[int(found[1]) - 1, int(found[2])] = value
        crval, crpix = np.array(wcs.wcs.crval, float), np.array(wcs.wcs.crpix, float)
        return cls(crval, crpix, np.array(wcs.pixel_scale_matrix, float), pv, wcs.sip)

    def canonical(self) -> WCS:
        """Return the object as a file would give it back."""
        return canonical(self.wcs)

    @property
    def tangent(self) -> tuple[float, float]:
        """Point of tangency (deg)."""
        return float(self.crval[0]), float(self.crval[1])

    def sky(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Right ascension and declination (deg) of 0-based pixels."""
        ra, dec = self.wcs.all_pix2world(x, y, 0)
        return np.asarray(ra), np.asarray(dec)

    def plane(self, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
        """Gnomonic coordinates (deg) of pixels about the point of tangency, distortion included."""
        return project(*self.sky(x, y), self.tangent)

    def undistorted(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Intermediate coordinates (deg) of pixels before any distortion."""
        return np.asarray((np.stack([x, y], axis=1) + 1.0 - self.crpix) @ self.cd.T)

    def turned(self, centre: tuple[float, float], offset: FloatArray, angle: float) -> Coordinates:
        """Rotate the whole sky rigidly.

        Parameters
        ----------
        centre : tuple of float, (ra, dec), deg
            Where the image points.
        offset : ndarray, (2,), deg
            Where that point goes, east and north.
        angle : float, rad
            By how much the sky turns about it.

        Returns
        -------
        Coordinates
        """
        ra, dec = deproject(np.asarray(offset), centre)
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        rotation = _frame(float(ra), float(dec)) @ turn @ _frame(*centre).T
        east, north, pole = (rotation @ _frame(*self.tangent)).T
        crval = np.degrees([np.arctan2(pole[1], pole[0]) % (2 * np.pi), np.arcsin(pole[2])])
        e, n, _ = _frame(float(crval[0]), float(crval[1])).T
        linear = np.array([[e @ east, e @ north], [n @ east, n @ north]])
        return replace(self, crval=crval).mapped(linear, np.zeros(2))

    def mapped(self, linear: FloatArray, constant: FloatArray) -> Coordinates:
        """Apply a linear map and a shift (deg) to the plane of projection."""
        if self.pv is not None:
            exchanged = list(_EXCHANGED)
            mixed = linear @ np.stack([self.pv[0], self.pv[1, exchanged]])
            mixed[:, 0] += constant
            return replace(self, pv=np.stack([mixed[0], mixed[1, exchanged]]))
        cd = linear @ self.cd
        if self.sip is None:
            return replace(self, cd=cd, crpix=self.crpix - np.linalg.solve(cd, constant))
        # SIP polynomials count from CRPIX, which must stay: the point of tangency moves instead.
        return replace(self, cd=cd, crval=np.array(deproject(constant, self.tangent)))

    def bent(self, terms: FloatArray, middle: FloatArray, half: float, order: int) -> Coordinates:
        """Add a polynomial of the intermediate coordinates.

        Parameters
        ----------
        terms : ndarray, (n_terms, 2), deg
            Coefficients for east and north of `bending_terms`.
        middle, half : ndarray, (2,), and float, deg
            Origin and unit of the coordinates in which the coefficients are meant.
        order : int
            2 or 3.

        Returns
        -------
        Coordinates
            TPV, also from TAN; the change of basis to monomials about CRPIX is exact.
        """
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 6)] * 2), axis=-1).reshape(-1, 2)
        local = self.bending_terms(grid, order)
        about_crpix = self.bending_terms(middle + half * grid, order)
        scale = np.abs(about_crpix).max(axis=0)
        expanded = np.linalg.lstsq(about_crpix / scale, local @ terms, rcond=None)[0]
        pv = np.zeros((2, _N_PV)) if self.pv is None else self.pv.copy()
        if self.pv is None:
            pv[:, 1] = 1.0
        expanded /= scale[:, None]
        for (k, *_), (east, north) in zip(_monomials(order), expanded, strict=True):
            pv[0, k] += east
            pv[1, _EXCHANGED[k]] += north
        return replace(self, pv=pv)

    @staticmethod
    def bending_terms(points: FloatArray, order: int) -> FloatArray:
        """Monomials ``(n, n_terms)`` up to a degree of points ``(n, 2)``, in TPV's order."""
        powers = _monomials(order)
        return np.stack([points[:, 0] ** i * points[:, 1] ** j for _, i, j in powers], axis=1)


def _monomials(order: int) -> list[tuple[int, int, int]]:
    return [m for m in _MONOMIALS if m[1] + m[2] <= order]


def _frame(ra: float, dec: float) -> FloatArray:
    """Return unit vectors of east, north and the position itself, as columns."""
    east, north = basis(ra, dec)
    return np.array([east, north, unit_vectors(ra, dec)]).T
