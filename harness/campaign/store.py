"""What comes back from the workers enters the catalogue; what no longer holds leaves it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from harness.campaign.state import RunState
from harness.campaign.task import Task, WorkItem
from harness.ledger import DONE, FAILED, Outcome, Target
from pipeline import io
from pipeline.errors import InputError
from pipeline.schema import TABLES

__all__ = ["accept", "learn_files", "retire", "withdraw"]


def accept(state: RunState, item: WorkItem, outcome: Outcome) -> Outcome:
    """Record an outcome in one transaction; a failure takes its old product away.

    Parameters
    ----------
    state : RunState
        Catalogue and outcomes of the run.
    item : WorkItem
        What was done.
    outcome : Outcome
        How it ended.

    Returns
    -------
    Outcome
        The same, unless its staged rows cannot be read back: then it has failed.
    """
    staged: dict[str, pa.Table] = {}
    if outcome.status == DONE:
        try:
            staged = {t: io.read_parquet(state.space.staging(t, *item.unit))
                      for t in item.task.staged}  # fmt: skip
        except InputError as err:
            outcome = outcome.spoiled(err)
    with state.catalog.transaction():
        if outcome.status != DONE:
            withdraw(state, item.task, item.target, keep=outcome.files)
        _replace_rows(state, item, outcome)
        if outcome.status == DONE:
            outcome.finish(row_counts=json.dumps(_row_counts(item, outcome, staged)))
            _load_tables(state, item, outcome, staged)
        state.put(outcome.stages)
    learn_files(state, outcome)
    return outcome


def learn_files(state: RunState, outcome: Outcome) -> None:
    """Take over the hashes of the files that were written, so that none is read for it again.

    Parameters
    ----------
    state : RunState
        Catalogue and outcomes of the run.
    outcome : Outcome
        What was done.
    """
    for path, sha256 in outcome.files.items():
        state.hashes.learn(Path(path), sha256, outcome.stamps[path])


def _replace_rows(state: RunState, item: WorkItem, outcome: Outcome) -> None:
    """Put rows in the place of those of the same target; of metrics, those of the same stages."""
    for table, rows in outcome.rows.items():
        if table != "metric":
            state.catalog.replace(table, TABLES[table].from_rows(rows), **item.target.where)
            continue
        for key in item.keys:
            mine = TABLES[table].from_rows([row for row in rows if row["stage"] == key.stage])
            state.catalog.replace(table, mine, **item.target.where, stage=key.stage)


def _row_counts(item: WorkItem, outcome: Outcome, staged: Mapping[str, pa.Table]) -> dict[str, int]:
    """Rows that an outcome brings, by table; of metrics, those of its stages."""
    counts = {table: rows.num_rows for table, rows in staged.items()}
    counts |= {table: len(rows) for table, rows in outcome.rows.items()}
    if "metric" in counts:
        own = item.task.stage_names
        counts["metric"] = sum(row["stage"] in own for row in outcome.rows["metric"])
    return dict(sorted(counts.items()))


def _load_tables(
    state: RunState, item: WorkItem, outcome: Outcome, staged: Mapping[str, pa.Table]
) -> None:
    """Take staged rows into their tables, and the others by the task's own rule."""
    with _outdating(state, item.task, item.target):
        for table, rows in staged.items():
            state.catalog.replace(table, rows, **item.target.where)
    if item.task.store is not None:
        item.task.store(state.catalog, outcome)


@contextmanager
def _outdating(state: RunState, task: Task, target: Target) -> Iterator[None]:
    """Mark what derives from the rows that the block takes away, and from those it brings."""
    if task.outdate is not None:
        task.outdate(state.catalog, target)
    yield
    if task.outdate is not None:
        task.outdate(state.catalog, target)


def withdraw(state: RunState, task: Task, target: Target, keep: Collection[str] = ()) -> None:
    """Take away files and rows that a task made of a target, inside an open transaction.

    Parameters
    ----------
    state : RunState
        Catalogue and outcomes of the run.
    task : Task
        The task whose products go.
    target : Target
        Of what they were made.
    keep : collection of str
        Files that stay.
    """
    for path in task.files(state.space, target):
        if str(path) in keep:  # made although a later stage failed
            continue
        path.unlink(missing_ok=True)
    with _outdating(state, task, target):
        for table in (*task.owned, *task.staged):
            state.catalog.delete(table, **target.where)


def retire(state: RunState, task: Task, planned: Collection[Target]) -> None:
    """Take away what an earlier plan made and this one has not.

    Parameters
    ----------
    state : RunState
        What is recorded.
    task : Task
        The task that made it.
    planned : collection of Target
        Everything that the present plan has.
    """
    with state.catalog.transaction():
        for target in state.targets(task.stage_names, (DONE, FAILED)).difference(planned):
            withdraw(state, task, target)
            state.forget(task.stage_names, target)
