"""``nightjar run``: the pipeline, raw exposures to alerts."""

from __future__ import annotations

import json
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
    TimeLimit,
    Until,
    Visits,
    WorkspacePath,
    emit,
)

if TYPE_CHECKING:
    from harness.campaign.campaign import Summary

from pipeline.errors import ConfigError

__all__ = ["run"]


_RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try units again that failed for a known cause.")
]
_Explain = Annotated[
    bool, typer.Option("--explain", help="Say for every unit why it is done (again).")
]
_Dask = Annotated[
    str | None,
    typer.Option(
        "--dask", metavar="ADDRESS", help="Use this Dask cluster, or local:N for N workers."
    ),
]
_Slurm = Annotated[
    bool, typer.Option("--slurm", help="Use -j jobs of Slurm, started through Dask.")
]
_Claims = Annotated[
    bool, typer.Option("--claims", help="Leave the work to processes of nightjar work.")
]


def run(
    workspace: WorkspacePath,
    jobs: Jobs = None,
    visit: Visits = None,
    detector: Detectors = None,
    since: From = None,
    until: Until = None,
    overrides: Overrides = None,
    retry_failed: _RetryFailed = False,
    explain: _Explain = False,
    time_limit: TimeLimit = None,
    dask: _Dask = None,
    slurm: _Slurm = False,
    claims: _Claims = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the pipeline over WORKSPACE: visit images, templates, differences, objects, alerts.

    What is done already with the same inputs, configuration and code is not done again, so an
    interrupted run is simply started again.  A unit that fails is recorded with its cause and the
    rest goes on; the exit code is then 1.  A run that stops for want of time exits with 4.
    """
    from harness.campaign.budget import seconds
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
        overrides=[*(overrides or ()), *_engine(dask, slurm=slurm, claims=claims)],
        retry=retry_failed,
        dry_run=dry_run,
        quiet=quiet or as_json,
        time_limit_s=seconds(time_limit) if time_limit else None,
    )
    if as_json:
        emit(_document(summary))
    else:
        _show(summary, dry_run=dry_run, explain=explain or dry_run)
    if summary.exit_code and not dry_run:
        raise typer.Exit(summary.exit_code)


def _engine(dask: str | None, *, slurm: bool, claims: bool) -> list[str]:
    """Say in the words of the configuration which engine is meant."""
    chosen = [name for name, on in (("dask", dask), ("slurm", slurm), ("claims", claims)) if on]
    if len(chosen) > 1:
        raise ConfigError("exclude one another", key=", ".join(f"--{name}" for name in chosen))
    address = [f"execution.dask={json.dumps(dask)}"] if dask else []
    return [*(f'execution.executor="{name}"' for name in chosen), *address]


def _document(summary: Summary) -> dict[str, Any]:
    return {
        "exit_code": summary.exit_code,
        "phases": {label: dict(counts) for label, counts in summary.counts.items()},
        "instrumental": summary.instrumental,
        "stopped": summary.stopped,
        "detectors": summary.detectors,
        "latencyS": summary.latency_s if summary.detectors else None,
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
    if summary.detectors:
        typer.echo(
            f"{summary.latency_s:.1f} s from the first raw frame read to the last alert written, "
            f"of {summary.detectors} detector images"
        )
    if summary.stopped:
        typer.echo("stopped before the time limit; run the same command again to go on")
