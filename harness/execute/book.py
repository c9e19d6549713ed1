"""Keeping the books of a run: what is done already, and what comes back from the workers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog import Catalog
from harness.execute.keys import ConfigMemory, difference_of
from harness.execute.orders import AlertOrder, DifferenceOrder, ForcedOrder, Order
from harness.hashes import Hashes
from harness.ledger import BLOCKED, DONE, FAILED, Outcome, StageRecord
from harness.plan import Unit
from harness.settings import Settings
from harness.workspace import Workspace
from pipeline import io
from pipeline.schema import TABLES

__all__ = ["CACHED", "TODO", "Book", "Standing"]

CACHED, TODO = "cached", "todo"

_TRANSIENT = ("INTERNAL", "WORKER_DIED", "OUT_OF_MEMORY", "BLOCKED")  # worth another attempt
_IDENTITY: dict[str, tuple[str, ...]] = {
    "visit_image": ("visit", "detector"),
    "template": ("templateId",),
    "difference_image": ("visit", "detector"),
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an order stands before it is performed.

    Attributes
    ----------
    status : str
        ``cached``, ``failed`` (and would again) or ``todo``.
    reason : str
        Why it must be done, or the cause of the failure.
    """

    status: str
    reason: str = ""


class Book:
    """The table ``unit`` and the product tables, seen from the coordinator.

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
    """

    def __init__(self, space: Workspace, settings: Settings, catalog: Catalog, run_id: str) -> None:
        self.space, self.settings, self.catalog, self.run_id = space, settings, catalog, run_id
        self.hashes = Hashes(space.logs / "hashes.json")
        self.memory = ConfigMemory(space)
        self._units = {_key(row): row for row in catalog.rows("SELECT * FROM unit")}
        self._files = {
            row["file"]: row["sha256"]
            for table in _IDENTITY
            for row in catalog.rows(f"SELECT file, sha256 FROM {table}")
        }

    def status(self, visit: int, detector: int, stage: str, template_id: str | None = None) -> str:
        """Return the recorded status of a unit, empty where there is none."""
        row = self._units.get((visit, detector, stage, template_id))
        return str(row["status"]) if row else ""

    def failed(self, visit: int, detector: int, stages: Sequence[str]) -> bool:
        """Return whether any of some stages of a unit is recorded as failed."""
        return any(self.status(visit, detector, stage) == FAILED for stage in stages)

    def instrumental(self) -> int:
        """Count the difference images that have no zero point."""
        return int(self.catalog.value("SELECT count(*) FROM difference_image WHERE unit <> 'nJy'"))

    def recorded(self, visit: int, detector: int, stage: str) -> Mapping[str, Any] | None:
        """Return the recorded row of a unit."""
        return self._units.get((visit, detector, stage, None))

    def standing(self, order: Order, *, retry: bool = False) -> Standing:
        """Compare an order's keys with what is recorded.

        Parameters
        ----------
        order : Order
            What would be done.
        retry : bool
            Whether known failures are tried again.
        """
        for key in order.keys:
            row = self._units.get((order.visit, order.detector, key.stage, order.template_id))
            if row is None:
                return Standing(TODO, "new")
            stale = difference_of(key, row, self.memory, self.settings)
            if row["status"] == BLOCKED:
                return Standing(TODO, "was blocked")
            if stale:
                return Standing(TODO, stale)
            if row["status"] == FAILED:
                if retry or row["cause"] in _TRANSIENT:
                    return Standing(TODO, f"failed before: {row['cause']}")
                return Standing(FAILED, f"{row['cause']}: {row['message']}")
        return self._products_standing(order)

    def _products_standing(self, order: Order) -> Standing:
        for path in order.products:
            name = self.space.relative(path)
            if not path.is_file():
                return Standing(TODO, f"{name} is missing")
            if name in self._files and self._files[name] != self.hashes.of(path):
                return Standing(TODO, f"{name} was changed")
        return Standing(CACHED)

    def known(self, order: Order) -> list[StageRecord]:
        """Return the recorded troubles of an order that will not be tried again."""
        rows = [self._units.get((*order.unit, k.stage, order.template_id)) for k in order.keys]
        return [_record(row) for row in rows if row is not None and row["status"] != DONE]

    def accept(self, order: Order, outcome: Outcome) -> None:
        """Record an outcome in one transaction; a failure takes its old product away."""
        if outcome.status != DONE:
            self._withdraw(order)
        with self.catalog.transaction():
            for record in outcome.stages:
                self._put(record)
            for table, rows in outcome.rows.items():
                self._replace_rows(order, table, rows)
            if outcome.status == DONE:
                self._load_staging(order)
        for path, sha256 in outcome.files.items():
            self._files[self.space.relative(Path(path))] = sha256

    def put(self, records: Iterable[StageRecord]) -> None:
        """Record units that were not performed by a worker."""
        with self.catalog.transaction():
            self.put_within(records)

    def put_within(self, records: Iterable[StageRecord]) -> None:
        """Record units inside a transaction that is open already."""
        for record in records:
            self._put(record)

    def retire(self, templates: Collection[str], science: Collection[Unit]) -> None:
        """Take away templates and differences that an earlier plan made and this one has not.

        Parameters
        ----------
        templates : collection of str
            Names of the templates of the plan.
        science : collection of Unit
            Units that are subtracted from one of them.
        """
        old = [r["templateId"] for r in self.catalog.rows("SELECT templateId FROM template")]
        units = self.catalog.rows("SELECT visit, detector FROM difference_image")
        with self.catalog.transaction():
            for name in set(old) - set(templates):
                self._drop(("template", "template_input", "unit"), {"templateId": name})
                self.space.template(name).unlink(missing_ok=True)
            for unit in {(r["visit"], r["detector"]) for r in units} - set(science):
                where = {"visit": unit[0], "detector": unit[1]}
                self._drop(("difference_image", "candidate", "DiaForcedSource", "alert"), where)
                for stage in ("subtract", "diasource", "forced", "alerts"):
                    self._drop(("unit",), {**where, "stage": stage})
                self.space.difference(*unit).unlink(missing_ok=True)
                self.space.alerts(*unit).unlink(missing_ok=True)

    def _drop(self, tables: Sequence[str], where: Mapping[str, Any]) -> None:
        for table in tables:
            self.catalog.delete(table, **where)
        if "unit" in tables:
            same = [k for k, r in self._units.items() if where.items() <= r.items()]
            for key in same:
                del self._units[key]

    def forget(self, stage: str) -> None:
        """Delete every unit of a stage."""
        self.catalog.delete("unit", stage=stage)
        self._units = {k: v for k, v in self._units.items() if k[2] != stage}

    def _put(self, record: StageRecord) -> None:
        row = {**record.row(), "runId": self.run_id}
        where = {name: row[name] for name in ("visit", "detector", "stage", "templateId")}
        self.catalog.record("unit", row, **where)
        self._units[_key(row)] = row

    def _replace_rows(self, order: Order, table: str, rows: list[Mapping[str, Any]]) -> None:
        where: dict[str, Any] = {"visit": order.visit, "detector": order.detector}
        if order.template_id:
            where = {"templateId": order.template_id}
        if table != "metric":
            self.catalog.replace(table, TABLES[table].from_rows(rows), **where)
            return
        for key in order.keys:
            mine = [row for row in rows if row["stage"] == key.stage]
            self.catalog.replace(table, TABLES[table].from_rows(mine), **where, stage=key.stage)

    def _load_staging(self, order: Order) -> None:
        """Take rows that need no association straight into their tables."""
        if isinstance(order, DifferenceOrder):
            name = "candidate"
        elif isinstance(order, ForcedOrder):
            name = "DiaForcedSource"
        elif isinstance(order, AlertOrder):
            name = "alert"
        else:
            return
        path = self.space.staging(name, *order.unit)
        where = {"visit": order.visit, "detector": order.detector}
        self.catalog.replace(name, io.read_parquet(path), **where)

    def _withdraw(self, order: Order) -> None:
        for path in order.products:
            path.unlink(missing_ok=True)
            self._files.pop(self.space.relative(path), None)
        tables = {key.stage: key for key in order.keys}
        where: dict[str, Any] = {"visit": order.visit, "detector": order.detector}
        with self.catalog.transaction():
            if "calibrate" in tables:
                self.catalog.delete("visit_image", **where)
            if "template" in tables:
                self.catalog.delete("template", templateId=order.template_id)
                self.catalog.delete("template_input", templateId=order.template_id)
            if "subtract" in tables:
                self.catalog.delete("difference_image", **where)
                self.catalog.delete("candidate", **where)
            if "forced" in tables:
                self.catalog.delete("DiaForcedSource", **where)
            if "alerts" in tables:
                self.catalog.delete("alert", **where)


def _key(row: Mapping[str, Any]) -> tuple[int, int, str, str | None]:
    return row["visit"], row["detector"], row["stage"], row["templateId"]


def _record(row: Mapping[str, Any]) -> StageRecord:
    return StageRecord(
        row["visit"],
        row["detector"],
        row["stage"],
        row["status"],
        row["cause"],
        row["message"],
        template_id=row["templateId"],
    )
