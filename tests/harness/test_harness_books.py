from __future__ import annotations

import json
import logging
import os
import signal
import threading
import warnings
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from harness.catalog import Catalog
from harness.ledger import DONE, FAILED, Outcome, StageRecord, Target, blocked, cause_of, measuring
from harness.system.hashes import Hashes, combine, table_hash
from harness.system.log import Logbook, collecting
from harness.system.progress import ProgressDisplay
from harness.workspace import Workspace, atomic
from pipeline.errors import ConfigError, FileFormatError, InputError, PsfError
from pipeline.schema import TABLES


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "c.duckdb")


def unit(visit: int, status: str = DONE) -> dict[str, object]:
    return StageRecord(visit, 1, "isr", status).row()


def test_catalogue_has_every_declared_table_and_view(catalog: Catalog) -> None:
    names = {
        r["table_name"] for r in catalog.rows("SELECT table_name FROM information_schema.tables")
    }
    views = {"diasource_derived", "diaobject_colour", "lightcurve", "diasource_object_match"}
    assert names == set(TABLES) | views


def test_replacing_twice_changes_nothing(catalog: Catalog) -> None:
    for _ in range(2):
        with catalog.transaction():
            catalog.record("unit", unit(1), visit=1)
            catalog.record("unit", unit(2, FAILED), visit=2)
    assert catalog.count("unit") == 2
    assert catalog.value("SELECT status FROM unit WHERE visit = 2") == FAILED


