"""Defects of studies by injected sources: outcomes, causes, completeness and depth."""

from __future__ import annotations

from harness.verify.copy import Copy
from harness.verify.defect import defect, graded

__all__: list[str] = []

_LEDGER = "AG-00-35/ledger"
_LOST = "outcome = 'lost', stage = 'diasource', rule = 'threshold'"


@defect("second-outcome", f"{_LEDGER}/one-outcome")
def second_outcome(copy: Copy) -> None:
    """Give an injection a second outcome."""
    copy.study(
        "injection_outcome", "insert into injection_outcome select * from injection_outcome limit 1"
    )


@defect("contradicted-outcome", f"{_LEDGER}/agreement")
def contradicted_outcome(copy: Copy) -> None:
    """Call an injection detected that was alerted."""
    change = "update injection_outcome set outcome = 'detected' where injectionId = "
    copy.study("injection_outcome", f"{change}(select min(injectionId) {_of('alerted')})")


@defect("masked-counted-lost", f"{_LEDGER}/masked")
def masked_counted_lost(copy: Copy) -> None:
    """Count injections that a mask kept from being painted as lost."""
    copy.study(
        "injection_outcome", f"update injection_outcome set {_LOST} where outcome = 'masked'"
    )


@defect("lost-without-cause", f"{_LEDGER}/cause")
def lost_without_cause(copy: Copy) -> None:
    """Forget the rule that lost an injection."""
    change = "update injection_outcome set rule = null where injectionId = "
    copy.study("injection_outcome", f"{change}(select min(injectionId) {_of('lost')})")


@defect("painted-earlier", f"{_LEDGER}/same-images")
def painted_earlier(copy: Copy) -> None:
    """Let a difference have been painted before it was made again."""
    change = "update painting set differenceSha256 = 'of before' where visit = "
    copy.study("painting", f"{change}(select min(visit) from painting)")


@graded("found-less", "AG-00-35/completeness/snr-10", 0.2)
def lost_bright(copy: Copy, amount: float) -> None:
    """Lose a share of {} of the injections of true SNR 10 to 20."""
    _lose(copy, f"trueSnr between 10 and 20 and injectionId % 1000 < {1000 * amount}")


@graded("found-less-bright", "AG-00-35/completeness/snr-20", 0.2)
def lost_brightest(copy: Copy, amount: float) -> None:
    """Lose a share of {} of the injections of true SNR 20 to 50."""
    _lose(copy, f"trueSnr between 20 and 50 and injectionId % 1000 < {1000 * amount}")


@graded("found-less-above-6", "AG-00-35/completeness/above-6", 0.1)
def lost_above_six(copy: Copy, amount: float) -> None:
    """Lose a share of {} of the injections above a true SNR of 6."""
    _lose(copy, f"trueSnr > 6 and injectionId % 1000 < {1000 * amount}")


@graded("shallower-without-host", "AG-00-35/depth/gap50-hostless", 7.0)
def shallower(copy: Copy, amount: float) -> None:
    """Lose the injections without a host below a true SNR of {}."""
    _lose(copy, f"hostId is null and trueSnr < {amount}")


@graded("slower-rise-without-host", "AG-00-35/depth/gap80-hostless", 8.0)
def slower_rise(copy: Copy, amount: float) -> None:
    """Lose every second injection without a host below a true SNR of {}."""
    _lose(copy, f"hostId is null and trueSnr < {amount} and injectionId % 2 = 0")


def _of(outcome: str) -> str:
    return f"from injection_outcome where outcome = '{outcome}'"


def _lose(copy: Copy, where: str) -> None:
    """Count the found among some injections as lost, in every table alike."""
    injections = copy.space.root / "studies" / "verification" / "injection.parquet"
    chosen = f"injectionId in (select injectionId from '{injections}' where {where})"
    found = "outcome in ('detected', 'alerted')"
    copy.study(
        "injection_outcome", f"update injection_outcome set {_LOST} where {found} and {chosen}"
    )
    none = "detected = false, reliable = false, alerted = false"
    copy.study("recovery", f"update recovery set {none} where {chosen}")
