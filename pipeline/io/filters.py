"""Names of filters: one table of bands with the aliases that cameras use.

A name that is not in the table stays what it is, a band of its own; nothing is known by its first
letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.io.headers import Header

__all__ = ["ALIASES", "FILTER_KEYS", "OPEN", "UNKNOWN", "band_of", "filter_name"]

FILTER_KEYS = (
    "FILTER", "FILTERS", "FILTNAM", "FILTNAME", "FILTERID", "FILTER1", "FILTER2", "FILTER3",
    "FLTNAME", "FILT", "INSFILTE", "FPA.FILTER", "FPA.FILTERID", "BAND", "WAVEBAND",
)  # fmt: skip
"""Cards with the name of the filter, the preferred one first."""

UNKNOWN = ("", "unknown", "undef", "undefined", "none", "null", "n/a", "na", "nan", "?", "-")
"""Names (lower case) that say that nothing is known."""

OPEN = ("open", "clear", "empty", "air", "nofilter", "no filter", "clear1l", "clear2l", "clear1s")
"""Names (lower case) of a wheel without a filter; another wheel may hold one."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "u": ("up", "u'", "us", "uprime"),
    "g": ("gp", "g'", "gs", "gprime"),
    "r": ("rp", "r'", "rs", "rprime", "w-s-r", "hsc-r2"),
    "i": ("ip", "i'", "is", "iprime", "w-s-i+", "hsc-i2"),
    "z": ("zp", "z'", "zs", "zprime", "z+", "w-s-z+"),
    "y": ("yp", "ys", "y'", "Y"),
    "U": ("bessell-u", "Bessel U", "johnson u", "w-j-u"),
    "B": ("bessell-b", "Bessel B", "johnson b", "w-j-b", "BJ"),
    "V": ("bessell-v", "Bessel V", "johnson v", "w-j-v", "VJ"),
    "R": ("Rc", "Rj", "bessell-r", "Bessel R", "cousins r", "johnson r", "w-c-rc", "R_C"),
    "I": ("Ic", "Ij", "bessell-i", "Bessel I", "cousins i", "johnson i", "w-c-ic", "I_C"),
    "J": (), "H": (), "K": (), "Ks": ("Kshort",), "w": ("w-ps1",), "L": ("Lum", "luminance"),
    "clear": ("open", "empty", "air", "no filter"),
    "Halpha": ("Ha", "H-alpha", "H_alpha", "halpha"),
}  # fmt: skip
"""Aliases of bands beside the name itself; lower case stands for any case."""

_SYSTEMS = (
    r"sdss|sloan|ztf|ps1|panstarrs|pan-?starrs|lsst|lsstcam|comcam|hsc|decam|des|megacam|megaprime"
    r"|skymapper|lco|astrodon|baader|chroma|asahi|kpno|ctio|eso|vst|omegacam|atlas|goto|filter|band"
)
_CODES = r"c\d{4}|mp\d{4}|k\d{4}|\d{3,5}(\.\d+)?|s?\d{5}|\d{1,3}|gen2|v\d"
_SEPARATORS = re.compile(r"[\s_.,:/+-]+")
_BESSELL = re.compile(r"(bessell?|johnson|cousins|kron)[\s_.-]*([ubvri])c?", re.IGNORECASE)
_BARE = re.compile(r"(?:sdss|sloan|ztf|ps1|lsst|hsc|decam)['+]*([ugrizy])['+p]*", re.IGNORECASE)
_AFTER = re.compile(r"([ugrizy])['p]?(?:sdss|sloan|ztf|ps1|lsst|hsc|decam)", re.IGNORECASE)


def filter_name(header: Header, first: str = "") -> tuple[str, str] | None:
    """Return the card and the name of the filter.

    Parameters
    ----------
    header : mapping
        Keywords.
    first : str
        Card to look at first.

    Returns
    -------
    tuple of (str, str), optional
        The card and the name as written; an empty wheel only if no other has a filter.
    """
    empty: tuple[str, str] | None = None
    for key in dict.fromkeys((first, *FILTER_KEYS)):
        value = header.get(key)
        if value is None or isinstance(value, bool):
            continue
        name = str(value).strip()
        if name.lower() in UNKNOWN:
            continue
        if name.lower() not in OPEN:
            return key, name
        empty = empty or (key, name)
    return empty


def band_of(name: str) -> str:
    """Band of a filter.

    Parameters
    ----------
    name : str
        As the observatory writes it.

    Returns
    -------
    str
        A key of `ALIASES`, or the name itself where it is in no table.
    """
    name = name.strip()
    if name in ALIASES:
        return name
    for band, aliases in ALIASES.items():
        words = (*aliases, band.lower()) if len(band) > 1 else aliases  # letters keep their case
        if name in aliases or name.lower() in words:
            return band
    if found := _BESSELL.fullmatch(name):
        return found[2].upper()
    for pattern in (_BARE, _AFTER):
        if found := pattern.fullmatch(name):
            return found[1].lower()
    return _without_system(name) or name


def _without_system(name: str) -> str | None:
    """Band of a name that consists of it, the survey's name and numbers."""
    parts = [p for p in _SEPARATORS.split(name) if p]
    systems = [p for p in parts if re.fullmatch(_SYSTEMS, p, re.IGNORECASE)]
    left = [p for p in parts if not re.fullmatch(f"{_SYSTEMS}|{_CODES}", p, re.IGNORECASE)]
    if len(left) != 1 or len(parts) == 1:
        return None
    letter = left[0].rstrip("'+")
    letter = letter[0] if re.fullmatch(r"[ugrizyUGRIZY][p2]", letter) else letter
    if systems and re.fullmatch("[ugrizyUGRIZY]", letter):
        return letter.lower()
    return letter if letter in ALIASES else None
