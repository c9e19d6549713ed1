"""Association: who belongs to whom, whatever the order, the place on the sky, the history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import diaobject
from pipeline.diaobject import summary
from pipeline.diaobject.astrometry import Positions, predicted_place
from pipeline.diaobject.groups import Groups
from pipeline.ids import pack
from pipeline.schema import DIA_OBJECT, DIA_SOURCE, OBJECT, to_numpy
from pipeline.sphere import displaced, offsets

T0 = 57070.0
SIGMA = 0.1  # arcsec


def visit_sources(
    visit: int, ra: Any, dec: Any, *, day: float = 0.0, detector: int = 1, **columns: Any
) -> pa.Table:
    """DiaSource rows of one visit with everything required filled in."""
    n = len(ra)
    ids = np.array([pack(visit, detector, k + 1) for k in range(n)])
    given = {"psfFlux": np.full(n, 1000.0), "psfFluxErr": np.full(n, 50.0)} | columns
    return DIA_SOURCE.to_arrow(
        {"diaSourceId": ids, "ra": np.asarray(ra), "dec": np.asarray(dec), **given},
        visit=visit, detector=detector, midpointMjdTai=T0 + day, x=0.0, y=0.0,
        raErr=SIGMA / 3600, decErr=SIGMA / 3600, ra_dec_Cov=0.0, psfNdata=100, trailNdata=0,
        dipoleNdata=0, bboxSize=21, band="g", timeProcessedMjdTai=T0,
    )  # fmt: skip


def replay(visits: list[pa.Table], **kwargs: Any) -> tuple[pa.Table, pa.Table]:
    """Process visits one after the other as a campaign does; return all sources and objects."""
    objects, history = DIA_OBJECT.empty(), DIA_SOURCE.empty()
    for k, sources in enumerate(visits):
        result = diaobject.run(sources, objects, history, processed_mjd_tai=T0 + 1000 + k, **kwargs)
        kept = ~np.isin(to_numpy(objects, "diaObjectId"), to_numpy(result.objects, "diaObjectId"))
        objects = pa.concat_tables([objects.filter(pa.array(kept)), result.objects])
        history = pa.concat_tables([history, result.sources])
    return history, objects.sort_by("diaObjectId")


def field(
    rng: np.random.Generator, n: int, ra0: float, dec0: float, side: float = 1800.0
) -> tuple[Any, Any]:
    """Positions in a square of so many arcsec."""
    return displaced(np.full(n, ra0), np.full(n, dec0), *rng.uniform(-side / 2, side / 2, (2, n)))


def scattered(rng: np.random.Generator, ra: Any, dec: Any, sigma: float = SIGMA) -> tuple[Any, Any]:
    return displaced(ra, dec, *rng.normal(0, sigma, (2, len(ra))))


@pytest.mark.parametrize("place", [(150.0, 0.0), (0.0, -60.0), (359.99, 85.0), (10.0, -89.95)])
def test_objects_are_found_again_anywhere_on_the_sky(place: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    ra, dec = field(rng, 300, *place)
    visits, truth = [], []
    for v in range(5):
        seen = rng.random(300) < 0.7
        visits.append(visit_sources(400000 + v, *scattered(rng, ra[seen], dec[seen]), day=v))
        truth.append(np.flatnonzero(seen))
    sources, objects = replay(visits)
    true = np.concatenate(truth)
    ids = to_numpy(sources, "diaObjectId")
    assert objects.num_rows == len(np.unique(true))
    assert len(np.unique(true * 2**33 + ids // 2**25)) == objects.num_rows
    counts = dict(zip(*np.unique(true, return_counts=True), strict=True))
    first = dict(zip(ids, true, strict=True))
    for row in objects.select(["diaObjectId", "nDiaSources", "ra", "dec"]).to_pylist():
        star = first[row["diaObjectId"]]
        assert row["nDiaSources"] == counts[star]
        east, north = offsets(ra[star], dec[star], row["ra"], row["dec"])
        assert np.hypot(east, north) < 5 * SIGMA / np.sqrt(counts[star])
    assert max(counts.values()) > 1


@pytest.mark.parametrize("dec0", [0.0, 60.0, -60.0, 85.0, -85.0])
def test_position_errors_shrink_and_their_pulls_are_unity(dec0: float) -> None:
    """The errors of right ascension include cos(dec), near the poles too."""
    rng = np.random.default_rng(2)
    ra, dec = field(rng, 2000, 40.0, dec0, 20000.0)
    visits = [visit_sources(400000 + v, *scattered(rng, ra, dec), day=v) for v in range(4)]
    _, objects = replay(visits)
    assert objects.num_rows < 2010  # four sigma lose one match in three thousand
    objects = objects.filter(pa.array(to_numpy(objects, "nDiaSources") == 4))
    star = to_numpy(objects, "diaObjectId") % 2**25 - 1
    east, north = offsets(ra[star], dec[star], to_numpy(objects, "ra"), to_numpy(objects, "dec"))
    for offset, name in ((east, "raErr"), (north, "decErr")):
        error = to_numpy(objects, name) * 3600
        assert np.median(error) == pytest.approx(SIGMA / 2, rel=0.05)
        assert np.std(offset / error) == pytest.approx(0.93, abs=0.06)


def test_one_source_per_object_and_visit() -> None:
    first = visit_sources(400001, [10.0], [0.0])
    close = visit_sources(400002, [10.0, 10.0 + 0.3 / 3600], [0.0, 0.0], day=1)
    sources, objects = replay([first, close])
    assert objects.num_rows == 2
    ids = to_numpy(sources, "diaObjectId")
    assert ids[1] == ids[0]  # the nearer of the two
    assert ids[2] == to_numpy(sources, "diaSourceId")[2]


def test_detectors_that_overlap_see_one_object() -> None:
    """Sources of the same visit on two detectors; on one detector they are two objects."""
    rng = np.random.default_rng(4)
    ra, dec = field(rng, 200, 150.0, -6.0)
    chips = [
        [visit_sources(v, *scattered(rng, ra, dec), day=v, detector=d) for d in (1, 2, 3)]
        for v in (1, 2)
    ]
    visits = [pa.concat_tables(parts) for parts in chips]
    sources, objects = replay(visits)
    assert objects.num_rows == 200
    assert set(objects["nDiaSources"].to_pylist()) == {6}
    ids = to_numpy(sources, "diaObjectId").reshape(6, 200)
    assert np.array_equal(ids[0], to_numpy(sources, "diaSourceId")[:200])
    assert (ids == ids[0]).all()
    shuffled = [v.take(rng.permutation(v.num_rows)) for v in visits]
    assert replay(shuffled)[1].equals(objects)
    same = visit_sources(1, np.tile(ra, 2), np.tile(dec, 2))
    assert replay([same])[1].num_rows == 400


def test_fluxes_of_the_last_year_describe_an_object() -> None:
    flux = [100.0, 200.0, 300.0]
    visits = [
        visit_sources(v, [10.0], [0.0], day=day, psfFlux=[flux[v]], scienceFlux=[2 * flux[v]],
                      scienceFluxErr=[5.0])
        for v, day in enumerate((0.0, 400.0, 764.0))
    ]  # fmt: skip
    _, objects = replay(visits)
    (row,) = objects.to_pylist()
    assert row["nDiaSources"] == 3
    assert (row["firstDiaSourceMjdTai"], row["lastDiaSourceMjdTai"]) == (T0, T0 + 764.0)
    assert (row["g_psfFluxNdata"], row["g_psfFluxMean"], row["g_psfFluxMin"]) == (2, 250.0, 200.0)
    assert (row["g_scienceFluxNdata"], row["g_scienceFluxMean"]) == (2, 500.0)
    _, short = replay(visits, config=diaobject.Config(characterization_window=300.0))
    assert short["g_psfFluxNdata"].to_pylist() == [1]


def test_periods_without_new_epochs_are_kept_and_equal_those_made_afresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thirty objects, g and r in turn; a year later the first season is no longer looked at."""
    rng, searched = np.random.default_rng(12), []
    ra, dec = field(rng, 30, 10.0, -6.0)
    original = summary.periods

    def watched(groups: Groups, *rest: Any) -> dict[str, Any]:
        searched.append(len(groups))
        return original(groups, *rest)

    monkeypatch.setattr(summary, "periods", watched)
    days = np.r_[np.sort(rng.uniform(0, 60, 26)), 400.0]
    visits = []
    for v, day in enumerate(days):
        made = visit_sources(v + 1, ra, dec, day=day, psfFlux=rng.normal(1000, 100, 30))
        at = made.schema.get_field_index("band")
        visits.append(made.set_column(at, made.schema.field(at), pa.array(["gr"[v % 2]] * 30)))
    for last in (26, 27):
        sources, objects = replay(visits[:last])
        fresh = diaobject.summarise(sources, None, T0, diaobject.Config()).sort_by("diaObjectId")
        for name in (f"{b}_{p}" for b in "gr" for p in summary.PERIODS):
            assert objects[name].equals(fresh[name]), name
            assert (objects[name].null_count == 30) is (last == 27)
    assert set(searched[:26]) == {30}  # one band at a time
    assert searched[-2] == 60  # both lose epochs after a year


