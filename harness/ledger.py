"""What became of every unit of work.

A unit is one visit, one detector and one stage.  It ends ``done``, ``failed`` (with the cause
code of the error tree), ``blocked`` (something it needs failed) or ``skipped`` (not meant to be
processed); nothing is left out silently.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from harness.system.hashes import file_hash, stamp_of
from harness.system.machine import loop_s
from pipeline.errors import NightjarError, StorageError
from pipeline.timescales import UNIX_EPOCH_MJD, mjd_utc_to_tai

__all__ = [
    "BLOCKED",
    "DONE",
    "FAILED",
    "SKIPPED",
    "Measure",
    "Outcome",
    "StageRecord",
    "Target",
    "blocked",
    "cause_of",
    "measuring",
    "now_mjd_tai",
]

DONE, FAILED, BLOCKED, SKIPPED = "done", "failed", "blocked", "skipped"


class Target(NamedTuple):
    """What is made: a visit and detector, a whole visit (detector -1), or a template (visit 0)."""

    visit: int
    detector: int
    template_id: str | None = None

    @property
    def name(self) -> str:
        """Name in products and rows."""
        return self.template_id or f"{self.visit}_{self.detector:02d}"

    @property
    def where(self) -> dict[str, int | str | None]:
        """Columns that select its rows in a table."""
        if self.template_id:
            return {"templateId": self.template_id}
        return {"visit": self.visit, "detector": self.detector}


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One row of the table ``unit``.

    Attributes
    ----------
    visit, detector, stage : int, int, str
        The unit; visit 0 for templates.
    status, cause, message : str
        One of the four above; cause code and words where it is not ``done``.
    attempts : int
        How often it was tried.
    wall_s, cpu_s : float, s
        Time it took.
    loop_s : float, s, optional
        Processor time of `harness.system.machine.loop_s` in the same process.
    peak_rss_mib : float, MiB
        Largest resident memory of the process during the stage.
    input_hash, config_hash, stage_version : str, str, int
        The resume key.
    output_hash : str
        Of each file that the task made, joined by +; empty but at its last stage.
    row_counts : str, optional
        JSON: how many rows it has in each table, at its last stage.
    started_mjd_tai : float, d
        When it began.
    template_id : str, optional
        The template, for units that make one.
    notes : str, optional
        What was not done although the unit is, and why.
    """

    visit: int
    detector: int
    stage: str
    status: str
    cause: str | None = None
    message: str | None = None
    attempts: int = 1
    wall_s: float = 0.0
    cpu_s: float = 0.0
    loop_s: float | None = None
    peak_rss_mib: float = float("nan")
    input_hash: str = ""
    config_hash: str = ""
    output_hash: str | None = None
    row_counts: str | None = None
    stage_version: int = 0
    started_mjd_tai: float = float("nan")
    template_id: str | None = None
    notes: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> StageRecord:
        """Return the record of a row of the table ``unit``."""
        return cls(**{f.name: row[_camel(f.name)] for f in fields(cls)})

    def row(self) -> dict[str, Any]:
        """Return the record with the column names of the table ``unit``."""
        return {_camel(name): value for name, value in asdict(self).items()}

    def replace(self, **changes: Any) -> StageRecord:
        """Return a copy with some attributes exchanged."""
        return replace(self, **changes)


@dataclass(slots=True)
class Outcome:
    """What a worker hands back for one work item.

    Attributes
    ----------
    target : Target
        What was made.
    stages : list of StageRecord
        One per stage of the task and unit of the item.
    rows : mapping of str to list of mapping
        Rows for the small tables, by table name.
    tables : mapping of str to pyarrow.Table
        Rows that the task stores by a rule of its own, by table name.
    files : mapping of str to str
        SHA-256 of every file written, by path.
    stamps : mapping of str to tuple of int
        Size and time of change of each of them, before it was hashed.
    logs : list of mapping
        Structured log lines.
    """

    target: Target
    stages: list[StageRecord] = field(default_factory=list)
    rows: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)
    logs: list[dict[str, Any]] = field(default_factory=list)

    def wrote(self, path: Path) -> None:
        """Remember a file and its hash."""
        self.stamps[str(path)] = stamp_of(path)
        self.files[str(path)] = file_hash(path)

    def finish(self, **changes: Any) -> None:
        """Exchange attributes in the records of the last stage."""
        last = self.stages[-1].stage
        self.stages = [r.replace(**changes) if r.stage == last else r for r in self.stages]

    def spoiled(self, err: Exception) -> Outcome:
        """Return the outcome of work that was done, but its files cannot be read back."""
        failed = Outcome(self.target, self.stages, logs=self.logs)
        words = f"what was written cannot be read back: {' '.join(str(err).split())}"
        failed.finish(status=FAILED, cause=StorageError.cause, message=words, output_hash=None)
        return failed

    @property
    def status(self) -> str:
        """``done`` if every stage is, else the status of the first that is not."""
        return next((s.status for s in self.stages if s.status != DONE), DONE)

    @property
    def trouble(self) -> StageRecord | None:
        """The first stage that is not ``done``."""
        return next((s for s in self.stages if s.status != DONE), None)


def blocked(target: Target, stage: str, by: str) -> StageRecord:
    """Record of something that could not be tried because of another.

    Parameters
    ----------
    target : Target
        What could not be tried.
    stage : str
        At which stage.
    by : str
        What it waited for.

    Returns
    -------
    StageRecord
        With status ``blocked``.
    """
    visit, detector, template_id = target
    return StageRecord(
        visit, detector, stage, BLOCKED, "BLOCKED", by, attempts=0, template_id=template_id
    )


def cause_of(err: BaseException) -> tuple[str, str]:
    """Cause code and one line of words of an error.

    Parameters
    ----------
    err : BaseException
        The error.

    Returns
    -------
    code, message : str
        For the ledger.
    """
    words = " ".join(str(err).split())
    if isinstance(err, NightjarError):
        return err.cause, words
    if isinstance(err, OSError) and err.errno:
        return StorageError.cause, words
    if isinstance(err, MemoryError):
        return "OUT_OF_MEMORY", words or "out of memory"
    return "INTERNAL", f"{type(err).__name__}: {words}"


class Measure:
    """Cost of a stage; filled when the block of `measuring` ends."""

    wall_s = cpu_s = 0.0
    loop_s: float | None = None
    peak_rss_mib = started_mjd_tai = float("nan")

    def costs(self) -> dict[str, float | None]:
        """Return the costs as keywords of `StageRecord`."""
        names = ("wall_s", "cpu_s", "loop_s", "peak_rss_mib", "started_mjd_tai")
        return {name: getattr(self, name) for name in names}


def now_mjd_tai() -> float:
    """Return the present as MJD TAI.

    Returns
    -------
    float, d
        MJD TAI.
    """
    return mjd_utc_to_tai(time.time() / 86400.0 + UNIX_EPOCH_MJD)


@contextmanager
def measuring() -> Iterator[Measure]:
    """Measure wall time, CPU time and peak memory of a block."""
    measure = Measure()
    measure.loop_s = loop_s()
    measure.started_mjd_tai = now_mjd_tai()
    _reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield measure
    finally:
        measure.wall_s = time.perf_counter() - wall
        measure.cpu_s = time.process_time() - cpu
        measure.peak_rss_mib = _peak_mib()


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is then that of the process's life
        return


def _peak_mib() -> float:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024.0
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest).replace("Mib", "MiB")
