"""A command that says the same for the same code is run once; anything else runs it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.verify.bounds import Bound
from harness.verify.context import Context
from harness.verify.evidence import keep_run, kept_run
from harness.verify.kinds.command import Command

BOUND = Bound.parse("= 0 unmet")


def counting(tmp_path: Path, status: int = 0) -> tuple[Command, Callable[[], int]]:
    """A command that counts how often it was run, and says Ok."""
    script, runs = tmp_path / "script.py", tmp_path / "runs"
    script.write_text(
        f"import sys\nopen({str(runs)!r}, 'a').write('x')\nprint('Ok.')\nsys.exit({status})\n"
    )
    command = Command.model_construct(run=f"python {script}", once="counting", stdout=[r"^Ok\.$"])
    return command, lambda: len(runs.read_text())


@pytest.fixture
def fresh(context: Context, tmp_path: Path) -> Callable[[], Context]:
    """Contexts of judgements that follow one another."""

    def make() -> Context:
        return Context(context.space, evidence_folder=tmp_path / "evidence")

    return make


def measured(command: Command, context: Context) -> float:
    try:
        return command.measure(context, BOUND).value
    finally:
        while context.endings:
            context.endings.pop()()


def test_a_good_run_stands_for_the_next(fresh: Callable[[], Context], tmp_path: Path):
    command, runs = counting(tmp_path)
    assert [measured(command, fresh()) for _ in range(3)] == [0, 0, 0]
    assert runs() == 1


def test_a_bad_run_is_made_again(fresh: Callable[[], Context], tmp_path: Path):
    command, runs = counting(tmp_path, status=1)
    assert [measured(command, fresh()) for _ in range(2)] == [1, 1]
    assert runs() == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: {**r, "tree": "0" * 64},
        lambda r: {**r, "result": {**r["result"], "packages": "0"}},
        lambda r: {**r, "machine": {**r["machine"], "host": "elsewhere"}},
        lambda r: {**r, "command": "python other.py"},
        lambda r: [],
    ],
)
@pytest.mark.parametrize("honest", [True, False])
def test_a_record_of_other_code_packages_or_machines_does_not_count(
    tmp_path: Path, spoil: Callable[[dict[str, object]], object], honest: bool
):
    from harness.verify import evidence

    keep_run("k", "python a.py", "Ok.\n", 1.5, tmp_path)
    assert kept_run("k", "python a.py", tmp_path) is not None
    path = tmp_path / "k.json"
    record = spoil(json.loads(path.read_text()))
    if honest and isinstance(record, dict):  # sealed anew by who knows how
        record["sha256"] = evidence._seal(record)
    path.write_text(json.dumps(record))
    assert kept_run("k", "python a.py", tmp_path) is None


def test_an_edited_log_does_not_count(tmp_path: Path):
    keep_run("k", "python a.py", "Ok.\n", 1.5, tmp_path)
    log = tmp_path / "k.log"
    log.write_bytes(log.read_bytes().replace(b"Ok.", b"No."))
    assert kept_run("k", "python a.py", tmp_path) is None


def test_the_demonstration_itself_is_always_examined(
    fresh: Callable[[], Context], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command, runs = counting(tmp_path)
    monkeypatch.setattr("harness.verify.kinds.command.is_demo", lambda root: True)
    assert [measured(command, fresh()) for _ in range(2)] == [0, 0]
    assert runs() == 2
    assert not (tmp_path / "evidence").exists()
