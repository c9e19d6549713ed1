"""What a known defect is, and how one is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.verify.copy import Copy

__all__ = ["DEFECTS", "Defect", "defect"]


@dataclass(frozen=True, slots=True)
class Defect:
    """One way to spoil a campaign.

    Attributes
    ----------
    id : str
        Its name.
    text : str
        What is done, for the report.
    check : str
        Path of the check that must find it.
    plant : callable
        Does it to a copy.
    """

    id: str
    text: str
    check: str
    plant: Callable[[Copy], None]


DEFECTS: dict[str, Defect] = {}
"""Every defect by its name, filled by `load_defects`."""


def defect(name: str, check: str) -> Callable[[Callable[[Copy], None]], Callable[[Copy], None]]:
    """Register a function as a defect; the first line of its documentation says what it does.

    Parameters
    ----------
    name : str
        Name of the defect.
    check : str
        Path of the check that has to notice it.

    Returns
    -------
    callable
        A decorator that returns the function as it is.
    """

    def register(function: Callable[[Copy], None]) -> Callable[[Copy], None]:
        text = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        DEFECTS[name] = Defect(name, text, check, function)
        return function

    return register
