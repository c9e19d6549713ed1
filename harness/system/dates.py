"""Dates as people give them to commands and in the configuration."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from pipeline.errors import ConfigError
from pipeline.timescales import UNIX_EPOCH_MJD, mjd_utc_to_tai

__all__ = ["mjd_of", "periods"]

_DATE = "YYYY-MM-DD, YYYY-MM-DDTHH:MM:SS or an MJD"


def mjd_of(text: str, *, end: bool = False) -> float:
    """Read a date.

    Parameters
    ----------
    text : str
        An MJD (TAI), or a UTC date with or without a time of day.
    end : bool
        Whether a date without a time of day means its end.

    Returns
    -------
    float, d
        MJD, TAI.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    try:
        mjd = float(text)
    except ValueError:
        mjd = math.nan
    if math.isfinite(mjd):
        return mjd
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(f"not a date: {text!r}", expected=_DATE) from None
    day = 1.0 if end and len(text) <= 10 else 0.0
    return mjd_utc_to_tai(moment.timestamp() / 86400.0 + UNIX_EPOCH_MJD + day)


def periods(text: str) -> tuple[tuple[float, float], ...]:
    """Read periods of time.

    Parameters
    ----------
    text : str
        ``FROM/UNTIL`` with dates as in `mjd_of`, several between blanks; without one of them the
        period has no such end, and a date alone is that day or moment.

    Returns
    -------
    tuple of (float, float), d
        First and last MJD (TAI) of each.

    Raises
    ------
    ConfigError
        If a date is none, or a period ends before it begins.
    """
    found = []
    for word in text.split():
        first, _, last = word.partition("/") if "/" in word else (word, "/", word)
        since = mjd_of(first) if first else -math.inf
        until = mjd_of(last, end=True) if last else math.inf
        if until < since:
            raise ConfigError(f"ends before it begins: {word!r}", expected="FROM/UNTIL")
        found.append((since, until))
    return tuple(found)
