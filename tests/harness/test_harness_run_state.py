from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from harness.campaign.store import learn_files
from harness.catalog import Catalog
from harness.cli.main import execute
from harness.ledger import DONE, FAILED, Outcome, StageRecord, Target, blocked, cause_of, measuring
from harness.system.hashes import Hashes, combine, table_hash
from harness.system.log import Logbook, collecting
from harness.system.progress import ProgressDisplay
from harness.workspace import Workspace, atomic
from pipeline import io
from pipeline.errors import (
    ConfigError,
    FileFormatError,
    InputError,
    PsfError,
    StorageError,
    WriteError,
)
from pipeline.schema import TABLES

MEMORY = Path("/proc/self/mem")


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


def test_a_file_is_not_read_for_a_hash_that_its_writer_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, outcome = tmp_path / "product", Outcome(Target(1, 1))
    path.write_bytes(b"product")
    outcome.wrote(path)
    state = SimpleNamespace(hashes=Hashes(tmp_path / "hashes.json"))
    learn_files(state, outcome)
    state.hashes.save()
    monkeypatch.setattr("harness.system.hashes.file_hash", lambda _: "read")
    (tmp_path / "link").symlink_to(tmp_path)  # another way to the same folder
    again = Hashes(tmp_path / "hashes.json")
    assert again.of(tmp_path / "link" / "product") == hashlib.sha256(b"product").hexdigest()


def test_what_changes_a_file_after_its_writer_took_the_hash_is_seen(tmp_path: Path) -> None:
    path, outcome = tmp_path / "product", Outcome(Target(1, 1))
    path.write_bytes(b"product")
    outcome.wrote(path)
    path.write_bytes(b"garbage and more")
    state = SimpleNamespace(hashes=Hashes(tmp_path / "hashes.json"))
    learn_files(state, outcome)
    assert state.hashes.of(path) == hashlib.sha256(b"garbage and more").hexdigest()


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


def test_nothing_is_swept_while_another_command_is_at_work(tmp_path: Path) -> None:
    space = Workspace.create(tmp_path / "w")
    half = space.root / "products/visit_image/.1_01.fits.77.part"
    with space.changing("run"):
        half.touch()
        with pytest.raises(ConfigError, match="in use by nightjar run"), space.changing("sim"):
            pass
        assert half.exists()
    with space.changing("sim"):
        assert not half.exists()


_FILL = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from harness.catalog import Catalog
from pipeline.errors import WriteError

path, room, checkpoints = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
rows = pa.table({"a": pa.array(range(10000)), "b": pa.array([x * x / 7 for x in range(10000)])})
done = 0
try:
    with Catalog(path) as catalog:
        catalog.fetch("CREATE TABLE filler (a BIGINT, b DOUBLE)")
        catalog.checkpoint()
        most = path.stat().st_size + room if checkpoints else room
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        while done < 1000:
            with catalog.transaction():
                catalog.insert("filler", rows)
            done += 1
            if checkpoints:
                catalog.checkpoint()
except WriteError as err:
    print(f"{done}|{err}")
