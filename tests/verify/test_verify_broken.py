"""A broken campaign is judged, and the judgement ends: always a report, always an exit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import execute
from harness.report.judge import judge_workspace
from harness.report.sheets import contact_sheets
from harness.system.processes import running_pool
from harness.verify.context import Context
from harness.verify.kinds.command import Command
from harness.verify.loader import load_spec
from harness.verify.paths import TESTCASES
from harness.verify.sampling import Request, measure_images
from harness.workspace import Workspace

_CASE = """\
schema: 1
id: AG-00-10
title: Visit images
version: 1.0.0
derived_from: {document: d, version: "1", section: s}
purpose: To be judged.
items:
  - id: images
    text: Images.
    requirements: [DMS-REQ-0069]
    checks:
      - id: noise
        text: Noise over that of the variance plane.
        image: {metric: noise_ratio}
        bound: "0.9 .. 1.1"
      - id: look
        text: Is the sky flat?
        inspect: {question: Is it?, product: visit_image, sheet: sky, seed: 1,
          proxy: AG-00-10/images/noise}
"""
_REQUIREMENTS = """\
schema: 1
requirements:
  - {id: DMS-REQ-0069, title: t, text: t, source: s, priority: "1a"}
"""


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A specification with one metric of images and one contact sheet."""
    folder = tmp_path / "cases"
    shutil.copytree(TESTCASES, folder, ignore=shutil.ignore_patterns("ag-*.yaml"))
    (folder / "ag-00-10.yaml").write_text(_CASE)
    (folder / "requirements.yaml").write_text(_REQUIREMENTS)
    return folder


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize("spoil", [_cut, Path.unlink])
def test_a_broken_product_ends_in_a_report(
    space: Workspace, cases: Path, spoil: Callable[[Path], Any]
) -> None:
    for visit in (1, 2):
        spoil(space.visit_image(visit, 1))

    done = judge_workspace(space.root, testcases=cases, jobs=1)

    assert done.report["exit_code"] == 1
    assert done.report["verdict"] in ("fail", "error")
    assert done.path is not None
    assert done.path.is_file()


def test_a_figure_of_a_broken_product_says_what_is_wrong(
    space: Workspace, cases: Path, context: Context
) -> None:
    _cut(space.visit_image(1, 1))

    sheets = contact_sheets(load_spec(cases), context, space.root / "figures" / "evidence")
    context.close()
    report = judge_workspace(space.root, testcases=cases, jobs=1)

    broken, sound = sheets["AG-00-10/images/look"]
    assert "1_01.fits" in broken["missing"]
    assert "path" in sound
    assert report.path is not None
    html = report.path.read_text()
    assert html.count('class="missing"') == 1
    assert "cannot be drawn" in html


def test_a_damaged_table_beside_the_catalogue_is_no_reason_not_to_judge(
    space: Workspace, cases: Path
) -> None:
    (space.root / "truth").mkdir()
    (space.root / "truth" / "visits.parquet").write_bytes(b"PAR1 no more")

    assert judge_workspace(space.root, testcases=cases, jobs=1).path is not None


@pytest.mark.parametrize("name", ["sabotage.json", "simulation.json", "latest/report.json"])
def test_broken_records_of_earlier_reports_are_no_obstacle(
    space: Workspace, cases: Path, name: str
) -> None:
    earlier = space.root / "reports" / "camp-001"
    earlier.mkdir(parents=True)
    (earlier.parent / "latest").symlink_to(earlier.name)
    (earlier.parent / name).write_text("{")

    assert judge_workspace(space.root, testcases=cases, jobs=1).report["exit_code"] in (0, 4)


@pytest.fixture
def unwritable(space: Workspace) -> Workspace:
    """A workspace whose reports cannot be written, not even by root."""
    shutil.rmtree(space.root / "reports")
    (space.root / "reports").touch()
    return space


def test_a_report_that_cannot_be_written_is_one_line(
    unwritable: Workspace, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = execute(["verify", str(unwritable.root), "--testcases", str(cases), "-q"])

    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    assert "--output" in line


def test_the_report_of_a_workspace_that_is_only_read_goes_elsewhere(
    unwritable: Workspace, cases: Path, tmp_path: Path
) -> None:
    done = judge_workspace(unwritable.root, testcases=cases, jobs=1, output=tmp_path / "out")

    assert done.path == tmp_path / "out" / "camp-001" / "report.html"
    assert (tmp_path / "out" / "latest" / "report.json").is_file()


def test_a_process_that_dies_is_a_finding(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.verify.sampling._measure_unit", _die)
    context.jobs = 2
    request = Request.of("noise_ratio", {})

    outcomes = measure_images(context, [request])[request]
    context.close()

    assert set(outcomes.values()) == {"a process died that measured images"}


def _die(job: Any) -> Any:
    os._exit(1)


def test_closing_ends_what_is_under_way(context: Context) -> None:
    slow = Command.model_construct(run="sleep 60")
    slow.start(context)
    line = context.memory["line"]
    while line._running is None:
        time.sleep(0.01)
    context.close()

    assert line._running.wait(timeout=10) == -signal.SIGKILL


def test_a_pool_ends_at_once_after_an_exception() -> None:
    sleeping = []

    def leave() -> None:
        with running_pool(2) as pool:
            sleeping.extend(pool.submit(time.sleep, 600) for _ in range(4))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()

    assert all(future.exception(timeout=60) for future in sleeping if not future.cancelled())


_INTERRUPTED = """
import sys
from harness.cli.main import main
from harness.verify import sampling

if __name__ == "__main__":
    import time
    import harness.report.judge as judge
    def start(context, requests, pictures):
        pool = sampling._pool(2)
        context.memory["pools"] = [pool]
        context.endings.append(lambda: sampling.end_pool(pool))
        for _ in range(4):
            pool.submit(time.sleep, 600)
        print("measuring", flush=True)
        pool.submit(time.sleep, 600).result()
    judge.start_measuring = start
    main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_judgement_ends(
    space: Workspace, cases: Path, tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "verify.py"
    script.write_text(_INTERRUPTED)
    command = [sys.executable, str(script), "verify", str(space.root), "--testcases", str(cases)]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": root}, preexec_fn=_heed,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "measuring\n"
        process.send_signal(number)
        process.communicate(timeout=120)

    assert process.returncode == 128 + number


def _heed() -> None:
    """Undo that a shell's background job ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
