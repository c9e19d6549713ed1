"""UTC and TAI.

Headers carry UTC, catalogues TAI.  The difference was 35 s in February 2015 and has been 37 s
since 2017; a slip of that size moves a fast asteroid by more than an arcsecond.  A UTC date here
is the calendar date and the time of day in days of 86,400 s, as headers give them.
"""

from __future__ import annotations

from functools import lru_cache

import erfa

__all__ = ["midpoint_mjd_tai", "mjd_tai_to_utc", "mjd_utc_to_tai", "tai_minus_utc"]

_DAY_S = 86400.0
_MJD_0 = 2400000.5
_FIRST_UTC = 36934.0  # 1960 January 1


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
        The date in UTC.
    """
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
