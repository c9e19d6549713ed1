"""Checks read what users read: the catalogue is judged, and so is whether it is as measured."""

import math
from dataclasses import replace

import pyarrow as pa
import pytest

from harness.catalog import connect
from harness.verify import curves
from harness.verify.kinds.curve import Curve
from harness.verify.kinds.staged import Staged
from harness.verify.matching import catalogued_sources, match
from harness.verify.measurement import NotApplicable
from harness.verify.metric import Sample
from harness.verify.row_comparison import unequal_rows
from pipeline import io
from pipeline.schema import TABLES

from .conftest import source

ASSIGNED = ["diaObjectId"]


@pytest.fixture
def staged(space):
    """The staging table that the catalogue of the small workspace was filled from."""
    rows = [{**source(n), "diaObjectId": None} for n in range(10)]
    io.write_parquet(space.staging("DiaSource", 2, 1), TABLES["DiaSource"].from_rows(rows))
    return rows


@pytest.fixture
def change(space):
    def run(statement):
        with connect(space.catalog) as connection:
            connection.execute(statement)

    return run


def measured(context, **more):
    return Staged(table="DiaSource", assigned=ASSIGNED, **more).measure(context, None)


def test_a_catalogue_as_it_was_measured(context, staged):
    got = measured(context)

    assert (got.value, got.population) == (0, 10)


@pytest.mark.parametrize(
    ("statement", "columns", "value"),
    [
        ("update DiaSource set psfFlux = 2 * psfFlux", ["psfFlux"], 10),
        ("update DiaSource set ra = ra + 3.0 / 3600 where diaSourceId = 4", ["ra"], 1),
        ("update DiaSource set psfFlux = null where diaSourceId = 4", ["psfFlux"], 1),
        ("update DiaSource set psfFlux = 'nan' where diaSourceId = 4", ["psfFlux"], 1),
        ("update DiaSource set apFlux = 0 where diaSourceId = 4", ["apFlux"], 1),
        ("update DiaSource set raErr = 1, decErr = 2", ["raErr", "decErr"], 20),
        ("update DiaSource set isNegative = true where diaSourceId < 3", ["isNegative"], 2),
        ("update DiaSource set band = 'r' where diaSourceId = 4", ["band"], 1),
        ("delete from DiaSource where diaSourceId = 4", ["diaSourceId"], 1),
        ("update DiaSource set diaSourceId = 40 where diaSourceId = 4", ["diaSourceId"], 2),
    ],
)
def test_whatever_is_changed_afterwards_is_found(
    context, staged, change, statement, columns, value
):
    change(statement)

    got = measured(context)

    assert sorted(s["column"] for s in got.failing) == sorted(columns)
    assert got.value == value


def test_what_association_assigns_is_not_compared(context, staged, change):
    change("update DiaSource set diaObjectId = 7")

    assert measured(context).value == 0


def test_a_staging_table_that_cannot_be_read_is_a_finding(context, staged, space):
    path = space.staging("DiaSource", 2, 1)
    path.write_bytes(path.read_bytes()[:100])
    io.write_parquet(space.staging("candidate", 2, 1), TABLES["candidate"].empty())

    with pytest.raises(Exception, match="no staging table"):
        measured(context)


def test_unequal_rows_keeps_null_apart_from_nan_and_zero():
    def table(values):
        return pa.table({"k": [1, 2, 3, 4], "v": pa.array(values, pa.float64())})

    first, second = table([None, math.nan, 0.0, None]), table([None, math.nan, None, math.nan])

    _, flags = unequal_rows(first, second, "k", ["v"])

    assert flags["v"].tolist() == [False, False, True, True]


def test_unequal_rows_does_not_mind_the_order_but_repetition():
    first = pa.table({"k": [3, 1, 2], "v": ["c", "a", "b"]})
    second = pa.table({"k": [1, 2, 2, 3], "v": ["a", "b", "b", "c"]})

    rows, flags = unequal_rows(first, second, "k", ["v"])

    assert not flags["v"].any()
    assert rows.filter(pa.array(flags["k"])).column("k").to_pylist() == [2, 2, 2]


def transient(**values):
    usual = {"visit": 2, "detector": 1, "truthId": 1, "kind": "sn_ia", "x": 1.0, "y": 1.0,
             "ra": 12.0, "dec": 0.0, "flux": 102.0, "trueSnr": 20.0, "masked": False,
             "trailLength": 0.0, "reach": 1.0, "near": 2.5}  # fmt: skip
    return {**usual, **values}


def test_a_transient_finds_its_source_in_the_catalogue(context):
    (found,) = match([transient()], catalogued_sources(context))

    assert (found["diaSourceId"], found["flux_measured"], found["flux_err"]) == (3, 102.0, 10.0)
    assert found["distance"] == pytest.approx(0.0, abs=1e-9)


def test_nothing_is_found_beyond_reach_and_in_other_units(context):
    far = transient(ra=12.0 + 1.1 / 3600)
    sources = catalogued_sources(context)

    assert [r["diaSourceId"] for r in match([far, transient(visit=3)], sources)] == [None, None]
    assert match([{**far, "reach": 2.0}], sources)[0]["east"] == pytest.approx(-1.1)


def test_sources_without_a_position_are_near_nothing(context, change):
    change("update DiaSource set ra = 'nan' where diaSourceId < 4")

    (found,) = match([transient()], catalogued_sources(context))

    assert found["diaSourceId"] is None


