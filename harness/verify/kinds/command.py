"""Checks of commands: run now, or recorded earlier by ``python -m harness.verify.evidence``."""

from __future__ import annotations

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from harness.system.software import tree_hash
from harness.verify.demo import is_demo
from harness.verify.evidence import fault_of, keep_run, kept_run
from harness.verify.kind import Kind, Pattern
from harness.verify.measurement import Evidence, Measurement, NotRun

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["COMMANDS", "Command"]

COMMANDS = (
    "nightjar doctor",
    "nightjar rerun {difference}",
    "python -m harness.verify.demo --workspace {workspace}",
)
"""Every command that a case file may run; it cannot run another."""

_TAIL = 4000


class Command(Kind):
    """A command's exit status and output, run now (`run`) or recorded earlier (`recorded`).

    The value is the number of expectations that were not met, or the recorded number `value`.
    With `once` a run that met all of them is recorded under that name and stands for the next
    ones by the same source tree, packages and machine, unless the workspace itself is examined.
    """

    name: ClassVar[str] = "command"
    elsewhere: ClassVar[bool] = True
    default_bound: ClassVar[str] = "= 0 unmet"

    run: str = ""
    recorded: str = ""
    once: str = Field(default="", pattern=r"^[a-z-]*$")
    value: str = ""
    measured_in: str = "unmet"
    population: str = ""
    exit_status: int = 0
    stdout: list[Pattern] = Field(default=[])
    timeout_s: float = Field(default=300.0, gt=0.0, le=3600.0)

    @model_validator(mode="after")
    def _declared(self) -> Command:
        if bool(self.run) == bool(self.recorded):
            raise ValueError("give either 'run' or 'recorded'")
        if self.once and not self.run:
            raise ValueError("'once' is said of a command that is run")
        if self.run and self.run not in COMMANDS:
            raise ValueError(f"{self.run!r} is not one of the commands: {'; '.join(COMMANDS)}")
        return self

    @property
    def unit(self) -> str:
        """``unmet`` expectations unless a recorded number with another unit is asked for."""
        return self.measured_in

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Run the command or look its record up."""
        return self._look_up(context) if self.recorded else self._run(context)

    def start(self, context: Context) -> None:
        """Begin to run the command, after those begun before; `measure` waits for the end."""
        if not self.run or self._known(context) is not None:
            return
        line: _Line = context.memory.setdefault("line", _Line())
        if line.end not in context.endings:
            context.endings.append(line.end)
        words = shlex.split(self.run.format(**_places(context, self.run)))
        context.memory[_key(self)] = line.submit(words, self.timeout_s)

    def _known(self, context: Context) -> tuple[str, float] | None:
        """Output and wall time of a run that stands for this one."""
        if not self.once or is_demo(context.space.root):
            return None
        return kept_run(self.once, self.run, context.evidence_folder)

    def _run(self, context: Context) -> Measurement:
        if (known := self._known(context)) is not None and not self._unmet(0, known[0]):
            return self._measured(0, *known, "by an earlier run of the same code, on record")
        if _key(self) not in context.memory:
            self.start(context)
        done, seconds = context.memory.pop(_key(self)).result()
        unmet = self._unmet(done.returncode, done.stdout)
        if self.once and not unmet and not is_demo(context.space.root):
            keep_run(self.once, self.run, done.stdout, seconds, context.evidence_folder)
        output = f"$ {self.run}\n{done.stdout[-_TAIL:]}{done.stderr[-_TAIL:]}"
        note = f"exit status {done.returncode}" if unmet else ""
        return self._measured(unmet, output, seconds, note)

    def _unmet(self, status: int, output: str) -> int:
        """Count the expectations that were not met."""
        missing = sum(re.search(p, output, re.MULTILINE) is None for p in self.stdout)
        return int(status != self.exit_status) + missing

    def _measured(self, unmet: int, output: str, seconds: float, note: str) -> Measurement:
        table = {"columns": ["wall time / s"], "rows": [[round(seconds, 2)]]}
        evidence = Evidence("output", "text", output), Evidence("cost", "table", table)
        return Measurement(unmet, 1 + len(self.stdout), evidence=evidence, note=note)

    def _look_up(self, context: Context) -> Measurement:
        record = context.evidence.get(self.recorded)
        if record is None:
            raise NotRun(f"no record of '{self.recorded}' in {context.evidence_folder}")
        fault = fault_of(record, context.evidence_folder)
        if fault:
            failing = ({"record": self.recorded, "fault": fault},)
            return Measurement(float("nan"), 1, failing=failing, note=f"the record {fault}")
        if record["tree"] != tree_hash():
            raise NotRun(
                f"the record of '{self.recorded}' is of other code: source tree "
                f"{record['tree'][:12]} of commit {record['commit'][:12]}, not {tree_hash()[:12]}"
            )
        result = dict(record["result"])
        value = float(result[self.value]) if self.value else float(result["exit_status"] != 0)
        population = int(result[self.population]) if self.population else 1
        return Measurement(value, population, evidence=(_table(record),))


def _key(command: Command) -> tuple[str, str]:
    return ("command", command.run)


class _Line:
    """Commands that run one after the other while other things are done, until it is ended."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._running: subprocess.Popen[str] | None = None
        self._ended = False

    def submit(self, words: list[str], timeout_s: float) -> Future[_Finished]:
        """Run a command after those before it; its result and wall time in seconds."""
        return self._thread.submit(self._run, _spelled(words), timeout_s)

    def end(self) -> None:
        """Kill the running command with its children and drop the others."""
        self._ended = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._running is not None:
            _kill(self._running)

    def _run(self, words: list[str], timeout_s: float) -> _Finished:
        start = time.perf_counter()
        with subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            self._running = process
            if self._ended:
                _kill(process)
            try:
                out, err = process.communicate(timeout=timeout_s)
            except BaseException:
                _kill(process)
                raise
        self._running = None
        done = subprocess.CompletedProcess(words, process.returncode, out, err)
        return done, time.perf_counter() - start


_Finished = tuple[subprocess.CompletedProcess[str], float]


def _kill(process: subprocess.Popen[str]) -> None:
    """End a command and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _spelled(words: list[str]) -> list[str]:
    """Name the interpreter that runs this program."""
    if words[0] == "nightjar":
        return [sys.executable, "-m", "harness.cli.main", *words[1:]]
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def _places(context: Context, run: str) -> dict[str, str]:
    """Values of the placeholders: the workspace, and one difference drawn by a fixed seed."""
    places = {"workspace": shlex.quote(str(context.space.root))}
    if "{difference}" in run:
        paths = [context.product("difference", u) for u in context.expected("difference")]
        present = [p for p in paths if p.is_file()]
        if not present:
            raise NotRun("there is no difference to make again", 0)
        places["difference"] = shlex.quote(str(random.Random(20180112).choice(present)))
    return places


def _table(record: dict[str, Any]) -> Evidence:
    rows = [[k, str(v)] for k, v in sorted({**record, **record["result"]}.items()) if k != "result"]
    return Evidence(
        f"record of {record['kind']}", "table", {"columns": ["key", "value"], "rows": rows}
    )
