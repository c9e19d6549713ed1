"""Bounds as people write them, and the judging of numbers by them.

``"< 50 mas"``, ``">= 0.995"``, ``"0.98 .. 1.02"`` and ``"= 0 files"`` are bounds.  The unit is part
of the text and must be that of the measurement: a bound without the unit is a mistake of the
author and is refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from harness.verify.verdict import Verdict

__all__ = ["Bound", "judge", "smallest_effect"]

_POWER = 1.6449
"""Quantile of the normal distribution at 95 %."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ONE_SIDED = re.compile(rf"(<=|>=|<|>|=)\s*({_NUMBER})\s*(\S.*)?")
_RANGE = re.compile(rf"({_NUMBER})\s*\.\.\s*({_NUMBER})\s*(\S.*)?")


@dataclass(frozen=True, slots=True)
class Bound:
    """An interval that a number has to lie in.

    Attributes
    ----------
    lo, hi : float
        Its ends, infinite where it is open.
    strict : bool
        Whether the ends themselves are outside.
    unit : str
        Unit of the ends, empty for a pure number.
    text : str
        As written.
    """

    lo: float
    hi: float
    strict: bool
    unit: str
    text: str

    @classmethod
    def parse(cls, text: str) -> Bound:
        """Read a bound.

        Raises
        ------
        ValueError
            If the text is none; the message shows the forms there are.
        """
        written = " ".join(text.split())
        if match := _RANGE.fullmatch(written):
            lo, hi = float(match[1]), float(match[2])
            if not lo < hi:
                raise ValueError(f"bound {text!r} is empty: the lower end comes first")
            return cls(lo, hi, False, match[3] or "", written)
        if match := _ONE_SIDED.fullmatch(written):
            sign, value, unit = match[1], float(match[2]), match[3] or ""
            lo = value if sign in (">", ">=", "=") else -math.inf
            hi = value if sign in ("<", "<=", "=") else math.inf
            return cls(lo, hi, sign in ("<", ">"), unit, written)
        raise ValueError(f"{text!r} is no bound; write '< 50 mas', '>= 0.995' or '0.98 .. 1.02'")

    def holds(self, value: float) -> bool:
        """Whether a number lies inside; NaN never does."""
        if self.strict:
            return self.lo < value < self.hi
        return self.lo <= value <= self.hi

    @property
    def tolerance(self) -> float | None:
        """Half the width of a closed interval; None when it is open on one side."""
        half = 0.5 * (self.hi - self.lo)
        return half if math.isfinite(half) and half > 0 else None

    @property
    def room(self) -> float | None:
        """Half the width, or from the end of an open bound to zero; what it has to tell apart."""
        if self.tolerance is not None:
            return self.tolerance
        end = self.hi if math.isfinite(self.hi) else self.lo
        return abs(end) if math.isfinite(self.hi) and end and self.lo != self.hi else None

    def weaker_than(self, other: Bound) -> bool:
        """Whether everything inside the other bound is inside this one, and more."""
        return (
            self.lo <= other.lo
            and self.hi >= other.hi
            and (self.lo, self.hi)
            != (
                other.lo,
                other.hi,
            )
        )


def smallest_effect(stderr: float) -> float:
    """Return how far beyond its bound a true value has to lie to be found out.

    Parameters
    ----------
    stderr : float
        Standard error of the estimate.

    Returns
    -------
    float
        In the same unit, for a power of 95 %: 1.645 standard errors.
    """
    return _POWER * stderr


def judge(
    value: float,
    bound: Bound,
    *,
    partial: Bound | None = None,
    stderr: float | None = None,
    tolerance: float | None = None,
) -> tuple[Verdict, str]:
    """Judge a number, by an interval when it is an estimate.

    An estimate passes when it lies inside the bound, three standard errors fit into the
    tolerance and an effect as large as the bound would be found out with a power of 95 %.  It
    fails when it lies outside and the sample can tell; otherwise the sample is too small to say
    anything.

    Parameters
    ----------
    value : float
        Measured.
    bound : Bound
        What it has to keep.
    partial : Bound, optional
        A weaker bound that earns a partial pass.
    stderr : float, optional
        Standard error of the value, same unit.
    tolerance : float, optional
        Room for three standard errors; by default half the width of a closed bound.

    Returns
    -------
    verdict : Verdict
        `PASS`, `PARTIAL`, `FAIL` or `NOT_RUN`.
    reason : str
        One sentence, empty for a plain pass.
    """
    if not math.isfinite(value):
        return Verdict.FAIL, "the measured value is not a finite number"
    if stderr is not None and (blind := _blindness(bound, stderr, tolerance)):
        if _distance(value, bound) > 3.0 * stderr:
            return Verdict.FAIL, f"{_distance(value, bound) / stderr:.1f} standard errors outside"
        return Verdict.NOT_RUN, f"too few: {blind}"
    if bound.holds(value):
        return Verdict.PASS, ""
    if partial is not None and partial.holds(value):
        return Verdict.PARTIAL, f"outside {bound.text} but within {partial.text}"
    return Verdict.FAIL, f"outside {bound.text}"


def _blindness(bound: Bound, stderr: float, tolerance: float | None) -> str:
    """Say why an estimate cannot tell its bound, nothing where it can."""
    if not 0.0 <= stderr < math.inf:
        return "the sample tells no standard error"
    room = bound.tolerance if tolerance is None else tolerance
    if room is not None and not 3.0 * stderr <= room:
        return f"three standard errors ({3 * stderr:.3g}) exceed the tolerance ({room:.3g})"
    seen = smallest_effect(stderr)
    if bound.room is not None and seen > bound.room:
        return f"a power of 95 % takes an effect of {seen:.3g}, the bound leaves {bound.room:.3g}"
    return ""


def _distance(value: float, bound: Bound) -> float:
    return max(bound.lo - value, value - bound.hi, 0.0)
