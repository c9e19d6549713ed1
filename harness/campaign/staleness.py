"""Staleness: why a recorded result no longer holds, if it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from harness.campaign.row_counts import RowCounts
from harness.campaign.state import RunState
from harness.campaign.task import StageKey, WorkItem
from harness.ledger import BLOCKED, DONE, FAILED, StageRecord, Target
from harness.settings import Settings, changed_values, product_values
from harness.workspace import Workspace, atomic

__all__ = ["CACHED", "TODO", "ConfigMemory", "Finding", "Staleness"]

CACHED, TODO = "cached", "todo"

_TRANSIENT = (
    "INTERNAL",
    "WORKER_DIED",
    "TIMEOUT",
    "OUT_OF_MEMORY",
    "BLOCKED",
    "WRITE_FAILED",
    "IO_FAILED",
)
"""Causes that lie outside the data: worth another attempt at the next run."""


class Finding(NamedTuple):
    """Whether a work item is ``cached``, ``failed`` (and would again) or ``todo``, and why."""

    status: str
    reason: str = ""


class Staleness:
    """Compares work items with what is recorded.

    Parameters
    ----------
    state : RunState
        What is recorded.
    retry : bool
        Whether known failures are tried again.
    """

    def __init__(self, state: RunState, *, retry: bool = False) -> None:
        self._state, self._retry = state, retry
        self._memory = ConfigMemory(state.space)
        self._rows = RowCounts(state.catalog)

    def of(self, item: WorkItem) -> Finding:
        """Compare an item's keys and products with what is recorded."""
        for target, key in _stages(item):
            finding = self._of_stage(target, key)
            if finding is not None:
                return finding
        finding = self._of_files(item)
        return self._of_rows(item) if finding.status == CACHED else finding

    def _of_stage(self, target: Target, key: StageKey) -> Finding | None:
        row = self._state.recorded(target, key.stage)
        if row is None:
            return Finding(TODO, "new")
        if row["status"] == BLOCKED:
            return Finding(TODO, "was blocked")
        stale = self._difference(key, row)
        if stale:
            return Finding(TODO, stale)
        if row["status"] != FAILED:
            return None
        if self._retry or row["cause"] in _TRANSIENT:
            return Finding(TODO, f"failed before: {row['cause']}")
        return Finding(FAILED, f"{row['cause']}: {row['message']}")

    def _difference(self, key: StageKey, row: Mapping[str, Any]) -> str:
        """Say why a recorded stage is stale; empty if it is not."""
        if row["stageVersion"] != key.version:
            return f"{key.stage} version {row['stageVersion']}→{key.version}"
        if row["configHash"] != key.config_hash:
            changes = self._memory.changes(key.section, row["configHash"], self._state.settings)
            named = ", ".join(f"{key.section}.{change}" for change in changes)
            return named or f"{key.section} configuration"
        if row["inputHash"] != key.input_hash:
            return f"input of {key.stage} changed"
        return ""

    def _of_files(self, item: WorkItem) -> Finding:
        """Compare the files with those that were made; of an older catalogue it is not known."""
        state, files = self._state, item.files
        row = state.recorded(item.targets[-1], item.keys[-1].stage)
        made = ((row and row["outputHash"]) or "").split("+")
        if len(made) != len(files):
            made = [""] * len(files)
        for path, known in zip(files, made, strict=True):
            found = state.hashes.of(path)
            if found == "absent":
                return Finding(TODO, f"{state.space.relative(path)} is missing")
            if not found.startswith(known):
                return Finding(TODO, f"{state.space.relative(path)} was changed")
        return Finding(CACHED)

    def _of_rows(self, item: WorkItem) -> Finding:
        """Compare how many rows there are with how many were stored, where that is recorded."""
        row = self._state.recorded(item.target, item.keys[-1].stage)
        for table, stored in json.loads((row and row["rowCounts"]) or "{}").items():
            found = self._rows.of(table, item.target, item.task.stage_names)
            if found != stored:
                return Finding(TODO, f"{table} has {found} rows of the {stored} that were stored")
        return Finding(CACHED)

    def troubles(self, item: WorkItem) -> list[StageRecord]:
        """Return the recorded troubles of an item that will not be tried again."""
        rows = [self._state.recorded(target, key.stage) for target, key in _stages(item)]
        return [StageRecord.of(row) for row in rows if row is not None and row["status"] != DONE]


def _stages(item: WorkItem) -> Iterator[tuple[Target, StageKey]]:
    for target in item.targets:
        for key in item.keys:
            yield target, key


class ConfigMemory:
    """Keeps the values behind every configuration hash, so that a change can be named.

    Parameters
    ----------
    space : Workspace
        The values go to ``logs/config``.
    """

    def __init__(self, space: Workspace) -> None:
        self._folder = space.logs / "config"

    def keep(self, settings: Settings) -> None:
        """Remember the present values of every section."""
        for section in type(settings).model_fields:
            path = self._folder / f"{section}_{settings.section_hash(section)}.json"
            if not path.exists():
                values = product_values(getattr(settings, section))
                with atomic(path) as partial:
                    partial.write_text(json.dumps(values, default=str), encoding="utf-8")

    def changes(self, section: str, old_hash: str, settings: Settings) -> list[str]:
        """Name the values that differ from those of an earlier hash."""
        path = self._folder / f"{section}_{old_hash}.json"
        if not path.is_file():
            return []
        now = json.loads(json.dumps(product_values(getattr(settings, section)), default=str))
        return changed_values(json.loads(path.read_text(encoding="utf-8")), now)
