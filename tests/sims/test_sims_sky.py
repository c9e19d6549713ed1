"""The sky, its light curves, its asteroids, and what the catalogues say about them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sims
from pipeline.camera import Camera
from pipeline.exposure import NJY_ZERO_POINT
from pipeline.schema import to_numpy
from sims import catalogues
from sims.geometry import DetectorGeometry
from sims.lightcurves import KINDS, TRANSIENTS, fluxes
from sims.minorplanets import bodies, ephemerides
from sims.sky import SOURCE, Sky, cells_of
from sims.solarsystem import Orbits, apparent, draw_orbit, observer

DEG2_OF_CELL = 0.01
SKY = Sky(1, visible=(57071.3, 57075.1))
CELLS = cells_of(np.linspace(150.0, 153.0, 31), np.full(31, -6.55))


def magnitudes(flux: np.ndarray) -> np.ndarray:
    return NJY_ZERO_POINT - 2.5 * np.log10(flux)


def kind(name: str) -> int:
    return KINDS.index(name)


def test_a_cell_depends_on_the_seed_and_nothing_else() -> None:
    a, b = SKY.cell(CELLS[3]), replace(SKY).cell(CELLS[3])
    assert a.tobytes() == b.tobytes()
    assert replace(SKY, seed=2).cell(CELLS[3]).tobytes() != a.tobytes()
    everything = SKY.sources(CELLS)
    assert len(np.unique(everything["truthId"])) == len(everything)


def test_sources_lie_in_their_cell() -> None:
    cell = SKY.cell(CELLS[0])
    fixed = cell[cell["hostId"] == 0]
    assert set(cells_of(fixed["ra"], fixed["dec"])) == {CELLS[0]}


def test_number_counts_follow_the_densities() -> None:
    everything = SKY.sources(CELLS)
    area = len(CELLS) * DEG2_OF_CELL
    for name, density, slope in (("star", SKY.stars, 0.15), ("galaxy", SKY.galaxies, 0.40)):
        rows = everything[everything["kind"] == kind(name)]
        expected = density * area
        assert len(rows) == pytest.approx(expected, abs=4 * np.sqrt(expected) + 0.01 * expected)
        mag = magnitudes(rows["flux"][:, 1])
        counts, edges = np.histogram(mag, np.arange(20.0, 25.01, 0.5))
        fitted = np.polyfit(edges[:-1] + 0.25, np.log10(counts), 1, w=np.sqrt(counts))[0]
        assert fitted == pytest.approx(slope, abs=0.03)


def test_transients_come_from_hosts_and_explode_before_they_are_seen() -> None:
    everything = SKY.sources(CELLS)
    supernova = np.isin(everything["kind"], [kind(k) for k in ("sn_ia", "sn_ii", "sn_ibc")])
    rows = everything[supernova]
    assert len(rows) > 100
    hosts = {int(i): r for i, r in zip(everything["truthId"], everything, strict=True)}
    for row in rows[:50]:
        host = hosts[int(row["hostId"])]
        assert host["kind"] == kind("galaxy")
        away = 3600 * np.hypot(row["ra"] - host["ra"], row["dec"] - host["dec"])
        assert away < 12 * host["radius"]
    assert (fluxes(rows, "g", 57060.0) == 0.0).all()
    assert (fluxes(rows, "g", 57075.2) > 0.0).mean() > 0.95
    late = max(fluxes(rows, "g", 57075.0 + d)[0] for d in np.arange(0, 40, 0.05))
    assert late == pytest.approx(rows["flux"][0, 1], rel=0.01)


def test_variables_vary_about_their_mean() -> None:
    everything = SKY.sources(CELLS)
    for name, least in (
        ("rr_lyrae", 0.15),
        ("eclipsing", 0.01),
        ("long_period", 0.05),
        ("agn", 0.05),
    ):
        rows = everything[everything["kind"] == kind(name)]
        curve = np.array([fluxes(rows, "g", 57071.0 + 10.37 * k) for k in range(40)])
        spread = magnitudes(curve).std(axis=0)
        assert np.median(spread) > least
        assert np.abs(np.median(magnitudes(curve / rows["flux"][:, 1]) - NJY_ZERO_POINT)) < 0.3
    constant = everything[everything["kind"] == kind("star")]
    np.testing.assert_array_equal(fluxes(constant, "r", 57071.0), constant["flux"][:, 2])


def test_agn_walk_with_the_covariance_of_a_damped_random_walk() -> None:
    n, tau, sigma = 800, 20.0, 0.2
    rows = np.zeros(n, SOURCE)
    rows["kind"], rows["flux"] = kind("agn"), 1000.0
    rows["law"][:, 0], rows["law"][:, 1], rows["law"][:, 2] = tau, sigma, np.arange(n)
    at = {d: magnitudes(fluxes(rows, "g", 57000.0 + d)) for d in (0.0, 5.0, 20.0, 60.0)}
    mean = magnitudes(np.array([1000.0]))[0]
    assert (at[0.0] - mean).std() == pytest.approx(sigma, rel=0.10)
    for lag in (5.0, 20.0, 60.0):
        covariance = ((at[0.0] - mean) * (at[lag] - mean)).mean() / sigma**2
        assert covariance == pytest.approx(np.exp(-lag / tau), abs=0.15)


def test_a_flare_rises_at_once_and_fades_within_hours() -> None:
    row = np.zeros(1, SOURCE)
    row["kind"], row["flux"] = kind("flare"), 1000.0
    row["law"][0, :2] = 57071.3, 0.02
    curve = [float(fluxes(row, "g", 57071.3 + d)[0]) for d in (-0.2, -0.001, 0.0, 0.02, 0.3)]
    assert curve[0] < 1e-6
    assert curve[2] == pytest.approx(1000.0)
    assert curve[1] > 500 > curve[3] > curve[4]


def test_orbits_obey_kepler() -> None:
    rng = np.random.default_rng(1)
    orbit = draw_orbit(rng, 1, 155.0, -6.5, 57071.3, 20.0, known=True, neo=False)
    year = 365.256898 * orbit.a**1.5
    start, back = orbit.positions(orbit.epoch), orbit.positions(orbit.epoch + year)
    np.testing.assert_allclose(start, back, atol=1e-5)
    dates = orbit.epoch + np.linspace(0, 1, 3000) * year
    many = Orbits(*(np.repeat(getattr(orbit, n), 3000, axis=0) for n in Orbits.__slots__))
    radius = np.linalg.norm(many.positions(dates), axis=1)
    assert radius.min() == pytest.approx(orbit.a[0] * (1 - orbit.e[0]), rel=1e-4)
    assert radius.max() == pytest.approx(orbit.a[0] * (1 + orbit.e[0]), rel=1e-4)


@pytest.mark.parametrize("neo", [False, True])
def test_a_body_is_seen_where_and_as_bright_as_wanted(neo: bool) -> None:
    rng = np.random.default_rng(2)
    for k in range(10):
        orbit = draw_orbit(rng, k, 155.0, -6.5, 57071.3, 20.5, known=True, neo=neo)
        seen = apparent(orbit, 57071.3)
        assert abs(seen.ra[0] - 155.0) * 3600 < 1e-3
        assert abs(seen.dec[0] + 6.5) * 3600 < 1e-3
        assert seen.v[0] == pytest.approx(20.5)
        assert 0.0 < orbit.e[0] < 0.9
        hour = apparent(orbit, 57071.3 + 1 / 24)
        motion = 3600 * np.hypot(hour.ra - seen.ra, hour.dec - seen.dec)[0]
        assert motion < 60 or neo


def test_the_observer_stands_on_the_earth() -> None:
    noon, _ = observer(57071.0)
    midnight, velocity = observer(57071.5)
    assert np.linalg.norm(noon) == pytest.approx(0.988, abs=0.002)  # February
    assert np.linalg.norm(velocity) == pytest.approx(0.0174, rel=0.02)
    travelled = np.linalg.norm(midnight - noon - 0.5 * velocity) * 1.496e8
    assert 5000 < travelled < 25_000  # half a turn of the Earth, and the bent path


def test_mini_has_three_known_asteroids_in_every_science_visit() -> None:
    profile = sims.profiles()["mini"]
    camera = Camera.load(profile.camera)
    orbits = bodies(profile, 1)
    for visit in (v for v in profile.visits if v.role == "science"):
        seen = apparent(orbits, visit.midpoint)
        pointing = profile.conditions(1, visit).pointing
        bright = orbits.known & (seen.v < 22.0)
        found = 0
        for number in profile.detectors:
            geometry = DetectorGeometry(camera, camera.detector(number))
            x, y = geometry.to_pixel(pointing, seen.ra[bright], seen.dec[bright])
            found += int(((x > 60) & (x < 1988) & (y > 60) & (y < 4036)).sum())
        assert found >= 3


def test_the_ephemeris_can_be_interpolated() -> None:
    profile = sims.profiles()["tiny"]
    table = ephemerides(profile, 1)
    orbits = bodies(profile, 1)
    orbits = orbits.take(np.flatnonzero(orbits.known))
    when = profile.visits[-1].midpoint
    ids, mjd = to_numpy(table, "ssObjectId"), to_numpy(table, "mjdTai")
    truth = apparent(orbits, when)
    for k, ident in enumerate(orbits.ids):
        mine = np.flatnonzero((ids == ident) & (np.abs(mjd - when) < 2.0 / 24))
        assert len(mine) == 4
        t = (mjd[mine] - when) * 24
        for name, true in (("ra", truth.ra[k]), ("dec", truth.dec[k])):
            value = np.polyfit(t, to_numpy(table, name)[mine] - true, 3)[-1]
            assert abs(value) * 3600 < (0.03 if orbits.neo[k] else 0.002)
        rate = np.interp(0.0, t, to_numpy(table, "decRate")[mine])
        later = apparent(orbits, when + 1e-3).dec[k]
        assert rate == pytest.approx((later - truth.dec[k]) / 1e-3, abs=2e-3)


def test_catalogues_agree_with_the_truth() -> None:
    profile = sims.profiles()["tiny"]
    truth, reference = catalogues.truth(profile, 1), catalogues.reference(profile, 1)
    place = {int(i): k for k, i in enumerate(to_numpy(truth, "truthId"))}
    rows = np.array([place[int(i)] for i in to_numpy(reference, "objectId")])
    for name, error in (("dec", "decErr"), ("gFlux", "gFluxErr")):
        factor = 3.6e6 if name == "dec" else 1.0
        pull = (to_numpy(reference, name) - to_numpy(truth, name)[rows]) * factor
        pull /= to_numpy(reference, error)
        assert pull.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * len(pull)))
    kinds = np.array(truth["kind"].to_pylist())
    transient = np.isin(kinds, TRANSIENTS)
    assert transient.sum() > 20
    assert (to_numpy(truth, "gFlux")[transient] == 0).all()
    assert np.isfinite(to_numpy(truth, "peakFlux")[transient]).all()
    assert set(to_numpy(reference, "objectId")) <= set(to_numpy(truth, "truthId"))


def test_profiles_pin_their_frames() -> None:
    assert len(sims.expected("hits")) == 59 * (84 + 15)
    assert sum(u.role == "science" for u in sims.expected("hits")) == 4956
    assert len(sims.expected("mini")) == 14
    assert {25, 26, 27} < set(sims.profiles()["ci"].detectors)
    with pytest.raises(KeyError):
        sims.expected("none")
