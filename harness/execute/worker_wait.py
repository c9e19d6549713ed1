"""How long a coordinator waits for workers that others must start, and what it says meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from pipeline.errors import ConfigError

__all__ = ["NoWorkerError", "WorkerWait"]

_SAY_S = 5.0
_REFUSED_S = 30.0  # for one that may work to come after others that may not


class NoWorkerError(ConfigError):
    """No worker came in time; what was done is kept and the same run can be started again."""

    exit_code = 4


class WorkerWait:
    """Watches the workers of an engine: says that there is none, and gives up in the end.

    Parameters
    ----------
    limit_s : float, s
        How long the engine may be without a worker; 0 for ever.
    say : callable
        Shows a line to whoever started the run.
    start : str
        How a worker is started.
    """

    def __init__(
        self,
        limit_s: float = 0.0,
        say: Callable[[str], None] = lambda _: None,
        start: str = "nightjar work",
    ) -> None:
        self._limit_s = limit_s or float("inf")
        self._say, self._start = say, start
        self._known: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self.begin()

    def begin(self) -> None:
        """Count the time from the next look: there is something to do again."""
        self._since: float | None = None

    def look(self, workers: Collection[str], refused: dict[str, str]) -> None:
        """Take note of the workers there are.

        Parameters
        ----------
        workers : collection of str
            Names of those that work or may.
        refused : dict of str to str
            Why others may not work, by their names; all there have been.

        Raises
        ------
        ConfigError
            If all that came within half a minute were refused.
        NoWorkerError
            If there has been none for too long.
        """
        new = {name: why for name, why in refused.items() if name not in self._known}
        self._known |= new
        self._refused |= new
        for name, why in new.items():
            self._say(f"worker {name} refused: {why}")
        if workers:
            self._refused.clear()
            self.begin()
            return
        now = time.monotonic()
        if self._since is None:
            self._since, self._next_s = now, _SAY_S
        self._judge(now - self._since)

    def _judge(self, waited_s: float) -> None:
        if self._refused and waited_s >= min(_REFUSED_S, self._limit_s):
            number, last = len(self._refused), list(self._refused.values())[-1]
            raise ConfigError(
                f"all {number} workers that came were refused, the last because it {last}",
                hint="install the same version in both places",
            )
        if waited_s >= self._limit_s:
            raise NoWorkerError(
                f"no worker for {waited_s:.0f} s",
                key="execution.worker_wait",
                hint=f"start one with: {self._start}; then this run again: what was done is kept",
            )
        if waited_s >= self._next_s:
            self._next_s *= 4
            self._say(f"no worker for {waited_s:.0f} s; start one with: {self._start}")
