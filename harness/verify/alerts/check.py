"""Named assertions on alert packets, ours or anybody's.

``check(path)`` judges every packet of an Avro container that follows the LSST layout.  What a
packet does not contain is not tested: an assertion without a single finding is ``not_run``, never
passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# The modules register their assertions when they are imported.
from harness.verify.alerts import cutout_assertions, packet_assertions  # noqa: F401
from harness.verify.alerts.assertion import ASSERTIONS, Finding, Record, Test, View
from pipeline.alerts import read
from pipeline.errors import FileFormatError

__all__ = ["Assertion", "Check", "check"]


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


def check(
    path: str | Path,
    *,
    cutouts_every: int = 1,
    watch: Callable[[Record], None] | None = None,
    schema: str | Path | None = None,
) -> Check:
    """Judge an Avro file of alerts.

    Parameters
    ----------
    path : path-like
        An Avro object container of LSST-style alerts.
    cutouts_every : int
        Decode the cut-outs of every ``cutouts_every``-th packet only: they take most of the time.
    watch : callable, optional
        Called with every packet.
    schema : path-like, optional
        Schema of a record that comes without one, as brokers send it.

    Returns
    -------
    Check
        One outcome per assertion.

    Raises
    ------
    FileFormatError
        If the file cannot be read, or holds something else.
    """
    counts = {name: [0, 0] for name in ASSERTIONS}
    worst: dict[str, tuple[float, str]] = {}
    seen: set[int] = set()
    alerts = 0
    for packet in read(path, schema):
        _require_layout(packet, path)
        if watch is not None:
            watch(packet)
        view = View(packet, seen)
        decode = alerts % cutouts_every == 0
        for name, test in ASSERTIONS.items():
            if not decode and test.__module__ == cutout_assertions.__name__:
                continue
            for finding in _findings(test, view):
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


def _require_layout(packet: Record, path: str | Path) -> None:
    if isinstance(packet.get("diaSource"), dict):
        return
    fields = ", ".join(map(str, list(packet)[:4]))
    what = f"records of the fields {fields}, …, not alerts in the layout of LSST"
    if "candidate" in packet:
        what = "alerts in the layout of ZTF (candidate, prv_candidates), not in that of LSST"
    raise FileFormatError(f"holds {what}", path=path, expected="records with a diaSource")


def _findings(test: Test, view: View) -> Iterator[Finding]:
    """Yield what an assertion finds; a failure where it cannot judge the values."""
    try:
        yield from test(view)
    except Exception as err:  # packets of other origin may hold anything
        yield Finding(False, math.inf, f"cannot be judged: {type(err).__name__}: {err}")


def _verdict(tested: int, failed: int) -> str:
    if not tested:
        return "not_run"
    return "fail" if failed else "pass"
