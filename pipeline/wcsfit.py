"""Any celestial coordinates as TAN or TAN-SIP in ICRS, which is what products store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS, Sip

from pipeline.exposure import FloatArray
from pipeline.sphere import project

__all__ = ["Fit", "Sky", "fit_tan_sip"]

Sky = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
"""From 0-based pixels to ICRS right ascension and declination (deg)."""

_NODES = 24
_MOST = 8  # order of SIP; the convention ends at 9
_EXACT_PX = 1e-4
_POLE = 90.0 - 1e-6  # where right ascension, and the orientation with it, is undefined


@dataclass(frozen=True, slots=True)
class Fit:
    """Coordinates fitted to others.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        TAN or TAN-SIP, ICRS.
    residual : float, pixel
        Largest distance from what was fitted, between the nodes of the fit.
    """

    wcs: WCS
    residual: float


def fit_tan_sip(sky: Sky, shape: tuple[int, int], crpix: FloatArray) -> Fit:
    """Fit TAN-SIP coordinates of the lowest order that serves (Shupe et al. 2005).

    Parameters
    ----------
    sky : callable
        The coordinates to fit.
    shape : tuple of int, (ny, nx)
        Size of the image.
    crpix : ndarray, (2,), pixel
        Reference pixel of the original, counted from 1: for a tangent plane in another frame its
        point of tangency needs no distortion at all.

    Returns
    -------
    Fit
        Exact to 1e-4 pixels if an order up to 8 is, otherwise the best.

    Raises
    ------
    ValueError
        If the image has places without coordinates, or spans too much of the sky for a plane.
    """
    centre = 0.5 * (np.array(shape[::-1], float) + 1.0)
    best: Fit | None = None
    places = (centre, centre + 7.3)  # the second where the first is a pole
    trials = [(p, n) for n in range(1, _MOST + 1) for p in places]
    for place, order in [(crpix, 1), *trials]:
        made = _fitted(sky, shape, np.asarray(place, float), order)
        if made is not None and (best is None or made.residual < best.residual):
            best = made
        if best is not None and best.residual < _EXACT_PX:
            break
    if best is None:
        raise ValueError("no tangent plane holds this image")
    return best


def _fitted(sky: Sky, shape: tuple[int, int], crpix: FloatArray, order: int) -> Fit | None:
    ra0, dec0 = (float(np.ravel(v)[0]) for v in sky(crpix[:1] - 1, crpix[1:] - 1))
    if not np.isfinite([ra0, dec0]).all() or abs(dec0) > _POLE:
        return None
    u, v, plane = _sample(sky, shape, crpix, (ra0, dec0), 0.0)
    if not np.isfinite(plane).all():
        return None
    powers = [(p, n - p) for n in range(1, order + 1) for p in range(n + 1)]
    scale = float(max(np.abs(u).max(), np.abs(v).max()))
    matrix = np.stack([(u / scale) ** p * (v / scale) ** q for p, q in powers], axis=1)
    scaled = np.linalg.lstsq(matrix, plane, rcond=None)[0]
    coefficients = scaled / np.array([scale ** (p + q) for p, q in powers])[:, np.newaxis]
    cd = np.stack([coefficients[powers.index(k)] for k in ((1, 0), (0, 1))], axis=1)
    if not abs(np.linalg.det(cd)) > 0:
        return None
    sip = np.zeros((2, order + 1, order + 1))
    for (p, q), values in zip(powers[2:], coefficients[2:], strict=True):
        sip[:, p, q] = np.linalg.solve(cd, values)
    wcs = _tan_sip((ra0, dec0), crpix, cd, sip if order > 1 else None)
    u, v, plane = _sample(sky, shape, crpix, (ra0, dec0), 0.5)
    x, y = u + crpix[0] - 1, v + crpix[1] - 1
    ra, dec = wcs.all_pix2world(x, y, 0)
    again = project(ra, dec, (ra0, dec0))
    off = np.linalg.solve(cd, (again - plane).T)
    return Fit(wcs, float(np.hypot(*off).max()))


def _sample(
    sky: Sky, shape: tuple[int, int], crpix: FloatArray, tangent: tuple[float, float], shift: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Offsets from the reference pixel on a grid, and their places in the tangent plane (deg)."""
    last = _NODES - 1 - 2 * shift
    nodes = (np.arange(int(last) + 1) + shift) / (_NODES - 1)
    x, y = (a.ravel() for a in np.meshgrid(nodes * (shape[1] - 1), nodes * (shape[0] - 1)))
    ra, dec = sky(x, y)
    return x + 1 - crpix[0], y + 1 - crpix[1], project(ra, dec, tangent)


def _tan_sip(
    tangent: tuple[float, float], crpix: FloatArray, cd: FloatArray, sip: FloatArray | None
) -> WCS:
    wcs = WCS(naxis=2)
    kind = "TAN" if sip is None else "TAN-SIP"
    wcs.wcs.ctype = [f"RA---{kind}", f"DEC--{kind}"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = tangent, crpix, cd
    wcs.wcs.radesys = "ICRS"
    if sip is not None:
        wcs.sip = Sip(sip[0], sip[1], None, None, crpix)
    wcs.wcs.set()
    return wcs
