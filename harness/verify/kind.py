"""What every kind of check is: a frozen model of its parameters with one method, `measure`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from harness.verify.measurement import Measurement

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Kind"]


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

    def references(self) -> list[str]:
        """Paths of other checks this one relies on."""
        return []
