from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from astropy.time import Time

from pipeline.timescales import midpoint_mjd_tai, mjd_utc_to_tai, tai_minus_utc


@pytest.mark.parametrize(
    "iso",
    [
        "2001-05-05",
        "2008-12-31",
        "2009-01-01",
        "2012-07-01",
        "2015-02-17T03:49:31",
        "2015-06-30T23:59:59",
        "2015-07-01",
        "2017-01-01",
        "2026-02-24",
    ],
)
def test_against_astropy(iso: str) -> None:
    # A header's time of day counted in days of 86,400 s, also on the day of a leap second.
    mjd_utc = (datetime.fromisoformat(iso) - datetime(1858, 11, 17)) / timedelta(days=1)

    assert mjd_utc_to_tai(mjd_utc) == pytest.approx(Time(iso, scale="utc").tai.mjd, abs=1e-9)


def test_hits_2015_is_35_seconds() -> None:
    assert tai_minus_utc(57070.1) == 35


def test_midpoint_of_a_hits_exposure() -> None:
    # Visit 410929: 2015-02-17T03:49:31.190 UTC, 86 s.
    start = Time("2015-02-17T03:49:31.190", scale="utc")

    expected = Time("2015-02-17T03:50:49.190", scale="tai")  # + 43 s + 35 s

    assert midpoint_mjd_tai(start.mjd, 86.0) == pytest.approx(expected.mjd, abs=1e-8)


def test_before_the_table() -> None:
    with pytest.raises(ValueError, match="no leap seconds known"):
        tai_minus_utc(40000.0)
