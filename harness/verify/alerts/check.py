"""Named assertions on alert packets, ours or anybody's.

``check(path)`` judges every packet of an Avro container that follows the LSST layout.  An
assertion is a function that looks at one packet and yields its findings; registering it is all
it takes to add one.  What a packet does not contain is not tested: an assertion without a single
finding is ``not_run``, never passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from pipeline.alerts import read

__all__ = ["ASSERTIONS", "Assertion", "Check", "Finding", "View", "assertion", "check"]

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One test of one subject.

    Attributes
    ----------
    holds : bool
        Whether the assertion holds for it.
    severity : float
        How bad a failure is, for choosing the worst; any scale of the assertion's own.
    detail : str
        The subject and the numbers.
    """

    holds: bool
    severity: float = 1.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Assertion:
    """The outcome of one assertion over a file.

    Attributes
    ----------
    id : str
        Its name.
    verdict : str
        ``pass``, ``fail``, or ``not_run`` when there was nothing to test.
    tested, failed : int
        Subjects tested, and those for which it does not hold.
    worst : str
        The worst failure, or empty.
    """

    id: str
    verdict: str
    tested: int
    failed: int
    worst: str


@dataclass(frozen=True, slots=True)
class Check:
    """All assertions over one file; iterates over them."""

    file: str
    alerts: int
    assertions: tuple[Assertion, ...]

    def __iter__(self) -> Iterator[Assertion]:
        """Iterate over the assertions in the order of their declaration."""
        return iter(self.assertions)

    @property
    def holds(self) -> bool:
        """Whether nothing failed."""
        return not any(a.failed for a in self.assertions)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: ``file``, ``alerts``, ``assertions``."""
        return {
            "file": self.file,
            "alerts": self.alerts,
            "assertions": [asdict(a) for a in self.assertions],
        }


@dataclass
class View:
    """One packet as the assertions see it.

    Attributes
    ----------
    packet : dict
        The decoded packet.
    seen : set of int
        Numbers of the alerts before it in the file.
    cache : dict
        Room for what assertions share, such as decoded cut-outs.
    """

    packet: Record
    seen: set[int] = field(default_factory=set)
    cache: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """``diaSourceId`` of the packet."""
        return int(self.packet.get("diaSourceId") or 0)

    @cached_property
    def source(self) -> Record:
        """The source announced."""
        return self.packet.get("diaSource") or {}

    @cached_property
    def history(self) -> list[Record]:
        """Previous sources."""
        return list(self.packet.get("prvDiaSources") or [])

    @cached_property
    def forced(self) -> list[Record]:
        """Previous forced sources."""
        return list(self.packet.get("prvDiaForcedSources") or [])

    @cached_property
    def sources(self) -> list[Record]:
        """All sources: previous ones and the one announced."""
        return [*self.history, self.source]

    @cached_property
    def object(self) -> Record:
        """The object, empty where there is none."""
        return self.packet.get("diaObject") or {}

    @cached_property
    def complete(self) -> bool:
        """Whether all sources of the object are in the packet."""
        return bool(self.object) and self.object.get("nDiaSources") == len(self.sources)

    @cached_property
    def bands(self) -> dict[str, list[Record]]:
        """Sources with a usable flux by band, in order of time."""
        found: dict[str, list[Record]] = {}
        for row in sorted(self.sources, key=lambda r: r.get("midpointMjdTai") or 0.0):
            if row.get("band") and finite(row, "psfFlux", "psfFluxErr") and row["psfFluxErr"] > 0:
                found.setdefault(row["band"], []).append(row)
        return found


Test = Callable[[View], Iterator[Finding]]
ASSERTIONS: dict[str, Test] = {}
"""All assertions by name, in order."""


def assertion(name: str) -> Callable[[Test], Test]:
    """Register a function as an assertion of that name."""

    def register(function: Test) -> Test:
        ASSERTIONS[name] = function
        return function

    return register


def finite(record: Record, *names: str) -> bool:
    """Whether all of these fields hold finite numbers."""
    values = [record.get(name) for name in names]
    return all(isinstance(v, int | float) and isfinite(v) for v in values)


def check(
    path: str | Path,
    *,
    cutouts_every: int = 1,
    watch: Callable[[Record], None] | None = None,
) -> Check:
    """Judge an Avro file of alerts.

    Parameters
    ----------
    path : path-like
        An Avro object container of LSST-style alerts.
    cutouts_every : int
        Decode the cut-outs of every so manieth packet only: they take most of the time.
    watch : callable, optional
        Called with every packet.

    Returns
    -------
    Check
        One outcome per assertion.

    Raises
    ------
    FileFormatError
        If the file cannot be read.
    """
    # the modules register their assertions when they are imported
    from harness.verify.alerts import cutout_assertions, packet_assertions  # noqa: F401

    counts = {name: [0, 0] for name in ASSERTIONS}
    worst: dict[str, tuple[float, str]] = {}
    seen: set[int] = set()
    alerts = 0
    for packet in read(path):
        if watch is not None:
            watch(packet)
        view = View(packet, seen)
        decode = alerts % cutouts_every == 0
        for name, test in ASSERTIONS.items():
            if not decode and test.__module__ == cutout_assertions.__name__:
                continue
            for finding in test(view):
                counts[name][0] += 1
                if not finding.holds:
                    counts[name][1] += 1
                    if name not in worst or finding.severity > worst[name][0]:
                        worst[name] = (finding.severity, f"{view.number}: {finding.detail}")
        seen.add(view.number)
        alerts += 1
    outcomes = tuple(
        Assertion(name, _verdict(tested, failed), tested, failed, worst.get(name, (0.0, ""))[1])
        for name, (tested, failed) in counts.items()
    )
    return Check(str(path), alerts, outcomes)


def _verdict(tested: int, failed: int) -> str:
    if not tested:
        return "not_run"
    return "fail" if failed else "pass"
