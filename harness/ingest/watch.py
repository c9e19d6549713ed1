"""Raw files as they land: registered, processed visit by visit, handed on.

A file counts as landed when its size and time have not changed from one look to the next.  What
is registered and recorded survives any end; the next call begins with what is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.campaign.run import run_campaign
from harness.ingest.run import SUFFIXES, ingest_files
from harness.plan import SCIENCE, Selection
from harness.workspace import Workspace, translate_os_errors
from pipeline import io
from pipeline.errors import FileFormatError, InputError

__all__ = ["Inbox", "Step", "watch"]

_Stamp = tuple[int, int]


@dataclass(slots=True)
class Inbox:
    """A folder in which files land.

    Attributes
    ----------
    folder : Path
        The folder.
    """

    folder: Path
    _seen: dict[Path, _Stamp] = field(default_factory=dict)
    _taken: dict[Path, _Stamp] = field(default_factory=dict)

    def landed(self) -> list[Path]:
        """Return the files that are complete and new, or new again, since the last look.

        Returns
        -------
        list of Path
            By name.

        Raises
        ------
        InputError
            If the folder cannot be read.
        """
        if not self.folder.is_dir():
            raise InputError("is no folder", path=self.folder, expected="an inbox for raw files")
        with translate_os_errors(self.folder):
            now = {path: stamp for path in self.folder.iterdir() if (stamp := _stamp(path))}
        complete = [
            path
            for path, stamp in sorted(now.items())
            if self._seen.get(path) == stamp and self._taken.get(path) != stamp
        ]
        self._seen = now
        self._taken |= {path: now[path] for path in complete}
        return complete


def _stamp(path: Path) -> _Stamp | None:
    """Size and time of a FITS file, None for anything else and for what has just gone."""
    if path.name.startswith(".") or not path.name.lower().endswith(SUFFIXES):
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_size, status.st_mtime_ns) if path.is_file() else None


@dataclass(frozen=True, slots=True)
class Step:
    """What one look at the inbox led to.

    Attributes
    ----------
    visits : tuple of int
        Visits that were run, in the order of time.
    problems : tuple of str
        A line about each file that was refused and each unit that failed.
    """

    visits: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()


def watch(
    space: Workspace,
    folder: Path,
    *,
    jobs: int | None = None,
    every_s: float = 2.0,
    once: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Step]:
    """Register and process what lands in a folder, one visit after the other.

    Visits that arrive are science visits: templates are made of those that were registered
    before, see `harness.ingest.ingest_files`.

    Parameters
    ----------
    space : Workspace
        The campaign's folder.
    folder : Path
        The inbox.
    jobs : int, optional
        Worker processes.
    every_s : float, s
        Time between two looks.
    once : bool
        Whether to end when all that is there has been processed, instead of never.
    pause : callable
        Waits so many seconds.

    Yields
    ------
    Step
        After every look that led to anything; the first one says what an earlier call left undone.

    Raises
    ------
    InputError
        If the folder cannot be read, or the workspace cannot be used.
    """
    inbox = Inbox(folder)
    inbox.landed()
    left = _unfinished(space)
    if left:
        yield _run(space, left, jobs)
    while True:
        pause(every_s)
        step = _take(space, inbox.landed(), jobs)
        if step != Step():
            yield step
        elif once:
            return


def _take(space: Workspace, files: list[Path], jobs: int | None) -> Step:
    """Register files, each by itself, and process the visits that they belong to."""
    problems: list[str] = []
    for path in files:
        try:
            with space.changing("watch"):
                problems += ingest_files(space, [path], role=SCIENCE).problems
        except FileFormatError as err:
            problems.append(str(err))
    step = _run(space, _visits_of(space, files), jobs)
    return Step(step.visits, (*problems, *step.problems))


def _visits_of(space: Workspace, files: list[Path]) -> list[int]:
    """Visits of registered files in the order of time."""
    wanted = {str(path.absolute()) for path in files}
    if not wanted or not space.frames.is_file():
        return []
    frames = io.read_parquet(space.frames).to_pylist()
    visits = {f["visit"] for f in frames if str(space.resolve(f["file"])) in wanted}
    return [visit for visit in _in_time(space) if visit in visits]


def _in_time(space: Workspace) -> list[int]:
    rows = io.read_parquet(space.exposures).to_pylist() if space.exposures.is_file() else []
    rows.sort(key=lambda row: (row["midpointMjdTai"], row["visit"]))
    return [int(row["visit"]) for row in rows if row["role"] == SCIENCE]


def _unfinished(space: Workspace) -> list[int]:
    """Science visits of which a detector was registered and has no alerts yet."""
    if not space.frames.is_file():
        return []
    frames = io.read_parquet(space.frames).to_pylist()
    left = {f["visit"] for f in frames if not space.alerts(f["visit"], f["detector"]).is_file()}
    return [visit for visit in _in_time(space) if visit in left]


def _run(space: Workspace, visits: list[int], jobs: int | None) -> Step:
    problems: list[str] = []
    for visit in visits:
        selection = Selection(visits=frozenset([visit]))
        summary = run_campaign(space.root, selection=selection, jobs=jobs, quiet=True)
        problems += [
            f"visit {t.visit} detector {t.detector}: {t.stage} {t.status}: {t.cause}: {t.message}"
            for t in summary.troubles
            if t.visit == visit
        ]
    return Step(tuple(visits), tuple(problems))