def test_fast_stars_keep_their_object_over_a_season_without_visits() -> None:
    """800 mas/yr; the motion is known well enough to find the star again after five months."""
    rng = np.random.default_rng(9)
    ra, dec = field(rng, 150, 150.0, -6.0, 3000.0)
    angle = rng.uniform(0, 2 * np.pi, 150)
    days = [*np.linspace(0, 160, 9), 365.0, 380.0]
    visits = [
        visit_sources(
            400000 + v,
            *scattered(rng, *displaced(ra, dec, *(0.8 * day / 365.25 * f(angle)
                                                  for f in (np.sin, np.cos)))),
            day=day,
        )
        for v, day in enumerate(days)
    ]  # fmt: skip
    _, objects = replay(visits)
    assert objects.num_rows <= 152  # at most one in a hundred is split


def test_predictions_have_honest_errors() -> None:
    """Motions drawn from the prior: pulls of the predicted places are unity, whatever is known."""
    rng = np.random.default_rng(10)
    config = diaobject.Config(visit_floor=0.0)
    n = 4000
    for epochs in (1, 2, 6):
        time = np.sort(rng.uniform(-300, -30, (n, epochs)), axis=1)
        motion = rng.normal(0, config.motion_prior * 1e-3, (2, n))
        groups = Groups.of(np.repeat(np.arange(n), epochs))
        east, north = (
            m[:, None] * time / 365.25 + rng.normal(0, SIGMA, (n, epochs)) for m in motion
        )
        ra, dec = displaced(np.full(n * epochs, 20.0), np.full(n * epochs, 60.0), east.ravel(),
                            north.ravel())  # fmt: skip
        covariance = np.broadcast_to(SIGMA**2 * np.eye(2), (n * epochs, 2, 2))
        positions = Positions(T0 + time.ravel(), ra, dec, covariance)
        *place, error = predicted_place(groups, positions, T0, config)
        off = np.stack(offsets(20.0, 60.0, *place), axis=-1)
        pull = off / np.sqrt(error[:, (0, 1), (0, 1)])
        assert np.std(pull) == pytest.approx(1.0, abs=0.05 if epochs < 3 else 0.1)


