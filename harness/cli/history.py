"""``nightjar history``: what was known at a date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, WorkspacePath, emit, show_table

if TYPE_CHECKING:
    from harness.catalog import Catalog

__all__ = ["history"]

_SHOWN = ("diaObjectId", "ra", "dec", "nDiaSources", "firstDiaSourceMjdTai", "lastDiaSourceMjdTai")


def history(
    workspace: WorkspacePath,
    as_of: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="UTC date (its end), YYYY-MM-DDTHH:MM:SS or MJD (TAI)."),
    ] = None,
    object_id: Annotated[
        int | None, typer.Option("--object", help="Show every version of this diaObjectId.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the objects: .parquet, .vot or .csv."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many objects are shown.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what the campaign knew at a DATE of the survey, or the versions of an object.

    The date is that of the exposures: when they were processed does not matter.
    """
    from harness.catalog import Catalog
    from harness.workspace import Workspace

    if (as_of is None) == (object_id is None):
        raise typer.BadParameter("give either --as-of or --object")
    space = Workspace.open(workspace)
    with Catalog(space.catalog, read_only=True) as catalog:
        if object_id is not None:
            _versions(catalog, object_id, workspace, as_json=as_json)
        elif as_of is not None:
            _state(catalog, as_of, output, limit, as_json=as_json)


def _versions(catalog: Catalog, number: int, workspace: Path, *, as_json: bool) -> None:
    from harness.export.history import versions_of
    from pipeline.errors import ConfigError

    rows = versions_of(catalog, number)
    if not rows:
        raise ConfigError(f"there is no object {number}", path=workspace)
    if as_json:
        emit(rows)
    else:
        show_table(rows)


def _state(catalog: Catalog, date: str, output: Path | None, limit: int, *, as_json: bool) -> None:
    from harness.campaign.run import selection
    from harness.export.history import known_at
    from harness.export.tables import write_table

    mjd = selection(None, None, None, date).until
    known = known_at(catalog, mjd)
    if output is not None:
        write_table("DiaObject", known.objects, output)
    shown = known.objects.select(_SHOWN).slice(0, limit).to_pylist()
    if as_json:
        emit({"mjdTai": mjd, "counts": dict(known.counts), "objects": shown})
        return
    typer.echo(f"known at MJD {mjd:.5f} (TAI)")
    show_table([{"what": name, "number": n} for name, n in known.counts.items()])
    typer.echo("")
    show_table(shown)
    if output is not None:
        typer.echo(f"{known.objects.num_rows} objects written to {output}")