def test_a_failing_transaction_leaves_nothing(catalog: Catalog) -> None:
    def fail() -> None:
        with catalog.transaction():
            catalog.record("unit", unit(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert catalog.count("unit") == 0


def test_table_comes_back_with_its_declared_schema(catalog: Catalog) -> None:
    catalog.record("unit", unit(1))
    assert catalog.table("unit").schema == TABLES["unit"].arrow_schema
    assert catalog.table("unit", "visit = ?", [9]).num_rows == 0


@pytest.mark.parametrize(
    ("flux", "mag"), [("1", 31.4), ("3630.78", 22.5), ("0", None), ("-5", None)]
)
def test_ab_mag(catalog: Catalog, flux: str, mag: float | None) -> None:
    value = catalog.value(f"SELECT ab_mag({flux})")
    assert value is None if mag is None else value == pytest.approx(mag, abs=1e-4)


@pytest.mark.usefixtures("interruptible")
def test_interruption_of_a_query_is_an_interruption(catalog: Catalog) -> None:
    endless = "SELECT sum(a.range * b.range) FROM range(60000) a, range(60000) b"
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        catalog.value(endless)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        catalog.query(endless)


def test_what_ends_a_transaction_is_what_is_told(catalog: Catalog) -> None:
    rows = TABLES["unit"].from_rows([unit(1)])

    def interrupted() -> None:
        with catalog.transaction(), catalog._batch(rows):
            with pytest.raises(duckdb.Error):
                catalog.value("SELECT error('from here on the transaction is aborted')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    catalog.insert("unit", rows)
    assert catalog.table("unit").num_rows == 1


def test_missing_catalogue_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no catalogue yet"):
        Catalog(tmp_path / "none.duckdb", read_only=True)


def test_table_hash_sees_values_and_not_the_clock() -> None:
    def table(flux: list[float | None], time: float) -> pa.Table:
        return pa.table({"diaSourceId": [1, 2], "psfFlux": flux, "timeProcessedMjdTai": [time] * 2})

    same = table_hash(table([1.0, None], 5.0))
    assert table_hash(table([1.0, None], 6.0)) == same
    assert table_hash(table([1.0, 0.0], 5.0)) != same
    assert table_hash(table([1.5, None], 5.0)) != same
    assert table_hash(table([1.0, None], 5.0).take([1, 0])) != same


def test_hash_memory_notices_a_change(tmp_path: Path) -> None:
    path, memory = tmp_path / "f", tmp_path / "memory.json"
    path.write_bytes(b"one")
    hashes = Hashes(memory)
    first = hashes.of(path)
    hashes.save()
    path.write_bytes(b"three")
    assert Hashes(memory).of(path) != first
    assert Hashes(memory).of(tmp_path / "nothing") == "absent"
    assert combine(["a", "b"]) != combine(["b", "a"])


def test_atomic_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"

    def fail() -> None:
        with atomic(target) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(target.parent.iterdir()) == []
    with atomic(target) as partial:
        partial.write_text("whole")
        assert not target.exists()
    assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_sweep_removes_what_a_killed_run_left(tmp_path: Path) -> None:
    space = Workspace.create(tmp_path / "w")
    (space.root / "products/visit_image/.1_01.fits.77.part").touch()
    (space.root / "products/visit_image/1_01.fits").touch()
    assert space.sweep() == 1
    assert [p.name for p in (space.root / "products/visit_image").iterdir()] == ["1_01.fits"]


def test_workspace_refuses_what_is_none_and_what_is_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nightjar init"):
        Workspace.open(tmp_path)
    (tmp_path / "nightjar.toml").touch()
    with pytest.raises(ConfigError, match="a workspace already"):
        Workspace.create(tmp_path)


def test_file_in_the_way_of_a_workspace_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        Workspace.create(tmp_path / "file" / "w")


def test_causes_follow_the_error_tree() -> None:
    assert cause_of(PsfError("no stars", stars=1)) == ("PSF_FAILED", "no stars [stars=1]")
    assert cause_of(FileFormatError("truncated", path="f"))[0] == "BAD_INPUT"
    assert cause_of(KeyError("x")) == ("INTERNAL", "KeyError: 'x'")
    assert cause_of(MemoryError())[0] == "OUT_OF_MEMORY"


def test_outcome_is_as_good_as_its_worst_stage() -> None:
    good = StageRecord(1, 1, "isr", DONE)
    bad = StageRecord(1, 1, "calibrate", FAILED, "PSF_FAILED")
    assert Outcome(Target(1, 1), [good]).status == DONE
    assert (
        Outcome(Target(1, 1), [good, bad, blocked(Target(1, 1), "x", "calibrate")]).trouble is bad
    )
    assert StageRecord(1, 1, "isr", DONE).row().keys() <= set(TABLES["unit"].names)


def test_costs_are_measured() -> None:
    with measuring() as cost:
        block = np.ones(8_000_000)
        total = float(block.sum())
    assert total == 8e6
    assert cost.cpu_s > 0
    assert cost.wall_s > 0
    assert cost.peak_rss_mib > 61
    assert cost.started_mjd_tai > 60000


def test_logs_carry_their_context_and_warnings(tmp_path: Path) -> None:
    with collecting(visit=7, detector=1) as log:
        log.context["stage"] = "isr"
        logging.getLogger("pipeline.isr").info("hello %d", 5)
        warnings.warn("beware", stacklevel=1)
        logging.getLogger("somebody.else").warning("not ours")
    with Logbook(tmp_path / "logs" / "x.jsonl", run="r1") as book:
        book.write(log.records)
        book.note("info", "end")
    lines = [json.loads(line) for line in (tmp_path / "logs" / "x.jsonl").read_text().splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "info"]
    assert lines[0]["message"] == "hello 5"
    assert all(line["run"] == "r1" for line in lines)
    assert {lines[0][k] for k in ("visit", "detector", "stage")} == {7, 1, "isr"}
    assert "beware" in lines[1]["message"]


def test_progress_counts_and_estimates() -> None:
    display = ProgressDisplay(None)
    display.start("difference", 4)
    assert display.eta() is None
    for status in ("cached", "done", "failed"):
        display.advance(status)
    assert display.summary() == "1 cached, 1 done, 1 failed"
    assert display.done == 3
    remaining = display.eta()
    assert remaining is not None
    assert remaining >= 0
