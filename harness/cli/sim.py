"""``nightjar sim``: simulate the raw exposures."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Detectors, DryRun, Jobs, Json, Quiet, Visits, WorkspacePath, emit

if TYPE_CHECKING:
    from harness.settings import Campaign
    from harness.workspace import Workspace

__all__ = ["sim"]


class Layout(StrEnum):
    """Ways in which frames are published."""

    HITS2015 = "hits2015"


def sim(
    workspace: WorkspacePath,
    jobs: Jobs = None,
    visit: Visits = None,
    detector: Detectors = None,
    dry_run: DryRun = False,
    statistics: Annotated[
        bool,
        typer.Option(
            "--statistics", help="Measure the frames against their inputs for the report."
        ),
    ] = False,
    layout: Annotated[
        Layout | None,
        typer.Option(help="Write the frames also as they are published, to WORKSPACE/hits2015."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Simulate what the telescope would have sent: raw frames, calibrations, catalogues, truth.

    The profile and the seed stand in WORKSPACE/nightjar.toml; the same seed gives the same bytes.
    """
    import sims
    from harness.settings import Settings
    from harness.workspace import Workspace
    from pipeline.errors import ConfigError

    space = Workspace.open(workspace)
    campaign = Settings.load(space.config).campaign
    if campaign.profile not in sims.profiles():
        raise ConfigError(
            f"{campaign.profile!r} is no simulation profile",
            path=space.config,
            key="campaign.profile",
            expected=", ".join(sims.profiles()),
        )
    if dry_run:
        typer.echo(f"would simulate profile {campaign.profile} with seed {campaign.seed}")
        return
    with space.changing("sim"):
        _simulate(space, campaign, (jobs, visit, detector), quiet=quiet or as_json)
        if layout is not None:
            from sims.layout import write_hits2015

            write_hits2015(space.root, campaign.profile, space.root / layout.value)
        if statistics:
            from harness.report.simulation import keep_statistics
            from sims.statistics import page

            keep_statistics(space, page(space.root).as_json())
    if as_json:
        emit({"workspace": str(workspace), "profile": campaign.profile, "seed": campaign.seed})
    else:
        typer.echo(f"raw frames and truth written to {workspace}; next: nightjar run {workspace}")


def _simulate(
    space: Workspace,
    campaign: Campaign,
    choice: tuple[int | None, list[int] | None, list[int] | None],
    *,
    quiet: bool,
) -> None:
    """Simulate some jobs, visits and detectors; show the progress and keep the log."""
    import os
    import time

    import sims
    from harness.system.log import Logbook, collecting
    from harness.system.progress import open_progress
    from harness.workspace import translate_os_errors

    jobs, visit, detector = choice
    with (
        open_progress(quiet=quiet) as display,
        translate_os_errors(space.root),
        Logbook(
            space.logs / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-sim.jsonl"
        ) as logbook,
        collecting(stage="sim") as log,
    ):
        phase: list[str] = []

        def progress(label: str, done: int, total: int) -> None:
            if phase != [label]:
                if phase:
                    display.finish()
                phase[:] = [label]
                display.start(label, total)
            while display.done < done:
                display.advance("done")

        try:
            sims.simulate(
                space.root,
                campaign.profile,
                seed=campaign.seed,
                jobs=jobs or len(os.sched_getaffinity(0)),
                visits=visit or None,
                detectors=detector or None,
                progress=progress,
            )
        finally:
            logbook.write(log.records)
        if phase:
            display.finish()
