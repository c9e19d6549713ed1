"""``nightjar force``: forced photometry at given coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, WorkspacePath, emit

__all__ = ["force"]


def force(
    workspace: WorkspacePath,
    at: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Table of coordinates: ra, dec and, if you like, id."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File: .csv, .parquet or .vot.",
            show_default="reports/forced.csv",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the flux at given coordinates in every difference and visit image of WORKSPACE.

    FILE is read like a reference catalogue: CSV, FITS, Parquet, VOTable or ECSV, degrees or
    sexagesimal, ICRS.  One row is written per coordinate and image that covers it, with the first
    and the last date of the template's inputs: a flux is relative to what the template holds.
    campaign.template_without keeps dates out of templates.
    """
    from harness.catalog import GuardedCatalog
    from harness.export.forced import force_at
    from harness.export.tables import write_table
    from harness.workspace import Workspace
    from pipeline import io

    space = Workspace.open(workspace)
    places = io.read_places(at)
    target = output or space.root / "reports" / "forced.csv"
    with GuardedCatalog(space.catalog) as catalog:
        found = force_at(space, catalog, places)
    write_table("forced", found.table, target)
    for line in found.problems:
        typer.echo(f"nightjar: {line}", err=True)
    rows = found.table.num_rows
    if as_json:
        emit({"rows": rows, "images": found.images, "places": places.num_rows,
              "problems": found.problems, "file": str(target)})  # fmt: skip
    else:
        typer.echo(
            f"{rows} fluxes at {places.num_rows} places in {found.images} images"
            f" written to {target}"
        )
    if found.problems:
        raise typer.Exit(1)
