"""The alert containers of a campaign, by the named assertions of `pipeline.alerts.check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.verify.kinds import Kind
from harness.verify.measurement import Evidence, Measurement

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

    @property
    def unit(self) -> str:
        """``failures``."""
        return "failures"

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Check every container."""
        return self._counted(context) if self.count else self._asserted(context)

    def _counted(self, context: Context) -> Measurement:
        from pipeline import alerts

        emitted = {
            (int(v), int(d)): int(n)
            for v, d, n in context.fetch(
                "select visit, detector, count(*) from alert where emitted group by 1, 2"
            )
        }
        failing, files = [], 0
        for unit in context.expected("alerts"):
            path = context.product("alerts", unit)
            if path.is_file():
                files += 1
                found = sum(1 for _ in alerts.read(path))
                recorded = emitted.get((unit.visit, unit.detector), 0)
                if found != recorded:
                    failing.append({**unit.key, "packets": found, "recorded": recorded})
        return Measurement(len(failing), files, failing=tuple(failing))

    def _asserted(self, context: Context) -> Measurement:
        from pipeline import alerts

        tested = failed = 0
        rows: dict[str, list[object]] = {}
        failing = []
        memory = context.memory.setdefault("alerts", {})
        for unit in context.expected("alerts"):
            path = context.product("alerts", unit)
            if not path.is_file():
                continue
            stat = path.stat()
            key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if key not in memory:
                memory[key] = list(alerts.check(path))
            for found in memory[key]:
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
