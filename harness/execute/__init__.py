"""Engines that perform work items; none of them knows what a stage or a task is."""

from __future__ import annotations

from harness.execute.capacity import workers_here
from harness.execute.config import Config
from harness.execute.executor import Executor, Work
from harness.execute.local import LocalExecutor
from harness.execute.serial import SerialExecutor
from harness.execute.worker import TIMEOUT

__all__ = [
    "TIMEOUT",
    "Config",
    "Executor",
    "LocalExecutor",
    "SerialExecutor",
    "Work",
    "open_executor",
]


def open_executor(config: Config, jobs: int | None = None) -> Executor:
    """Choose an executor.

    Parameters
    ----------
    config : Config
        Section ``execution`` of the configuration.
    jobs : int, optional
        Processes, instead of what the configuration says.

    Returns
    -------
    Executor
        The engine.
    """
    if config.executor == "serial":
        return SerialExecutor()
    processes = jobs or config.jobs or workers_here()
    return LocalExecutor(processes, config.attempts, config.unit_time_limit)
