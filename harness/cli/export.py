"""``nightjar export``: tables for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, WorkspacePath, emit

__all__ = ["Format", "export"]


class Format(StrEnum):
    """File formats."""

    PARQUET = "parquet"
    VOTABLE = "votable"
    CSV = "csv"
    REGIONS = "regions"
    MOC = "moc"


def export(
    workspace: WorkspacePath,
    table: Annotated[str, typer.Argument(help="Table or view of the catalogue.")],
    output: Annotated[
        Path, typer.Argument(help="File to write (--hats: folder).", show_default=False)
    ],
    file_format: Annotated[
        Format | None, typer.Option("--format", help="File format.", show_default="by the suffix")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="SQL condition: export only these rows.")
    ] = None,
    lightcurves: Annotated[
        bool,
        typer.Option("--lightcurves", help="Give each DiaObject its epochs in a nested column."),
    ] = False,
    hats: Annotated[
        bool,
        typer.Option(
            "--hats", help="Make OUTPUT a HATS catalogue of DiaObject with its light curves."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a table or view of WORKSPACE to a file, with units and meanings of its columns.

    The suffix says the format: .parquet, .vot, .csv, .reg for regions of DS9 (of images: their
    outlines) or .fits for a coverage map (MOC). Maps and --hats need the extra sky.

    Tables: DiaSource DiaObject DiaForcedSource SSSource visit_image difference_image candidate …
    Views: lightcurve diasource_derived diaobject_colour diasource_object_match.
    """
    from harness.catalog import GuardedCatalog
    from harness.export.tables import export_table
    from harness.workspace import Workspace

    space = Workspace.open(workspace)
    with GuardedCatalog(space.catalog) as catalog:
        rows = export_table(
            catalog,
            table,
            output,
            file_format.value if file_format else None,
            where,
            lightcurves=lightcurves,
            hats=hats,
        )
    if as_json:
        emit({"table": table, "rows": rows, "file": str(output)})
    else:
        typer.echo(f"{rows} rows of {table} written to {output}")
