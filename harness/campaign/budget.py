"""The time that a run may take: nothing is begun that would not end in it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from harness.catalog import Catalog
from harness.ledger import Outcome
from pipeline.errors import ConfigError

__all__ = ["TimeBudget", "seconds"]

_CLOSING_S = 5.0  # for the coordinator to record the end
_QUEUE = 2.0  # a worker may have to end an item before it begins the next
_UNITS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")


def seconds(text: str) -> float:
    """Read a duration.

    Parameters
    ----------
    text : str
        Such as ``90``, ``45m``, ``1h30m``, ``02:00:00`` or ``1-12:00:00``.

    Returns
    -------
    float, s
        The duration.

    Raises
    ------
    ConfigError
        For anything else, and for no time at all.
    """
    found = _CLOCK.fullmatch(text) or _UNITS.fullmatch(text.replace(" ", ""))
    days, hours, minutes, rest = (int(part or 0) for part in found.groups()) if found else [0] * 4
    total = 86400.0 * days + 3600.0 * hours + 60.0 * minutes + rest
    if not total:
        raise ConfigError(
            "is no duration", key=repr(text), expected="90, 45m, 1h30m, 02:00:00 or 1-12:00:00"
        )
    return total


class TimeBudget:
    """What is left of the time of a run, and what its work costs.

    Parameters
    ----------
    limit_s : float, optional, s
        From now; any time by default.
    clock : callable
        Returns seconds.

    Attributes
    ----------
    needed_s, left_s : float, s
        What the last work asked for may take, and what there was.
    """

    def __init__(
        self, limit_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._end = float("inf") if limit_s is None else clock() + limit_s
        self._slowest: dict[tuple[str, ...], float] = {}
        self.needed_s, self.left_s = 0.0, float("inf")

    def allows(self, catalog: Catalog, stages: tuple[str, ...], targets: int) -> bool:
        """Whether work would end in time, judged by the slowest of its kind so far.

        Parameters
        ----------
        catalog : Catalog
            Has the costs of earlier runs.
        stages : tuple of str
            What would be done.
        targets : int
            To how many targets.
        """
        if self._end == float("inf"):
            return True
        if stages not in self._slowest:
            self._slowest[stages] = _recorded(catalog, stages)
        self.needed_s = _QUEUE * self._slowest[stages] * targets + _CLOSING_S
        self.left_s = self._end - self._clock()
        return self.needed_s <= self.left_s

    def learn(self, stages: tuple[str, ...], outcome: Outcome, targets: int) -> None:
        """Take the cost of what was done into account."""
        cost = sum(record.wall_s for record in outcome.stages) / targets
        self._slowest[stages] = max(cost, self._slowest.get(stages, 0.0))


def _recorded(catalog: Catalog, stages: tuple[str, ...]) -> float:
    """Wall time of the slowest target, s; 0 where none is known."""
    marks = ", ".join("?" * len(stages))
    slowest = catalog.value(
        f"""SELECT max(cost) FROM (SELECT sum(wallS) AS cost FROM unit
        WHERE stage IN ({marks}) GROUP BY visit, detector, templateId)""",
        list(stages),
    )
    return float(slowest or 0.0)