@pytest.fixture
def truth(monkeypatch):
    """Ten transients where the ten sources of the small workspace are."""
    rows = tuple(transient(truthId=n, ra=10.0 + n, flux=100.0 + n) for n in range(10))

    def measure(context, requests):
        return {next(iter(requests)): {(2, 1): Sample(10.0, 10, rows=rows)}}

    monkeypatch.setattr(curves, "measure_images", measure)


def known_answer(context, quantity):
    return Curve(quantity=quantity).measure(context, None).value


def test_known_answers_are_those_of_the_catalogue(context, truth):
    assert known_answer(context, "flux_pull") == 1.0
    assert known_answer(context, "flux_bias") == pytest.approx(0.0, abs=1e-4)
    assert known_answer(context, "detected") == 1.0


def test_doubled_fluxes_of_the_catalogue_are_found(context, truth, change):
    change("update DiaSource set psfFlux = 2 * psfFlux")

    assert known_answer(context, "flux_pull") == 0.0
    assert known_answer(context, "flux_bias") == pytest.approx(100.0, rel=1e-5)


def test_moved_sources_of_the_catalogue_are_found(context, truth, change):
    change("update DiaSource set ra = ra + 3.0 / 3600")

    assert known_answer(context, "detected") == 0.0


def test_a_unit_whose_truth_is_unknown_is_named_and_the_others_judged(context, truth, monkeypatch):
    known = curves.measure_images

    def measure(context, requests):
        return {r: {**o, (1, 1): "it broke"} for r, o in known(context, requests).items()}

    monkeypatch.setattr(curves, "measure_images", measure)
    got = Curve(quantity="flux_pull").measure(context, None)

    assert (got.value, got.broken) == (1.0, "1_01: it broke")


def test_detections_of_a_unit_whose_truth_is_unknown_are_not_false(context, monkeypatch):
    broken = {(2, 1): "it broke"}
    monkeypatch.setattr(curves, "measure_images", lambda _, r: {next(iter(r)): broken})

    assert curves.transients(context).everything == ()
    assert context.scalar("select count(*) from DiaSource where detector = 1 and visit = 2") > 0


def test_a_blend_that_was_split_is_no_detection_of_its_own(context, truth, change):
    change("update DiaSource set isDeblendParent = true where diaSourceId = 4")

    found = {d["diaSourceId"] for d in curves.transients(context).everything}

    assert found == {n for n in range(1, 11) if n != 4}


def test_transients_are_collected_once(context, truth, monkeypatch):
    first = curves.transients(context)
    monkeypatch.setattr(curves, "match", None)

    assert curves.transients(context) is first


def spread(monkeypatch, change, classes, *, per_class=30, false=400):
    """Fill the catalogue with true sources of given reliabilities, and false ones of 0.1."""
    rows, sources, number = [], [], 100
    for k, (kind, sign, reliability) in enumerate(classes):
        for n in range(per_class):
            place = {"ra": 20.0 + n, "dec": 10.0 * k}
            rows.append(transient(truthId=number, kind=kind, flux=sign * 100.0, trueSnr=sign * 20.0,
                                  **place))  # fmt: skip
            sources.append((number, place["ra"], place["dec"], reliability))
            number += 1
    sources += [(number + n, 100.0 + n * 0.1, -30.0, 0.1) for n in range(false)]
    values = ", ".join(map(str, sources))
    change(
        "insert into DiaSource by name select d.* replace (v.id as diaSourceId, v.a as ra, "
        "v.b as dec, v.r::float as reliability, 6.0::float as snr) from "
        f"(select * from DiaSource where diaSourceId = 4) d, (values {values}) v(id, a, b, r)"
    )

    def measure(context, requests):
        return {next(iter(requests)): {(2, 1): Sample(1.0, 1, rows=tuple(rows))}}

    monkeypatch.setattr(curves, "measure_images", measure)


CLASSES = [("sn_ia", 1, 0.9), ("agn", 1, 0.95), ("agn", -1, 0.2)] + [("flare", 1, 0.9)] * 9


def test_the_worst_class_is_the_one_that_faded(context, monkeypatch, change):
    spread(monkeypatch, change, CLASSES, false=1)

    sample = replace(curves.transients(context).between(10.0, 1e9), cut=0.5)

    assert curves.QUANTITIES["worst_class"].function(sample)[0] == 0.0
    assert len(sample.rows) == 11 * 30  # what faded counts for no other quantity
    assert {r["kind"] for r in sample.faded} == {"agn"}


def test_artefacts_are_rejected_at_the_cut_that_keeps_the_true_ones(context, monkeypatch, change):
    spread(monkeypatch, change, [("sn_ia", 1, 0.9)] * 11)

    sample = curves.transients(context).between(5.0, 7.0)
    value, _, n = curves.QUANTITIES["artefacts_rejected"].function(sample)

    assert value == 1.0
    assert n >= 11 * 30 + 400
    with pytest.raises(NotApplicable, match="too few, it takes 1500"):
        curves.QUANTITIES["faint_completeness_9"].function(sample)


def test_a_detection_near_a_transient_is_neither_true_nor_false(context, monkeypatch, change):
    spread(monkeypatch, change, [("sn_ia", 1, 0.9)], per_class=1, false=1)
    change(
        "insert into DiaSource by name select * replace (900 as diaSourceId, "
        "ra + 1.8 / 3600 as ra) from DiaSource where diaSourceId = 100"
    )

    found = {s["diaSourceId"]: s for s in curves.transients(context).everything}

    assert found[100]["real"]
    assert not found[100]["unclear"]
    assert found[900]["unclear"]
    assert not found[101]["unclear"]
