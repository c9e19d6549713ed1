"""``nightjar work``: perform items of a run that was started elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import TimeLimit, WorkspacePath

__all__ = ["work"]


def work(
    workspace: WorkspacePath,
    wait: Annotated[
        str, typer.Option("--wait", metavar="DURATION", help="How long to wait for the run.")
    ] = "10m",
    time_limit: TimeLimit = None,
) -> None:
    """Perform items of ``nightjar run WORKSPACE --claims``, one at a time, until it ends.

    Any number of these may be started, on any machine that sees the workspace, before or after
    the run itself and at any time: as tasks of a job array, for instance.  One that is killed
    loses its item to the others.
    """
    import time

    from harness.campaign.budget import seconds
    from harness.execute.claimant import Claimant
    from harness.execute.compilation import compile_loops
    from harness.system.processes import heeded_termination
    from harness.workspace import Workspace

    end = time.monotonic() + seconds(time_limit) if time_limit else float("inf")
    space = Workspace.open(workspace)
    with heeded_termination():
        compile_loops()
        performed = Claimant(space.queue, seconds(wait), end).work()
    typer.echo(f"performed {performed} items")
