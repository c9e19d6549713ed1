"""What a task is: one step of the campaign, declared in one file of `harness.tasks`.

A work item is one task on one target.  Items are plain values that travel between processes:
paths, hashes, small tables and the settings.  Everything that a product depends on is in the keys
of its item.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.campaign.context import Context
from harness.campaign.faults import planted
from harness.catalog import Catalog
from harness.execute import TIMEOUT
from harness.ledger import (
    DONE,
    FAILED,
    Measure,
    Outcome,
    StageRecord,
    Target,
    blocked,
    cause_of,
    measuring,
)
from harness.plan import Unit
from harness.settings import Settings
from harness.system.hashes import combine, join_hashes
from harness.system.log import collecting
from harness.system.memory import turn_to
from harness.workspace import Workspace

__all__ = ["Blocked", "Notes", "Phase", "Stage", "StageKey", "Task", "WorkItem"]

Notes = Sequence[str]

_LOGGER = logging.getLogger(__name__)

_DEATHS = {
    "SIGKILL": "SIGKILL, killed or out of memory",
    "SIGSEGV": "SIGSEGV, a crash of compiled code",
    "SIGABRT": "SIGABRT, a crash of compiled code",
    "SIGBUS": "SIGBUS, a crash of compiled code or a full disk",
}


@dataclass(frozen=True, slots=True)
class StageKey:
    """Resume key of one stage: same key, same result.

    Attributes
    ----------
    stage, section : str
        Its name, and the section of the configuration that it depends on.
    input_hash, config_hash, version : str, str, int
        Contents of the inputs, values of the configuration, version of the code.
    """

    stage: str
    section: str
    input_hash: str
    config_hash: str
    version: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a task.

    Attributes
    ----------
    name : str
        Its name in the table ``unit``.
    package : str
        Package of `pipeline` whose ``VERSION`` and section of the configuration key it; that of
        the same name by default.
    """

    name: str
    package: str = ""

    def key(self, settings: Settings, input_hash: str) -> StageKey:
        """Resume key, given the hash of everything that the stage reads."""
        package = self.package or self.name
        version = importlib.import_module(f"pipeline.{package}").VERSION
        return StageKey(self.name, package, input_hash, settings.section_hash(package), version)


