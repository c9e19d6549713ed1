"""``nightjar alerts``: check and show alert files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, emit, show_table

__all__ = ["alerts"]

alerts = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Check and show alert files."
)

Files = Annotated[
    list[Path], typer.Argument(metavar="FILES...", help="Avro files.", show_default=False)
]


@alerts.command("check")
def check(
    files: Files,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="Avro schema (.avsc) of records that come without, as brokers send them."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge alert files, ours or any in the LSST style, by named assertions.

    Exit code 0 when all hold, 1 when one fails, 2 when a file cannot be read; the others are
    judged all the same.
    """
    from harness.verify import alerts as assertions
    from pipeline.errors import InputError

    documents, unreadable = [], 0
    for path in files:
        try:
            documents.append(assertions.check(path, schema=schema).as_dict())
        except InputError as err:
            typer.echo(f"nightjar: {err}", err=True)
            unreadable += 1
    if as_json and documents:
        emit(documents[0] if len(files) == 1 else documents)
    elif not as_json:
        for document in documents:
            typer.echo(f"{document['file']}: {document['alerts']} alerts")
            show_table(document["assertions"])
    if any(a["verdict"] == "fail" for d in documents for a in d["assertions"]):
        raise typer.Exit(2 if unreadable else 1)
    if unreadable:
        raise typer.Exit(2)


@alerts.command("show")
def show(
    files: Files,
    source: Annotated[
        int | None, typer.Option("--source", help="Only the alert of this diaSourceId.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with the three stamps of every alert.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many alerts.")] = 20,
    as_json: Json = False,
) -> None:
    """Show alerts: one line each, or a page with their stamps."""
    from harness.export.alerts import summaries, write_page

    rows = summaries(files, source=source, limit=limit)
    if html is not None:
        n = write_page(html, files, source=source, limit=limit)
        typer.echo(f"{n} alerts written to {html}")
    elif as_json:
        emit(rows)
    else:
        show_table(rows)
