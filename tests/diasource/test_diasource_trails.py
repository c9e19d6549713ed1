"""Long trails are one source, in their middle; what only looks like one stays what it is."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline import diasource

Array = npt.NDArray[np.float64]
_QUIET = diasource.Config(sub_random=0, sky_sources=0)


def rod(length: float, angle: float) -> Array:
    """Points along a line, pixel, with their weights."""
    n = max(60, int(3 * length))
    t = (np.arange(n) + 0.5) / n - 0.5
    return np.column_stack(
        [t * length * np.cos(angle), t * length * np.sin(angle), np.full(n, 1 / n)]
    )


def scene(lab: ModuleType, at: Array, flux: Array, shape: Any, seed: int, size: int) -> Any:
    rng = np.random.default_rng(seed)
    image, variance = lab.blank((size, size), rng)
    lab.add(image, variance, lab.Star(), at, flux, rng, shape)
    return lab.scene(image, variance, lab.Star(), rng)


def detections(world: Any) -> list[dict[str, Any]]:
    table = diasource.run(world.difference, world.science, world.template, _QUIET).sources
    return [r for r in table.to_pylist() if not r["isDeblendParent"]]


@pytest.fixture(scope="module")
def rods(lab: ModuleType) -> tuple[Array, Array, Array, Any, diasource.Result]:
    """Trails of 5 to 20 arcsec whose score is 7 to 40: places, lengths, fluxes and the result."""
    rng = np.random.default_rng(8101)
    at = lab.grid((900, 900), 150, rng)
    length, angle = rng.uniform(19.0, 76.0, len(at)), rng.uniform(0.0, np.pi, len(at))
    peak = lab.log_uniform(7.0, 40.0, len(at), rng)
    flux = peak * length / (1.5 * lab.Star().width) * lab.Star().sigma_flux()
    world = scene(lab, at, flux, lambda k: rod(length[k], angle[k]), 8102, 900)
    result = diasource.run(world.difference, world.science, world.template, _QUIET)
    return at, length, flux, world, result


def test_a_long_trail_is_one_source_in_its_middle(
    lab: ModuleType, rods: tuple[Array, Array, Array, Any, diasource.Result]
) -> None:
    at, length, flux, _, result = rods
    rows = [r for r in result.sources.to_pylist() if not r["isDeblendParent"]]
    assert len(rows) <= len(at) + 2
    place = np.array([(r["x"], r["y"]) for r in rows])
    pulls = []
    for k in range(len(at)):
        row = rows[int(np.argmin(np.hypot(*(place - at[k]).T)))]
        assert row["isTrailed"]
        assert not row["isStreak"]
        assert not row["centroid_flag"]
        pulls.append((row["x"] - at[k, 0]) / row["xErr"])
        pulls.append((row["y"] - at[k, 1]) / row["yErr"])
        pulls.append(
            (row["trailLength"] / lab.SCALE - length[k]) * lab.SCALE / row["trailLengthErr"]
        )
        pulls.append((row["trailFlux"] - flux[k]) / row["trailFluxErr"])
    assert np.std(pulls) == pytest.approx(1.0, abs=0.25)
    assert np.abs(np.mean(pulls)) < 0.3


def test_every_peak_of_a_trail_names_its_source(
    rods: tuple[Array, Array, Array, Any, diasource.Result],
) -> None:
    ledger = rods[4].candidates.to_pylist()
    joined = [c for c in ledger if c["rule"] == "trail"]
    accepted = {c["diaSourceId"] for c in ledger if c["accepted"]}

    assert len(joined) > 4
    assert all(c["diaSourceId"] in accepted and c["value"] > c["bound"] for c in joined)


@pytest.mark.parametrize("distance", [14.0, 25.0])
def test_stars_in_a_row_are_no_trail(lab: ModuleType, distance: float) -> None:
    at = np.column_stack([150.0 + distance * np.arange(4), np.full(4, 150.3)])
    flux = np.array([40.0, 15.0, 30.0, 20.0]) * lab.Star().sigma_flux()

    rows = detections(scene(lab, at, flux, None, 7104, 320))

    assert len(rows) == 4
    assert not any(r["isTrailed"] for r in rows)


def test_what_crosses_the_image_stays_a_streak(lab: ModuleType) -> None:
    at, flux = np.array([[160.0, 160.0]]), np.array([1500.0])
    rows = detections(scene(lab, at, 40 * flux, lambda _: rod(240.0, 0.5), 7105, 320))

    assert rows
    assert all(r["isStreak"] for r in rows)


def test_errors_of_faint_trails_are_their_scatter(lab: ModuleType) -> None:
    """At an SNR of 10 to 14 errors of the linearised fit are 1.15 times too small."""

    def parts(n: int, rng: np.random.Generator) -> tuple[Any, Array]:
        length, angle = rng.uniform(2, 5, n) * lab.Star().width, rng.uniform(0, np.pi, n)
        return (lambda k: lab.line(length[k], angle[k])), length

    pulls = []
    for table, at, _, length, world in lab.trials(
        300, 10, 14, 7103, step=96, parts=parts, trail=True
    ):
        i, k = lab.match(table, at, 12.0)
        ra, dec = world.difference.exposure.wcs.all_pix2world(*at[i].T, 0)
        pulls += [
            lab.pull_of(table, "trailLength", length[i] * lab.SCALE, k),
            np.cos(np.radians(dec)) * lab.pull_of(table, "trailRa", ra, k),
            lab.pull_of(table, "trailDec", dec, k),
        ]
    pull = np.concatenate(pulls)
    assert len(pull) > 850
    assert np.nanstd(pull[np.abs(pull) < 5.0]) == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("apart", [16.0, 20.0])
@pytest.mark.parametrize("seed", [7106, 7107, 7108])
def test_the_sides_of_a_trail_are_no_trail_of_the_other_sign(
    lab: ModuleType, apart: float, seed: int
) -> None:
    """The middle of two negative sources lies on a bright positive trail between them."""
    at = np.array([[160.0, 160.0], [160.0, 160.0 - apart / 2], [160.0, 160.0 + apart / 2]])
    flux = np.array([400.0, -25.0, -18.0]) * lab.Star().sigma_flux()
    shapes = [rod(70.0, 0.0), np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.0, 1.0]])]

    rows = detections(scene(lab, at, flux, lambda k: shapes[k], seed, 320))

    negative = [r for r in rows if r["isNegative"]]
    assert all(r["isNegative"] == (r["psfFlux"] < 0) for r in rows)
    assert negative  # the trail has pieces of its own, of which one may have a side as its lobe
    assert all(min(abs(r["y"] - y) for y in at[1:, 1]) < 1.0 for r in negative)
