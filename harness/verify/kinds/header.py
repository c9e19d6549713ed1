"""Keywords that every product of a kind must carry."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from astropy.io import fits
from pydantic import BaseModel, ConfigDict, Field

from harness.verify.kind import Kind, Pattern, Product
from harness.verify.measurement import Measurement

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Header"]

_KEPT = 500
"""Files whose headers are kept: some 0.1 MB each."""

_SINGLE = 1e-6
_TABLES = {"difference": "difference_image"}

_TYPES: dict[str, type[Any]] = {"str": str, "int": int, "float": float, "bool": bool}


class Card(BaseModel):
    """What a keyword's value must be; each given property is demanded.

    With `column` it is what the product's row in the catalogue says there, or absent where that
    is NULL.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["str", "int", "float", "bool"] = "str"
    matches: Pattern = ""
    hdu: str = ""
    at_least: float | None = None
    column: str = Field(default="", pattern=r"^\w*$")

    def fault(self, value: object, recorded: object = None) -> str:
        """Say what is wrong with a value, where the catalogue recorded another perhaps."""
        if self.column and not _same(value, recorded):
            return f"{value!r}, but {recorded!r} in the catalogue"
        if self.column and value is None:
            return ""
        if value is None:
            return "absent"
        if not isinstance(value, _TYPES[self.type]) and not (
            self.type == "float" and isinstance(value, int)
        ):
            return f"{value!r} is no {self.type}"
        if self.matches and not re.fullmatch(self.matches, str(value)):
            return f"{value!r} does not match {self.matches}"
        if self.at_least is not None and not float(str(value)) >= self.at_least:
            return f"{value!r} is below {self.at_least:g}"
        return "" if str(value).strip() else "blank"


def _same(value: object, recorded: object) -> bool:
    """Whether a card says what a column does, which may have single precision."""
    if isinstance(value, float | int) and isinstance(recorded, float | int):
        return math.isclose(value, recorded, rel_tol=_SINGLE, abs_tol=_SINGLE)
    return value == recorded


class Header(Kind):
    """Keywords of every product that are absent or wrong; HDUs that must exist."""

    name: ClassVar[str] = "header"
    default_bound: ClassVar[str] = "= 0 cards"

    product: Product
    cards: dict[str, Card] = Field(default={})
    hdus: list[str] = Field(default=[])

    @property
    def unit(self) -> str:
        """``cards``."""
        return "cards"

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Read the headers of every existing product."""
        failing: list[dict[str, Any]] = []
        places = [(u, context.product(self.product, u)) for u in context.expected(self.product)]
        present = [(u, p) for u, p in places if p.is_file()]
        rows = self._rows(context)
        for unit, path in present:
            headers = _headers(context, path)
            row = rows.get((unit.visit, unit.detector), {})
            found = {n: self._fault(n, c, headers, row) for n, c in self.cards.items()}
            found |= {n: "" if n in headers else "no such HDU" for n in self.hdus}
            failing += [{**unit.key, "card": n, "fault": f} for n, f in found.items() if f]
        population = len(present) * (len(self.cards) + len(self.hdus))
        return Measurement(len(failing), population, failing=tuple(failing))

    def _rows(self, context: Context) -> dict[tuple[int, int], dict[str, Any]]:
        """Read the columns that cards name, of each product."""
        columns = sorted({card.column for card in self.cards.values() if card.column})
        if not columns:
            return {}
        table = _TABLES.get(self.product, self.product)
        found = context.rows(f"SELECT visit, detector, {', '.join(columns)} FROM {table}")
        return {(row["visit"], row["detector"]): row for row in found}

    def _fault(
        self, name: str, card: Card, headers: dict[str, fits.Header], row: dict[str, Any]
    ) -> str:
        header = headers.get(card.hdu or "PRIMARY")
        if header is None:
            return f"no HDU {card.hdu}"
        return card.fault(header.get(name), row.get(card.column))


def _headers(context: Context, path: Path) -> dict[str, fits.Header]:
    """Read the headers of a file; those of the first files are kept for other checks."""
    stat = path.stat()
    known: dict[object, dict[str, fits.Header]] = context.memory.setdefault("headers", {})
    key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key in known:
        return known[key]
    with fits.open(path, memmap=True) as hdus:
        found = {h.name or f"{i}": h.header.copy() for i, h in enumerate(hdus)}
    if len(known) < _KEPT:
        known[key] = found
    return found
