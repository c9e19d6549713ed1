"""The alert containers of a campaign, by the named assertions of `harness.verify.alerts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from harness.verify.alerts import ASSERTIONS
from harness.verify.kind import Kind
from harness.verify.measurement import Evidence, Measurement
from harness.verify.packets import containers

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Alert"]


class Alert(Kind):
    """Subjects that fail assertions over all alert files: those named, or all.

    With ``count`` it is the files whose number of packets is not the number of alerts that the
    catalogue says were emitted.
    """

    name: ClassVar[str] = "alert"
    default_bound: ClassVar[str] = "= 0 failures"

    assertions: list[str] = Field(default=[])
    count: bool = False
    cutouts_every: int = Field(default=1, ge=1)

    @field_validator("assertions")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        if unknown := sorted(set(value) - ASSERTIONS.keys()):
            raise ValueError(f"no such assertion: {', '.join(unknown)}")
        return value

    @property
    def unit(self) -> str:
        """``failures``."""
        return "failures"

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Check every container."""
        return self._counted(context) if self.count else self._asserted(context)

    def _counted(self, context: Context) -> Measurement:
        emitted = {
            (int(v), int(d)): int(n)
            for v, d, n in context.fetch(
                "select visit, detector, count(*) from alert where emitted group by 1, 2"
            )
        }
        failing: list[dict[str, object]] = []
        found = containers(context)
        for unit, container in found.items():
            recorded = emitted.get((unit.visit, unit.detector), 0)
            packets = container.check.alerts if container.check else container.fault
            if packets != recorded:
                failing.append({**unit.key, "packets": packets, "recorded": recorded})
        return Measurement(len(failing), len(found), failing=tuple(failing))

    def _asserted(self, context: Context) -> Measurement:
        tested = failed = 0
        rows: dict[str, list[object]] = {}
        failing: list[dict[str, object]] = []
        for unit, container in containers(context, self.cutouts_every).items():
            if container.check is None:
                tested, failed = tested + 1, failed + 1
                failing.append({**unit.key, "assertion": "readable", "worst": container.fault})
                continue
            for found in container.check:
                if self.assertions and found.id not in self.assertions:
                    continue
                row = rows.setdefault(found.id, [found.id, 0, 0, ""])
                row[1] = int(str(row[1])) + found.tested
                row[2] = int(str(row[2])) + found.failed
                tested += found.tested
                failed += found.failed
                if found.failed:
                    row[3] = row[3] or str(found.worst)
                    failing.append({**unit.key, "assertion": found.id, "worst": str(found.worst)})
        unknown = set(self.assertions) - set(rows)
        if rows and unknown:
            raise ValueError(f"no such assertion: {', '.join(sorted(unknown))}")
        columns = ["assertion", "tested", "failed", "worst"]
        table = Evidence("assertions", "table", {"columns": columns, "rows": list(rows.values())})
        return Measurement(failed, tested, failing=tuple(failing), evidence=(table,))
