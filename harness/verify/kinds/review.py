"""Verification by review: a document that exists and says what it has to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.verify.kind import Kind
from harness.verify.measurement import Evidence, Measurement, NotRun

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Review"]

_ROOT = Path(__file__).resolve().parents[3]


class Review(Kind):
    """Statements that a document of the source tree must make and does not."""

    name: ClassVar[str] = "review"
    elsewhere: ClassVar[bool] = True
    default_bound: ClassVar[str] = "= 0 statements"

    document: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*(/[A-Za-z0-9_][A-Za-z0-9_-]*)*\.md$")
    states: list[str] = Field(min_length=1)

    @property
    def unit(self) -> str:
        """``statements``."""
        return "statements"

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Read the document."""
        path = _ROOT / self.document
        if not path.is_file():
            raise NotRun(f"there is no {self.document} in this installation", len(self.states))
        text = path.read_text(encoding="utf-8")
        missing = [s for s in self.states if s not in text]
        digest = hashlib.sha256(text.encode()).hexdigest()
        row = [[self.document, len(text.splitlines()), digest[:16]]]
        table = Evidence("document", "table", {"columns": ["path", "lines", "sha256"], "rows": row})
        return Measurement(
            len(missing),
            len(self.states),
            failing=tuple({"statement": s} for s in missing),
            evidence=(table,),
        )
