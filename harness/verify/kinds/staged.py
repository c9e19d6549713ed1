"""What the catalogue holds against what the pipeline measured and what the alerts announced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from harness.verify.kind import Kind
from harness.verify.measurement import Evidence, Measurement, NotRun
from harness.verify.packets import containers
from harness.verify.row_comparison import unequal_rows
from pipeline.schema import TABLES

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Staged"]

_KEYS = {
    "DiaSource": "diaSourceId",
    "DiaForcedSource": "diaForcedSourceId",
    "alert": "diaSourceId",
    "candidate": "candidateId",
}


class Staged(Kind):
    """Values that are not the same in the catalogue and in a copy of its rows elsewhere.

    The copy is the staging table that the catalogue was filled from (``of: staging``) or what
    the alert packets say (``of: alerts``).  Every row has to be in both, every column equal, NULL
    where the other is NULL.  Only staging has all rows of a table; of alerts, those that are
    announced count.  ``assigned`` names columns that are filled after the measurement.
    """

    name: ClassVar[str] = "staged"
    default_bound: ClassVar[str] = "= 0 values"

    table: Literal["DiaSource", "DiaForcedSource", "alert", "candidate"]
    of: Literal["staging", "alerts"] = "staging"
    assigned: list[str] = Field(default=[])

    @property
    def unit(self) -> str:
        """``values``."""
        return "values"

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Compare every value of every row."""
        catalogued = context.query(f'SELECT * FROM "{self.table}"')
        copy, faults = self._staged(context) if self.of == "staging" else self._packets(context)
        key = _KEYS[self.table]
        if self.of == "alerts":
            known = np.isin(catalogued.column(key).to_numpy(), copy.column(key).to_numpy())
            catalogued = catalogued.filter(pa.array(known))
        columns = copy.column_names if self.of == "alerts" else TABLES[self.table].names
        columns = [c for c in columns if c not in self.assigned]
        rows, flags = unequal_rows(copy, catalogued, key, columns)
        counts = {name: int(f.sum()) for name, f in flags.items() if f.any()}
        return Measurement(
            float(sum(counts.values()) + len(faults)),
            rows.num_rows,
            failing=(*faults, *_subjects(rows, flags, key)),
            evidence=(_table(self.table, counts),) if counts else (),
            note=f"{len(columns)} columns of {rows.num_rows} rows",
        )

    def _staged(self, context: Context) -> tuple[pa.Table, list[dict[str, Any]]]:
        found, faults = [], []
        for unit in context.expected("difference"):
            path = context.space.staging(self.table, unit.visit, unit.detector)
            if not path.is_file():  # that files exist is the question of other checks
                continue
            try:
                found.append(pq.read_table(path))
            except (pa.ArrowException, OSError) as err:
                faults.append({**unit.key, "fault": " ".join(str(err).split())[:120]})
        if not found:
            raise NotRun(f"there is no staging table {self.table}")
        return pa.concat_tables(found, promote_options="permissive"), faults

    def _packets(self, context: Context) -> tuple[pa.Table, list[dict[str, Any]]]:
        found = containers(context)
        faults = [{**u.key, "fault": c.fault} for u, c in found.items() if c.fault]
        tables = [c.rows[self.table] for c in found.values() if not c.fault]
        rows = [t for t in tables if t.num_rows]
        if not rows:
            raise NotRun(f"no alert quotes a {self.table}")
        return _once(pa.concat_tables(rows, promote_options="permissive")), faults


def _once(table: pa.Table) -> pa.Table:
    """Drop rows that occur again in the same words; contradictions stay."""
    return table.group_by(table.column_names).aggregate([])


def _subjects(rows: pa.Table, flags: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """One subject per column that differs: how often, and where first."""
    subjects = []
    for name, flag in flags.items():
        if flag.any():
            first = rows.slice(int(np.argmax(flag)), 1).to_pylist()[0]
            place = {n: first[n] for n in ("visit", "detector", key) if n in first}
            subjects.append({"column": name, "rows": int(flag.sum()), **place})
    return subjects


def _table(name: str, counts: dict[str, int]) -> Evidence:
    rows = [[column, n] for column, n in counts.items()]
    return Evidence(f"{name}: values that differ", "table", {"columns": ["column", "rows"],
                                                             "rows": rows})  # fmt: skip
