"""Frames of a workspace: what was simulated or ingested, read from the tables in ``raw/``.

The files themselves are not looked at: a detector that its file has lost is still promised, and
its unit fails with a cause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from harness.ledger import SKIPPED, StageRecord
from harness.plan import OPEN, Frame
from harness.workspace import Workspace
from pipeline import io
from pipeline.camera import Camera
from pipeline.errors import ConfigError

__all__ = ["FRAME_SCHEMA", "frames_table", "load_frames"]

FRAME_SCHEMA = pa.schema(
    [
        ("visit", pa.int64()),
        ("detector", pa.int16()),
        ("kind", pa.string()),
        ("file", pa.string()),
        ("sha256", pa.string()),
        ("corners", pa.list_(pa.float64())),
        ("bias", pa.string()),
        ("flat", pa.string()),
        ("problem", pa.string()),
    ]
)
"""Columns of ``raw/frames.parquet``, one row per ingested visit and detector.

``bias`` and ``flat`` are files elsewhere; without them those in ``calib/`` count.  ``problem`` says
why a frame cannot be used: its unit fails with that.
"""


def load_frames(space: Workspace, camera: Camera) -> tuple[list[Frame], list[StageRecord]]:
    """Read the frames of a workspace.

    Parameters
    ----------
    space : Workspace
        With the tables that ``sim`` or ``ingest`` wrote.
    camera : Camera
        Its camera.

    Returns
    -------
    frames : list of Frame
        In the order of time, visit and detector.
    skipped : list of StageRecord
        Detectors of the exposures that are not processed, each with its reason.

    Raises
    ------
    ConfigError
        If there are no exposures, or one without a list of its detectors.
    """
    if not space.exposures.is_file():
        raise ConfigError(
            "has no exposures",
            path=space.root,
            hint="run `nightjar sim` or `nightjar ingest` first",
        )
    visits = {row["visit"]: row for row in io.read_parquet(space.exposures).to_pylist()}
    if space.frames.is_file():
        members = io.read_parquet(space.frames).to_pylist()
        frames = [_frame(space, visits[m["visit"]], m) for m in members if m["visit"] in visits]
        skipped: list[StageRecord] = []
    else:
        frames, skipped = _from_exposures(space, camera, visits)
    return sorted(frames, key=lambda f: (f.mjd, f.visit, f.detector)), skipped


def frames_table(members: Sequence[Mapping[str, object]]) -> pa.Table:
    """Build ``raw/frames.parquet`` from rows.

    Parameters
    ----------
    members : sequence of mapping
        One row per frame, by column.

    Returns
    -------
    pyarrow.Table
        The frames of the campaign.
    """
    return pa.Table.from_pylist([dict(m) for m in members], schema=FRAME_SCHEMA)


def _from_exposures(
    space: Workspace, camera: Camera, visits: Mapping[int, Mapping[str, Any]]
) -> tuple[list[Frame], list[StageRecord]]:
    frames: list[Frame] = []
    skipped: list[StageRecord] = []
    for visit, row in visits.items():
        for number in _detectors(space, row):
            reason = io.reason_to_skip(number, camera, row["exptime"])
            if reason:
                record = StageRecord(visit, number, "isr", SKIPPED, "NOT_SCIENCE", reason)
                skipped.append(record.replace(attempts=0))
            else:
                frames.append(_frame(space, row, {"detector": number}))
    return frames, skipped


def _detectors(space: Workspace, visit: Mapping[str, Any]) -> list[int]:
    """Numbers of the detectors that an exposure had when it was made."""
    numbers = [int(word) for word in (visit["detectors"] or "").split()]
    if not numbers:
        raise ConfigError(
            f"lists no detectors of visit {visit['visit']}", path=space.exposures, key="detectors",
            hint="run `nightjar sim` again",
        )  # fmt: skip
    return numbers


def _frame(space: Workspace, visit: Mapping[str, Any], member: Mapping[str, Any]) -> Frame:
    detector = int(member["detector"])
    bias, flat = (space.resolve(member[n]) if member.get(n) else None for n in ("bias", "flat"))
    return Frame(
        visit=visit["visit"],
        detector=detector,
        band=visit["band"],
        field_name=visit.get("field") or "",
        reason=visit.get("observationReason") or "",
        role=visit.get("role") or OPEN,
        mjd=visit["midpointMjdTai"],
        kind=member.get("kind") or "raw",
        path=space.resolve(member.get("file") or visit["file"]),
        exptime=visit.get("exptime") or math.nan,
        corners=tuple(member.get("corners") or ()),
        sha256=member.get("sha256") or visit.get("sha256") or "",
        bias=bias or space.bias(detector),
        flat=flat or space.flat(visit["band"], detector),
        problem=member.get("problem") or "",
    )
