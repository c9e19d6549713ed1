"""The alert containers of a campaign, by the named assertions of `harness.verify.alerts`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.processes import new_pool
from harness.verify.alerts import Check, check
from harness.verify.kind import Kind
from harness.verify.measurement import Evidence, Measurement

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context, Unit

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
    cutouts_every: int = 1

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
        tested = failed = 0
        rows: dict[str, list[object]] = {}
        failing = []
        for unit, outcome in self._outcomes(context):
            for found in outcome:
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

    def _outcomes(self, context: Context) -> list[tuple[Unit, Check]]:
        """Check every container, in a few processes; remembered by the state of the files."""
        memory = context.memory.setdefault("alerts", {})
        paths = {u: context.product("alerts", u) for u in context.expected("alerts")}
        keys = {u: (*_stamp(p), self.cutouts_every) for u, p in paths.items() if p.is_file()}
        todo = [u for u, key in keys.items() if key not in memory]
        jobs = [(paths[u], self.cutouts_every) for u in todo]
        for unit, outcome in zip(todo, _checked(jobs, context.jobs), strict=True):
            memory[keys[unit]] = outcome
        return [(u, memory[key]) for u, key in keys.items()]


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _checked(jobs: list[tuple[Path, int]], processes: int) -> list[Check]:
    if processes < 2 or len(jobs) < 2:
        return [_check(j) for j in jobs]
    with new_pool(min(processes, len(jobs))) as pool:
        return list(pool.map(_check, jobs))


def _check(job: tuple[Path, int]) -> Check:
    return check(job[0], cutouts_every=job[1])
