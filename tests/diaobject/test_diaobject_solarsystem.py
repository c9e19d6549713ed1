"""Solar-system bodies: interpolation, matching, clocks, and what the ephemeris says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord

from pipeline import diaobject
from pipeline.diaobject import Config
from pipeline.diaobject.solarsystem import predict
from pipeline.ids import pack
from pipeline.schema import DIA_OBJECT, DIA_SOURCE, SS_EPHEMERIS, SS_SOURCE, to_numpy
from pipeline.sphere import displaced, offsets, radec

T0 = 57071.25
NO_OBJECTS, NO_HISTORY = DIA_OBJECT.empty(), DIA_SOURCE.empty()


def path(rate: float, angle: float, place: tuple[float, float], days: Any) -> tuple[Any, Any]:
    """A curved track: arcsec/h along a bearing, with the parallactic wobble of an NEO."""
    hours = np.asarray(days, float) * 24
    along = rate * hours + 8.0 * np.sin(2 * np.pi * hours / 24)
    across = 0.02 * hours**2
    a = np.radians(angle)
    return displaced(
        np.full(hours.shape, place[0]), np.full(hours.shape, place[1]),
        along * np.sin(a) - across * np.cos(a), along * np.cos(a) + across * np.sin(a),
    )  # fmt: skip


def ephemeris(
    tracks: list[tuple[float, float, tuple[float, float]]], step: float = 1.0
) -> pa.Table:
    nodes = np.arange(-6, 7) * step / 24 + 0.013
    tables = []
    for k, track in enumerate(tracks):
        ra, dec = path(*track, nodes)
        tables.append(
            SS_EPHEMERIS.to_arrow(
                {"mjdTai": T0 + nodes, "ra": ra, "dec": dec,
                 "topocentricDistance": 1.7 + 1e-3 * nodes},
                ssObjectId=100 + k, designation=f"2015 AA{k}", vMag=20.5, phaseAngle=12.0,
                heliocentricDistance=2.5,
            )
        )  # fmt: skip
    return pa.concat_tables(tables)


def detections(ra: Any, dec: Any, sigma: float = 0.08, **columns: Any) -> pa.Table:
    n = len(ra)
    return DIA_SOURCE.to_arrow(
        {"diaSourceId": [pack(7, 1, k + 1) for k in range(n)], "ra": ra, "dec": dec} | columns,
        visit=7, detector=1, midpointMjdTai=T0, x=0.0, y=0.0, raErr=sigma / 3600,
        decErr=sigma / 3600, psfNdata=1, trailNdata=0, dipoleNdata=0, bboxSize=21, band="g",
        psfFlux=900.0, psfFluxErr=40.0, timeProcessedMjdTai=T0,
    )  # fmt: skip


def associated(sources: pa.Table, table: pa.Table) -> diaobject.Result:
    return diaobject.run(sources, NO_OBJECTS, NO_HISTORY, table, processed_mjd_tai=T0)


@pytest.mark.parametrize("place", [(150.0, 2.0), (359.999, -60.0), (20.0, 89.0)])
@pytest.mark.parametrize("rate", [40.0, 109.0])
def test_interpolation_errs_by_less_than_a_milliarcsecond(
    place: tuple[float, float], rate: float
) -> None:
    table = ephemeris([(rate, 70.0, place)])
    for day in (-0.2, -0.11, 0.0, 0.005, 0.17):
        body = predict(table, T0 + day, Config())
        ra, dec = radec(body.direction)
        true = path(rate, 70.0, place, [day])
        assert np.hypot(*offsets(*true, ra, dec)) < 1e-3
        # the rate is the derivative of the track
        before, after = path(rate, 70.0, place, [day - 1e-3]), path(rate, 70.0, place, [day + 1e-3])
        speed = np.hypot(*offsets(*before, *after)) / 2e-3
        assert np.degrees(np.linalg.norm(body.motion)) * 3600 == pytest.approx(speed[0], rel=1e-3)


def test_bodies_that_the_nodes_do_not_enclose_are_left_out() -> None:
    table = ephemeris([(40.0, 0.0, (150.0, 2.0))])
    assert len(predict(table, T0 + 0.5, Config()).ids) == 0
    coarse = ephemeris([(40.0, 0.0, (150.0, 2.0))], step=4.0)
    assert len(predict(coarse, T0, Config()).ids) == 0
    assert len(predict(coarse, T0, Config(ephemeris_max_gap=5.0)).ids) == 1
    two = table.take([6, 7])
    assert len(predict(two, T0 + 0.03, Config()).ids) == 1


def field_of_bodies(rng: np.random.Generator, n: int) -> list[Any]:
    ra, dec = displaced(np.full(n, 150.0), np.full(n, 2.0), *rng.uniform(-3000, 3000, (2, n)))
    return [
        (109.0, angle, (a, d)) for a, d, angle in zip(ra, dec, rng.uniform(0, 360, n), strict=True)
    ]


def seen_at(tracks: list[Any], day: float) -> tuple[Any, Any]:
    places = [path(*track, [day]) for track in tracks]
    return np.concatenate([p[0] for p in places]), np.concatenate([p[1] for p in places])


def test_bodies_are_matched_and_make_no_objects() -> None:
    rng = np.random.default_rng(1)
    tracks = field_of_bodies(rng, 200)
    ra, dec = seen_at(tracks, 0.0)
    ra, dec = displaced(ra, dec, *rng.normal(0, 0.08, (2, 200)))
    result = associated(detections(ra, dec), ephemeris(tracks))
    assert to_numpy(result.sources, "ssObjectId").tolist() == list(range(100, 300))
    assert result.sources["diaObjectId"].null_count == 200
    assert result.objects.num_rows == 0
    rows = result.ss_sources
    assert to_numpy(rows, "ephOffset") == pytest.approx(
        np.hypot(to_numpy(rows, "ephOffsetAlongTrack"), to_numpy(rows, "ephOffsetCrossTrack")),
        rel=1e-3,
    )
    for name in ("ephOffsetRa", "ephOffsetDec"):
        assert np.std(to_numpy(rows, name)) == pytest.approx(0.08, rel=0.2)
    assert set(to_numpy(rows, "diaDistanceRank")) == {1}
    assert result.metrics["nSolarSystemPredicted"] == 200


@pytest.mark.parametrize("slip", [0.0, 5.0, 37.0, -37.0])
def test_a_wrong_clock_shows_along_the_tracks_and_loses_few_bodies(slip: float) -> None:
    rng = np.random.default_rng(2)
    tracks = field_of_bodies(rng, 300)
    ra, dec = seen_at(tracks, slip / 86400)
    ra, dec = displaced(ra, dec, *rng.normal(0, 0.08, (2, 300)))
    rows = associated(detections(ra, dec), ephemeris(tracks)).ss_sources
    assert rows.num_rows > (280 if slip else 295)
    seconds = to_numpy(rows, "ephOffsetAlongTrack") / (to_numpy(rows, "ephRate") / 24)
    assert seconds.mean() == pytest.approx(slip, abs=0.8)
    assert np.abs(to_numpy(rows, "ephOffsetCrossTrack")).max() < 0.4


def test_deficits_and_known_stars_are_no_bodies() -> None:
    tracks = [(109.0, 40.0, (150.0, 2.0))]
    ra, dec = seen_at(tracks, 0.0)
    negative = associated(detections(ra, dec, isNegative=[True]), ephemeris(tracks))
    assert negative.ss_sources.num_rows == 0
    assert negative.objects.num_rows == 1
    # the body passes over a known object: the body wins and the object stays as it was
    star = detections(ra, dec)
    first = diaobject.run(star, NO_OBJECTS, NO_HISTORY, processed_mjd_tai=T0)
    at = star.schema.get_field_index("visit")
    later = star.set_column(at, star.schema.field(at), pa.array([8]))
    second = diaobject.run(
        later, first.objects, first.sources, ephemeris(tracks), processed_mjd_tai=T0
    )
    assert second.ss_sources.num_rows == 1
    assert second.objects.num_rows == 0


def test_crossing_bodies_get_one_source_each() -> None:
    here = (150.0, 2.0)
    tracks = [(109.0, 40.0, here), (60.0, 200.0, here)]
    ra, dec = seen_at(tracks, 0.0)
    result = associated(detections(ra, dec), ephemeris(tracks))
    assert sorted(to_numpy(result.sources, "ssObjectId")) == [100, 101]


def test_coordinates_and_states_are_consistent() -> None:
    tracks = [(46.0, 110.0, (150.0, 2.0)), (46.0, 290.0, (150.1, 2.1))]
    ra, dec = seen_at(tracks, 0.0)
    result = associated(detections(ra, dec), ephemeris(tracks))
    rows = {name: to_numpy(result.ss_sources, name) for name in result.ss_sources.column_names}
    sky = SkyCoord(ra * u.deg, dec * u.deg)
    assert rows["galLon"] == pytest.approx(sky.galactic.l.deg, abs=1e-5)
    assert rows["galLat"] == pytest.approx(sky.galactic.b.deg, abs=1e-5)
    # mean ecliptic of J2000, which astropy's frame agrees with to the frame bias
    ecliptic = sky.transform_to(BarycentricMeanEcliptic(equinox="J2000"))
    assert rows["eclLambda"] == pytest.approx(ecliptic.lon.deg, abs=2e-5)
    assert rows["eclBeta"] == pytest.approx(ecliptic.lat.deg, abs=2e-5)
    for prefix, length in (("topo", "topoRange"), ("helio", "helioRange")):
        xyz = np.array([rows[f"{prefix}_{axis}"] for axis in "xyz"])
        assert np.linalg.norm(xyz, axis=0) == pytest.approx(rows[length], rel=1e-5)
        speed = np.array([rows[f"{prefix}_v{axis}"] for axis in "xyz"])
        assert np.linalg.norm(speed, axis=0) == pytest.approx(rows[f"{prefix}_vtot"], rel=1e-5)
    assert rows["topoRange"] == pytest.approx(1.7, rel=1e-6)
    assert rows["topoRangeRate"] == pytest.approx(1e-3 * 149597870.7 / 86400, rel=1e-3)
    # triangle of Sun, Earth and body, one astronomical unit from the Sun within two per cent
    cosine = np.cos(np.radians(rows["elongation"]))
    sun = 0.988
    side = np.sqrt(1.7**2 + sun**2 - 2 * 1.7 * sun * cosine)
    assert rows["helioRange"] == pytest.approx(side, rel=3e-3)
    assert rows["ephVmag"] == pytest.approx(20.5)
    assert rows["phaseAngle"] == pytest.approx(12.0)


def test_bodies_are_summarised() -> None:
    """An asteroid of known absolute magnitude, seen at two phase angles."""
    phase, sun, here = (
        np.array([5.0, 5.0, 20.0]),
        np.array([2.5, 2.5, 2.6]),
        np.array([1.6, 1.6, 1.9]),
    )
    half = np.tan(np.radians(phase) / 2)
    dimming = 0.85 * np.exp(-3.33 * half**0.63) + 0.15 * np.exp(-1.87 * half**1.22)
    magnitude = 17.0 + 5 * np.log10(sun * here) - 2.5 * np.log10(dimming)
    flux = 10 ** (0.4 * (31.4 - magnitude))
    sources = detections([1.0, 2.0, 3.0, 4.0], np.zeros(4))
    replaced = {
        "ssObjectId": [7, 7, 7, None], "psfFlux": np.append(flux, 1.0),
        "midpointMjdTai": T0 + np.array([0.0, 1.0, 30.0, 0.0]),
        "extendedness": [0.1, 0.2, 0.9, 0.5],
    }  # fmt: skip
    columns = {name: sources.column(name) for name in sources.column_names} | replaced
    sources = DIA_SOURCE.to_arrow(columns)
    ss = SS_SOURCE.to_arrow(
        {"diaSourceId": sources.column("diaSourceId").slice(0, 3), "phaseAngle": phase,
         "helioRange": sun, "topoRange": here},
        ssObjectId=7, designation="2015 AA", eclLambda=0.0, eclBeta=0.0, galLon=0.0, galLat=0.0,
    )  # fmt: skip
    (row,) = diaobject.summarise_bodies(sources, ss).to_pylist()
    assert (row["ssObjectId"], row["designation"], row["nObs"]) == (7, "2015 AA", 3)
    assert row["arc"] == pytest.approx(30.0)
    assert row["extendednessMedian"] == pytest.approx(0.2)
    assert row["g_H"] == pytest.approx(17.0, abs=1e-4)
    assert row["g_Chi2"] == pytest.approx(0.0, abs=1e-4)
    assert (row["g_phaseAngleMin"], row["g_phaseAngleMax"]) == (5.0, 20.0)
    assert (row["g_nObs"], row["g_nObsUsed"], row["r_nObs"]) == (3, 3, 0)
    assert row["g_G12"] is None
    assert row["g_slope_fit_failed"]
    assert row["r_H"] is None
    assert diaobject.summarise_bodies(sources.slice(3), ss).num_rows == 0
