"""Engines that perform work items; none of them knows what a stage or a task is."""

from __future__ import annotations

import os

from harness.execute.executor import Executor, Work
from harness.execute.local import LocalExecutor
from harness.execute.serial import SerialExecutor

__all__ = ["Executor", "LocalExecutor", "SerialExecutor", "Work", "open_executor"]


def open_executor(kind: str, jobs: int, attempts: int) -> Executor:
    """Choose an executor.

    Parameters
    ----------
    kind : str
        ``local`` or ``serial``.
    jobs : int
        Processes; 0 for one per processor that this process may use.
    attempts : int
        Attempts at an item whose worker died.

    Returns
    -------
    Executor
        The engine.
    """
    if kind == "serial":
        return SerialExecutor()
    return LocalExecutor(jobs or len(os.sched_getaffinity(0)), attempts)
