"""When an exposure was taken, from the cards of any observatory.

The middle of the exposure is wanted, in TAI.  `INSTANTS` lists the cards by what they mean, the
most explicit first; a date without a time of day is completed by one of `TIMES_OF_DAY`, or is not
used.  TIMESYS says which scale; without it, UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from astropy.time import Time

from pipeline.io.headers import Header, number
from pipeline.timescales import ut_day_to_tai

__all__ = [
    "EXPOSURE_TIMES",
    "INSTANTS",
    "SCALES",
    "TIMES_OF_DAY",
    "Instant",
    "Moment",
    "read_midpoint",
]

EXPOSURE_TIMES = ("EXPTIME", "EXPOSURE", "EXP_TIME", "XPOSURE", "EXPOSED", "TEXPTIME", "ITIME")
"""Cards of the exposure time (s), the preferred one first."""

TIMES_OF_DAY = (
    "TIME-OBS", "TIME_OBS", "UTSTART", "UTC-OBS", "UT-OBS", "UTCSTART", "UTSHUT", "UTOPEN",
    "UT", "UTC", "UT-TIME", "UTC-TIME", "UTIME", "TIME-BEG", "TIME",
)  # fmt: skip
"""Cards with the time of day at the start, as text, where DATE-OBS has the date alone."""


@dataclass(frozen=True, slots=True)
class Instant:
    """A card that tells an instant.

    Attributes
    ----------
    key : str
        The card.
    at : float
        0 at the start of the exposure, 0.5 in its middle, 1 at its end.
    kind : str
        ``date`` (ISO text), ``mjd`` or ``jd`` (numbers, d), ``mjd_s`` (seconds).
    scale : str
        Time scale the card is defined in; empty: that of TIMESYS.
    """

    key: str
    at: float
    kind: str
    scale: str = ""


INSTANTS = (
    Instant("MJDMIDT", 0.5, "mjd", "TAI"),
    Instant("DATE-AVG", 0.5, "date"),
    Instant("DATE-MID", 0.5, "date"),
    Instant("MJD-AVG", 0.5, "mjd"),
    Instant("MJD-MID", 0.5, "mjd"),
    Instant("MJDMID", 0.5, "mjd"),
    Instant("JD-MID", 0.5, "jd"),
    Instant("DATE-BEG", 0.0, "date"),
    Instant("DATE-OBS", 0.0, "date"),
    Instant("DATE_OBS", 0.0, "date"),
    Instant("MJD-BEG", 0.0, "mjd"),
    Instant("MJD-OBS", 0.0, "mjd"),
    Instant("MJD_OBS", 0.0, "mjd"),
    Instant("OBSMJD", 0.0, "mjd"),
    Instant("EXPSTART", 0.0, "mjd"),
    Instant("MJDSTART", 0.0, "mjd"),
    Instant("JD-OBS", 0.0, "jd"),
    Instant("OBSJD", 0.0, "jd"),
    Instant("JD-BEG", 0.0, "jd"),
    Instant("TAI", 0.0, "mjd_s", "TAI"),
    Instant("DATE-END", 1.0, "date"),
    Instant("MJD-END", 1.0, "mjd"),
    Instant("EXPEND", 1.0, "mjd"),
    Instant("JD-END", 1.0, "jd"),
    Instant("MJD", 0.0, "mjd"),
    Instant("JD", 0.0, "jd"),
)
"""Cards of instants, the preferred one first."""

SCALES = ("UTC", "UT", "UT1", "GMT", "TAI", "TT", "TDT", "ET", "TDB", "TCB", "TCG", "GPS")
"""Values of TIMESYS that are understood; UT1 and its kin count as UTC (within 0.9 s)."""

_UT = ("UTC", "UT", "UT1", "GMT", "")
_DAY_S = 86400.0
_MJD_0 = date(1858, 11, 17).toordinal()
_ISO = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:(?:\s*[T ]\s*)(.+))?", re.IGNORECASE)
_OLD = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{2})(?:(?:\s*[T ]\s*)(.+))?", re.IGNORECASE)
_CLOCK = re.compile(
    r"T?(\d{1,2})[:h ](\d{1,2})(?:[:m ](\d{1,2}(?:\.\d*)?)s?)?"
    r"\s*(Z|UTC?|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """Middle of an exposure.

    Attributes
    ----------
    mjd_tai : float, d, optional
        None if the header does not tell.
    exptime : float, s, optional
        None if the header does not tell.
    source : str
        The cards it is from.
    notes : tuple of str
        What was assumed, and why cards were not used.
    """

    mjd_tai: float | None
    exptime: float | None
    source: str = ""
    notes: tuple[str, ...] = ()


def read_midpoint(
    header: Header, *, start: str = "", exptime: str = "", given: float | None = None
) -> Moment:
    """Read the middle of an exposure.

    Parameters
    ----------
    header : mapping
        Keywords.
    start, exptime : str
        Cards to look at first: the start of the exposure and the exposure time.
    given : float, optional, s
        Exposure time that is known already.

    Returns
    -------
    Moment
        With reasons where something is missing.
    """
    notes: list[str] = []
    length = given if given is not None else _length(header, exptime, notes)
    scale = str(header.get("TIMESYS", "")).strip().upper()
    if scale and scale not in SCALES:
        notes.append(f"TIMESYS {scale!r} is not understood: no time is taken from the header")
        return Moment(None, length, notes=tuple(notes))
    found: dict[float, tuple[float, str]] = {}
    for instant in _wanted(header, start):
        if instant.at in found:
            continue
        tai = _instant(header, instant, scale, notes)
        if tai is not None:
            found[instant.at] = (tai, instant.key)
    return _middle(found, length, notes)


_LONGEST = 3.2e8
"""Ten years in seconds, of which no exposure is."""


def _length(header: Header, first: str, notes: list[str]) -> float | None:
    found = number(header, (first, *EXPOSURE_TIMES))
    if found is None:
        return None
    key, value = found
    if not 0 < value < _LONGEST:
        notes.append(f"{key} is {value:g}: not an exposure time")
        return None
    return value


def _wanted(header: Header, start: str) -> Iterator[Instant]:
    known = {instant.key: instant for instant in INSTANTS}
    if start in known and start in header:
        yield known[start]
    elif start and start in header:
        value = header[start]
        kind = "date" if isinstance(value, str) else "mjd" if float(value) < 1e6 else "jd"
        yield Instant(start, 0.0, kind)
    yield from (instant for instant in INSTANTS if instant.key in header)


def _middle(
    found: Mapping[float, tuple[float, str]], length: float | None, notes: list[str]
) -> Moment:
    """Middle from what is known of start, middle and end."""
    if length is None and 0.0 in found and 1.0 in found:
        length = (found[1.0][0] - found[0.0][0]) * _DAY_S
        notes.append(f"exposure time from {found[0.0][1]} and {found[1.0][1]}")
        if length <= 0:
            length = None
    for at in (0.5, 0.0, 1.0):
        if at not in found:
            continue
        tai, key = found[at]
        if at == 0.5:
            return Moment(tai, length, key, tuple(notes))
        if length is None:
            notes.append(f"no exposure time: {key} does not tell the middle of the exposure")
            continue
        if key in ("MJD", "JD"):
            notes.append(f"{key} taken as the start of the exposure")
        return Moment(tai + (0.5 - at) * length / _DAY_S, length, key, tuple(notes))
    return Moment(None, length, notes=tuple(notes))


def _instant(header: Header, instant: Instant, timesys: str, notes: list[str]) -> float | None:
    """MJD TAI of one card; None, and a note, if it does not tell the whole."""
    try:
        day, seconds, zone = (
            _of_text(header, instant) if instant.kind == "date" else _of_number(header, instant)
        )
        return _tai(day, seconds, zone or instant.scale or timesys)
    except ValueError as err:
        notes.append(f"{instant.key}: {err}")
        return None


def _of_number(header: Header, instant: Instant) -> tuple[int, float, str]:
    found = number(header, (instant.key,))
    if found is None:
        raise ValueError(f"not a number: {header[instant.key]!r}")
    value = found[1] / _DAY_S if instant.kind == "mjd_s" else found[1]
    low, high = (2200000.0, 2600000.0) if instant.kind == "jd" else (-200000.0, 200000.0)
    if not low < value < high:
        raise ValueError(f"{found[1]:g} is not a date")
    whole = value % 1 == 0 if instant.kind == "mjd" else value % 1 == 0.5
    if whole and not isinstance(header[instant.key], float):
        raise ValueError(f"{value:g} is a day without a time")
    mjd = value - 2400000.5 if instant.kind == "jd" else value
    day = int(mjd // 1)
    return day, (mjd - day) * _DAY_S, ""


def _of_text(header: Header, instant: Instant) -> tuple[int, float, str]:
    text = str(header[instant.key]).strip()
    day, clock = _date(text)
    if clock is None:
        clock = _time_of_day(header, instant)
    seconds, zone = _seconds(clock)
    return day, seconds, zone


def _time_of_day(header: Header, instant: Instant) -> str:
    """Time of day from another card, for a date that has none."""
    keys: Iterable[str] = TIMES_OF_DAY if instant.at == 0.0 else ()
    own = instant.key.replace("DATE", "TIME")
    for key in (own, *keys):
        value = header.get(key)
        if isinstance(value, str) and _CLOCK.fullmatch(value.strip()):
            return value.strip()
    raise ValueError(f"{header[instant.key]!r} is a date without a time of day")


def _date(text: str) -> tuple[int, str | None]:
    """Day (MJD) and what follows the date."""
    if found := _ISO.fullmatch(text):
        year, month, day = (int(found[k]) for k in (1, 2, 3))
    elif found := _OLD.fullmatch(text):  # the form before 1997: always of the twentieth century
        day, month, year = int(found[1]), int(found[2]), 1900 + int(found[3])
    else:
        raise ValueError(f"not a date: {text!r}")
    try:
        return date(year, month, day).toordinal() - _MJD_0, found[4]
    except ValueError:
        raise ValueError(f"not a date: {text!r}") from None


def _seconds(clock: str) -> tuple[float, str]:
    """Seconds since midnight in UTC where a zone is given, and the scale if the text tells."""
    found = _CLOCK.fullmatch(clock.strip())
    if found is None or int(found[1]) > 24 or int(found[2]) > 59 or float(found[3] or 0) >= 61:
        raise ValueError(f"not a time of day: {clock!r}")
    seconds = 3600.0 * int(found[1]) + 60.0 * int(found[2]) + float(found[3] or 0.0)
    zone = (found[4] or "").upper()
    if zone.startswith(("+", "-")):
        digits = zone[1:].replace(":", "")
        offset = 3600.0 * int(digits[:2]) + 60.0 * int(digits[2:])
        seconds -= offset if zone[0] == "+" else -offset
    return seconds, "UTC" if zone else ""


def _tai(day: int, seconds: float, scale: str) -> float:
    """MJD TAI of a day and the seconds since its midnight."""
    if scale in _UT:
        turns = int(seconds // _DAY_S) if not _DAY_S <= seconds < _DAY_S + 1 else 0
        return ut_day_to_tai(day + turns, seconds - turns * _DAY_S)
    mjd = day + seconds / _DAY_S
    if scale == "TAI":
        return mjd
    if scale == "GPS":
        return mjd + 19.0 / _DAY_S
    name = {"TDT": "tt", "ET": "tt"}.get(scale, scale.lower())
    return float(Time(day, seconds / _DAY_S, format="mjd", scale=name).tai.mjd)
