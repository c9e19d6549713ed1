"""Run state: what is recorded of every unit of work and product, seen from the coordinator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.catalog import Catalog
from harness.ledger import StageRecord, Target
from harness.settings import Settings
from harness.system.hashes import Hashes
from harness.workspace import Workspace

__all__ = ["RunState"]


class RunState:
    """The table ``unit`` and the hashes of the products.

    Parameters
    ----------
    space : Workspace
        The campaign's folder.
    settings : Settings
        The resolved configuration.
    catalog : Catalog
        Open for writing, or for reading when nothing is to be changed.
    run_id : str
        Recorded with every unit.

    Attributes
    ----------
    hashes : Hashes
        Hashes of the files that are there.
    """

    def __init__(self, space: Workspace, settings: Settings, catalog: Catalog, run_id: str) -> None:
        self.space, self.settings, self.catalog, self.run_id = space, settings, catalog, run_id
        self.hashes = Hashes(space.logs / "hashes.json")
        self._units = {_key(row): row for row in catalog.rows("SELECT * FROM unit")}

    def recorded(self, target: Target, stage: str) -> Mapping[str, Any] | None:
        """Return the recorded row of a stage of a target."""
        return self._units.get((target, stage))

    def status(self, target: Target, stage: str) -> str:
        """Return the recorded status of a stage of a target, empty where there is none."""
        row = self.recorded(target, stage)
        return str(row["status"]) if row else ""

    def targets(self, stages: Sequence[str], statuses: Sequence[str]) -> set[Target]:
        """Return every target of which a stage is recorded with one of some statuses."""
        return {
            target
            for (target, stage), row in self._units.items()
            if stage in stages and row["status"] in statuses
        }

    def put(self, records: Iterable[StageRecord]) -> None:
        """Record stages, inside a transaction that is open already."""
        for record in records:
            row = {**record.row(), "runId": self.run_id}
            where = {name: row[name] for name in ("visit", "detector", "stage", "templateId")}
            self.catalog.record("unit", row, **where)
            self._units[_key(row)] = row

    def forget(self, stages: Sequence[str], target: Target | None = None) -> None:
        """Delete the records of some stages, of one target or of all."""
        for stage in stages:
            self.catalog.delete("unit", stage=stage, **(target.where if target else {}))
        matching = [k for k in self._units if k[1] in stages and target in (None, k[0])]
        for key in matching:
            del self._units[key]


def _key(row: Mapping[str, Any]) -> tuple[Target, str]:
    return Target(row["visit"], row["detector"], row["templateId"]), row["stage"]
