"""Frames of a workspace: what can be processed, read from the tables in ``raw/``."""

from __future__ import annotations

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
    ]
)
"""Columns of ``raw/frames.parquet``, one row per ingested visit and detector."""


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
        Detectors in the files that are not processed, each with its reason.

    Raises
    ------
    ConfigError
        If there are no exposures.
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
        frames, skipped = _from_files(space, camera, visits)
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


def _from_files(
    space: Workspace, camera: Camera, visits: Mapping[int, Mapping[str, Any]]
) -> tuple[list[Frame], list[StageRecord]]:
    frames: list[Frame] = []
    skipped: list[StageRecord] = []
    for visit, row in visits.items():
        contents = io.survey_raw(space.resolve(row["file"]), camera)
        frames += [_frame(space, row, {"detector": n}) for n in contents.detectors]
        skipped += [
            StageRecord(visit, n, "isr", SKIPPED, "NOT_SCIENCE", reason, attempts=0)
            for n, reason in contents.skipped.items()
        ]
    return frames, skipped


def _frame(space: Workspace, visit: Mapping[str, Any], member: Mapping[str, Any]) -> Frame:
    return Frame(
        visit=visit["visit"],
        detector=int(member["detector"]),
        band=visit["band"],
        field_name=visit.get("field") or "",
        role=visit.get("role") or OPEN,
        mjd=visit["midpointMjdTai"],
        kind=member.get("kind") or "raw",
        path=space.resolve(member.get("file") or visit["file"]),
        corners=tuple(member.get("corners") or ()),
    )
