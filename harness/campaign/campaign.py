"""A campaign from raw frames to alerts: a fold over the list of tasks.

The tasks come in the order of the data, and so do the phases of each.  Within a phase the work
items are independent.  An item whose keys (inputs, configuration, version) are the recorded ones
is not done again; one that fails is recorded with its cause, what needs it is recorded as blocked,
and the rest goes on.  Items are planned one by one as the executor takes them, and only this
process writes the catalogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import harness.tasks
from harness.campaign.budget import TimeBudget
from harness.campaign.context import Context
from harness.campaign.staleness import TODO, ConfigMemory, Staleness
from harness.campaign.store import accept, retire
from harness.campaign.task import Blocked, Phase, Task, WorkItem
from harness.execute import Executor, SerialExecutor
from harness.ledger import BLOCKED, DONE, Outcome, StageRecord, Target, now_mjd_tai
from harness.system.log import Logbook
from harness.system.progress import ProgressDisplay
from pipeline import io

__all__ = ["LATENCY", "Campaign", "Summary"]

LATENCY = """
  WITH new AS (SELECT * FROM unit WHERE startedMjdTai >= ? AND status = ?),
    through AS (SELECT visit, detector FROM new WHERE stage IN ('isr', 'alerts')
      GROUP BY visit, detector HAVING count(*) = 2)
  SELECT count(DISTINCT (visit, detector)) AS n,
    86400 * (max(startedMjdTai + wallS / 86400) - min(startedMjdTai)) AS s
  FROM new SEMI JOIN through USING (visit, detector)"""
"""How many detector images went from raw frame to alerts since a time, and how long that took."""


@dataclass(slots=True)
class Summary:
    """What a run did, or would do.

    Attributes
    ----------
    counts : dict of str to Counter
        Per phase: units done, cached, failed, blocked.
    troubles : list of StageRecord
        Everything that is not done, in order.
    reasons : list of tuple
        Phase, visit, detector, template and why it is (or would be) done.
    instrumental : int
        Difference images without a zero point: their fluxes are electrons instead of nJy.
    stopped : bool
        Whether the time was too short to begin everything.
    latency_s, detectors : float, s, and int
        From the first raw frame read to the last alert written, and of how many detectors; NaN
        where no frame went all the way.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    troubles: list[StageRecord] = field(default_factory=list)
    reasons: list[tuple[str, int, int, str | None, str]] = field(default_factory=list)
    instrumental: int = 0
    stopped: bool = False
    latency_s: float = float("nan")
    detectors: int = 0

    @property
    def exit_code(self) -> int:
        """0 when all is done, 70 after a bug of ours, 4 if there is more to do, else 1."""
        if any(t.cause == "INTERNAL" for t in self.troubles):
            return 70
        if self.stopped:
            return 4
        return 1 if self.troubles else 0


