"""The tables of ingested frames and visits: what a workspace has, and what is to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.campaign.frames import frames_table
from harness.plan import OPEN
from harness.workspace import Workspace
from pipeline import io
from pipeline.errors import FileFormatError
from pipeline.exposure import VisitInfo
from pipeline.schema import EXPOSURE
from pipeline.sphere import unit_vectors
from pipeline.timescales import mjd_tai_to_utc

__all__ = ["Candidate", "IngestResult", "Registry"]


@dataclass(slots=True)
class IngestResult:
    """What was registered.

    Attributes
    ----------
    visits, frames, known, ignored : int
        New visits and frames, frames that were registered before, companion files.
    problems : list of str
        One line per bad file; nothing is registered if there is any.
    faults : list of str
        One line per file that cannot be used, though what needs it is registered and will fail.
    notes : list of str
        What was assumed of good files, each kind once.
    """

    visits: int = 0
    frames: int = 0
    known: int = 0
    ignored: int = 0
    problems: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One frame that a file holds.

    Attributes
    ----------
    info : VisitInfo
        What its header says.
    kind : str
        Which reader applies, see `harness.plan.Frame`.
    path : Path
        The file.
    sha256 : str
        Of the file.
    corners : tuple of float, deg
        RA and Dec of the four corners in turn.
    fills : tuple of str
        What was assumed.
    role : str
        ``template``, ``science``, or ``open`` where the campaign must choose.
    bias, flat : Path, optional
        Calibration frames elsewhere.
    problem : str
        Why it cannot be used; empty if it can.
    """

    info: VisitInfo
    kind: str
    path: Path
    sha256: str
    corners: tuple[float, ...]
    fills: tuple[str, ...] = ()
    role: str = OPEN
    bias: Path | None = None
    flat: Path | None = None
    problem: str = ""

    @property
    def unit(self) -> tuple[int, int]:
        """Visit and detector."""
        return self.info.visit, self.info.detector


class Registry:
    """The frames and visits that a workspace has, and those that are to come."""

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.members = _rows(space.frames)
        self.visits = {row["visit"]: row for row in _rows(space.exposures)}
        self._given = 0

    def next_visit(self) -> int:
        """Return a provisional number; `check` numbers in the order of time."""
        self._given += 1
        return max(self.visits, default=0) + self._given

    def check(self, found: Sequence[Candidate], result: IngestResult) -> list[Candidate]:
        """Sort out what is known, and complain of what occurs twice.

        Parameters
        ----------
        found : sequence of Candidate
            Frames of the files.
        result : IngestResult
            Gets counts and problems.

        Returns
        -------
        list of Candidate
            Those that are new, numbered.
        """
        self._forget_replaced(found)
        known = {(space_path(self.space, m["file"]), m["detector"]) for m in self.members}
        fresh = [c for c in found if (str(c.path), c.info.detector) not in known]
        result.known = len(found) - len(fresh)
        fresh = _numbered(fresh, max(self.visits, default=0))
        usable = [m for m in self.members if not m.get("problem")]
        seen = {(m["visit"], m["detector"]): Path(m["file"]) for m in usable}
        starts = self._starts()
        for frame in fresh:
            twin = seen.get(frame.unit)
            if frame.kind == "generic":
                at = starts.setdefault((_start(frame.info), frame.info.band), [])
                twin = next(
                    (p for p, c in at if p != frame.path and _overlap(c, frame.corners)), None
                )
                at.append((frame.path, frame.corners))
            if twin is not None:
                result.problems.append(_twice(frame, twin))
            seen[frame.unit] = frame.path
        result.frames = len(fresh)
        result.visits = len({f.info.visit for f in fresh} - set(self.visits))
        return fresh

    def _starts(self) -> dict[tuple[float, str], list[tuple[Path, tuple[float, ...]]]]:
        """Files and corners of what is registered, by the start of the exposure and band."""
        found: dict[tuple[float, str], list[tuple[Path, tuple[float, ...]]]] = {}
        for member in self.members:
            visit = self.visits[member["visit"]]
            key = (visit["startMjdUtc"], visit["band"])
            found.setdefault(key, []).append((Path(member["file"]), tuple(member["corners"] or ())))
        return found

    def _forget_replaced(self, found: Sequence[Candidate]) -> None:
        """Forget the registered files whose content has changed since."""
        now = {str(c.path): c.sha256 for c in found}
        files = {space_path(self.space, m["file"]): m["sha256"] for m in self.members}
        replaced = {path for path, sha256 in files.items() if now.get(path, sha256) != sha256}
        self.members = [
            m for m in self.members if space_path(self.space, m["file"]) not in replaced
        ]
        left = {m["visit"] for m in self.members}
        self.visits = {visit: row for visit, row in self.visits.items() if visit in left}

    def write(self, frames: Sequence[Candidate], camera: str) -> None:
        """Write both tables; the frames first, since a frame without its visit is ignored.

        Parameters
        ----------
        frames : sequence of Candidate
            New ones, and known ones that take the place of what is registered.
        camera : str
            Name of the camera.
        """
        units = {frame.unit for frame in frames}
        members = [m for m in self.members if (m["visit"], m["detector"]) not in units]
        members += [_member(frame) for frame in frames]
        for frame in frames:
            self.visits[frame.info.visit] = self._visit_row(frame, members, camera)
        io.write_parquet(self.space.frames, frames_table(members))
        rows = [self.visits[v] for v in sorted(self.visits)]
        io.write_parquet(self.space.exposures, EXPOSURE.from_rows(rows))

    def _visit_row(
        self, frame: Candidate, members: Sequence[dict[str, Any]], camera: str
    ) -> dict[str, object]:
        info = frame.info
        numbers = sorted(m["detector"] for m in members if m["visit"] == info.visit)
        return {
            "visit": info.visit,
            "band": info.band,
            "field": info.field or None,
            "observationReason": info.reason or None,
            "exptime": info.exptime,
            "startMjdUtc": _start(info),
            "midpointMjdTai": info.midpoint_mjd_tai,
            "ra": info.ra,
            "dec": info.dec,
            "airmass": info.airmass,
            "role": frame.role,
            "camera": camera,
            "detectors": " ".join(str(n) for n in numbers),
            "kind": frame.kind,
            "file": str(frame.path),
            "sha256": frame.sha256,
        }


