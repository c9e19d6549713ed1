"""``nightjar inspect``: a contact sheet of a unit, or the page of an object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, WorkspacePath, emit

__all__ = ["inspect"]


def inspect(
    workspace: WorkspacePath,
    number: Annotated[
        int,
        typer.Argument(
            metavar="VISIT|ID", help="Visit, or an object's or body's id.", show_default=False
        ),
    ],
    detector: Annotated[
        int | None, typer.Argument(metavar="[DETECTOR]", help="Detector, for a unit.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="PNG or HTML file.", show_default="reports/inspect/…"),
    ] = None,
    stamps: Annotated[int, typer.Option(min=0, help="Brightest detections shown as stamps.")] = 12,
    as_json: Json = False,
) -> None:
    """Draw a unit (VISIT DETECTOR), or write the page of an object or body (ID).

    Of a unit: visit image, template, difference and score with its detections, and the brightest
    as stamps; circles are alerted sources, crosses are detections without an alert.  Of an object:
    light curve, stamps of its alerts, sources and neighbours.
    """
    from harness.workspace import Workspace

    space = Workspace.open(workspace)
    folder = space.root / "reports" / "inspect"
    if detector is None:
        from harness.alerts.object_page import write_object

        path, what = output or folder / f"object_{number}.html", "sources"
        shown = write_object(space, number, path)
    else:
        from harness.drawing.contact import contact_sheet

        path, what = output or folder / f"{number}_{detector:02d}.png", "detections"
        shown = contact_sheet(space, number, detector, path, stamps=stamps)
    if as_json:
        emit({"file": str(path), what: shown})
    else:
        typer.echo(f"{path}: {shown} {what}")