class Campaign:
    """Runs all tasks of a workspace.

    Parameters
    ----------
    context : Context
        What the tasks see.
    executor : Executor, optional
        Does the work; without it everything is planned and nothing done.
    display, logbook : ProgressDisplay, Logbook
        Where it is shown and written down.
    retry : bool
        Whether known failures are tried again.
    budget : TimeBudget, optional
        The time there is.

    Attributes
    ----------
    local_cpu_s : float, s
        Processor time of the work items that were done in this process.
    """

    def __init__(
        self,
        context: Context,
        executor: Executor | None,
        display: ProgressDisplay,
        logbook: Logbook | None = None,
        *,
        retry: bool = False,
        budget: TimeBudget | None = None,
    ) -> None:
        self.context, self.state = context, context.state
        self.executor, self.display, self.logbook = executor, display, logbook
        self.summary = Summary()
        self.local_cpu_s = 0.0
        self._begun_mjd = now_mjd_tai()
        self._staleness = Staleness(self.state, retry=retry)
        self._budget = budget or TimeBudget()
        self._in_flight: dict[Target, WorkItem] = {}

    def run(self) -> Summary:
        """Do what is to be done.

        Returns
        -------
        Summary
            Counts and troubles.
        """
        if self.executor is not None:
            self._register()
        for task in harness.tasks.TASKS:
            if self.executor is not None and task.planned is not None:
                retire(self.state, task, task.planned(self.context))
            for phase in task.phases(self.context):
                self._phase(task, phase)
                if self.summary.stopped:  # what follows would be planned of too little
                    return self.summary
        instrumental = "SELECT count(*) FROM difference_image WHERE unit <> 'nJy'"
        self.summary.instrumental = int(self.state.catalog.value(instrumental))
        self._note_latency()
        return self.summary

    def _note_latency(self) -> None:
        """Take from the ledger how long the frames took that this invocation took all the way."""
        (row,) = self.state.catalog.rows(LATENCY, [self._begun_mjd, DONE])
        if row["n"]:
            self.summary.latency_s, self.summary.detectors = float(row["s"]), int(row["n"])

    def _register(self) -> None:
        """Take the exposures and the skipped detectors into the catalogue."""
        state = self.state
        with state.catalog.transaction():
            state.catalog.replace("exposure", io.read_parquet(state.space.exposures))
            state.put(self.context.skipped)
        ConfigMemory(state.space).keep(state.settings)
        run = self.context.cards["RUNID"]
        state.settings.save(state.space.run_config(run))

    def _phase(self, task: Task, phase: Phase) -> None:
        """Perform what must be, count what need not be, record what cannot be."""
        before = len(self.summary.troubles)
        self.summary.counts.setdefault(phase.label, Counter())
        self.display.start(phase.label, phase.total)
        todo = self._todo(phase)
        if self.executor is None:
            for item in todo:
                self._count(phase.label, TODO)
                self.context.assume_done(item.targets, task.stage_names)
        else:
            executor = SerialExecutor() if phase.local else self.executor
            for outcome in executor.map(todo):
                self._accept(phase, outcome)
                if isinstance(executor, SerialExecutor):
                    self.local_cpu_s += sum(record.cpu_s for record in outcome.stages)
            self.state.hashes.save()
        if not phase.final:
            del self.summary.troubles[before:]
        self.display.finish()

    def _todo(self, phase: Phase) -> Iterator[WorkItem]:
        """Yield the items that must be done; account for the others."""
        for item in phase.items:
            if isinstance(item, Blocked):
                self._block(phase, item.records())
                continue
            finding = self._staleness.of(item)
            if finding.status == TODO:
                if not self._in_time(item):
                    return
                self.summary.reasons.append((phase.label, *item.target, finding.reason))
                if self.executor is not None:
                    if item.task.prepare is not None:
                        item = item.task.prepare(self.context, item)
                    self._in_flight[item.target] = item
                yield item
            else:
                self._count(phase.label, finding.status)
                self.summary.troubles += self._staleness.troubles(item)

    def _in_time(self, item: WorkItem) -> bool:
        """Whether an item would end within the budget."""
        names, targets = item.task.stage_names, len(item.targets)
        if self._budget.allows(self.state.catalog, names, targets):
            return True
        self.summary.stopped = True
        self.display.say(
            f"stopping: the next item may take {self._budget.needed_s:.0f} s, "
            f"and {max(0.0, self._budget.left_s):.0f} s are left"
        )
        return False

    def _block(self, phase: Phase, records: Sequence[StageRecord]) -> None:
        if self.executor is not None:
            with self.state.catalog.transaction():
                self.state.put(records)
        self.summary.troubles += records
        self._count(phase.label, BLOCKED)

    def _accept(self, phase: Phase, outcome: Outcome) -> None:
        item = self._in_flight.pop(outcome.target)
        outcome = accept(self.state, item, outcome)
        self._budget.learn(item.task.stage_names, outcome, len(item.targets))
        if self.logbook is not None:
            self.logbook.write(outcome.logs)
        troubles = [r for r in outcome.stages if r.status != DONE]
        self.summary.troubles += troubles
        note = ""
        if troubles:
            first = troubles[0]
            where = first.template_id or f"visit {first.visit} detector {first.detector}"
            note = f"{where}: {first.stage} {first.status}: {first.cause}: {first.message}"
        self._count(phase.label, outcome.status, note)

    def _count(self, label: str, status: str, note: str = "") -> None:
        self.summary.counts[label][status] += 1
        self.display.advance(status, note)
