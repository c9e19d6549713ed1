"""``nightjar alerts``: check, show, compare and publish alert files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, WorkspacePath, emit, show_table

if TYPE_CHECKING:
    from harness.alerts.entries import Choice

__all__ = ["alerts"]

alerts = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Check, show, compare and publish alerts."
)

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILES...", help="Avro files, folders of them, or workspaces.", show_default=False
    ),
]
Source = Annotated[int | None, typer.Option("--source", help="Only the alert of this diaSourceId.")]
Object = Annotated[
    int | None, typer.Option("--object", help="Only the alerts of this diaObjectId.")
]
Reliability = Annotated[
    float | None,
    typer.Option("--min-reliability", min=0, max=1, help="Only alerts at least so reliable."),
]
Limit = Annotated[int, typer.Option(min=1, help="At most so many alerts.")]


class Colour(StrEnum):
    """When a terminal gets colours."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


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
    from harness.alerts.entries import alert_files
    from harness.verify import alerts as assertions
    from pipeline.errors import InputError

    documents, unreadable, paths = [], 0, alert_files(files)
    for path in paths:
        try:
            documents.append(assertions.check(path, schema=schema).as_dict())
        except InputError as err:
            typer.echo(f"nightjar: {err}", err=True)
            unreadable += 1
    if as_json and documents:
        emit(documents[0] if len(paths) == 1 else documents)
    elif not as_json:
        for document in documents:
            typer.echo(f"{document['file']}: {document['alerts']} alerts")
            show_table(document["assertions"])
    if any(a["verdict"] == "fail" for d in documents for a in d["assertions"]):
        raise typer.Exit(2 if unreadable else 1)
    if unreadable:
        raise typer.Exit(2)


@alerts.command("list")
def list_(
    files: Files,
    source: Source = None,
    object_id: Object = None,
    reliability: Reliability = None,
    limit: Limit = 1000,
    as_json: Json = False,
) -> None:
    """List alerts, one line each."""
    from harness.alerts.entries import Choice, summary

    with _Reading(files, Choice(source, object_id, reliability, limit)) as packets:
        rows = [summary(packet) for packet in packets]
        if as_json:
            emit(rows)
        else:
            show_table(rows)


@alerts.command("show")
def show(
    files: Files,
    source: Source = None,
    object_id: Object = None,
    reliability: Reliability = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page instead, several alerts in a row.")
    ] = None,
    limit: Limit = 20,
    side: Annotated[
        int, typer.Option(min=5, max=201, help="Side of a stamp in the terminal, pixels.")
    ] = 19,
    colour: Annotated[
        Colour, typer.Option("--colour", help="Colours, or characters alone.")
    ] = Colour.AUTO,
    width: Annotated[
        int | None,
        typer.Option(min=20, help="Columns of the terminal.", show_default="the terminal's"),
    ] = None,
) -> None:
    """Show science, template, difference and light curve of alerts.

    North is up, east left.  The difference is blue below zero and orange above, what is unknown
    pink; without colours a difference is .+*#@ above and ,~oO8 below zero, what is unknown /.
    """
    from harness.alerts.entries import Choice
    from harness.alerts.page import write_page
    from harness.alerts.terminal import blocks

    with _Reading(files, Choice(source, object_id, reliability, limit)) as packets:
        if html is not None:
            n = write_page(html, packets)
            typer.echo(f"{n} alerts written to {html}")
            return
        columns = width or shutil.get_terminal_size((120, 24)).columns
        for line in blocks(packets, width=columns, side=side, colour=_coloured(colour)):
            sys.stdout.write(line + "\n")


@alerts.command("stamps")
def stamps(
    files: Files,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write to.", show_default=False)
    ],
    source: Source = None,
    object_id: Object = None,
    reliability: Reliability = None,
    limit: Limit = 1000,
    scale: Annotated[int, typer.Option(min=1, max=20, help="Side of a pixel in the PNG.")] = 4,
    fits: Annotated[
        bool, typer.Option("--fits", help="Write the cut-outs as they are, as FITS files.")
    ] = False,
) -> None:
    """Write science, template and difference of alerts as PNG or FITS files."""
    from harness.alerts.cutout_files import write_stamps
    from harness.alerts.entries import Choice

    with _Reading(files, Choice(source, object_id, reliability, limit)) as packets:
        number = write_stamps(output, packets, scale=scale, as_fits=fits)
        typer.echo(f"{number} files written to {output}")


