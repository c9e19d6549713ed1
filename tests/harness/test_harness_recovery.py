"""Kills and faults: the next run ends with the bytes and rows of an undisturbed one."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.campaign.faults import KINDS, VARIABLE, planted
from harness.catalog import Catalog
from harness.cli.main import execute
from pipeline.atomic import atomic_path
from pipeline.errors import WriteError
from tests.harness.family import children

Contents = Callable[[Path], dict[str, str]]
KILLS = 50 if os.environ.get("NIGHTJAR_SOAK") else 5
FULL_DISK = r"nightjar: \S+: cannot be written: File too large \((larger|make room).*\)\n"
MADE = ("products/*/*.fits", "staging/*/*.parquet", "alerts/*.avro")


@pytest.fixture
def copy(campaign: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(campaign, tmp_path / "tiny"))


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A place for temporary files whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def start(root: Path, scratch: Path, *options: str, fault: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness.cli.main", "run", str(root), "-j", "2", *options]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "4")  # changes nothing
    environment = {**os.environ, **threads, "TMPDIR": str(scratch), VARIABLE: fault}
    return subprocess.Popen(
        command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    )


def forget(root: Path, *names: str) -> None:
    for name in names:
        target = root / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()


def files(root: Path) -> int:
    return sum(len(list(root.glob(pattern))) for pattern in MADE)


def wait_for(process: subprocess.Popen[bytes], root: Path, number: int) -> None:
    """Until so many files are there, or the process has ended."""
    deadline = time.monotonic() + 600
    while files(root) < number and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def kill_a_worker(process: subprocess.Popen[bytes], rng: random.Random) -> bool:
    """Kill a process that the server of the pools has forked, if there is one."""
    workers = sorted(w for server in children(process.pid) for w in children(server))
    with suppress(ProcessLookupError):
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            return True
    return False


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_killed_runs_end_with_the_same_bytes_and_rows(
    copy: Path, scratch: Path, contents: Contents
) -> None:
    before, whole, rng = contents(copy), files(copy), random.Random(7)
    moments = sorted(rng.randrange(1, whole) for _ in range(KILLS))
    ways = [signal.SIGKILL] * (KILLS - 1) + [signal.SIGINT]
    forget(copy, "catalog.duckdb", "products", "staging", "alerts")
    killed = 0
    for number, how in zip(moments, ways, strict=True):
        process = start(copy, scratch)
        wait_for(process, copy, max(number - 2, files(copy) + 1))
        killed += kill_a_worker(process, rng)
        wait_for(process, copy, number)
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(how)
        assert process.wait(120) in (130 if how == signal.SIGINT else -how, 0)
    assert killed >= KILLS // 2
    assert start(copy, scratch).wait(600) == 0
    assert contents(copy) == before
    assert not list(copy.rglob("*.part"))
    assert not list(scratch.iterdir())


@pytest.mark.slow
def test_faults_cost_their_unit_and_the_next_run_mends_it(
    copy: Path, scratch: Path, contents: Contents
) -> None:
    before = contents(copy)
    causes = {"raise": "INTERNAL", "kill": "WORKER_DIED", "hang": "TIMEOUT", "disk": "WRITE_FAILED",
              "memory": "OUT_OF_MEMORY", "garbage": "IO_FAILED"}  # fmt: skip
    assert causes.keys() == KINDS.keys()
    units = sorted(path.stem for path in copy.glob("products/difference/*.fits"))
    hit = dict(zip(causes, units, strict=False))
    assert len(units) > len(hit) == len(causes)
    forget(copy, "products/difference")
    fault = ",".join(f"diasource:{kind}:{unit}" for kind, unit in hit.items())
    assert (
        start(copy, scratch, "--set", "execution.unit_time_limit=30", fault=fault).wait(600) == 70
    )
    with Catalog(copy / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.rows(
            """SELECT visit, detector, cause, message FROM unit
            WHERE status = 'failed' AND stage IN ('subtract', 'diasource')"""
        )
        done = catalog.value("SELECT count(*) FROM unit WHERE stage = 'alerts' AND status = 'done'")
    found = {f"{r['visit']}_{r['detector']:02d}": r["cause"] for r in rows}
    assert found == {unit: causes[kind] for kind, unit in hit.items()}, rows
    assert done == len(units) - len(hit)
    assert start(copy, scratch).wait(600) == 0
    assert contents(copy) == before
    assert not list(scratch.iterdir())


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    copy: Path, scratch: Path, contents: Contents
) -> None:
    before = contents(copy)
    forget(copy, "alerts")
    program = (
        "import resource, sys\nfrom harness.cli.main import execute\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))\n"
        "sys.exit(execute(['run', sys.argv[2], '-q', '-j', '1']))"
    )
    for room in (0, 10_000, 300_000):
        command = [sys.executable, "-c", program, str(room), str(copy)]
        environment = {**os.environ, "TMPDIR": str(scratch)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode in (1, 2), done
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode == 2:
            assert re.fullmatch(FULL_DISK, done.stderr), done.stderr
    assert start(copy, scratch).wait(600) == 0
    assert contents(copy) == before


def test_faults_are_those_of_the_system_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "product"
    monkeypatch.setenv(VARIABLE, "isr:raise:1_01,isr:disk:1_02,isr:memory:1_03,isr:garbage:1_04")
    with pytest.raises(RuntimeError, match="planted"), planted("isr", "1_01", [path]):
        pass
    with (
        pytest.raises(WriteError, match="ulimit"),
        planted("isr", "1_02", [path]),
        atomic_path(path) as partial,
    ):
        partial.write_text("whole")
    with pytest.raises(MemoryError), planted("isr", "1_03", [path]):
        np.ones(1 << 24)
    for unit, text in (("1_04", "\0" * 5), ("1_05", "whole")):
        with planted("isr", unit, [path]), atomic_path(path) as partial:
            partial.write_text("whole")
        assert path.read_text() == text
    assert np.ones(1 << 24).nbytes == 1 << 27


def test_unknown_faults_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["init", str(tmp_path / "w")]) == 0
    monkeypatch.setenv(VARIABLE, "isr:explode")
    assert execute(["run", str(tmp_path / "w")]) == 2
    assert "NIGHTJAR_FAULT: unknown fault 'isr:explode'" in capsys.readouterr().err


WRITES = ("INSERT", "UPDATE", "DELETE")


class Watched:
    """Copies of the catalogue's files at statements of a run: what a kill there leaves behind."""

    def __init__(self, catalog: Path, folder: Path) -> None:
        self.catalog, self.folder = catalog, folder
        self.pairs: dict[str, tuple[Path, Path]] = {}
        self.outside: list[str] = []
        self._begun: Path | None = None
        self._copies = 0

    def before(self, sql: str) -> None:
        word = sql.split(maxsplit=1)[0].upper()
        if word in WRITES and self._begun is None:
            self.outside.append(sql)
        if word in ("COMMIT", "ROLLBACK"):
            self._begun = None

    def after(self, sql: str) -> None:
        """Once per statement, however often it is given; targets stand in its parameters."""
        word = sql.split(maxsplit=1)[0].upper()
        if word == "BEGIN":
            self._begun = self._copied()
        elif word in WRITES and sql not in self.pairs and self._begun is not None:
            self.pairs[sql] = (self._begun, self._copied())

    def _copied(self) -> Path:
        self._copies += 1
        target = self.folder / str(self._copies)
        target.mkdir()
        for path in self.catalog.parent.glob(f"{self.catalog.name}*"):
            shutil.copy(path, target)
        return target


