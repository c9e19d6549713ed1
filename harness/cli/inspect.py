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
        int | None,
        typer.Argument(
            metavar="[VISIT|ID]", help="Visit, or an object's or body's id.", show_default=False
        ),
    ] = None,
    detector: Annotated[
        int | None, typer.Argument(metavar="[DETECTOR]", help="Detector, for a unit.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="PNG or HTML file.", show_default="reports/inspect/…"),
    ] = None,
    stamps: Annotated[int, typer.Option(min=0, help="Brightest detections shown as stamps.")] = 12,
    review: Annotated[
        bool,
        typer.Option(
            "--review", help="Ask the visual inspections on a page of this machine, then end."
        ),
    ] = False,
    minutes: Annotated[float, typer.Option(min=0, help="How long --review waits.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Draw a unit (VISIT DETECTOR), or write the page of an object or body (ID).

    Of a unit: visit image, template, difference and score with its detections, and the brightest
    as stamps; circles are alerted sources, crosses are detections without an alert.  Of an object:
    light curve, stamps of its alerts, sources and neighbours.  With --review, show the contact
    sheets of the newest report and keep a person's answers in inspections/SHEET.yaml, bound to
    images and pixels; exit code 4 when none were given in time.
    """
    if review:
        _review(workspace, minutes)
        return
    if number is None:
        raise typer.BadParameter("a visit or an id is needed", param_hint="VISIT|ID")
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


def _review(workspace: Path, minutes: float) -> None:
    """Ask the inspections of a campaign."""
    from collections.abc import Mapping
    from contextlib import closing
    from datetime import UTC, datetime

    from harness.report.review import accept, keep, questions, review_page
    from harness.report.review_server import Form
    from harness.verify.context import Context
    from harness.verify.loader import load_spec
    from harness.workspace import Workspace
    from pipeline.errors import InputError

    space = Workspace.open(workspace)
    folder = space.root / "reports" / "latest"
    with space.reading("inspect"), closing(Context(space)) as context:
        asked = questions(load_spec(), context, folder)
        inspector = context.settings.report.inspector
    if not asked:
        raise InputError("has no unit that an inspection asks about", path=space.root)

    def accepted(form: Mapping[str, str]) -> str:
        utc = datetime.now(UTC).isoformat(timespec="seconds")
        names = [p.name for p in keep(space.root, accept(asked, form), utc)]
        return f"Kept in inspections/: {', '.join(names)}. This page has ended."

    form = Form(lambda action: review_page(asked, folder, inspector, action), accepted)
    typer.echo(f"answer at {form.address}\nCtrl-C ends it without an answer")
    if not form.serve(60.0 * minutes):
        typer.echo("no answer was given in time")
        raise typer.Exit(4)
    typer.echo("answers are kept; judge again with: nightjar verify WORKSPACE")