def test_rows_may_come_in_any_order_and_again() -> None:
    rng = np.random.default_rng(3)
    ra, dec = field(rng, 400, 150.0, 2.0, 600.0)
    visits = [
        visit_sources(400000 + v, *scattered(rng, ra, dec), day=v, psfFlux=rng.normal(100, 20, 400))
        for v in range(4)
    ]
    sources, objects = replay(visits)
    shuffled = [v.take(rng.permutation(v.num_rows)) for v in visits]
    again, same = replay(shuffled)
    assert same.equals(objects)
    assert again.sort_by("diaSourceId").equals(sources.sort_by("diaSourceId"))


def test_residuals_of_bright_stars_stay_with_their_star() -> None:
    """Misaligned by 20 mas, a star 30 times its change shifts the centroid by 0.6 arcsec."""
    rng = np.random.default_rng(6)
    ra, dec = field(rng, 200, 150.0, -6.0, 6000.0)
    pulled = [
        visit_sources(
            400000 + v, *scattered(rng, ra, dec, 0.42), day=v,
            psfFlux=np.full(200, 1000.0), templateFlux=np.full(200, 30000.0),
        )
        for v in range(5)
    ]  # fmt: skip
    _, objects = replay(pulled)
    assert objects.num_rows < 210
    dark = [v.drop_columns("templateFlux") for v in pulled]
    dark = [DIA_SOURCE.to_arrow({n: v.column(n) for n in v.column_names}) for v in dark]
    _, split = replay(dark)
    assert split.num_rows > 300


