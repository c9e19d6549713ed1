"""One alert made again from raw frames.

Visit images, template, difference and sources of its unit are made anew and compared on the way.
What other visits contribute, its object and its history, is taken from the catalogue.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.campaign.context import Context
from harness.campaign.staleness import TODO, Staleness
from harness.campaign.state import RunState
from harness.campaign.task import WorkItem
from harness.catalog import Catalog
from harness.ledger import DONE, Target
from harness.plan import Selection, Unit
from harness.rerun.compare import compare_files, link_inputs
from harness.rerun.product import RerunResult, settings_of_run
from harness.system.scratch import scratch_folder
from harness.tasks import alerts, difference, template, visit_image
from harness.workspace import Workspace
from pipeline.errors import ConfigError, UnitError

__all__ = ["rerun_alert"]

_ALERT = """SELECT a.visit, a.detector, u.runId, r.softwareVersion FROM alert a
JOIN unit u ON u.visit = a.visit AND u.detector = a.detector AND u.stage = 'alerts'
LEFT JOIN run r ON r.runId = u.runId WHERE a.diaSourceId = ? AND a.emitted"""


def rerun_alert(root: Path, number: int, output: Path | None = None) -> RerunResult:
    """Make an alert again from raw frames, and compare the bytes of its file.

    Parameters
    ----------
    root : Path
        The workspace.
    number : int
        The alert: the ``diaSourceId`` of its source.
    output : Path, optional
        Where to keep the new alert file.

    Returns
    -------
    RerunResult
        Differences of every file on the way, and what has changed since.

    Raises
    ------
    ConfigError
        If there is no such alert.
    UnitError
        If something cannot be made again.
    """
    space, result = Workspace.open(root), RerunResult()
    with (
        space.reading("rerun"),
        Catalog(space.catalog, read_only=True) as catalog,
        scratch_folder() as folder,
    ):
        unit, context = _unit(space, catalog, number)
        into = Workspace.create(folder / "rerun")
        link_inputs(space, into)
        staleness = Staleness(context.state)
        for item in _chain(context, unit, into):
            finding = staleness.of(item)
            if finding.status == TODO:
                result.changed.append(f"{item.task.name} {item.target.name}: {finding.reason}")
            again = replace(item, space=into, output=into)
            _perform(again)
            result.differences += compare_files(space, into, again.files)
        if output is not None:
            shutil.copyfile(into.alerts(*unit), output)
    return result


def _unit(space: Workspace, catalog: Catalog, number: int) -> tuple[Unit, Context]:
    """Find the unit of an alert, and the campaign as it was when that was made."""
    rows = catalog.rows(_ALERT, [number])
    if not rows:
        raise ConfigError(
            f"there is no alert {number}", path=space.root,
            hint="the table alert lists them by diaSourceId",
        )  # fmt: skip
    row = rows[0]
    cards = {"SOFTVER": row["softwareVersion"], "RUNID": row["runId"]}
    state = RunState(space, settings_of_run(space, row["runId"]), catalog, row["runId"])
    return (row["visit"], row["detector"]), Context(state, Selection(), cards, performing=False)


def _chain(context: Context, unit: Unit, into: Workspace) -> Iterator[WorkItem]:
    """Everything that an alert is made of, in the order of the data."""
    plan = context.template_of.get(unit)
    if plan is None:
        raise ConfigError(f"visit {unit[0]} detector {unit[1]} is not in the plan any more")
    references = context.references
    units = dict.fromkeys((*plan.inputs, unit))
    needed = [references[u] for u in units if u in references]
    for one in dict.fromkeys((*needed, *units)):
        reference = references.get(one)
        staged = into.staging("calibrate", *reference) if reference else None
        yield visit_image.make_item(context, context.frames[one], staged)
    yield template.make_item(context, plan)
    yield difference.make_item(context, Target(*unit), plan)
    yield from alerts.make_items(context, [unit])


def _perform(item: WorkItem) -> None:
    outcome = item.perform()
    if outcome.status != DONE:
        trouble = outcome.trouble
        raise UnitError(
            f"{item.target.name} cannot be made again: {trouble.message if trouble else '?'}"
        )
