"""What every kind of check is: a frozen model of its parameters with one method, `measure`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from harness.verify.measurement import Measurement
from pipeline.schema import TABLES

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Kind", "Pattern", "Product"]

_LONGEST = 200
_PRODUCTS = ("visit_image", "difference", "alerts")


def _compiles(text: str) -> str:
    if len(text) > _LONGEST:
        raise ValueError(f"a pattern has at most {_LONGEST} characters")
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as err:
        raise ValueError(f"{text!r} is no regular expression: {err}") from err
    return text


def _is_product(name: str) -> str:
    table = name.removeprefix("staging/")
    if name not in _PRODUCTS and not (table != name and table in TABLES):
        raise ValueError(f"no product {name!r}; known: {', '.join(_PRODUCTS)}, staging/TABLE")
    return name


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression; one that is none is a mistake of the case file."""

Product = Annotated[str, AfterValidator(_is_product)]
"""A product of a unit."""


class Kind(BaseModel, ABC):
    """Parameters of a check and how it measures.

    Attributes
    ----------
    name : str
        The key in a case file.
    default_bound : str
        The bound of a check that states none; empty when it must.
    elsewhere : bool
        Whether its evidence is made by other commands or people: a check that reads `NOT_RUN`
        for want of it stays out of the exit status.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: ClassVar[str]
    default_bound: ClassVar[str] = ""
    elsewhere: ClassVar[bool] = False

    @property
    @abstractmethod
    def unit(self) -> str:
        """Unit of the measured value, empty for a pure number."""

    @abstractmethod
    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Measure.

        Parameters
        ----------
        context : Context
            The campaign.
        bound : Bound
            What the value will be judged by; only to tell which subjects fail and which of
            several values is the worst.

        Raises
        ------
        NotApplicable
            If the check has no meaning for this campaign.
        NotRun
            If something it needs is absent.
        """

    def usual_bound(self) -> str:
        """Return the bound of a check that states none, empty when it must state one."""
        return self.default_bound

    def catalogued(self, context: Context) -> frozenset[str] | None:
        """Return the tables of the catalogue on which the verdict rests alone.

        Parameters
        ----------
        context : Context
            The campaign.

        Returns
        -------
        frozenset of str, optional
            Their names, those of views too; None where it rests on anything else.
        """
        return None

    def references(self) -> list[str]:
        """Paths of other checks this one relies on."""
        return []
