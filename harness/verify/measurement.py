"""What a check measures, before anyone judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Evidence", "Measurement", "NotApplicable", "NotRun", "Subject"]

Subject = Mapping[str, Any]
"""One member of a population: ``{"visit": …, "detector": …}``, a file, a column, an alert …"""


class NotApplicable(Exception):  # noqa: N818 - a verdict, not an error
    """The check has no meaning for this campaign; the message is the rule that says so."""


class NotRun(Exception):  # noqa: N818 - a verdict, not an error
    """The check could not be made; the message says what was absent.

    Parameters
    ----------
    message : str
        What was absent.
    population : int, optional
        How many subjects wait for it.
    """

    def __init__(self, message: str, population: int | None = None) -> None:
        super().__init__(message)
        self.population = population


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something to look at: a file beside the report, a table or a figure.

    Attributes
    ----------
    title : str
        Its caption.
    kind : str
        ``table``, ``figure``, ``image``, ``text`` or ``file``.
    data : object
        JSON: ``{"columns", "rows"}``, the description of a figure, text, or ``{"path", "sha256"}``.
    """

    title: str
    kind: str
    data: Any


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number over a population.

    Attributes
    ----------
    value : float
        What was measured, in the unit of the check; NaN when it is undefined.
    population : int
        How many subjects it rests on.
    stderr : float, optional
        Standard error of an estimate.
    nulls, nans : int
        Values that were missing and values that were not numbers.
    failing : tuple of mapping
        Subjects that break the bound, worst first.
    evidence : tuple of Evidence
        What a reader may want to see.
    note : str
        One sentence that belongs to the number.
    broken : str
        Which subjects could not be measured, and why; the number is that of the others.
    """

    value: float
    population: int
    stderr: float | None = None
    nulls: int = 0
    nans: int = 0
    failing: tuple[Subject, ...] = ()
    evidence: tuple[Evidence, ...] = field(default=())
    note: str = ""
    broken: str = ""
