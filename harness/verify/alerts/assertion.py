"""What an assertion on alert packets is made of: the packet it sees, what it finds, its name.

An assertion is a function that looks at one packet and yields its findings; registering it is all
it takes to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Any

__all__ = ["ASSERTIONS", "Finding", "View", "assertion", "finite"]

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
        number = self.packet.get("diaSourceId")
        return number if isinstance(number, int) else 0

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
    """Register a function as an assertion of that name.

    Parameters
    ----------
    name : str
        Name by which case files ask for it.

    Returns
    -------
    callable
        A decorator that returns the function as it is.
    """

    def register(function: Test) -> Test:
        ASSERTIONS[name] = function
        return function

    return register


def finite(record: Record, *names: str) -> bool:
    """Whether all of these fields hold finite numbers.

    Parameters
    ----------
    record : dict
        A record of an alert.
    *names : str
        Its fields.

    Returns
    -------
    bool
        False also for a null.
    """
    values = [record.get(name) for name in names]
    return all(isinstance(v, int | float) and isfinite(v) for v in values)
