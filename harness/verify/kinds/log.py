"""The log audit: every warning and error of the run is explained or counts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.verify.kind import Kind, Pattern
from harness.verify.measurement import Evidence, Measurement

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Log"]


class Explained(BaseModel):
    """A message that is expected: a pattern over its text, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    pattern: Pattern
    reason: Annotated[str, Field(min_length=3)]


class Log(Kind):
    """Warnings and errors in the structured logs that no explanation covers.

    A failed unit's own error line is explained by its cause code in the table ``unit``; that
    there are not too many of those is another check.
    """

    name: ClassVar[str] = "log"
    default_bound: ClassVar[str] = "= 0 messages"

    explained: list[Explained] = Field(default=[])
    levels: list[Literal["info", "warning", "error", "critical"]] = Field(
        default=["warning", "error", "critical"], min_length=1
    )

    @property
    def unit(self) -> str:
        """``messages``."""
        return "messages"

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Read every line of every log."""
        lines = [line for p in sorted(context.space.logs.glob("*.jsonl")) for line in _lines(p)]
        loud = [line for line in lines if line.get("level") in self.levels]
        verdicts = [(line, self._why(line, context)) for line in loud]
        open_ = [line for line, why in verdicts if not why]
        counts = Counter((_shape(line), why or "UNEXPLAINED") for line, why in verdicts)
        rows = [[n, text, why] for (text, why), n in counts.most_common(40)]
        table = {"columns": ["count", "message", "explanation"], "rows": rows}
        failing: list[dict[str, Any]] = [
            {k: line[k] for k in ("visit", "detector", "stage", "message") if k in line}
            for line in open_
        ]
        return Measurement(
            len(open_),
            len(lines),
            failing=tuple(failing),
            evidence=(Evidence("log audit", "table", table),),
            note=f"{len(loud)} warnings and errors, {len(loud) - len(open_)} explained",
        )

    def _why(self, line: dict[str, Any], context: Context) -> str:
        message = str(line.get("message", ""))
        for entry in self.explained:
            if re.search(entry.pattern, message):
                return entry.reason
        row = context.causes.get((line.get("visit", -1), line.get("detector", -1)))
        if row and row["cause"] and (row["cause"] in message or str(row["message"]) in message):
            return f"failed unit with the cause {row['cause']}"
        return ""


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = {"level": "error", "message": f"{path.name}:{number} is not JSON"}
        found.append(line)
    return found


def _shape(line: dict[str, Any]) -> str:
    """Message with its numbers taken out, so that repetitions count together."""
    return re.sub(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?", "#", str(line.get("message", "")))[:160]