def _no_files(_space: Workspace, _target: Target) -> tuple[Path, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Declaration of one task.

    Attributes
    ----------
    name, label : str
        Name of the task, and of its progress.
    stages : tuple of Stage
        In the order of the data.
    phases : callable
        Plans the work: yields one phase after the other, each once the former one is finished.
    run : callable
        Does the work of one item, in a worker: yields notes at the end of each stage.
    products : callable
        Files that are made of a target for others to read.
    staged : tuple of str
        Tables whose staged rows of a target enter the catalogue when it is done.
    owned : tuple of str
        Further tables that hold rows of a target.
    planned : callable, optional
        All targets of the plan, whether selected or not; recorded ones that are not among them
        are taken away.
    prepare : callable, optional
        Completes an item that is to be done, by what its key did not need.
    store : callable, optional
        Writes ``Outcome.tables`` into the catalogue, within the transaction of the outcome.
    outdate : callable, optional
        Marks what other tables derive from the rows of a target, within the transaction that
        changes these rows, before and after it.
    """

    name: str
    label: str
    stages: tuple[Stage, ...]
    phases: Callable[[Context], Iterator[Phase]]
    run: Callable[[Any, Outcome], Iterator[Notes]]
    products: Callable[[Workspace, Target], tuple[Path, ...]] = _no_files
    staged: tuple[str, ...] = ()
    owned: tuple[str, ...] = ()
    planned: Callable[[Context], Collection[Target]] | None = None
    prepare: Callable[[Context, Any], WorkItem] | None = None
    store: Callable[[Catalog, Outcome], None] | None = None
    outdate: Callable[[Catalog, Target], None] | None = None

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(stage.name for stage in self.stages)

    def files(self, space: Workspace, target: Target) -> tuple[Path, ...]:
        """Every file that the task makes of a target."""
        staged = [space.staging(table, target.visit, target.detector) for table in self.staged]
        return (*self.products(space, target), *staged)

    def keys(self, settings: Settings, *inputs: str) -> tuple[StageKey, ...]:
        """Resume keys of all stages; the last hash is that of the inputs of the later ones."""
        last = len(inputs) - 1
        return tuple(s.key(settings, inputs[min(i, last)]) for i, s in enumerate(self.stages))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """One task on one target; tasks add what else their work needs.

    Attributes
    ----------
    task : Task
        What to do.
    target : Target
        What to make.
    keys : tuple of StageKey
        One per stage, in order.
    space, output : Workspace
        Where inputs are and where products go; another place when a product is made again.
    settings : Settings
        The resolved configuration.
    cards : mapping
        Provenance that all products share: software and run.
    input_cards : mapping
        Provenance cards that name the inputs.
    units : tuple of Unit
        Visits and detectors that are recorded; their cost is shared.  The target by default.
    """

    task: Task
    target: Target
    keys: tuple[StageKey, ...]
    space: Workspace
    output: Workspace
    settings: Settings
    cards: Mapping[str, str]
    input_cards: Mapping[str, str] = field(default_factory=dict)
    units: tuple[Unit, ...] = ()

    @property
    def unit(self) -> Unit:
        """Visit and detector."""
        return self.target[:2]

    @property
    def products(self) -> tuple[Path, ...]:
        """Files that are made for others to read."""
        return self.task.products(self.output, self.target)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that must be there, as they were made, for the item to count as done."""
        return self.task.files(self.output, self.target)

    @property
    def targets(self) -> list[Target]:
        """What is recorded."""
        return [Target(*unit) for unit in self.units] or [self.target]

    def provenance(self) -> dict[str, str | int]:
        """Provenance cards of every product of the item."""
        return {
            "STAGEVER": " ".join(f"{key.stage}={key.version}" for key in self.keys),
            "CONFHASH": combine(key.config_hash for key in self.keys)[:12],
            **self.cards,
        }

    def perform(self, attempt: int = 1) -> Outcome:
        """Do the work, whatever happens.

        Parameters
        ----------
        attempt : int
            1, or more after a worker died.

        Returns
        -------
        Outcome
            With one record per stage and unit; after a failure the later stages are ``blocked``.
        """
        turn_to(self.task.name)
        outcome = Outcome(self.target)
        steps = self.task.run(self, outcome)
        where = dict(zip(("visit", "detector", "template"), self.target, strict=True))
        with collecting(**{k: v for k, v in where.items() if v is not None}) as log:
            for key in self.keys:
                trouble = outcome.trouble
                if trouble is not None:
                    outcome.stages += [blocked(t, key.stage, trouble.stage) for t in self.targets]
                else:
                    log.context["stage"] = key.stage
                    record, measure = _step(self, steps, key)
                    outcome.stages += self._shared(record.replace(attempts=attempt), measure)
        outcome.logs += log.records
        return self._sealed(outcome) if outcome.status == DONE else outcome

    def _sealed(self, outcome: Outcome) -> Outcome:
        """Record what every file of the task has become."""
        try:
            for path in self.files:
                if str(path) not in outcome.files:
                    outcome.wrote(path)
        except OSError as err:
            return outcome.spoiled(err)
        outcome.finish(output_hash=join_hashes(outcome.files[str(p)] for p in self.files))
        return outcome

    def lost(self, attempts: int, how: str) -> Outcome:
        """Outcome of an item whose workers died; its later stages are ``blocked``."""
        if how == TIMEOUT:
            limit = self.settings.execution.unit_time_limit
            cause, words = TIMEOUT, f"took longer than execution.unit_time_limit = {limit:g} s"
        else:
            words = f"the worker process ended without a word: {_DEATHS.get(how, how)}"
            cause = "WORKER_DIED"
        first, *later = [key.stage for key in self.keys]
        record = StageRecord(*self.unit, first, FAILED, cause, words, attempts)
        waiting = [blocked(target, stage, first) for stage in later for target in self.targets]
        return Outcome(self.target, self._shared(record, Measure()) + waiting)

    def _shared(self, record: StageRecord, measure: Measure) -> list[StageRecord]:
        """One record for every unit, each with its part of the time."""
        costs, n = measure.costs(), len(self.targets)
        costs |= {"wall_s": measure.wall_s / n, "cpu_s": measure.cpu_s / n}
        return [
            record.replace(visit=visit, detector=detector, template_id=template, **costs)
            for visit, detector, template in self.targets
        ]


@dataclass(frozen=True, slots=True)
class Blocked:
    """Something that the plan has and that cannot be tried, why, and the stages that wait."""

    target: Target
    why: str
    stages: Sequence[str]

    def records(self) -> list[StageRecord]:
        """Record every stage; each waits for the one before."""
        causes = (self.why, *self.stages[:-1])
        return [blocked(self.target, *pair) for pair in zip(self.stages, causes, strict=True)]


@dataclass(slots=True)
class Phase:
    """Work items that do not depend on one another, made one by one as they are taken.

    Attributes
    ----------
    label : str
        Name shown to the user.
    total : int
        How many items there are.
    items : iterable
        What to do, and what cannot be done.
    final : bool
        Whether a failure is one of the run: it is not where something else will be tried.
    local : bool
        Whether the items must be done in the process that has the catalogue, in their order.
    """

    label: str
    total: int
    items: Iterable[WorkItem | Blocked]
    final: bool = True
    local: bool = False


def _step(item: WorkItem, steps: Iterator[Notes], key: StageKey) -> tuple[StageRecord, Measure]:
    """Perform one stage, measure it, and turn an error into a record with a cause."""
    status, cause, message, notes = DONE, None, None, ""
    with measuring() as measure:
        try:
            with planted(key.stage, item.target.name, item.files):
                notes = "; ".join(next(steps))
        except Exception as err:
            status, (cause, message) = FAILED, cause_of(err)
            unexpected = cause == "INTERNAL"
            _LOGGER.log(
                logging.ERROR if unexpected else logging.WARNING,
                "%s failed: %s: %s", key.stage, cause, message,
                exc_info=err if unexpected else None,
            )  # fmt: skip
    if notes:
        _LOGGER.info("%s", notes)
    _LOGGER.info(
        "%s %s in %.2f s (%.2f CPU-s, %.0f MiB)",
        key.stage, status, measure.wall_s, measure.cpu_s, measure.peak_rss_mib,
    )  # fmt: skip
    record = StageRecord(0, 0, key.stage, status, cause, message, notes=notes or None)
    return record.replace(
        input_hash=key.input_hash, config_hash=key.config_hash, stage_version=key.version
    ), measure
