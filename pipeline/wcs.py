"""World coordinates between headers and objects.

Headers of raw DECam frames carry TPV distortions, reference frames may use TAN or TAN-SIP; all
three are read by wcslib.  What `to_header` writes is the canonical form: reading it back gives
the same object to the last bit, which `canonical` gives without a file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from astropy import log
from astropy.coordinates import (
    FK4,
    FK5,
    ICRS,
    BarycentricMeanEcliptic,
    BaseCoordinateFrame,
    FK4NoETerms,
    Galactic,
    SkyCoord,
    Supergalactic,
)
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area, wcs_to_celestial_frame

from pipeline.exposure import FloatArray
from pipeline.wcsfit import Sky, fit_tan_sip

__all__ = ["canonical", "from_header", "jacobian", "pixel_scale", "read", "to_header"]

_NO_PLACE = re.compile(
    r"(DATE|MJD|JD|TIME|TREF|TSTART|TSTOP|TELAPSE|XPOSURE|OBSGEO|OBSORB|PLEPHEM|EPOCH$|BEPOCH"
    r"|JEPOCH|ZSOURCE|SSYSSRC|VELANGL|RESTF|RESTW|SPECSYS|SSYSOBS|VELOSYS).*"
)
"""Cards about times, observers and spectra: where a pixel is does not depend on them."""

_OTHER_AXES = re.compile(
    r"(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA|CNAME|CRDER|CSYER)[3-9][A-Z]?"
    r"|(CD|PC)(\d_[3-9]|[3-9]_\d)[A-Z]?|P[VS][3-9]_\d+[A-Z]?|Z?NAXIS[3-9]|PC00\d00[3-9]|PC00[3-9]00\d|WCSAXES"
)
_KEPT = ("TAN", "TPV")
_TABLES = re.compile(r"(CPDIS|DP|CPERR|D2IMDIS|DQ|D2IMERR|D2IM)\d.*|AXISCORR")
_NOTABLE_PX = 1e-3
_PIXEL = (1e-9, 20.0)
"""Sides of pixels that images of the sky have, deg."""
_WAT = 68  # characters of a card's string


def from_header(header: Mapping[str, object], x0: float = 0.0, y0: float = 0.0) -> WCS | None:
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
        ICRS; None if the header has no celestial coordinates.
    """
    if not isinstance(header, fits.Header):
        header = _cards(header)
    return read(header, x0=x0, y0=y0)[0]


def read(
    header: fits.Header, hdus: fits.HDUList | None = None, x0: float = 0.0, y0: float = 0.0
) -> tuple[WCS | None, list[str]]:
    """Read celestial coordinates of any kind as ICRS.

    The whole header goes to wcslib and astropy, so every distortion they know is honoured.  What
    is not TAN, TPV or TAN-SIP with right ascension first in ICRS becomes TAN-SIP by a fit.  FK5 of
    equinox 2000 counts as ICRS, from which it differs by 0.023 arcsec at most.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Every card readable.
    hdus : astropy.io.fits.HDUList, optional
        The file, for look-up tables of distortions.
    x0, y0 : float, pixel
        Where the first pixel of the image stood in the image the header describes.

    Returns
    -------
    wcs : astropy.wcs.WCS or None
        None if there are no celestial coordinates, or none that can be understood.
    notes : list of str
        What was converted, with the residual, or why nothing could be read.
    """
    if "CTYPE1" not in header or "CTYPE2" not in header:
        return None, []
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            cards = _of_two_axes(header, tables=hdus is not None)
            cards["CRPIX1"] = float(cards.get("CRPIX1", 0.0)) - x0
            cards["CRPIX2"] = float(cards.get("CRPIX2", 0.0)) - y0
            wcs = WCS(cards, hdus)
            if not wcs.has_celestial:
                return None, []
            if wcs.naxis != 2:
                raise ValueError(f"{wcs.naxis} axes")
            return _icrs(wcs, cards)
    except Exception as err:  # wcslib and astropy raise a dozen kinds
        reason = " ".join(str(err).split())[:120]
        return None, [f"coordinates cannot be understood: {reason}"]


def _cards(header: Mapping[str, object]) -> fits.Header:
    plain = {
        key: value
        for key, value in header.items()
        if len(key) <= 8 and isinstance(value, (str, int, float)) and "\n" not in str(value)
    }
    return fits.Header(plain)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what astropy logs off the standard output."""
    level = log.level
    log.setLevel("ERROR")
    try:
        yield
    finally:
        log.setLevel(level)


def _of_two_axes(header: fits.Header, *, tables: bool) -> fits.Header:
    """Cards of the two axes of the image, made consistent."""
    drop = [k for k in header if _OTHER_AXES.fullmatch(k) or _NO_PLACE.fullmatch(k)]
    if not tables:
        drop += [k for k in header if _TABLES.fullmatch(k)]
    cards = header.copy()
    for key in dict.fromkeys(drop):
        cards.remove(key, ignore_missing=True, remove_all=True)
    for key in ("CTYPE1", "CTYPE2"):
        kind = str(cards[key]).strip()
        cards[key] = f"{kind}-SIP" if kind.endswith("-TAN") and "A_ORDER" in cards else kind
    if "NAXIS" in cards:
        cards["NAXIS"] = 2
    _mend_wat(cards)
    equinox = _equinox(header)
    for key in ("EQUINOX", "EPOCH"):
        cards.remove(key, ignore_missing=True, remove_all=True)
    if equinox is not None:
        cards["EQUINOX"] = equinox
    return cards


def _mend_wat(cards: fits.Header) -> None:
    """Split IRAF's strings where no blank is lost: FITS drops those at the end of a card."""
    for axis in ("1", "2"):
        keys = sorted({k for k in cards if re.fullmatch(rf"WAT{axis}_\d{{3}}", k)})
        parts = [str(cards[k]) for k in keys]
        rest = "".join(p.ljust(_WAT) for p in parts[:-1]) + "".join(parts[-1:])
        for key in keys:
            cards.remove(key, remove_all=True)
        number = 0
        while rest.strip():
            head = rest[:_WAT].rstrip() if len(rest) > _WAT else rest
            head = head if len(head) == len(rest[:_WAT]) else head[:-1]
            number, rest = number + 1, rest[len(head) :]
            cards[f"WAT{axis}_{number:03d}"] = head


