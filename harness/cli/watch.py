"""``nightjar watch``: raw files as they land, visit by visit to alerts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Jobs, WorkspacePath

if TYPE_CHECKING:
    from harness.workspace import Workspace

__all__ = ["watch"]


_Inbox = Annotated[Path, typer.Argument(help="Folder in which raw files land.", show_default=False)]
_Every = Annotated[float, typer.Option(min=0.05, help="Time between two looks at the inbox, s.")]
_Once = Annotated[
    bool, typer.Option("--once", help="End when all that is there has been processed.")
]
_Topic = Annotated[
    str | None, typer.Option(help="Send the alerts to this topic, see alerts publish.")
]
_SchemaId = Annotated[
    int | None,
    typer.Option(min=0, max=2**32 - 1, help="Number of the schema in the broker's registry."),
]
_Broker = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT[,…]", help="Brokers, instead of bootstrap.servers."),
]
_Properties = Annotated[
    Path | None, typer.Option(help="Properties file of librdkafka; secrets belong here.")
]
_Timeout = Annotated[
    float, typer.Option(min=0.1, help="Longest time to wait for an acknowledgement, s.")
]


def watch(
    workspace: WorkspacePath,
    inbox: _Inbox,
    jobs: Jobs = None,
    every: _Every = 2.0,
    once: _Once = False,
    topic: _Topic = None,
    schema_id: _SchemaId = None,
    broker: _Broker = None,
    properties: _Properties = None,
    timeout: _Timeout = 60.0,
) -> None:
    """Process what lands in INBOX, one visit after the other, and publish or write its alerts.

    Register the exposures for templates before: nightjar ingest WORKSPACE FILES --role template.
    The files stay where they are.  A bad file or a unit that fails is one line, and the rest goes
    on.  Started again after any end, it goes on with what is left; what a broker did not
    acknowledge is sent first.
    """
    from harness.alerts.publish import read_properties
    from harness.ingest.watch import watch as steps
    from harness.verify.pin import pin
    from harness.workspace import Workspace

    if topic is not None and schema_id is None:
        raise typer.BadParameter("--topic needs --schema-id")
    chosen = read_properties(properties) if properties else {}
    if broker is not None:
        chosen["bootstrap.servers"] = broker
    space = Workspace.open(workspace)
    pin(space)
    failed = False
    if topic is not None and schema_id is not None and space.catalog.is_file():
        failed = _publish(space, topic, schema_id, chosen, timeout)
    for step in steps(space, inbox, jobs=jobs, every_s=every, once=once):
        for line in step.problems:
            typer.echo(f"nightjar: {line}", err=True)
        failed |= bool(step.problems)
        for visit in step.visits:
            typer.echo(f"visit {visit}: {_alerts(space, visit)} alerts")
        if topic is not None and schema_id is not None:
            failed |= _publish(space, topic, schema_id, chosen, timeout)
    if failed:
        raise typer.Exit(1)


def _alerts(space: Workspace, visit: int) -> int:
    from harness.catalog import Catalog

    with Catalog(space.catalog, read_only=True) as catalog:
        sql = "SELECT count(*) FROM alert WHERE emitted AND visit = ?"
        return int(catalog.fetch(sql, [visit])[0][0])


def _publish(
    space: Workspace, topic: str, schema_id: int, properties: Mapping[str, str], timeout_s: float
) -> bool:
    """Send what is pending; return whether anything went wrong."""
    from harness.alerts.publish import publish_campaign

    result = publish_campaign(space, topic, schema_id, properties, timeout_s=timeout_s)
    typer.echo(f"{result.sent} alerts sent to {topic}, {result.pending} still to be sent")
    for line in (*result.refused, *([result.trouble] if result.trouble else [])):
        typer.echo(f"nightjar: {line}", err=True)
    return bool(result.refused or result.trouble)
