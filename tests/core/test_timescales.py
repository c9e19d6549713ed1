from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from astropy.time import Time

from pipeline.timescales import (
    midpoint_mjd_tai,
    mjd_tai_to_utc,
    mjd_utc_to_tai,
    tai_minus_utc,
    ut_day_to_tai,
)


@pytest.mark.parametrize(
    "iso",
    [
        "1960-01-01",
        "1966-07-01T12:00:00",
        "1971-12-31T23:00:00",
        "1972-01-01",
        "1985-06-30",
        "1998-12-31T23:59:59",
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


def test_every_month_of_sixty_years_against_astropy() -> None:
    months = [f"{year}-{month:02d}-01" for year in range(1972, 2028) for month in range(1, 13)]
    utc = Time(months, scale="utc")
    known = [round((a - b) * 86400) for a, b in zip(utc.tai.mjd, utc.mjd, strict=True)]

    assert [tai_minus_utc(mjd) for mjd in utc.mjd] == known


def test_far_future_has_the_last_known_leap_second_without_a_warning() -> None:
    assert tai_minus_utc(100000.0) == tai_minus_utc(57754.0) == 37


@pytest.mark.parametrize("seconds", [-60.0, -0.5, 0.5, 20.0, 60.0])
def test_back_to_utc_on_both_sides_of_a_leap_second(seconds: float) -> None:
    utc = 57204.0 + seconds / 86400.0

    assert mjd_tai_to_utc(mjd_utc_to_tai(utc)) == pytest.approx(utc, abs=1e-10)


@pytest.mark.parametrize("day", [999, 15020, 25977, 36933])
def test_back_to_universal_time_before_utc(day: int) -> None:
    assert mjd_tai_to_utc(ut_day_to_tai(day, 3600.0)) == pytest.approx(day + 1 / 24, abs=1e-9)


@pytest.mark.parametrize("mjd", [36933.0, float("nan")])
def test_before_utc(mjd: float) -> None:
    with pytest.raises(ValueError, match="UTC is not defined at MJD"):
        tai_minus_utc(mjd)
