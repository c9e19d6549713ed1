"""Files that land are processed as they come, whatever ends the watch."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from astropy.io import fits

from harness.alerts.entries import alert_files, read_alerts
from harness.catalog import Catalog
from harness.cli.main import execute
from harness.ingest.watch import Inbox, watch
from harness.workspace import Workspace
from pipeline import io
from tests.harness.kafka import available, mock_cluster

_DETECTOR = "N1"


def test_a_file_has_landed_when_it_does_not_change_any_more(tmp_path: Path) -> None:
    inbox, path = Inbox(tmp_path), tmp_path / "a.fits"
    path.write_bytes(b"1")
    (tmp_path / ".b.fits").write_bytes(b"1")
    (tmp_path / "c.fits.tmp").write_bytes(b"1")
    (tmp_path / "d.fits").mkdir()
    assert inbox.landed() == []
    path.write_bytes(b"12")
    assert inbox.landed() == []
    assert inbox.landed() == [path]
    assert inbox.landed() == []
    path.write_bytes(b"123")  # another file of that name
    assert inbox.landed() == []
    assert inbox.landed() == [path]
    path.unlink()
    assert inbox.landed() == []


def test_an_inbox_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["init", str(tmp_path / "w"), "--camera", "generic"]) == 0
    assert execute(["watch", str(tmp_path / "w"), str(tmp_path / "inbox"), "--once"]) == 2
    error = capsys.readouterr().err
    assert "inbox" in error
    assert len(error.splitlines()) == 1


def _one_detector(source: Path, target: Path) -> None:
    """Copy a raw file with one of its detectors, under its name only when complete."""
    with fits.open(source, disable_image_compression=True) as hdus:
        kept = [hdus[0], *(h for h in hdus[1:] if h.header.get("EXTNAME") == _DETECTOR)]
        assert len(kept) == 2
        fits.HDUList(kept).writeto(target.with_suffix(".tmp"))
    target.with_suffix(".tmp").rename(target)


@pytest.fixture(scope="module")
def live(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A workspace with exposures for templates, and the files that are still to come."""
    root = tmp_path_factory.mktemp("live")
    space, night = root / "w", root / "night"
    night.mkdir()
    shutil.copytree(simulated, space, ignore=shutil.ignore_patterns("raw", "truth", "products",
                    "staging", "alerts", "logs", "reports", "catalog*", "spec*"))  # fmt: skip
    config = space / "nightjar.toml"
    config.write_text(config.read_text().replace('profile = "tiny"', 'profile = ""'))
    rows = io.read_parquet(simulated / "raw" / "exposures.parquet").to_pylist()
    rows.sort(key=lambda row: row["midpointMjdTai"])
    (space / "raw").mkdir()
    for row in rows:
        _one_detector(simulated / row["file"], night / Path(row["file"]).name)
    files = [night / Path(row["file"]).name for row in rows]
    first = [str(f) for f, row in zip(files, rows, strict=True) if row["role"] == "template"]
    assert execute(["ingest", str(space), *first, "--role", "template"]) == 0
    return space, [f for f in files if str(f) not in first][:2]


def _alerts(space: Path) -> list[int]:
    return sorted(p["diaSourceId"] for p in read_alerts(alert_files([space])))


@pytest.mark.slow
def test_visits_are_processed_as_they_land_and_a_kill_loses_and_doubles_nothing(
    live: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    space, (first, second) = live
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "broken.fits").write_bytes(b"SIMPLE  =")
    shutil.copy(first, inbox / first.name)
    steps = list(watch(Workspace(space), inbox, jobs=1, every_s=0.0, once=True))
    visit = int(first.name.split(".")[0])
    assert [step.visits for step in steps] == [(visit,)]
    assert len(steps[0].problems) == 1
    assert "broken.fits" in steps[0].problems[0]
    before = {p: p.stat().st_mtime_ns for p in space.rglob("products/**/*.fits")}
    assert _alerts(space)
    (inbox / "broken.fits").unlink()

    shutil.copy(second, inbox / second.name)
    words = [sys.executable, "-m", "harness.cli.main", "watch", str(space), str(inbox), "--once",
             "--every", "0.1", "-j", "1"]  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(words, stdout=stream, stderr=stream, start_new_session=True)
        deadline = time.monotonic() + 300
        number = second.name.split(".")[0]
        while not list(space.glob(f"products/visit_image/{number}_*.fits")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert execute(words[3:]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before  # nothing done twice
    numbers = _alerts(space)
    assert len(numbers) == len(set(numbers))
    with Catalog(space / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.fetch("SELECT diaSourceId FROM alert WHERE emitted ORDER BY 1")
        visits = {row[0] for row in catalog.fetch("SELECT DISTINCT visit FROM alert")}
    assert [row[0] for row in rows] == numbers
    assert visits == {visit, int(number)}
    if available():
        with mock_cluster() as broker:
            publish = ["--topic", "t", "--schema-id", "1", "--broker", broker.servers]
            assert execute([*words[3:], *publish]) == 0
        with Catalog(space / "catalog.duckdb", read_only=True) as catalog:
            sent = catalog.fetch("SELECT diaSourceId FROM alert_delivery ORDER BY 1")
        assert [row[0] for row in sent] == numbers
