"""What a known defect is, and how one is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from harness.verify.copy import Copy

__all__ = ["DEFECTS", "Defect", "defect", "graded"]


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
    faint : callable, optional
        Does it so little that the check must not notice.
    """

    id: str
    text: str
    check: str
    plant: Callable[[Copy], None]
    faint: Callable[[Copy], None] | None = None

    @property
    def family(self) -> str:
        """Name of the module that declares it."""
        plant = self.plant.func if isinstance(self.plant, partial) else self.plant
        return str(plant.__module__).rpartition(".")[2]


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


_Graded = Callable[[Copy, float], None]


def _of_size(function: _Graded, amount: float) -> Callable[[Copy], None]:
    def plant(copy: Copy) -> None:
        function(copy, amount)

    plant.__module__ = function.__module__
    return plant


def graded(
    name: str, check: str, *strong: float, faint: float | None = None
) -> Callable[[_Graded], _Graded]:
    """Register a function of an amplitude as one defect for each amplitude to be caught.

    Parameters
    ----------
    name : str
        Name of the defects, before their amplitude.
    check : str
        Path of the check that has to notice them.
    *strong : float
        Amplitudes at which it must.
    faint : float, optional
        An amplitude at which it must not.

    Returns
    -------
    callable
        A decorator that returns the function as it is; the first line of its documentation has
        ``{}`` for the amplitude.
    """

    def register(function: _Graded) -> _Graded:
        text = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        weak = None if faint is None else _of_size(function, faint)
        for amount in strong:
            known = f"{name}-{amount:g}"
            plant = _of_size(function, amount)
            DEFECTS[known] = Defect(known, text.format(f"{amount:g}"), check, plant, weak)
            weak = None  # once is enough
        return function

    return register
