"""Engines that perform work items; none of them knows what a stage or a task is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.execute.capacity import workers_here
from harness.execute.claims import ClaimExecutor
from harness.execute.config import Config
from harness.execute.executor import Executor, Work
from harness.execute.local import LocalExecutor
from harness.execute.serial import SerialExecutor
from harness.execute.worker import TIMEOUT
from harness.execute.worker_wait import WorkerWait
from pipeline.errors import ConfigError

__all__ = [
    "TIMEOUT",
    "ClaimExecutor",
    "Config",
    "Executor",
    "LocalExecutor",
    "SerialExecutor",
    "Work",
    "open_executor",
]


def open_executor(
    config: Config, jobs: int | None, queue: Path, say: Callable[[str], None] = lambda _: None
) -> Executor:
    """Choose an executor.

    Parameters
    ----------
    config : Config
        Section ``execution`` of the configuration.
    jobs : int, optional
        Processes, instead of what the configuration says.
    queue : Path
        Folder for work that is claimed through files.
    say : callable
        Shows a line to whoever waits; says nothing by default.

    Returns
    -------
    Executor
        The engine.

    Raises
    ------
    ConfigError
        If it needs a library that is not installed.
    """
    attempts, limit_s = config.attempts, config.unit_time_limit
    processes = jobs or config.jobs or workers_here()
    if config.executor == "serial":
        return SerialExecutor()
    if config.executor == "local":
        return LocalExecutor(processes, attempts, limit_s)
    if config.executor == "claims":
        wait = WorkerWait(config.worker_wait, say, f"nightjar work {queue.parent}")
        return ClaimExecutor(queue, attempts, limit_s, config.lease, wait)
    try:
        from harness.execute import cluster
    except ImportError as err:
        raise ConfigError(
            f"needs a library: {err}", key=f"execution.executor={config.executor}",
            hint="pip install 'nightjar[distributed]'",
        ) from err  # fmt: skip
    if config.executor == "slurm":
        where, start = cluster.slurm_jobs(processes, config.slurm), "sbatch; squeue says what waits"
    else:
        where, start = cluster.connect(config.dask), f"dask worker {config.dask}"
    wait = WorkerWait(config.worker_wait, say, start)
    return cluster.ClusterExecutor(attempts, limit_s, where, wait)
