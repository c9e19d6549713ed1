"""``nightjar run``: the pipeline, raw exposures to alerts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import (
    Detectors,
    DryRun,
    From,
    Jobs,
    Json,
    Overrides,
    Quiet,
    Until,
    Visits,
    WorkspacePath,
    emit,
)

if TYPE_CHECKING:
    from harness.campaign.campaign import Summary

__all__ = ["run"]


def run(
    workspace: WorkspacePath,
    jobs: Jobs = None,
    visit: Visits = None,
    detector: Detectors = None,
    since: From = None,
    until: Until = None,
    overrides: Overrides = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try units again that failed for a known cause.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say for every unit why it is done (again).")
    ] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the pipeline over WORKSPACE: visit images, templates, differences, objects, alerts.

    What is done already with the same inputs, configuration and code is not done again, so an
    interrupted run is simply started again.  A unit that fails is recorded with its cause and the
    rest goes on; the exit code is then 1.
    """
    from harness.campaign.run import run_campaign, selection
    from harness.verify.pin import pin
    from harness.workspace import Workspace

    if not dry_run:
        pin(Workspace.open(workspace))
    chosen = selection(visit, detector, since, until)
    summary = run_campaign(
        workspace,
        selection=chosen,
        jobs=jobs,
        overrides=overrides or (),
        retry=retry_failed,
        dry_run=dry_run,
        quiet=quiet or as_json,
    )
    if as_json:
        emit(_document(summary))
    else:
        _show(summary, dry_run=dry_run, explain=explain or dry_run)
    if summary.exit_code and not dry_run:
        raise typer.Exit(summary.exit_code)


def _document(summary: Summary) -> dict[str, Any]:
    return {
        "exit_code": summary.exit_code,
        "phases": {label: dict(counts) for label, counts in summary.counts.items()},
        "instrumental": summary.instrumental,
        "troubles": [t.row() for t in _finite(summary.troubles)],
        "reasons": [
            {"phase": p, "visit": v, "detector": d, "template": t, "reason": r}
            for p, v, d, t, r in summary.reasons
        ],
    }


def _finite(troubles: Iterable[Any]) -> list[Any]:
    return [
        t.replace(peak_rss_mib=None, started_mjd_tai=None)
        if t.started_mjd_tai != t.started_mjd_tai
        else t
        for t in troubles
    ]


def _show(summary: Summary, *, dry_run: bool, explain: bool) -> None:
    if explain:
        for phase, visit, detector, template, reason in summary.reasons:
            where = template or (f"{visit}" if detector < 0 else f"{visit} {detector:02d}")
            typer.echo(f"{phase:<12} {where:<24} {reason}")
    verb = "would do" if dry_run else "done"
    for label, counts in summary.counts.items():
        words = ", ".join(f"{n} {status}" for status, n in counts.items()) or "nothing to do"
        typer.echo(f"{label:<12} {words}")
    if summary.instrumental:
        typer.echo(
            f"fluxes of {summary.instrumental} difference images are instrumental: there is no "
            "zero point, so their tables and alerts hold electrons where the schema says nJy"
        )
    total = sum(sum(counts.values()) for counts in summary.counts.values())
    troubles = f"; {len(summary.troubles)} stages failed or blocked" if summary.troubles else ""
    typer.echo(f"{verb}: {total} units{troubles}")
