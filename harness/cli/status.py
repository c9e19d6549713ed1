"""``nightjar status``: what is done, what failed and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from harness.cli.options import Json, WorkspacePath, emit, show_table

if TYPE_CHECKING:
    from harness.catalog import Catalog

__all__ = ["status"]

_UNITS = """SELECT stage, count(*) FILTER (status = 'done') AS done,
  count(*) FILTER (status = 'failed') AS failed, count(*) FILTER (status = 'blocked') AS blocked,
  count(*) FILTER (status = 'skipped') AS skipped, round(sum(cpuS), 2) AS cpuS,
  round(sum(wallS), 2) AS wallS, round(max(peakRssMiB)) AS peakRssMiB
FROM unit GROUP BY stage"""
_TROUBLES = """SELECT visit, detector, stage, status, cause, message, templateId FROM unit
WHERE status NOT IN ('done', 'skipped') ORDER BY visit, detector, stage"""
_TABLES = ("DiaSource", "DiaObject", "DiaForcedSource", "SSSource", "alert", "candidate")


def status(workspace: WorkspacePath, as_json: Json = False) -> None:
    """Say what is done in WORKSPACE, what failed and why, and what the tables hold."""
    from harness.settings import Settings
    from harness.workspace import Workspace

    space = Workspace.open(workspace)
    campaign = Settings.load(space.config).campaign
    document: dict[str, Any] = {
        "workspace": str(workspace),
        "campaign": campaign.name,
        "profile": campaign.profile,
        "camera": campaign.camera,
        "exposures": _exposures(space.exposures),
        **_state(space.catalog),
    }
    if as_json:
        emit(document)
    else:
        _show(document)


def _exposures(path: Path) -> int:
    from pipeline import io

    return io.count_rows(path) if path.is_file() else 0


def _state(path: Path) -> dict[str, Any]:
    from harness.catalog import Catalog
    from harness.tasks import in_order

    if not path.exists():
        return {"run": None, "stages": [], "troubles": [], "rows": {}}
    with Catalog(path, read_only=True) as catalog:
        stages = in_order(catalog.rows(_UNITS))
        return {
            "run": _last_run(catalog),
            "stages": stages,
            "troubles": catalog.rows(_TROUBLES),
            "instrumental": catalog.value(
                "SELECT count(*) FROM difference_image WHERE unit <> 'nJy'"
            ),
            "rows": {table: catalog.count(table) for table in _TABLES},
        }


def _last_run(catalog: Catalog) -> dict[str, Any] | None:
    rows = catalog.rows(
        "SELECT runId, status, exitCode, softwareVersion, startedMjdTai, endedMjdTai FROM run "
        "ORDER BY startedMjdTai DESC LIMIT 1"
    )
    return rows[0] if rows else None


def _show(document: dict[str, Any]) -> None:
    source = f"profile {document['profile']}, " if document["profile"] else ""
    typer.echo(
        f"{document['campaign']}: {source}camera {document['camera']}, "
        f"{document['exposures']} exposures"
    )
    run = document["run"]
    if run is None:
        typer.echo("not run yet")
        return
    typer.echo(f"last run {run['runId']}: {run['status']}, software {run['softwareVersion']}\n")
    show_table(document["stages"])
    typer.echo("\n" + ", ".join(f"{n} {table}" for table, n in document["rows"].items()))
    if document["instrumental"]:
        typer.echo(
            f"{document['instrumental']} difference images have no zero point: electrons, not nJy"
        )
    if document["troubles"]:
        typer.echo("")
        show_table(document["troubles"])
