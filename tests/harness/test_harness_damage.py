"""Damaged inputs: the unit fails with its cause in one line, and the rest goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.campaign.context import Context
from harness.campaign.frames import load_frames
from harness.campaign.state import RunState
from harness.campaign.task import WorkItem
from harness.catalog import Catalog
from harness.cli.main import execute
from harness.plan import Selection
from harness.settings import Settings
from harness.tasks import visit_image
from harness.workspace import Workspace
from pipeline import io
from pipeline.camera import Camera
from pipeline.errors import FileFormatError

VISIT = 411420


@pytest.fixture
def copy(campaign: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(campaign, tmp_path / "tiny"))


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def bit_flipped(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def card(before: bytes, after: bytes) -> Callable[[bytes], bytes]:
    def replaced(data: bytes) -> bytes:
        assert before in data
        return data.replace(before, after.ljust(len(before)), 1)

    return replaced


DAMAGES = {
    "truncated": (truncated, "truncated"),
    "bit flip": (bit_flipped, "DATASUM"),
    "LFS pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "web page": (lambda _: b"<!DOCTYPE html><html>404</html>", "web page"),
    "empty": (lambda _: b"", "not FITS"),
    "lost detector": (card(b"CCDNUM  =                    2", b"XXXXX   =  2"), "no detector 2"),
    "blank detector": (card(b"CCDNUM  =                    2", b"CCDNUM  = "), "no detector 2"),
    "another exposure": (card(b"= %20d" % VISIT, b"= %20d" % 7), "visit 7"),
    "broken card": (card(b"= %20d" % VISIT, b"= 'unterminated"), "EXPNUM"),
    "axes": (card(b"NAXIS   =                    2", b"NAXIS   =                  999"), ""),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_units_of_a_damaged_file_fail_with_one_line(
    simulated: Path, name: str, tmp_path: Path
) -> None:
    space = Workspace(tmp_path)
    for folder in ("raw", "calib", "refcat"):
        shutil.copytree(simulated / folder, tmp_path / folder)
    damage, words = DAMAGES[name]
    raw = tmp_path / "raw" / f"{VISIT}.fits.fz"
    raw.write_bytes(damage(raw.read_bytes()))
    outcomes = [item.perform() for item in planned(space, VISIT)]
    assert [o.target for o in outcomes] == [(VISIT, 1, None), (VISIT, 2, None)]
    messages = []
    for outcome in outcomes:
        first, second = outcome.stages
        assert (first.stage, first.status, first.cause) == ("isr", "failed", "BAD_INPUT")
        assert second.status == "blocked"
        messages.append(str(first.message))
    assert any(words in text for text in messages)
    assert all("\n" not in text and raw.name in text for text in messages)


def planned(space: Workspace, visit: int) -> list[WorkItem]:
    settings = Settings(campaign={"camera": "testcam"})  # type: ignore[arg-type]
    with Catalog(Path(":memory:")) as catalog:
        state = RunState(space, settings, catalog, "")
        chosen = Selection(visits=frozenset({visit}))
        context = Context(state, chosen, {}, performing=False)
        items = [i for phase in visit_image.TASK.phases(context) for i in phase.items]
    return [i for i in items if isinstance(i, WorkItem) and i.target.visit == visit]


def test_one_bad_file_stops_nothing_and_is_taken_up_when_it_is_whole(copy: Path) -> None:
    raw = copy / "raw" / f"{VISIT}.fits.fz"
    whole = raw.read_bytes()
    raw.write_bytes(bit_flipped(whole))
    for _ in range(2):  # the second time nothing is tried that failed for a known cause
        assert execute(["run", str(copy), "-q", "-j", "1"]) == 1
    with Catalog(copy / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.rows("SELECT * FROM unit WHERE status = 'failed'")
        assert {(r["visit"], r["detector"]) for r in rows} == {(VISIT, 1), (VISIT, 2)}
        assert {(r["stage"], r["cause"]) for r in rows} == {("isr", "BAD_INPUT")}
        assert catalog.value("SELECT count(*) FROM visit_image") == 12
    raw.write_bytes(whole)
    assert execute(["run", str(copy), "-q", "-j", "1"]) == 0


def test_lost_detectors_are_still_promised(copy: Path) -> None:
    space, camera = Workspace.open(copy), Camera.load("testcam")
    before, _ = load_frames(space, camera)
    for path in (copy / "raw").glob("*.fits.fz"):
        path.unlink()
    assert load_frames(space, camera) == (before, [])
    assert len(before) == 14
    assert all(len(frame.sha256) == 64 for frame in before)


def test_sum_of_the_data_is_verified(simulated: Path, tmp_path: Path) -> None:
    path, camera = tmp_path / "raw.fits.fz", Camera.load("testcam")
    data = (simulated / "raw" / f"{VISIT}.fits.fz").read_bytes()
    path.write_bytes(data)
    assert io.read_raw(path, camera, 1).data.shape == camera.detector(1).raw_shape
    path.write_bytes(bit_flipped(data))
    with pytest.raises(FileFormatError, match="DATASUM"):
        [io.read_raw(path, camera, number) for number in (1, 2)]