"""


@pytest.mark.parametrize(("room", "checkpoints"), [(50_000, False), (500_000, True)])
def test_a_full_disk_costs_the_transaction_and_nothing_else(
    room: int, checkpoints: bool, tmp_path: Path
) -> None:
    path = tmp_path / "c.duckdb"
    command = [sys.executable, "-c", _FILL, str(path), str(room), str(checkpoints)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done, _, line = said.strip().partition("|")

    assert line.startswith(f"{path}: cannot be written: File too large (make room")
    with Catalog(path) as catalog:
        # What a checkpoint could not fold in is in the log, and counts.
        assert catalog.count("filler") == 10000 * int(done)
        catalog.insert("filler", pa.table({"a": [1], "b": [0.5]}))
        catalog.checkpoint()


def test_a_full_disk_is_said_when_the_catalogue_is_made(tmp_path: Path) -> None:
    program = _FILL.partition("rows =")[0] + (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))\n"
        "try:\n    Catalog(path)\nexcept WriteError as err:\n    print(err)\n"
    )
    path = tmp_path / "c.duckdb"
    for room in (0, 20_000):
        command = [sys.executable, "-c", program, str(path), str(room), "False"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout.startswith(f"{path}: cannot be written: File too large"), done
    with Catalog(path) as catalog:
        assert catalog.count("unit") == 0


def test_readers_go_together_and_not_with_what_changes(tmp_path: Path) -> None:
    space = Workspace.create(tmp_path / "w")
    half = space.root / "products/visit_image/.1_01.fits.77.part"
    with space.reading("verify"), space.reading("study"):
        half.touch()
        message = r"is being read by another command.*wait for nightjar verify, study"
        with pytest.raises(ConfigError, match=message), space.changing("run"):
            pass
        assert half.exists()
    message = r"in use by nightjar run \(process \d+\) \(nightjar verify needs it as it is"
    with (
        space.changing("run"),
        pytest.raises(ConfigError, match=message),
        space.reading("verify"),
    ):
        pass
    assert not half.exists()


@pytest.mark.parametrize(
    "words", [["verify", "{w}"], ["study", "{w}"], ["rerun", "{w}/products/visit_image/1_01.fits"]]
)
def test_commands_that_read_wait_for_a_run(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = Workspace.create(tmp_path / "w")
    assert execute(["init", str(tmp_path / "v")]) == 0
    shutil.copy(tmp_path / "v" / "nightjar.toml", space.config)
    fits.HDUList([fits.PrimaryHDU()]).writeto(space.visit_image(1, 1))
    with space.changing("run"):
        assert execute([word.format(w=space.root) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{space.root}: is in use by nightjar run (process {os.getpid()})" in line


def test_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    space = Workspace.create(tmp_path / "w")
    program = "import os, sys, pathlib\nfrom harness.workspace import Workspace\n" + (
        "with Workspace(pathlib.Path(sys.argv[1])).changing('run'): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(space.root)])
    assert done.returncode == -9
    with space.changing("run"):
        assert f"process {os.getpid()}" in (space.root / ".lock").read_text()


def test_temporary_folders_of_killed_processes_go_with_the_next(tmp_path: Path) -> None:
    program = "import os, tempfile\nfrom harness.system.scratch import adopt_folder\n" + (
        "adopt_folder()\nprint(tempfile.mkdtemp(), flush=True)\nos.kill(os.getpid(), int({}))"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        for number, left in ((signal.SIGKILL, 1), (0, 0)):
            code = program.format(int(number))
            environment = {**os.environ, "TMPDIR": short}
            made = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True
            ).stdout.strip()
            assert Path(made).is_relative_to(short)
            assert Path(made).parent.parent == Path(short)
            assert len(list(Path(short).iterdir())) == left
            code = "from harness.system import scratch\nwith scratch.scratch_folder():\n"
            code += "    print(scratch.sweep_scratch())"
            swept = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True
            )
            assert swept.stdout.strip() == str(left), swept.stderr
            assert not list(Path(short).iterdir())


def test_rows_have_one_hash_whenever_they_were_made(tmp_path: Path) -> None:
    hashes, paths = Hashes(tmp_path / "hashes.json"), [tmp_path / "a", tmp_path / "b"]
    for path, time in zip(paths, (1.0, 2.0), strict=True):
        io.write_parquet(path, pa.table({"x": [1], "timeProcessedMjdTai": [time]}))
    assert len({hashes.of(p) for p in paths}) == 2
    assert len({hashes.of_rows(p) for p in paths}) == 1
    paths[0].write_bytes(b"PAR1")
    assert hashes.of_rows(paths[0]) == "unreadable"
    assert hashes.of_rows(tmp_path / "c") == "absent"


def test_hashing_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert Hashes(tmp_path / "hashes.json").of(tmp_path / "pipe") == "unreadable"
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 40)
    assert Hashes(tmp_path / "hashes.json").of(tmp_path / "hole") == "unreadable"


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


def test_failures_of_the_disk_are_no_bad_input(tmp_path: Path) -> None:
    full = WriteError("cannot be written: No space left on device", path="f")
    assert cause_of(full)[0] == "WRITE_FAILED"
    assert cause_of(OSError(errno.EIO, "Input/output error"))[0] == "IO_FAILED"
    # Reading the memory of a process at zero is an error of the device, EIO.
    with pytest.raises(StorageError, match="mem: cannot be read") as err, io.open_fits(MEMORY):
        pass
    assert cause_of(err.value)[0] == "IO_FAILED"


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
