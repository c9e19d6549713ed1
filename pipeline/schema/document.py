"""The reference of all columns as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.schema.columns import BANDS, Column, Table

__all__ = ["document"]

_TYPES = {
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "f64": "float64",
    "f32": "float32",
    "bool": "bool",
    "str": "string",
    "time": "timestamp",
}
_INTRODUCTION = f"""# Tables and columns

Generated from `pipeline/schema`; change it there.

The science tables carry all columns of Rubin's APDB 10.0 under their names. Columns marked **+**
are ours, beyond APDB 10.0. `{{b}}` stands for each of the bands {", ".join(BANDS)}. Missing is
NULL, never 0 and never NaN; columns marked **!** are never NULL. Fluxes are in nJy (AB magnitude
31.4 is 1 nJy; in units of the image where there is no zero point), angles in degrees (ICRS),
errors of right ascensions include the cosine of the declination, times are MJD in TAI, pixels
count from 0 at the centre of the first one. "Answers" names the requirement of LSE-61.
"""


def document(tables: Iterable[Table]) -> str:
    """Describe tables and all their columns.

    Parameters
    ----------
    tables : iterable of Table
        In the order wanted.

    Returns
    -------
    str
        Markdown.
    """
    tables = list(tables)
    index = [f"| [{t.name}](#{_anchor(t)}) | {len(t.columns)} | {t.description} |" for t in tables]
    head = [_INTRODUCTION, "| table | columns | one row is |", "|---|---:|---|", *index]
    return "\n".join([*head, "", *(_section(table) for table in tables)])


def _anchor(table: Table) -> str:
    return table.name.lower()


def _section(table: Table) -> str:
    key = ", ".join(f"`{name}`" for name in table.key) or "none"
    lines = [
        f"## {table.name}",
        "",
        f"{table.description} Key: {key}.",
        "",
        "| column | type | unit | meaning | UCD | answers |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(c) for c in _folded(table.columns)), ""])


def _folded(columns: Iterable[Column]) -> list[Column]:
    """Keep of the columns that exist for every band only the first."""
    later = tuple(f"{band}_" for band in BANDS[1:])
    names = {c.name for c in columns}
    first = f"{BANDS[0]}_"
    return [
        c for c in columns if not (c.name.startswith(later) and _in_band(c.name, first) in names)
    ]


def _in_band(name: str, prefix: str) -> str:
    return re.sub(rf"(?<![A-Za-z]){name[0]}_", prefix, name)


def _row(column: Column) -> str:
    name, text = column.name, column.description
    if name.startswith(f"{BANDS[0]}_"):
        name = _in_band(name, "{b}_")
        text = re.sub(rf"\b{BANDS[0]}\b", "{b}", text)
    marks = ("!" if not column.nullable else "") + ("+" if column.added else "")
    mark = f" **{marks}**" if marks else ""
    text = text.replace("|", "\\|")
    cells = [f"`{name}`{mark}", _TYPES[column.dtype], column.unit, text, column.ucd]
    return "| " + " | ".join([*cells, column.requirement]) + " |"