@alerts.command("diff")
def diff(
    before: Annotated[
        Path, typer.Argument(help="Alert file, folder or workspace.", show_default=False)
    ],
    after: Annotated[Path, typer.Argument(help="What to compare it with.", show_default=False)],
    everything: Annotated[
        bool, typer.Option("--all", help="Count times of processing and names of runs as well.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many lines.")] = 100,
    as_json: Json = False,
) -> None:
    """Compare two sets of alerts, field by field.

    Exit code 0 when they are equal, 1 when not.
    """
    from harness.alerts.difference import alert_differences
    from harness.alerts.entries import alert_files

    rows = list(
        alert_differences(alert_files([before]), alert_files([after]), everything=everything)
    )
    if as_json:
        emit(rows)
    else:
        show_table(rows[:limit])
        more = f", {len(rows) - limit} not shown" if len(rows) > limit else ""
        typer.echo(f"{len(rows)} differences{more}" if rows else "no difference")
    if rows:
        raise typer.Exit(1)


@alerts.command("site")
def site(
    files: Files,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to make.", show_default=False)
    ],
    reliability: Reliability = None,
    limit: Limit = 100_000,
) -> None:
    """Write static pages of alerts: a table of every night, and a page of every object.

    They need no network and no server: open OUTPUT/index.html.
    """
    from harness.alerts.entries import Choice
    from harness.alerts.site import write_site

    with _Reading(files, Choice(None, None, reliability, limit)) as packets:
        counts = write_site(output, packets)
        typer.echo(
            f"{counts.alerts} alerts of {counts.nights} nights and {counts.objects} objects: "
            f"{output / 'index.html'}"
        )


@alerts.command("publish")
def publish(
    workspace: WorkspacePath,
    topic: Annotated[str, typer.Option(help="Topic of the broker.", show_default=False)],
    schema_id: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Number of the schema in the broker's registry; see nightjar alerts schema.",
            show_default=False,
        ),
    ],
    broker: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT[,…]", help="Brokers, instead of bootstrap.servers."),
    ] = None,
    properties: Annotated[
        Path | None,
        typer.Option(help="Properties file of librdkafka, name=value lines; secrets belong here."),
    ] = None,
    changed: Annotated[
        bool,
        typer.Option("--changed", help="Send alerts again whose content has changed since."),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Longest time to wait for an acknowledgement, s.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Send the alerts of WORKSPACE to a Kafka topic, each at least once.

    The messages have Confluent's framing, and the source's number as key.  What the broker has
    acknowledged is recorded in the table alert_delivery; the same command goes on where it was
    interrupted.  Exit code 1 when alerts were refused, 4 when the broker is gone.
    """
    from harness.alerts.publish import publish_campaign, read_properties
    from harness.workspace import Workspace

    chosen = read_properties(properties) if properties else {}
    if broker is not None:
        chosen["bootstrap.servers"] = broker
    result = publish_campaign(
        Workspace.open(workspace), topic, schema_id, chosen, changed=changed, timeout_s=timeout
    )
    for line in result.refused:
        typer.echo(f"nightjar: {line}", err=True)
    if as_json:
        emit(asdict(result))
    else:
        typer.echo(f"{result.sent} alerts sent to {topic}, {result.pending} still to be sent")
    if result.trouble:
        typer.echo(f"nightjar: {result.trouble}; run the same command again to go on", err=True)
        raise typer.Exit(4)
    if result.refused:
        raise typer.Exit(1)


@alerts.command("schema")
def schema_() -> None:
    """Print the Avro schema of our alerts, as a registry takes it."""
    from pipeline import alerts as packets

    emit(packets.packet_schema())


class _Reading:
    """The alerts of files; what cannot be read is one line each, and exit code 2 at the end."""

    def __init__(self, files: list[Path], choice: Choice) -> None:
        self._files, self._choice = files, choice
        self._troubles: list[str] = []

    def __enter__(self) -> Iterator[dict[str, Any]]:
        from harness.alerts.entries import alert_files, read_alerts

        return read_alerts(alert_files(self._files), self._choice, self._troubles)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for line in self._troubles:
            typer.echo(f"nightjar: {line}", err=True)
        if self._troubles and kind is None:
            raise typer.Exit(2)


def _coloured(colour: Colour) -> bool:
    import os

    if colour is Colour.AUTO:
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return colour is Colour.ALWAYS
