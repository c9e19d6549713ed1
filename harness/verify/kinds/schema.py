"""Attribute matrices: what a requirement lists against what the table holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.verify.attributes import Attribute, Matrix, Need, load_matrices
from harness.verify.kind import Kind
from harness.verify.measurement import Evidence, Measurement, NotApplicable
from pipeline.schema import TABLES

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Schema"]

_FLOATING = ("FLOAT", "DOUBLE")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")

_TELLING = 20
"""Rows in which a count may not be the same by chance, such as that of the pixels in a circle."""


class Schema(Kind):
    """Attributes of a matrix in ``attributes.yaml`` that are not delivered.

    An attribute is delivered when each of its columns exists with the declared unit, is filled in
    the demanded fraction of the rows it applies to, holds no NaN, and is not one constant.
    """

    name: ClassVar[str] = "schema"
    default_bound: ClassVar[str] = "= 0 attributes"

    matrix: str
    attributes: list[str] = Field(default=[])

    @property
    def unit(self) -> str:
        """``attributes``."""
        return "attributes"

    def catalogued(self, context: Context) -> frozenset[str] | None:
        """Return the tables whose columns deliver the attributes, and those of their conditions."""
        matrix = load_matrices(context.testcases)[self.matrix]
        needs = [n for a in self._chosen(matrix) for n in a.columns]
        wanted = {(n.table or matrix.table, w) for n in needs for w in (n.where, matrix.where)}
        return context.tables_of(*(f'from "{t}" where {w or "true"}' for t, w in wanted))

    def _chosen(self, matrix: Matrix) -> list[Attribute]:
        return [a for a in matrix.attributes if not self.attributes or a.id in self.attributes]

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Fill the matrix."""
        matrix = load_matrices(context.testcases)[self.matrix]
        chosen = self._chosen(matrix)
        if context.foreign and not self.catalogued(context):
            raise NotApplicable("these products lack the table whose columns are asked for")
        rows: list[list[Any]] = []
        failing: list[dict[str, Any]] = []
        nulls = nans = 0
        for attribute in chosen:
            findings = [
                _column(context, n.table or matrix.table, matrix.where, n)
                for n in attribute.columns
            ]
            nulls += sum(f["nulls"] for f in findings)
            nans += sum(f["nans"] for f in findings)
            faults = [f"{f['column']}: {f['fault']}" for f in findings if f["fault"]]
            rows.append(_row(attribute, findings, faults))
            failing += [
                {"attribute": attribute.id, "column": f.split(":")[0], "fault": f} for f in faults
            ]
        broken = sum(1 for r in rows if r[-1] != "PASS")
        columns = [
            "#",
            "attribute",
            "DMTR-53",
            "columns",
            "unit",
            "populated",
            "distinct",
            "faults",
            "verdict",
        ]
        table = Evidence(
            f"{self.matrix} attribute matrix", "table", {"columns": columns, "rows": rows}
        )
        return Measurement(broken, len(chosen), None, nulls, nans, tuple(failing), (table,))


def _row(attribute: Attribute, findings: list[dict[str, Any]], faults: list[str]) -> list[Any]:
    units = " ".join(dict.fromkeys(f["unit"] or "1" for f in findings))
    fractions = [f["populated"] for f in findings if f["populated"] is not None]
    return [
        attribute.id,
        attribute.text,
        attribute.dmtr53,
        ", ".join(f["column"] for f in findings),
        units,
        round(min(fractions), 4) if fractions else None,
        min((f["distinct"] for f in findings), default=None),
        "; ".join(faults),
        "FAIL" if faults else "PASS",
    ]


def _column(context: Context, table: str, where: str, need: Need) -> dict[str, Any]:
    """Look at one column: present, unit, filled, NaN, distinct values."""
    found: dict[str, Any] = {
        "column": need.name,
        "unit": "",
        "populated": None,
        "distinct": 0,
        "nulls": 0,
        "nans": 0,
    }
    if need.name not in context.columns.get(table, []):
        return {**found, "fault": f"no such column in {table}"}
    declared = TABLES[table].by_name.get(need.name) if table in TABLES else None
    found["unit"] = declared.unit if declared else ""
    rows = " and ".join(f"({w})" for w in (where if table == "DiaSource" else "", need.where) if w)
    kind, count, filled, nans, distinct = _count(context, table, need.name, rows)
    found |= {"nulls": count - filled, "nans": nans, "distinct": distinct}
    found["populated"] = filled / count if count else None
    telling = _TELLING if kind in _WHOLE else 2
    return {**found, "fault": _fault(need, found, count, telling)}


def _count(context: Context, table: str, column: str, rows: str) -> tuple[str, int, int, int, int]:
    kind = context.scalar(f'select typeof("{column}") from "{table}" limit 1')
    nan = f'count(*) filter (isnan("{column}"))' if kind in _FLOATING else "0"
    row = context.fetch(
        f'select count(*), count("{column}"), {nan}, count(distinct "{column}") from "{table}"'
        + (f" where {rows}" if rows else "")
    )[0]
    return str(kind), int(row[0]), int(row[1]), int(row[2]), int(row[3])


def _fault(need: Need, found: dict[str, Any], count: int, telling: int) -> str:
    if need.unit is not None and found["unit"] != need.unit:
        return f"unit {found['unit']!r} instead of {need.unit!r}"
    if found["nans"]:
        return f"{found['nans']} NaN values"
    if count == 0:
        return "" if need.may_be_empty else "no row it applies to"
    if found["populated"] < need.populated:
        return f"filled in {found['populated']:.1%} of {count}, {need.populated:.0%} demanded"
    if found["distinct"] < 2 and not need.constant and need.populated > 0 and count >= telling:
        return "one constant value"
    return ""
