"""Which card holds gain, read noise, saturation: the synonyms of observatories in one table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pipeline.errors import ConfigError
from pipeline.io.headers import Header, number

__all__ = ["ITEMS", "SYNONYMS", "item_of", "parse_keywords"]

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "gain": (
        "EGAIN", "GAIN", "CCDGAIN", "ATODGAIN", "GAINEFF", "EPERADU", "EPADU", "E_GAIN", "GAIN1",
    ),
    "read_noise": (
        "RDNOISE", "READNOIS", "READNOISE", "READNOI", "RON", "RDNOIS", "ENOISE", "READ_NOI",
        "CCDNOISE", "RONOISE", "RDNOISE1",
    ),
    "saturation": (
        "SATURATE", "SATURATN", "SATLEVEL", "SATURAT", "SATURAT1", "MAXLIN", "SATUR", "SATURLEV",
    ),
    "airmass": ("AIRMASS", "AM", "SECZ"),
}  # fmt: skip
"""Cards of numbers, the preferred one first.  EGAIN, where a camera has it, is electrons per unit;
its GAIN is then a setting of the electronics."""

ITEMS = (*SYNONYMS, "exptime", "start", "band", "field", "reason")
"""What ``--keyword NAME=CARD`` may name."""

_ELECTRONS = re.compile(
    r"\s*([-+]?[\d.]+)\s*(?:e-?|el|electrons?)\s*(?:/\s*(?:adu|dn|counts?)|rms)?\s*", re.IGNORECASE
)
"""Number of electrons as text with its unit."""


_MOST = {"read_noise": 1e10}
"""Values from which on a card has none; of other items 1e20."""


def item_of(header: Header, item: str, keywords: Mapping[str, str]) -> tuple[str, float] | None:
    """Card and value of an item.

    Parameters
    ----------
    header : mapping
        Keywords.
    item : str
        A key of `SYNONYMS`.
    keywords : mapping
        Cards to prefer, by item.

    Returns
    -------
    tuple of (str, float), optional
        None if no card has a number that single precision has room for; a gain that is not
        positive is none.
    """
    for card in (keywords.get(item, ""), *SYNONYMS[item]):
        found = number(header, (card,))
        if found is None and item in ("gain", "read_noise"):
            text = _ELECTRONS.fullmatch(str(header.get(card)))
            found = number({card: text[1]}, (card,)) if text else None
        if found is None or not abs(found[1]) < _MOST.get(item, 1e20):
            continue
        if found[1] > 0 or item == "read_noise":
            return found
    return None


def parse_keywords(texts: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=CARD`` of the command line.

    Parameters
    ----------
    texts : iterable of str
        One item each.

    Returns
    -------
    dict
        Card by item.

    Raises
    ------
    ConfigError
        If an item is unknown.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, card = (part.strip() for part in text.partition("="))
        if name not in ITEMS or not card:
            raise ConfigError(
                "cannot be used", key=f"--keyword {text}",
                expected=f"NAME=CARD with NAME one of {', '.join(ITEMS)}",
            )  # fmt: skip
        found[name] = card.upper()
    return found
