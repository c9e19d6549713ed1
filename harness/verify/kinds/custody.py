"""The chain of custody: what the catalogue's records of its runs say of the files beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from harness.campaign.chain import unchained
from harness.settings import Settings, values_of
from harness.system.hashes import file_hash
from harness.verify.kind import Kind
from harness.verify.measurement import Measurement, NotRun, Subject
from harness.verify.tampering import tampering

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Custody"]

_FREE = ("execution.", "report.")
"""Sections of the configuration that change nothing in any product."""
_OVERRIDE = re.compile(r"--set[ =](\S+?)=")


class Custody(Kind):
    """Breaks between the catalogue's records of its runs and what lies beside the catalogue.

    ``of`` says which: ``specification`` (the pinned file is not that of a run), ``runs`` (a
    record does not hold the hash of the one before), ``ending`` (the newest run did not end),
    ``logs`` (a log or kept configuration is gone or altered) or ``configuration`` (a value of
    ``nightjar.toml`` is not the one the newest run was made with).
    """

    name: ClassVar[str] = "custody"
    default_bound: ClassVar[str] = "= 0 breaks"

    of: Literal["specification", "runs", "ending", "logs", "configuration"]

    @property
    def unit(self) -> str:
        """``breaks``."""
        return "breaks"

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Compare records with files."""
        population, failing = getattr(self, f"_{self.of}")(context)
        note = "" if not failing else "; ".join(str(s.get("fault", "")) for s in failing[:3])
        return Measurement(float(len(failing)), population, failing=tuple(failing), note=note)

    def _specification(self, context: Context) -> tuple[int, list[Subject]]:
        known = [r for r in context.runs if r["specHash"]]
        if context.runs and not known:
            raise NotRun("no run recorded the specification it was started under")
        return len(known), [
            {"file": c.path, "fault": f"{c.path} is {'altered' if c.after else 'gone'}"}
            for c in tampering(context)
        ]

    def _runs(self, context: Context) -> tuple[int, list[Subject]]:
        broken = unchained(context.runs)
        return len(context.runs), [
            {"run": r, "fault": f"the record of {r} does not follow from the one before"}
            for r in broken
        ]

    def _ending(self, context: Context) -> tuple[int, list[Subject]]:
        newest = context.runs[-1:]
        return len(newest), [
            {"run": r["runId"], "fault": f"the run is {r['status']}: start it again"}
            for r in newest
            if r["status"] not in ("done", "failed")
        ]

    def _logs(self, context: Context) -> tuple[int, list[Subject]]:
        recorded = _recorded(context)
        places = {n: (context.space.resolve(n), h) for n, h in recorded.items()}
        faults = {n: _fault(path, digest) for n, (path, digest) in places.items()}
        return len(places), [{"file": n, "fault": f"{n} {f}"} for n, f in faults.items() if f]

    def _configuration(self, context: Context) -> tuple[int, list[Subject]]:
        newest = context.runs[-1] if context.runs else None
        kept = context.space.run_config(str(newest["runId"])) if newest else None
        if newest is None or kept is None or not kept.is_file():
            raise NotRun("the configuration of the newest run was not kept")
        made = values_of(Settings.load(kept))
        today = values_of(context.settings)
        given = set(_OVERRIDE.findall(str(newest["command"])))
        return len(made), [
            {"key": k, "fault": f"{k} is {today.get(k)!r}, the run was made with {made.get(k)!r}"}
            for k in sorted(made.keys() | today.keys())
            if made.get(k) != today.get(k) and not k.startswith(_FREE) and k not in given
        ]


def _recorded(context: Context) -> dict[str, str | None]:
    """Hashes of the files that the runs have kept, None of a run that did not end."""
    if context.runs and not any(r["fileHashes"] for r in context.runs):
        raise NotRun("no run recorded the hashes of its logs: the catalogue is of an older version")
    files: dict[str, str | None] = {}
    for run in context.runs:
        files |= json.loads(run["fileHashes"] or "{}")
    return files


def _fault(path: Path, digest: str | None) -> str:
    if not path.is_file():
        return "is gone"
    return "is altered" if digest is not None and file_hash(path) != digest else ""
