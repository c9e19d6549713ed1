"""UTC to TAI.

Headers carry UTC, catalogues TAI.  The difference was 35 s in February 2015 and has been 37 s
since 2017; a slip of that size moves a fast asteroid by more than an arcsecond.  A UTC date here
is the calendar date and the time of day in days of 86,400 s, as headers give them.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["midpoint_mjd_tai", "mjd_utc_to_tai", "tai_minus_utc"]

# First UTC day (MJD) on which TAI - UTC had the value, from IERS Bulletin C; 1999 is the
# earliest that a CCD survey of this kind can need.
_LEAP_SECONDS = (
    (51179, 32),
    (53736, 33),
    (54832, 34),
    (56109, 35),
    (57204, 36),
    (57754, 37),
)
_DAY_S = 86400.0


@lru_cache(maxsize=1024)
def tai_minus_utc(mjd_utc: float) -> int:
    """TAI - UTC in seconds at a UTC date.

    Parameters
    ----------
    mjd_utc : float, d
        UTC as modified Julian date.

    Raises
    ------
    ValueError
        Before 1999, where the table does not reach.
    """
    for first_day, seconds in reversed(_LEAP_SECONDS):
        if mjd_utc >= first_day:
            return seconds
    raise ValueError(f"no leap seconds known for MJD {mjd_utc}; the table starts in 1999")


def mjd_utc_to_tai(mjd_utc: float) -> float:
    """Convert a UTC date to TAI, both modified Julian dates in days."""
    return mjd_utc + tai_minus_utc(mjd_utc) / _DAY_S


def midpoint_mjd_tai(start_mjd_utc: float, exptime: float) -> float:
    """TAI midpoint (MJD) of an exposure.

    Parameters
    ----------
    start_mjd_utc : float, d
        Start of the exposure in UTC.
    exptime : float, s
        Open-shutter time.
    """
    return mjd_utc_to_tai(start_mjd_utc) + 0.5 * exptime / _DAY_S
