"""World coordinates between headers and objects.

Headers of raw DECam frames carry TPV distortions, reference frames may use TAN or TAN-SIP; all
three are read by wcslib.  What `to_header` writes is the canonical form: reading it back gives
the same object to the last bit, which `canonical` gives without a file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_area

from pipeline.exposure import FloatArray

__all__ = ["canonical", "from_header", "jacobian", "pixel_scale", "to_header"]

_WCS_KEY = re.compile(
    r"(WCSAXES|WCSNAME|RADESYS|RADECSYS|EQUINOX|LONPOLE|LATPOLE"
    r"|(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA)[12]|(CD|PC)[12]_[12]|PV[12]_\d+"
    r"|[AB]P?_ORDER|[AB]P?_\d_\d)"
)


def from_header(header: Mapping[str, Any], x0: float = 0.0, y0: float = 0.0) -> WCS | None:
    """Read the celestial coordinates of an image.

    Parameters
    ----------
    header : mapping
        Header keywords; those that have nothing to do with coordinates are ignored.
    x0, y0 : float, pixel
        Where the first pixel of the image stood in the image the header describes.

    Returns
    -------
    astropy.wcs.WCS or None
        None if the header has no celestial coordinates.
    """
    if "CTYPE1" not in header or "CTYPE2" not in header:
        return None
    cards = fits.Header({key: value for key, value in header.items() if _WCS_KEY.fullmatch(key)})
    cards["CRPIX1"] = float(cards.get("CRPIX1", 0.0)) - x0
    cards["CRPIX2"] = float(cards.get("CRPIX2", 0.0)) - y0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(cards)
    return wcs if wcs.has_celestial else None


def to_header(wcs: WCS) -> fits.Header:
    """Write coordinates as FITS-standard cards: TAN, TPV or TAN-SIP.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial coordinates.

    Returns
    -------
    astropy.io.fits.Header
        The cards, without dates.
    """
    header = wcs.to_header(relax=True)
    for key in ("MJDREF", "DATE-OBS", "MJD-OBS", "DATEREF", "TIMESYS"):
        header.remove(key, ignore_missing=True)
    return header


def canonical(wcs: WCS) -> WCS:
    """Return coordinates with their numbers rounded as a file would hold them (13 digits).

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Any coordinates.

    Returns
    -------
    astropy.wcs.WCS
        A copy.
    """
    restored = from_header(to_header(wcs))
    if restored is None:
        raise ValueError("not celestial coordinates")
    return restored


def pixel_scale(wcs: WCS) -> float:
    """Side of a square with the area of the reference pixel.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial coordinates.

    Returns
    -------
    float, deg
    """
    return float(np.sqrt(proj_plane_pixel_area(wcs)))


def jacobian(wcs: WCS, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Positions of pixels and how they change from pixel to pixel, distortions included.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial coordinates.
    x, y : ndarray, (n,), pixel
        Finite places.

    Returns
    -------
    ra, dec : ndarray, (n,), deg
        Positions.
    derivatives : ndarray, (n, 2, 2), deg / pixel
        Of (east, north) = (Δra cos dec, Δdec) to (x, y), over one pixel.
    """
    ra, dec = wcs.all_pix2world(x, y, 0)
    derivatives = np.empty((len(x), 2, 2))
    for k, (a, b) in enumerate(((0.5, 0.0), (0.0, 0.5))):
        ra1, dec1 = wcs.all_pix2world(x + a, y + b, 0)
        ra0, dec0 = wcs.all_pix2world(x - a, y - b, 0)
        turn = (ra1 - ra0 + 180.0) % 360.0 - 180.0
        derivatives[:, 0, k] = turn * np.cos(np.radians(dec))
        derivatives[:, 1, k] = dec1 - dec0
    return ra, dec, derivatives