def _equinox(header: fits.Header) -> float | None:
    """Equinox in years; an EPOCH is one only if it is an epoch of coordinates."""
    for key, allowed in (("EQUINOX", None), ("EPOCH", (1950.0, 2000.0))):
        text = str(header.get(key, "")).strip().lstrip("JjBb")
        try:
            year = float(text)
        except ValueError:
            continue
        if 1800.0 < year < 2200.0 and (allowed is None or year in allowed):
            return year
    return None


def _icrs(wcs: WCS, cards: fits.Header) -> tuple[WCS, list[str]]:
    """Coordinates that products can store, and what there is to say of them."""
    _require_pixels(wcs, cards)
    frame = _frame(wcs)
    swapped = bool(wcs.wcs.lng != 0)
    tables = any(t is not None for t in (wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2))
    code = str(cards["CTYPE1"]).removesuffix("-SIP").strip()[-3:]
    turned = abs(wcs.wcs.lonpole - 180.0) > 1e-9
    if frame is None and not (swapped or tables or turned) and code in _KEPT:
        return wcs, []
    sky = _sky(wcs, frame)
    fit = fit_tan_sip(sky, _shape(cards), np.array(wcs.wcs.crpix, float))
    what = [
        f"{code} projection" if code not in _KEPT else "",
        "look-up tables" if tables else "",
        "declination first" if swapped else "",
        f"{type(frame).__name__} frame" if frame is not None else "",
    ]
    said = ", ".join(w for w in what if w)
    if not said and fit.residual < _NOTABLE_PX:
        return fit.wcs, []
    kind = str(fit.wcs.wcs.ctype[0])[5:]
    return fit.wcs, [
        f"coordinates: {said or 'rotated pole'}: converted to ICRS {kind},"
        f" largest residual {fit.residual:.2g} px"
    ]


def _require_pixels(wcs: WCS, cards: fits.Header) -> None:
    """Refuse coordinates in which a pixel has no size, or none that it can have on the sky."""
    if not abs(np.linalg.det(wcs.pixel_scale_matrix)) > 0:
        raise ValueError("the CD matrix is singular")
    sides = np.linalg.norm(wcs.pixel_scale_matrix, axis=0)
    if not ((sides > _PIXEL[0]) & (sides < _PIXEL[1])).all():
        raise ValueError(f"pixels of {sides[0]:.3g} x {sides[1]:.3g} degrees")
    if not {"NAXIS1", "ZNAXIS1"} & set(cards):
        return
    ny, nx = _shape(cards)
    x, y = nx / 2, ny / 2
    corners = wcs.all_pix2world([[x, y], [x + 1, y], [x, y + 1]], 0)
    area = np.linalg.det(np.diff(corners[[0, 1, 0, 2]].reshape(2, 2, -1), axis=1)[:, 0])
    if not abs(area) > 0:
        raise ValueError("pixels in the middle of the image have no size")


def _sky(wcs: WCS, frame: BaseCoordinateFrame | None) -> Sky:
    """ICRS positions of pixels, whatever the frame and the order of the axes."""

    def sky(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        world = wcs.all_pix2world(x, y, 0)
        longitude, latitude = world[wcs.wcs.lng], world[wcs.wcs.lat]
        return (longitude, latitude) if frame is None else _to_icrs(longitude, latitude, frame)

    return sky


def _shape(cards: fits.Header) -> tuple[int, int]:
    sizes = [int(cards.get(f"ZNAXIS{k}", cards.get(f"NAXIS{k}", 0)) or 0) for k in (2, 1)]
    return (max(sizes[0], 16), max(sizes[1], 16)) if all(sizes) else (4096, 4096)


def _frame(wcs: WCS) -> BaseCoordinateFrame | None:
    """Frame of the coordinates; None for ICRS and FK5 of equinox 2000."""
    kind = str(wcs.wcs.ctype[wcs.wcs.lng])[:4].rstrip("-").upper()
    if kind == "ELON":
        year = wcs.wcs.equinox if np.isfinite(wcs.wcs.equinox) else 2000.0
        return BarycentricMeanEcliptic(equinox=Time(year, format="jyear"))
    if kind == "SLON":
        return Supergalactic()
    frame = wcs_to_celestial_frame(wcs)
    if isinstance(frame, ICRS):
        return None
    if isinstance(frame, FK5) and abs(frame.equinox.jyear - 2000.0) < 1e-6:
        return None
    if isinstance(frame, (FK4, FK4NoETerms, FK5, Galactic)):
        return frame
    raise ValueError(f"the frame {type(frame).__name__} is not one of the sky")


def _to_icrs(
    longitude: FloatArray, latitude: FloatArray, frame: BaseCoordinateFrame
) -> tuple[FloatArray, FloatArray]:
    place = SkyCoord(longitude, latitude, unit="deg", frame=frame).icrs
    return np.asarray(place.ra.deg, float), np.asarray(place.dec.deg, float)


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
