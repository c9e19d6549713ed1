"""Accepted failures: how a waiver turns a covered `fail` into a `deviation`, and when not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from harness.verify.bounds import Bound
from harness.verify.measurement import Subject
from harness.verify.model import Waiver
from harness.verify.verdict import Verdict

__all__ = ["Ruling", "apply_waiver"]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a waiver did to a verdict.

    Attributes
    ----------
    verdict : Verdict
        Afterwards.
    state : str
        ``applied``, ``stale``, ``expired``, ``exceeded``, ``out of scope`` or ``unused``.
    sentence : str
        For the report.
    """

    verdict: Verdict
    state: str
    sentence: str


def apply_waiver(
    waiver: Waiver, verdict: Verdict, value: float, failing: Sequence[Subject], today: date
) -> Ruling:
    """Apply one waiver to the verdict of its check.

    Parameters
    ----------
    waiver : Waiver
        The accepted failure.
    verdict : Verdict
        Of the check, before.
    value : float
        What it measured.
    failing : sequence of mapping
        Subjects that broke the bound; a scoped waiver must cover every one.
    today : date
        For the expiry.

    Returns
    -------
    Ruling
        The verdict afterwards, and why.
    """
    if verdict <= Verdict.PASS:
        return Ruling(verdict, "stale", f"waiver {waiver.id} is stale: its check passes now")
    if verdict not in (Verdict.FAIL, Verdict.PARTIAL):
        return Ruling(verdict, "unused", f"waiver {waiver.id} covers failures only")
    if today > waiver.last_day:
        return Ruling(verdict, "expired", f"waiver {waiver.id} expired on {waiver.expires}")
    if not Bound.parse(waiver.no_worse_than).holds(value):
        return Ruling(
            verdict,
            "exceeded",
            f"waiver {waiver.id} accepts {waiver.no_worse_than}, measured {value:.6g}",
        )
    outside = [s for s in failing if not waiver.scope.covers(s)]
    if outside or (not waiver.scope.empty and not failing):
        which = dict(outside[0]) if outside else "unknown subjects"
        return Ruling(verdict, "out of scope", f"waiver {waiver.id} does not cover {which}")
    return Ruling(
        Verdict.DEVIATION,
        "applied",
        f"waiver {waiver.id} ({waiver.ticket}) until {waiver.expires}: {waiver.reason}",
    )
