from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import pipeline.camera
from harness.cli import main as command
from harness.cli.main import VERBS, execute


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = [verb for verb in VERBS if find_spec(f"harness.cli.{verb}") is not None]
    assert len(verbs) > 12
    assert execute(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in verbs)
    for verb in verbs:
        assert execute([verb, "--help"]) == 0
        assert len(capsys.readouterr().out) > 200, verb


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from harness.cli.main import execute; execute(['--help']);"
        "heavy = {'numpy', 'astropy', 'duckdb', 'numba', 'pyarrow'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "No such command"),
        (["run"], "WORKSPACE"),
        (["run", "x", "--jobs", "0"], "greater than or equal to 1"),
        (["init", "{tmp}/a", "--profile", "tinny"], "did you mean tiny"),
        (["init", "{tmp}/a", "--profile", "tiny", "--camera", "decam"], "--camera does not go"),
        (["init", "{tmp}/a", "--camera", "kodak"], "unknown camera"),
        (["run", "{tmp}"], "not a workspace"),
        (["status", "{tmp}"], "not a workspace"),
        (["rerun", "{tmp}/x.fits"], "no such file; expected a product"),
        (["alerts", "check", "{tmp}/x.avro"], "x.avro"),
    ],
)
def test_wrong_command_lines_are_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert execute([a.format(tmp=tmp_path) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error


def test_our_own_bugs_exit_70_and_interruption_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(command, "build_app", broken)
    assert execute([]) == 70
    assert "internal error: ZeroDivisionError: oops" in capsys.readouterr().err

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "build_app", interrupted)
    assert execute([]) == 130


def test_empty_workspace_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "w")
    assert execute(["init", root]) == 0
    assert execute(["run", root]) == 2
    assert "nightjar ingest" in capsys.readouterr().err
    assert execute(["status", root]) == 0
    assert "not run yet" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), [(188, 0), (999, 0), (1000, 2)])
def test_camera_whose_detectors_do_not_fit_an_identifier_is_refused(
    number: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundled = Path(pipeline.camera.__file__).parent
    definition = (bundled / "testcam.toml").read_text().replace('"data/', f'"{tmp_path}/')
    (tmp_path / "large.toml").write_text(definition)
    for path in bundled.glob("data/testcam_*.csv"):
        text = re.sub(r"^2,|(?<=^1,[AB],)2,", f"{number},", path.read_text(), flags=re.M)
        (tmp_path / path.name).write_text(text)
    camera = str(tmp_path / "large.toml")
    assert execute(["init", str(tmp_path / "w"), "--camera", camera]) == code
    assert (tmp_path / "w").exists() == (code == 0)
    assert ("detector 1000 does not fit" in capsys.readouterr().err) == (code == 2)


def test_dates_of_a_selection() -> None:
    from harness.campaign.run import selection
    from pipeline.errors import ConfigError

    chosen = selection([5], None, "2015-02-17", "2015-02-17")
    assert chosen.until - chosen.since == pytest.approx(1.0)
    assert chosen.since == pytest.approx(57070.0 + 35.0 / 86400.0, abs=1e-6)
    assert selection(None, None, "57070.5", None).since == 57070.5
    with pytest.raises(ConfigError, match="not a date"):
        selection(None, None, "tomorrow", None)


def test_doctor_finds_this_machine_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor"]) == 0
    assert "numba works" in capsys.readouterr().out


RUN = "from harness.cli.main import main; main()"


@pytest.fixture
def empty(tmp_path: Path) -> str:
    assert execute(["init", str(tmp_path / "w")]) == 0
    return str(tmp_path / "w")


def test_output_that_nobody_reads_ends_the_command_quietly(empty: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "status", empty], stdout=nobody, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_on_a_full_device_is_one_line(empty: str, options: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "status", empty, *options], stdout=full,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "nightjar: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_streams_do_no_harm(empty: str, closed: str) -> None:
    for verb, code in (("status", 0), ("run -q", 2)):
        command = f"exec '{sys.executable}' -c '{RUN}' {verb} '{empty}' {closed}"
        assert subprocess.run(["sh", "-c", command], capture_output=True).returncode == code


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6, 1.2])
def test_interruption_while_importing_is_one_line(empty: str, delay: float) -> None:
    program = """
from harness.cli import main as module

begin = module._replace_closed_streams  # the first step after Ctrl-C is heeded
module._replace_closed_streams = lambda: (print("on", flush=True), begin())
module.main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, "run", "-n", empty],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert process.returncode in (130, 2)  # 2 where it was done already: there is nothing to run
    assert len(error.splitlines()) == 1, error
    assert "interrupted" in error or process.returncode == 2


def test_handlers_of_libraries_run_before_the_command_leaves() -> None:
    program = """
import atexit
from harness.cli import main as module

def execute(arguments):
    atexit.register(print, "handler")
    return 3

module.execute = execute
module.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "handler\n", "")
