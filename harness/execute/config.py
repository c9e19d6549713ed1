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
    executor: Literal["local", "serial"] = param(
        "local",
        "local: worker processes, which crashes of a unit cannot end; serial: in this process",
        product=False,
    )
    attempts: int = param(
        3, "workers that a unit may lose (killed, out of memory or time)", product=False, ge=1
    )
    unit_time_limit: float = param(
        900.0, "seconds after which a unit's worker is ended; 0 for never", product=False, ge=0
    )