def _member(frame: Candidate) -> dict[str, Any]:
    return {
        "visit": frame.info.visit,
        "detector": frame.info.detector,
        "kind": frame.kind,
        "file": str(frame.path),
        "sha256": frame.sha256,
        "corners": list(frame.corners),
        "bias": str(frame.bias) if frame.bias else None,
        "flat": str(frame.flat) if frame.flat else None,
        "problem": frame.problem or None,
    }


def space_path(space: Workspace, stored: str) -> str:
    """Return a stored path as it was given."""
    return str(space.resolve(stored))


def _numbered(frames: Sequence[Candidate], last: int) -> list[Candidate]:
    """Give frames of cameras without exposure numbers one, in the order of time."""
    generic = sorted(
        (f for f in frames if f.kind == "generic"), key=lambda f: (f.info.midpoint_mjd_tai, f.path)
    )
    paths = list(dict.fromkeys(f.path for f in generic))
    numbers = {path: last + i for i, path in enumerate(paths, start=1)}
    return [
        replace(f, info=replace(f.info, visit=numbers[f.path])) if f.kind == "generic" else f
        for f in frames
    ]


def _twice(frame: Candidate, twin: Path | str) -> str:
    what = f"visit {frame.info.visit} detector {frame.info.detector}"
    if frame.kind == "generic":
        what = f"an exposure of the same start and band ({frame.info.band})"
    return str(
        FileFormatError(f"{what} is also in {twin}", path=frame.path, hint="give one of the two")
    )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Tell two images of one sky from two chips of one exposure: the centre lies in the other."""
    if not a or not b:
        return True
    first, second = (unit_vectors(np.array(c[::2]), np.array(c[1::2])) for c in (a, b))
    centres = [v.mean(axis=0) / np.linalg.norm(v.mean(axis=0)) for v in (first, second)]
    reach = np.linalg.norm(first - centres[0], axis=1).max() / np.sqrt(2.0)
    return bool(np.linalg.norm(centres[0] - centres[1]) < reach)


def _start(info: VisitInfo) -> float:
    start_tai = info.midpoint_mjd_tai - 0.5 * info.exptime / 86400.0
    return mjd_tai_to_utc(start_tai)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = io.read_parquet(path).to_pylist() if path.is_file() else []
    return rows