def rows_of(folder: Path) -> dict[str, Any]:
    """Number of rows and a hash of them, whatever their order, by table."""
    with Catalog(folder / "catalog.duckdb") as catalog:
        names = [row[0] for row in catalog.fetch("SELECT table_name FROM duckdb_tables()")]
        return {
            name: catalog.fetch(f'SELECT count(*), bit_xor(hash(t)) FROM "{name}" t')[0]
            for name in names
        }


def test_a_kill_between_any_two_statements_leaves_the_tables_of_the_last_transaction(
    copy: Path, tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Association, forced photometry and alerts, made again in this process."""
    expected = contents(copy)
    with Catalog(copy / "catalog.duckdb") as catalog:
        catalog.fetch("DELETE FROM unit WHERE stage IN ('diaobject', 'forced', 'alerts')")
    watched, run = Watched(copy / "catalog.duckdb", tmp_path), Catalog._run

    def spied(self: Catalog, sql: str, parameters: Sequence[object] = ()) -> Any:
        if self.path != watched.catalog:
            return run(self, sql, parameters)
        watched.before(sql)
        found = run(self, sql, parameters)
        watched.after(sql)
        return found

    monkeypatch.setattr(Catalog, "_run", spied)
    assert execute(["run", str(copy), "-q", "--set", "execution.executor=serial"]) == 0
    monkeypatch.undo()
    assert contents(copy) == expected
    assert not watched.outside
    written = " ".join(watched.pairs)
    for table in ("DiaSource", "DiaObject", "DiaObjectHistory", "DiaForcedSource", "alert", "unit"):
        assert f'"{table}"' in written, table
    begun = {before: rows_of(before) for before, _ in watched.pairs.values()}
    for sql, (before, image) in watched.pairs.items():
        assert rows_of(image) == begun[before], sql
