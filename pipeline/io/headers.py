"""Headers of any origin: a card that cannot be read is left out, the rest of the file is used."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = [
    "CardValue",
    "Header",
    "image_header",
    "number",
    "plain_header",
    "readable",
    "unreadable_cards",
]

CardValue = str | bool | int | float
"""What a card of a header can hold."""

Header = Mapping[str, CardValue]
"""Keywords of an image; `astropy.io.fits.Header` is one."""

_STRUCTURE = re.compile(
    r"Z?(SIMPLE|XTENSION|TENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|CHECKSUM|DATASUM)"
    r"|TFIELDS|T(TYPE|FORM)\d|Z(IMAGE|CMPTYPE|TILE\d|NAME\d|VAL\d|HECKSUM|DATASUM)"
    r"|BSCALE|BZERO|THEAP|COMMENT|HISTORY|CONTINUE|"
)


def readable(header: fits.Header) -> fits.Header:
    """Return a header without the cards that are not FITS.

    Parameters
    ----------
    header : astropy.io.fits.Header
        As found; decimal commas, bare NaN or INF, open quotes and control characters are known.

    Returns
    -------
    astropy.io.fits.Header
        The cards that have a value, in their order.
    """
    good = [card for card in header.cards if _problem(card) is None]
    return header.copy() if len(good) == len(header.cards) else type(header)(good)


def unreadable_cards(*headers: fits.Header) -> list[str]:
    """Say which cards are left out, one note each.

    Parameters
    ----------
    *headers : astropy.io.fits.Header
        As found.

    Returns
    -------
    list of str
        Empty if every card can be read.
    """
    problems = [_problem(card) for header in headers for card in header.cards]
    return list(dict.fromkeys(p for p in problems if p is not None))


def _problem(card: fits.Card) -> str | None:
    image = str(getattr(card, "_image", None) or "")
    name = image[:8].strip()
    try:
        name = str(card.keyword)
        if _holdable(card.value):  # parsed when asked for
            return None
    except Exception:  # whatever astropy makes of it, it is one card
        pass
    text = "".join(c if c.isprintable() else "?" for c in image).strip()
    return f"header: card {name} cannot be read and is left out ({text[:50]})"


def _holdable(value: object) -> bool:
    """Whether headers of ours hold a value too: no complex number, none beyond double precision."""
    return not isinstance(value, complex) and (not isinstance(value, float) or math.isfinite(value))


def plain_header(header: fits.Header) -> dict[str, CardValue]:
    """Keywords of a header as a dictionary, without structure, commentary and what is unreadable.

    Parameters
    ----------
    header : astropy.io.fits.Header
        As found.

    Returns
    -------
    dict
        The first of several cards of one name wins.
    """
    from astropy.io.fits.card import Undefined  # large; keywords are read without it

    found: dict[str, CardValue] = {}
    for card in readable(header).cards:
        if _STRUCTURE.fullmatch(card.keyword) or isinstance(card.value, Undefined):
            continue
        found.setdefault(card.keyword, card.value)
    return found


def image_header(primary: fits.Header, own: fits.Header) -> dict[str, CardValue]:
    """Keywords of an image, those of the primary HDU underneath.

    Parameters
    ----------
    primary, own : astropy.io.fits.Header
        Of the file, and of the HDU with the image.

    Returns
    -------
    dict
        Values by keyword.
    """
    return {**plain_header(primary), **plain_header(own)}


def number(header: Header, keys: Iterable[str]) -> tuple[str, float] | None:
    """First of several keywords that is a finite number, or text of one.

    Parameters
    ----------
    header : mapping
        Keywords.
    keys : iterable of str
        In the order of preference.

    Returns
    -------
    tuple of (str, float), optional
        The keyword and its value.
    """
    for key in keys:
        value = header.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            continue
        try:
            found = float(value)
        except ValueError:
            continue
        if math.isfinite(found):
            return key, found
    return None
