"""What costs are recorded, and what they mean for a whole focal plane."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from harness.campaign.campaign import LATENCY
from harness.catalog import Catalog
from harness.system import machine
from harness.verify.kinds.sql import Sql
from harness.verify.loader import load_spec


def _value(check: str) -> str:
    case = next(case for case in load_spec().cases if case.id == "AG-00-40")
    (found,) = [c.subject for item in case.items for c in item.checks if c.id == check]
    assert isinstance(found, Sql)
    return found.value


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Two visits of two detectors whose costs are known, and the template they need."""
    made = Catalog(tmp_path / "catalog.duckdb")
    costs = {"isr": 2.0, "calibrate": 3.0, "subtract": 4.0, "diasource": 1.0, "diaobject": 0.25,
             "forced": 0.5, "alerts": 0.5}  # fmt: skip
    blank = dict.fromkeys(made.query("SELECT * FROM unit").column_names)
    rows = [
        blank
        | {"visit": v, "detector": d, "stage": s, "status": "done", "wallS": t, "cpuS": t / v,
           "loopS": 0.05 / v}
        for v, d, (s, t) in itertools.product((1, 2), (1, 2), costs.items())
    ]  # fmt: skip
    rows.append(rows[0] | {"visit": 0, "stage": "template", "wallS": 100.0, "cpuS": 100.0})
    made.insert_rows("unit", rows)
    made.record("run", {"runId": "a", "coordinatorCpuS": 0.8}, runId="a")
    return made


def test_costs_count_in_loops_of_the_machine_that_did_the_work(catalog: Catalog) -> None:
    """A machine twice as fast, for the second visit, changes seconds and not the verdict."""
    (row,) = catalog.query(_value("cpu")).to_pylist()
    loops, error, seconds, loop = row.values()
    assert loops == pytest.approx(11.25 / 0.05)
    assert error == pytest.approx(0.0, abs=1e-9)
    assert seconds == pytest.approx(11.25 * 0.75)
    assert loop == pytest.approx(0.05 * 0.75)


def test_focal_planes_are_projected_from_costs_and_what_does_not_scale(catalog: Catalog) -> None:
    (row,) = catalog.query(_value("full-focal-planes")).to_pylist()
    joint = 0.25 + 0.8 / 4  # association, and the coordinator's part of one of four frames
    assert list(row.values()) == [
        pytest.approx(11 + 189 * joint),
        None,
        pytest.approx(11 + 62 * joint),
        pytest.approx(4 * 11 + 62 * joint),
        pytest.approx(12 * 11 + 189 * joint),
        pytest.approx(joint),
        pytest.approx(189 * joint / (11 + 189 * joint)),
    ]


def test_the_loop_is_timed_once_in_a_process() -> None:
    assert 1e-4 < machine.loop_s() < 5.0
    assert machine.loop_s() == machine.loop_s()


def test_a_run_records_the_machine_and_says_how_long_its_alerts_took(campaign: Path) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        units = "FROM unit WHERE status = 'done'"
        assert catalog.value(f"SELECT count(*) {units} AND (loopS IS NULL OR loopS <= 0)") == 0
        assert 0 < float(catalog.value("SELECT sum(coordinatorCpuS) FROM run")) < 600
        row = catalog.rows("SELECT * FROM run")[0]
        (whole,) = catalog.rows(LATENCY, [row["startedMjdTai"], "done"])
        (none,) = catalog.rows(LATENCY, [row["endedMjdTai"], "done"])
    assert whole["n"] == 8
    assert 0 < whole["s"] < 86400 * (row["endedMjdTai"] - row["startedMjdTai"])
    assert none["n"] == 0


def test_only_what_went_all_the_way_counts_for_the_latency(catalog: Catalog) -> None:
    """Frames of templates have no alerts; one that was calibrated earlier was not read now."""
    catalog.fetch("UPDATE unit SET startedMjdTai = 60000 + (CASE stage WHEN 'alerts' THEN 60 "
                    "WHEN 'isr' THEN 0 ELSE 30 END) / 86400.0")  # fmt: skip
    catalog.fetch("DELETE FROM unit WHERE visit = 2 AND detector = 1 AND stage = 'alerts'")
    catalog.fetch("UPDATE unit SET startedMjdTai = 59000 WHERE visit = 1 AND detector = 1 "
                    "AND stage = 'isr'")  # fmt: skip
    (row,) = catalog.rows(LATENCY, [59999.0, "done"])
    assert row["n"] == 2
    assert row["s"] == pytest.approx(60.5, abs=1e-3)
