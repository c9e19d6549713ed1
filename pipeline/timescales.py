"""UTC and TAI.

Headers carry UTC, catalogues TAI.  The difference was 35 s in February 2015 and has been 37 s
since 2017; a slip of that size moves a fast asteroid by more than an arcsecond.  A UTC date here
is the calendar date and the time of day in days of 86,400 s, as headers give them.
"""

from __future__ import annotations

from functools import lru_cache

import erfa

__all__ = [
    "UNIX_EPOCH_MJD",
    "midpoint_mjd_tai",
    "mjd_tai_to_utc",
    "mjd_utc_to_tai",
    "tai_minus_utc",
    "ut_day_to_tai",
]

UNIX_EPOCH_MJD = 40587.0
"""1970-01-01, from which clocks count seconds and plots count days."""

_DAY_S = 86400.0
_MJD_0 = 2400000.5
_FIRST_UTC = 36934.0  # 1960 January 1
_TT_MINUS_TAI = 32.184
_DELTA_T: tuple[tuple[int, float, tuple[float, ...]], ...] = (
    (1860, 1860.0, (7.62, 0.5737, -0.251754, 0.01680668, -0.0004473624, 1 / 233174.0)),
    (1900, 1900.0, (-2.79, 1.494119, -0.0598939, 0.0061966, -0.000197)),
    (1920, 1920.0, (21.20, 0.84493, -0.076100, 0.0020936)),
    (1941, 1950.0, (29.07, 0.407, -1 / 233.0, 1 / 2547.0)),
)
"""TT - UT1 (s): first year, origin and coefficients by powers of years (Espenak & Meeus 2006)."""


@lru_cache(maxsize=1)
def _last_leap_second() -> float:
    """Day (MJD) of the last leap second that the library knows."""
    last = erfa.leap_seconds.get()[-1]
    return float(erfa.cal2jd(last["year"], last["month"], 1)[1])


@lru_cache(maxsize=1024)
def tai_minus_utc(mjd_utc: float) -> float:
    """TAI - UTC at a UTC date, from the leap seconds of IERS Bulletin C as ERFA knows them.

    Parameters
    ----------
    mjd_utc : float, d
        UTC as modified Julian date.

    Returns
    -------
    float, s
        A whole number since 1972.  After the last known leap second, its value.

    Raises
    ------
    ValueError
        Before 1960, when there was no UTC.
    """
    if not mjd_utc >= _FIRST_UTC:
        raise ValueError(f"UTC is not defined at MJD {mjd_utc}: it starts in 1960 (MJD 36934)")
    # ERFA warns of dates long after its release, where this answer is what is wanted.
    return float(erfa.dat(*erfa.jd2cal(_MJD_0, min(mjd_utc, _last_leap_second()))))


def mjd_utc_to_tai(mjd_utc: float) -> float:
    """Convert a UTC date to TAI, both modified Julian dates in days.

    Parameters
    ----------
    mjd_utc : float, d
        The date in UTC.

    Returns
    -------
    float, d
        The date in TAI.
    """
    return mjd_utc + tai_minus_utc(mjd_utc) / _DAY_S


def mjd_tai_to_utc(mjd_tai: float) -> float:
    """Convert a TAI date to UTC, both modified Julian dates in days.

    Parameters
    ----------
    mjd_tai : float, d
        The date in TAI.

    Returns
    -------
    float, d
        The date in UTC; before 1960 in UT1, see `ut_day_to_tai`.
    """
    if mjd_tai < _FIRST_UTC:
        return mjd_tai - _before_utc(mjd_tai) / _DAY_S  # which changes by 1e-8 of itself
    near = mjd_tai - tai_minus_utc(mjd_tai) / _DAY_S
    return mjd_tai - tai_minus_utc(near) / _DAY_S


def midpoint_mjd_tai(start_mjd_utc: float, exptime: float) -> float:
    """TAI midpoint (MJD) of an exposure.

    Parameters
    ----------
    start_mjd_utc : float, d
        Start of the exposure in UTC.
    exptime : float, s
        Open-shutter time.

    Returns
    -------
    float, d
    """
    return mjd_utc_to_tai(start_mjd_utc) + 0.5 * exptime / _DAY_S


def ut_day_to_tai(day: int, seconds: float) -> float:
    """TAI of a UTC day and the seconds since its midnight, leap seconds included.

    Before 1960, when there was no UTC, the time is taken as UT1 and TAI is prolonged backwards as
    TT - 32.184 s, with TT - UT1 to a second or so (Espenak & Meeus 2006, NASA TP-2006-214141).

    Parameters
    ----------
    day : int, d
        Modified Julian date of midnight.
    seconds : float, s
        Since midnight; from 86,400 on, within a leap second at the end of the day.

    Returns
    -------
    float, d
        TAI as modified Julian date.

    Raises
    ------
    ValueError
        Before 1860.
    """
    if day >= _FIRST_UTC:
        late = seconds >= _DAY_S and tai_minus_utc(day + 1) == tai_minus_utc(day)
        offset = tai_minus_utc(day + 1 if late else day + min(seconds, 86399.0) / _DAY_S)
    else:
        offset = _before_utc(day + seconds / _DAY_S)
    return day + (seconds + offset) / _DAY_S


def _before_utc(mjd: float) -> float:
    """TAI - UT1 in seconds at a date before 1960."""
    return _delta_t(1858.8774 + mjd / 365.2425) - _TT_MINUS_TAI


def _delta_t(year: float) -> float:
    """TT - UT1 in seconds before 1961."""
    for first, origin, coefficients in reversed(_DELTA_T):
        if year >= first:
            return sum(c * (year - origin) ** k for k, c in enumerate(coefficients))
    raise ValueError(f"no time scale is known in {year:.0f}: the tables start in 1860")
