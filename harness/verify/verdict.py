"""The algebra of verdicts: seven words in an order, the worst one wins.

::

    not_applicable < pass < deviation < partial < not_run < fail < error

`not_applicable` is neutral, the order of the parts is irrelevant, and making one part worse
never makes the whole better; all three are tested as properties.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

__all__ = ["Verdict", "exit_code", "worst"]


class Verdict(IntEnum):
    """One verdict; larger is worse."""

    NOT_APPLICABLE = 0
    PASS = 1
    DEVIATION = 2
    PARTIAL = 3
    NOT_RUN = 4
    FAIL = 5
    ERROR = 6

    @property
    def word(self) -> str:
        """The lower-case word kept in files."""
        return self.name.lower()

    @property
    def label(self) -> str:
        """What a person reads; the words are those of DMTR-53."""
        return _LABELS[self]

    @property
    def shape(self) -> str:
        """One character that survives grey-scale printing."""
        return _SHAPES[self]

    @classmethod
    def of(cls, word: str) -> Verdict:
        """Return the verdict of a word.

        Raises
        ------
        KeyError
            For an unknown word.
        """
        return cls[word.upper()]


_LABELS = {
    Verdict.NOT_APPLICABLE: "N/A",
    Verdict.PASS: "Pass",
    Verdict.DEVIATION: "Pass with deviation",
    Verdict.PARTIAL: "Partial Pass",
    Verdict.NOT_RUN: "Not run",
    Verdict.FAIL: "Fail",
    Verdict.ERROR: "Fail (error)",
}
_SHAPES = {
    Verdict.NOT_APPLICABLE: "–",
    Verdict.PASS: "●",
    Verdict.DEVIATION: "◐",
    Verdict.PARTIAL: "◒",
    Verdict.NOT_RUN: "○",
    Verdict.FAIL: "✖",
    Verdict.ERROR: "▲",
}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Combine verdicts.

    Parameters
    ----------
    verdicts : iterable of Verdict
        The parts, in any order.

    Returns
    -------
    Verdict
        The worst; `NOT_RUN` when there are no parts, because nothing was shown.
    """
    return max(verdicts, default=Verdict.NOT_RUN)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """Return the exit status of a command for the verdicts of its cases.

    Parameters
    ----------
    verdicts : iterable of Verdict
        Those that count.

    Returns
    -------
    int
        0 all passed or waived, 1 some failed, 3 partial only, 4 incomplete.
    """
    overall = max(verdicts, default=Verdict.NOT_APPLICABLE)
    if overall >= Verdict.FAIL:
        return 1
    return {Verdict.NOT_RUN: 4, Verdict.PARTIAL: 3}.get(overall, 0)