def test_a_source_changes_its_own_object_only() -> None:
    rng = np.random.default_rng(8)
    ra, dec = field(rng, 50, 150.0, -6.0)
    first = visit_sources(400001, *scattered(rng, ra, dec))
    one = diaobject.run(first, DIA_OBJECT.empty(), DIA_SOURCE.empty(), processed_mjd_tai=T0)
    second = visit_sources(400002, ra[7:8], dec[7:8], day=1)
    two = diaobject.run(second, one.objects, one.sources, processed_mjd_tai=T0 + 1)
    assert two.objects.num_rows == two.superseded.num_rows == 1
    number = two.objects["diaObjectId"][0].as_py()
    assert number == one.sources["diaSourceId"][7].as_py()
    before = to_numpy(one.objects, "raErr")[to_numpy(one.objects, "diaObjectId") == number]
    assert two.objects["raErr"][0].as_py() < 0.8 * before[0]


def test_parents_and_subthreshold_rows_belong_to_nobody() -> None:
    n = 4
    rows = visit_sources(
        400001, 10.0 + np.arange(n) * 0.01, np.zeros(n),
        isSubThreshold=[False, False, True, False],
        parentDiaSourceId=[None, pack(400001, 1, 1), None, None],
        isDeblendParent=[False, False, False, True],
    )  # fmt: skip
    result = diaobject.run(rows, DIA_OBJECT.empty(), DIA_SOURCE.empty(), processed_mjd_tai=T0)
    assert result.sources["diaObjectId"].is_null().to_pylist() == [True, False, True, True]
    assert result.objects.num_rows == 1
    assert result.metrics["nNotAssociated"] == 3


def test_the_future_and_the_same_visit_are_refused() -> None:
    first, later = visit_sources(1, [10.0], [0.0]), visit_sources(2, [10.0], [0.0], day=1)
    with pytest.raises(ValueError, match="beyond"):
        diaobject.run(first, DIA_OBJECT.empty(), later, processed_mjd_tai=T0)
    with pytest.raises(ValueError, match="already"):
        diaobject.run(first, DIA_OBJECT.empty(), first, processed_mjd_tai=T0)


def test_former_versions_are_closed() -> None:
    first, second = visit_sources(1, [10.0], [0.0]), visit_sources(2, [10.0], [0.0], day=1)
    one = diaobject.run(first, DIA_OBJECT.empty(), DIA_SOURCE.empty(), processed_mjd_tai=T0)
    two = diaobject.run(second, one.objects, one.sources, processed_mjd_tai=T0 + 2)
    assert one.new.tolist() == to_numpy(one.objects, "diaObjectId").tolist()
    assert two.new.size == 0
    assert two.superseded["validityEndMjdTai"].to_pylist() == [T0 + 2]
    assert two.objects["nDiaSources"].to_pylist() == [2]
    assert two.objects["firstDiaSourceMjdTai"].to_pylist() == [T0]


def test_nearest_stars_and_galaxies() -> None:
    rng = np.random.default_rng(5)
    ra, dec = field(rng, 400, 150.0, -30.0, 600.0)
    kind = np.where(rng.random(400) < 0.5, "star", "galaxy").astype(object)
    catalog = OBJECT.to_arrow(
        {"objectId": np.arange(400), "ra": ra, "dec": dec, "objectType": kind,
         "radius": np.where(kind == "star", 0.0, 1.5)}
    )  # fmt: skip
    chosen = np.array([np.flatnonzero(kind == "star")[0], np.flatnonzero(kind == "galaxy")[0]])
    sources = visit_sources(1, ra[chosen], dec[chosen])
    result = diaobject.run(
        sources, DIA_OBJECT.empty(), DIA_SOURCE.empty(), None, catalog, processed_mjd_tai=T0
    )
    for source, target in zip(result.objects["diaObjectId"].to_pylist(), chosen, strict=True):
        rows = [r for r in result.matches.to_pylist() if r["diaObjectId"] == source]
        assert [(r["objectType"], r["rank"]) for r in rows] == [
            (t, k) for t in ("star", "galaxy") for k in (1, 2, 3)
        ]
        here = kind == kind[target]
        east, north = offsets(ra[target], dec[target], ra[here], dec[here])
        nearest = np.sort(np.hypot(east, north))[:3]
        mine = [r["dist"] for r in rows if r["objectType"] == kind[target]]
        assert mine == pytest.approx(nearest, abs=1e-3)
        best = max(rows, key=lambda r: r["lnP"])
        assert best["objectId"] == target
        assert np.exp(best["lnP"]) > 0.5
        assert sum(np.exp(r["lnP"]) for r in rows) < 1.0
