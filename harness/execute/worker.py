"""A worker: one process that performs one item at a time and can be ended at any moment."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Lock, Timer
from typing import TypeVar

from harness.execute.executor import Work
from harness.system.processes import initialise_worker
from pipeline.errors import ConfigError

__all__ = ["TIMEOUT", "Lost", "Worker"]

R = TypeVar("R")

_START_S = 300.0  # for a process to load what it needs

TIMEOUT = "TIMEOUT"
"""How an item was lost that took too long."""


@dataclass(frozen=True, slots=True)
class Lost:
    """In place of a result: the process died.

    Attributes
    ----------
    how : str
        Name of the signal, the exit code, or `TIMEOUT`.
    """

    how: str


class Worker:
    """A place for one process, which is started when there is work and again after each death."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: BaseProcess | None = None
        self._here: Connection | None = None
        self._busy = self._expired = self._closed = False

    def perform(self, work: Work[R], attempt: int, limit_s: float = 0.0) -> R | Lost:
        """Perform an item in the process, which is killed at the end of its time.

        Parameters
        ----------
        work : Work
            What to do.
        attempt : int
            The how manieth attempt it is.
        limit_s : float, s
            How long it may take, from when the process has it; 0 for any time.

        Returns
        -------
        object or Lost
            The result, or how the process died.

        Raises
        ------
        ConfigError
            If the process ends with an exception before it is ready.
        """
        try:
            connection = self._started()
            with self._limited(limit_s):
                connection.send((work, attempt))
                result: R = connection.recv()
        except (EOFError, OSError):
            return Lost(self._death())
        if self._expired:
            self._death()
        return result

    def interrupt(self) -> None:
        """End the process at once, whatever it is doing: its item is lost."""
        with self._lock:
            if self._process is not None:
                self._process.kill()  # a stopped process heeds nothing else
                self._process.join(timeout=5)

    def close(self) -> None:
        """End the process at once, and start no other."""
        self._closed = True
        self.interrupt()

    def _started(self) -> Connection:
        if self._here is not None:
            return self._here
        context = multiprocessing.get_context("forkserver")
        connection, there = context.Pipe()
        with self._lock:
            if self._closed:
                raise OSError("closed")
            self._here = connection
            process = context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            self._process = process
            there.close()
        with self._limited(_START_S):
            try:
                connection.recv()
            except EOFError:
                self._check_start(process)
                raise
        return connection

    @staticmethod
    def _check_start(process: BaseProcess) -> None:
        """Refuse to go on if the process cannot begin, which no other attempt changes."""
        process.join(timeout=5)
        if process.exitcode == 1:  # an exception on its way, not a signal
            raise ConfigError(
                "worker processes end before they begin, see above; a script that calls this does "
                'so below `if __name__ == "__main__":`'
            )

    @contextmanager
    def _limited(self, limit_s: float) -> Iterator[None]:
        """Let the process take no longer than a limit."""
        self._busy, self._expired = True, False
        timer = Timer(limit_s, self._expire)
        timer.daemon = True
        if limit_s:
            timer.start()
        try:
            yield
        finally:
            with self._lock:
                self._busy = False
            timer.cancel()

    def _expire(self) -> None:
        with self._lock:
            if self._busy and self._process is not None:
                self._expired = True
                self._process.kill()

    def _death(self) -> str:
        """Bury the process and say what it died of."""
        with self._lock:
            process, connection = self._process, self._here
            self._process = self._here = None
        if connection is not None:
            connection.close()
        if process is None:
            return "not started"
        process.join(timeout=5)
        if process.exitcode is None:  # its pipe is closed, but it runs
            process.kill()
            process.join(timeout=5)
        code = process.exitcode or 0
        if self._expired:
            return TIMEOUT
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(connection: Connection) -> None:
    """Perform what comes until the other end hangs up; an error ends the process."""
    initialise_worker()
    connection.send(None)  # ready
    while True:
        try:
            work, attempt = connection.recv()
        except EOFError:
            return
        connection.send(work.perform(attempt))
