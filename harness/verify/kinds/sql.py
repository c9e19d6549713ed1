"""Questions to the catalogue, with the accounting of NULL and NaN done by the engine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
from pydantic import model_validator

from harness.catalog import require_select
from harness.verify.kind import Kind
from harness.verify.measurement import Evidence, Measurement, NotRun
from pipeline import io

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Sql"]

_SHOWN = 20


class Sql(Kind):
    """A query over the catalogue: failing `rows` that must not exist, or one `value`.

    ``population`` is a query that returns the subjects with the columns the question rests on.
    The engine counts its rows, NULLs and NaNs itself, because a NULL row vanishes from a
    predicate and from its negation, and NaN compares as larger than every number.  NULLs and
    NaNs in the population fail the check unless ``allow_nulls`` says why they are right.  `value`
    may return a second column, the standard error, and further ones that the report shows.  A
    standard error that is NULL is that of too few rows; a bare ``null`` says that there is none.
    """

    name: ClassVar[str] = "sql"

    population: str
    rows: str = ""
    value: str = ""
    measured_in: str = "rows"
    allow_nulls: str = ""

    @model_validator(mode="after")
    def _one_question(self) -> Sql:
        if bool(self.rows) == bool(self.value):
            raise ValueError("give either 'rows' (they must not exist) or 'value'")
        if self.rows and self.measured_in != "rows":
            raise ValueError("failing rows are measured in 'rows'")
        if self.value and self.measured_in == "rows":
            raise ValueError(
                "'measured_in' is missing: the unit of the value, '' for a pure number"
            )
        for query in (self.population, self.rows or self.value):
            require_select(query)
        return self

    def usual_bound(self) -> str:
        """Failing rows must not exist; a value needs a bound of its own."""
        return "= 0 rows" if self.rows else ""

    @property
    def unit(self) -> str:
        """``rows``, or what the author says the value is in."""
        return self.measured_in

    def catalogued(self, context: Context) -> frozenset[str] | None:
        """Return the tables that the queries name."""
        return context.tables_of(self.population, self.rows or self.value)

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Count the population, then ask."""
        count, nulls, nans = _account(context, self.population)
        evidence = [Evidence("query", "text", self.rows or self.value)]
        if count == 0:
            return Measurement(float("nan"), 0, evidence=tuple(evidence))
        hidden = nans + (0 if self.allow_nulls else nulls)
        note = f"{hidden} NULL or NaN values hide from the question" if hidden else ""
        if self.rows:
            table = context.query(self.rows)
            failing = table.slice(0, 50).to_pylist()
            evidence += _keep(context, table)
            return Measurement(
                float(table.num_rows + hidden),
                count,
                None,
                nulls,
                nans,
                tuple(_plain(r) for r in failing),
                tuple(evidence),
                note,
            )
        found = context.query(self.value)
        row = [column[0].as_py() for column in found.columns] if found.num_rows else []
        if not row or row[0] is None:
            raise NotRun("the query returned nothing", count)
        stderr = _stderr(found.column(1), row[1]) if len(row) > 1 else None
        value = float("nan") if hidden else float(row[0])
        if len(row) > 2:
            shown = {"columns": found.column_names, "rows": [[_cell(v) for v in row]]}
            evidence.append(Evidence("numbers behind the value", "table", shown))
        return Measurement(value, count, stderr, nulls, nans, (), tuple(evidence), note)


def _stderr(column: pa.ChunkedArray, value: float | None) -> float | None:
    """Return a standard error, NaN where too few rows have none; None for a bare ``null``."""
    if value is None:
        return None if pa.types.is_null(column.type) else float("nan")
    return float(value)


def _account(context: Context, population: str) -> tuple[int, int, int]:
    """Rows of a query, its NULLs and its NaNs over all columns."""
    columns = context.fetch(f"describe {population}")
    terms = ["count(*)"]
    for name, kind, *_ in columns:
        terms.append(f'count(*) filter ("{name}" is null)')
        if kind in ("FLOAT", "DOUBLE"):
            terms.append(f'count(*) filter (isnan("{name}"))')
    row = context.fetch(f"select {', '.join(terms)} from ({population})")[0]
    nulls = nans = 0
    values = iter(row[1:])
    for _, kind, *_ in columns:
        nulls += next(values)
        if kind in ("FLOAT", "DOUBLE"):
            nans += next(values)
    return int(row[0]), int(nulls), int(nans)


def _keep(context: Context, table: pa.Table) -> list[Evidence]:
    if not table.num_rows:
        return []
    shown = table.slice(0, _SHOWN)
    rows = [[_cell(v) for v in r.values()] for r in shown.to_pylist()]
    found = [Evidence("failing rows", "table", {"columns": table.column_names, "rows": rows})]
    if context.store is not None:
        digest = hashlib.sha256(repr(table.schema).encode() + repr(rows).encode()).hexdigest()[:16]
        path = context.store / f"rows-{digest}.parquet"
        io.write_parquet(path, table)
        found.append(Evidence("all failing rows", "file", {"path": path.name}))
    return found


def _cell(value: object) -> object:
    return value if isinstance(value, int | float | bool | None) else str(value)


def _plain(row: dict[str, object]) -> dict[str, object]:
    return {k: _cell(v) for k, v in row.items()}
