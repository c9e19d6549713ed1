"""Section ``execution`` of the configuration."""

from __future__ import annotations

from typing import Literal

from pipeline.config import StageConfig, param

__all__ = ["Config"]


class Config(StageConfig):
    """How the work is spread; nothing here changes a product."""

    jobs: int = param(
        0,
        "worker processes; 0 for as many as processors and memory (1.2 GB each) allow",
        product=False,
        ge=0,
    )
    executor: Literal["local", "serial", "dask", "slurm", "claims"] = param(
        "local",
        "local: worker processes here; serial: in this process; dask: a Dask cluster; slurm: Dask "
        "workers as jobs of Slurm; claims: processes that run nightjar work",
        product=False,
    )
    attempts: int = param(
        3, "workers that a unit may lose (killed, out of memory or time)", product=False, ge=1
    )
    unit_time_limit: float = param(
        900.0, "seconds after which a unit's worker is ended; 0 for never", product=False, ge=0
    )
    dask: str = param(
        "local:2", "scheduler of the Dask cluster, or local:N for N workers here", product=False
    )
    slurm: tuple[str, ...] = param(
        ("--time=01:00:00", "--mem=3G"), "options of sbatch for each job", product=False
    )
    worker_wait: float = param(
        3600.0,
        "seconds that a run waits without any worker, where others start them, before it ends with "
        "exit code 4; 0 for ever",
        product=False,
        ge=0,
    )
    lease: float = param(
        120.0,
        "seconds without a sign of life after which a claim of nightjar work is lost",
        product=False,
        gt=0,
    )
