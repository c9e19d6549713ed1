"""``nightjar inspect``: a contact sheet of a unit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, WorkspacePath, emit

__all__ = ["inspect"]


def inspect(
    workspace: WorkspacePath,
    visit: Annotated[int, typer.Argument(help="Visit.", show_default=False)],
    detector: Annotated[int, typer.Argument(help="Detector.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="PNG file.", show_default="reports/inspect/…png"),
    ] = None,
    stamps: Annotated[int, typer.Option(min=0, help="Brightest detections shown as stamps.")] = 12,
    as_json: Json = False,
) -> None:
    """Draw visit image, template, difference and score of a unit, with its detections.

    Below them the brightest detections as stamps.  Circles are alerted sources, crosses are
    detections without an alert.
    """
    from harness.drawing.contact import contact_sheet
    from harness.workspace import Workspace

    space = Workspace.open(workspace)
    path = output or space.root / "reports" / "inspect" / f"{visit}_{detector:02d}.png"
    shown = contact_sheet(space, visit, detector, path, stamps=stamps)
    if as_json:
        emit({"file": str(path), "detections": shown})
    else:
        typer.echo(f"{path}: {shown} detections")
