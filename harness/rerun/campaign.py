"""A whole campaign once more, in another place (DMS-REQ-0388, DMS-REQ-0389)."""

from __future__ import annotations

from pathlib import Path

from harness.catalog import Catalog
from harness.rerun.compare import compare_catalogues, compare_files, link_inputs
from harness.rerun.product import RerunResult
from harness.workspace import Workspace, translate_os_errors
from pipeline.errors import UnitError

__all__ = ["rerun_campaign"]


def rerun_campaign(
    root: Path, into: Path, *, jobs: int | None = None, quiet: bool = False
) -> RerunResult:
    """Process the inputs of a workspace in a new one, and compare the catalogues and products.

    Parameters
    ----------
    root, into : Path
        The workspace, and the new one; its inputs are linked.
    jobs : int, optional
        Worker processes.
    quiet : bool
        Whether to show no progress.

    Returns
    -------
    RerunResult
        What differs.

    Raises
    ------
    InputError
        If one of both cannot be used.
    UnitError
        If the new run does not end.
    """
    from harness.campaign.run import run_campaign

    space = Workspace.open(root)
    with Catalog(space.catalog, read_only=True):  # there must be something to compare with
        new = Workspace.create(into)
    with translate_os_errors(into):
        new.config.write_bytes(space.config.read_bytes())
        link_inputs(space, new)
    summary = run_campaign(into, jobs=jobs, quiet=quiet)
    if summary.exit_code == 70:
        raise UnitError("the new run failed", troubles=len(summary.troubles))
    made = [p for name in ("products", "alerts") for p in sorted((new.root / name).rglob("*.*"))]
    differences = list(compare_files(space, new, made))
    with Catalog(space.catalog, read_only=True) as old, Catalog(new.catalog, read_only=True) as now:
        differences += compare_catalogues(old, now)
    return RerunResult(differences)
