"""When and where the telescope looked: the visits of HiTS 2015, and the sky above Cerro Tololo.

The table holds the g and r exposures of the fields Blind15A_01 ... 56 (programme 2015A-0608, PI
F. Förster) as the archive log lists them: exposure number, pointing, start and exposure time.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from pipeline.timescales import midpoint_mjd_tai

__all__ = ["LATITUDE", "LONGITUDE", "Visit", "hits2015", "horizon", "season2014"]

LATITUDE = -30.16606
"""Geodetic latitude of the telescope in degrees."""

LONGITUDE = -70.81489
"""Longitude in degrees, east positive (the headers write it west positive)."""

_TABLE = Path(__file__).parent / "data" / "hits2015.csv"
_MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Visit:
    """One exposure of the schedule.

    Attributes
    ----------
    number : int
        Exposure number.
    field : str
        Name of the field.
    band : str
        One letter.
    exptime : float, s
        Open-shutter time.
    start : str
        Start of the exposure, UTC, ISO 8601.
    ra, dec : float, deg
        Pointing (ICRS).
    role : str
        ``template`` or ``science``.
    """

    number: int
    field: str
    band: str
    exptime: float
    start: str
    ra: float
    dec: float
    role: str = "science"

    @property
    def start_mjd_utc(self) -> float:
        """Start of the exposure, UTC, modified Julian date."""
        when = datetime.fromisoformat(self.start).replace(tzinfo=UTC)
        return (when - _MJD_EPOCH) / timedelta(days=1)

    @property
    def midpoint(self) -> float:
        """Middle of the exposure, TAI, modified Julian date."""
        return midpoint_mjd_tai(self.start_mjd_utc, self.exptime)

    @property
    def night(self) -> int:
        """Number of the night: the integer MJD of the preceding noon in Chile."""
        return math.floor(self.start_mjd_utc - 0.7)


@lru_cache(maxsize=1)
def _rows() -> dict[int, dict[str, str]]:
    with _TABLE.open(newline="") as f:
        return {int(row["visit"]): row for row in csv.DictReader(f)}


def hits2015(
    field: str, band: str, *, numbers: tuple[int, ...] | None = None, role: str = "science"
) -> tuple[Visit, ...]:
    """Visits of one field and band of HiTS 2015 in the order of time.

    Parameters
    ----------
    field : str
        ``Blind15A_01`` ... ``Blind15A_56``.
    band : str
        ``g`` or ``r``.
    numbers : tuple of int, optional
        Keep these exposure numbers only.
    role : str
        Role they get.

    Returns
    -------
    tuple of Visit
        Ascending in time.

    Raises
    ------
    ValueError
        If a number is not among the visits of the field.
    """
    found = {
        n: Visit(
            n, field, band, float(r["exptime"]), r["start"], float(r["ra"]), float(r["dec"]), role
        )
        for n, r in _rows().items()
        if r["field"] == field and r["band"] == band
    }
    if numbers is None:
        return tuple(found.values())
    if missing := set(numbers) - set(found):
        raise ValueError(f"{field} {band} has no visits {sorted(missing)}")
    return tuple(found[n] for n in numbers)


def season2014(field: str, band: str, n: int) -> tuple[Visit, ...]:
    """Template visits of a field in an invented season a year before.

    The pixels of the 2014 templates are not at hand; these visits have the pointings of the
    field's visits in 2015, one after the other, since a telescope never comes back to the same
    pixel, plausible dates in March 2014 near the meridian, and numbers below those of 2015.

    Parameters
    ----------
    field, band : str
        Field and band of HiTS 2015.
    n : int
        Number of visits, at most 20.

    Returns
    -------
    tuple of Visit
        Ascending in time.
    """
    later = hits2015(field, band)
    base = 280000 + 100 * int(field.rpartition("_")[2]) + 20 * "gr".index(band)
    return tuple(_template(later[0], later[k % len(later)], base + k, k) for k in range(n))


def _template(first: Visit, pointing: Visit, number: int, k: int) -> Visit:
    # The right ascension tells when the field is highest: about 05:20 UTC for 155° on March 1.
    hours = (
        5.3
        + 0.04 * (first.band == "r")
        + (first.ra - 155.0) / 15.0
        - 0.0657 * 2 * k
        + 0.25 * (k % 3 - 1)
    )
    start = datetime(2014, 3, 1, tzinfo=UTC) + timedelta(days=2 * k, hours=hours)
    text = start.isoformat(timespec="milliseconds")[:-6]
    return replace(
        first, number=number, start=text, ra=pointing.ra, dec=pointing.dec, role="template"
    )


def horizon(visit: Visit) -> tuple[float, float, float]:
    """Where in the sky a visit was taken.

    Parameters
    ----------
    visit : Visit
        The exposure.

    Returns
    -------
    altitude, parallactic_angle, hour_angle : float, deg
        Altitude, angle at the field from north through east to the zenith, and hour angle, at the
        middle of the exposure.
    """
    days = visit.start_mjd_utc + 0.5 * visit.exptime / 86400.0 - 51544.5
    sidereal = 280.46061837 + 360.98564736629 * days + LONGITUDE
    hour = (sidereal - visit.ra + 180.0) % 360.0 - 180.0
    h, dec, lat = (math.radians(a) for a in (hour, visit.dec, LATITUDE))
    altitude = math.asin(
        math.sin(lat) * math.sin(dec) + math.cos(lat) * math.cos(dec) * math.cos(h)
    )
    parallactic = math.atan2(
        math.sin(h), math.tan(lat) * math.cos(dec) - math.sin(dec) * math.cos(h)
    )
    return math.degrees(altitude), math.degrees(parallactic), hour
