"""Proper motion and parallax on two simulated years, and when there must be none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import Distance, SkyCoord, get_body_barycentric
from astropy.time import Time

from pipeline.diaobject import Config, summarise
from pipeline.diaobject.astrometry import barycentric
from pipeline.ids import pack
from pipeline.schema import DIA_SOURCE, to_numpy
from pipeline.sphere import displaced

T0 = 57070.0
CENTROID = 0.03  # arcsec
FLOOR = 0.010


def campaign(
    n: int, place: tuple[float, float], days: Any, seed: int, *, difference_only: bool = False
) -> tuple[pa.Table, dict[str, Any]]:
    """Sources of moving stars as a survey sees them; directions by astropy, not by our formulas."""
    rng = np.random.default_rng(seed)
    ra, dec = displaced(np.full(n, place[0]), np.full(n, place[1]), *rng.uniform(-900, 900, (2, n)))
    true = {
        "pmRa": rng.normal(0, 100, n), "pmDec": rng.normal(0, 100, n),
        "parallax": rng.uniform(1, 60, n),
    }  # fmt: skip
    rows, error = [], np.full(n, CENTROID / 3600)
    for k, day in enumerate(days):
        at = astrometric(ra, dec, true, T0 + day)
        scatter = np.hypot(CENTROID, FLOOR)
        east, north = rng.normal(0, scatter, (2, n))
        seen = displaced(*at, east, north)
        # the centroid on the difference of a variable star is pulled half an arcsec away
        pulled = seen if difference_only else displaced(*seen, np.full(n, 0.4), np.full(n, 0.3))
        own = {} if difference_only else {
            "scienceRa": seen[0], "scienceDec": seen[1],
            "scienceRaErr": error, "scienceDecErr": error,
            "scienceRa_scienceDec_Cov": np.zeros(n),
        }  # fmt: skip
        rows.append(
            DIA_SOURCE.to_arrow(
                {"diaSourceId": [pack(1000 + k, 1, s) for s in range(n)],
                 "ra": pulled[0], "dec": pulled[1], "diaObjectId": np.arange(n)} | own,
                visit=1000 + k, detector=1, midpointMjdTai=T0 + day, x=0.0, y=0.0,
                raErr=CENTROID / 3600, decErr=CENTROID / 3600, ra_dec_Cov=0.0,
                psfFlux=500.0 + k, psfFluxErr=10.0, band="g", psfNdata=1, trailNdata=0,
                dipoleNdata=0, bboxSize=21, timeProcessedMjdTai=T0,
                templateFlux=0.0 if difference_only else 1e5, templateFluxErr=10.0,
            )
        )  # fmt: skip
    return pa.concat_tables(rows), true


def astrometric(ra: Any, dec: Any, true: dict[str, Any], mjd_tai: float) -> tuple[Any, Any]:
    """Direction from the Earth: space motion and observer position in three dimensions."""
    epoch = Time(T0 + 365.0, format="mjd", scale="tai")
    now = Time(mjd_tai, format="mjd", scale="tai")
    star = SkyCoord(
        ra * u.deg, dec * u.deg, distance=Distance(parallax=true["parallax"] * u.mas),
        pm_ra_cosdec=true["pmRa"] * u.mas / u.yr, pm_dec=true["pmDec"] * u.mas / u.yr,
        radial_velocity=np.zeros(len(ra)) * u.km / u.s, obstime=epoch,
    )  # fmt: skip
    moved = star.apply_space_motion(new_obstime=now).cartesian
    seen = moved.without_differentials() - get_body_barycentric("earth", now)
    seen = SkyCoord(seen)
    return seen.ra.deg, seen.dec.deg


DAYS = np.sort(np.random.default_rng(0).uniform(0, 730, 30))


@pytest.mark.parametrize("place", [(155.0, -6.0), (10.0, 60.0), (300.0, -85.0)])
def test_two_years_give_motion_and_parallax_with_honest_errors(place: tuple[float, float]) -> None:
    n = 300
    sources, true = campaign(n, place, DAYS, 1)
    objects = summarise(sources, None, T0, Config())
    for name in ("pmRa", "pmDec", "parallax"):
        pull = (to_numpy(objects, name) - true[name]) / to_numpy(objects, f"{name}Err")
        assert np.mean(pull) == pytest.approx(0.0, abs=3.5 / np.sqrt(n))
        assert np.std(pull) == pytest.approx(1.0, abs=3.0 / np.sqrt(2 * n))
    chi2 = to_numpy(objects, "pmParallaxChi2") / (2 * to_numpy(objects, "pmParallaxNdata") - 5)
    assert np.mean(chi2) == pytest.approx(1.0, abs=0.05)
    assert to_numpy(objects, "pmParallaxNdata").tolist() == [30] * n
    cov = to_numpy(objects, "pmRa_parallax_Cov")
    rho = cov / to_numpy(objects, "pmRaErr") / to_numpy(objects, "parallaxErr")
    assert np.all(np.abs(rho) < 1)


def test_difference_centroids_serve_over_a_dark_template() -> None:
    sources, true = campaign(60, (155.0, -6.0), DAYS, 2, difference_only=True)
    objects = summarise(sources, None, T0, Config())
    pull = (to_numpy(objects, "parallax") - true["parallax"]) / to_numpy(objects, "parallaxErr")
    assert np.std(pull) == pytest.approx(1.0, abs=0.35)


def test_without_own_centroids_over_a_bright_template_there_is_no_motion() -> None:
    sources, _ = campaign(5, (155.0, -6.0), DAYS, 3, difference_only=True)
    at = sources.schema.get_field_index("templateFlux")
    sources = sources.set_column(
        at, sources.schema.field(at), pa.array(np.full(sources.num_rows, 1e5, np.float32))
    )
    assert summarise(sources, None, T0, Config())["pmRa"].null_count == 5


@pytest.mark.parametrize(
    ("days", "motion", "parallax"),
    [
        (np.linspace(0, 26, 20), False, False),  # one HiTS season
        (np.linspace(0, 700, 4), False, False),  # four epochs
        (np.linspace(0, 182, 8), False, False),  # just under half a year
        (np.linspace(0, 184, 8), True, False),
        (np.linspace(0, 364, 12), True, False),
        (np.linspace(0, 366, 12), True, True),
    ],
)
def test_short_baselines_give_null(days: Any, motion: bool, parallax: bool) -> None:
    sources, _ = campaign(3, (155.0, -6.0), days, 4)
    objects = summarise(sources, None, T0, Config())
    for name, expected in (
        ("pmRa", motion), ("pmDecErr", motion), ("pmParallaxChi2", motion),
        ("pmRa_pmDec_Cov", motion), ("parallax", parallax), ("pmRa_parallax_Cov", parallax),
    ):  # fmt: skip
        assert objects[name].null_count == (0 if expected else 3), name


def test_the_earth_is_where_astropy_puts_it() -> None:
    times = np.array([57070.3, 57250.9, 57070.3])
    exact = get_body_barycentric("earth", Time(times, format="mjd", scale="tai"))
    assert barycentric("earth", times) == pytest.approx(exact.xyz.to_value(u.AU).T, abs=1e-6)
