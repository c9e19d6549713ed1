"""Sources become objects: association, summaries, neighbours, forced photometry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.diaobject.config import Config
from pipeline.lazy import lazy

if TYPE_CHECKING:
    from pipeline.diaobject.bodies import summarise_bodies
    from pipeline.diaobject.counterparts import nearest_objects
    from pipeline.diaobject.force import force
    from pipeline.diaobject.run import PLACES, Result, candidates, run
    from pipeline.diaobject.summary import HISTORY, forced_means, summarise, with_forced

__all__ = [
    "HISTORY",
    "PLACES",
    "VERSION",
    "Config",
    "Result",
    "candidates",
    "force",
    "forced_means",
    "nearest_objects",
    "run",
    "summarise",
    "summarise_bodies",
    "with_forced",
]

VERSION: int = 5
"""Raised when the same input and configuration give different rows."""

# Who reads the configuration or plans needs no loops over pixels.
__getattr__ = lazy(
    __name__,
    HISTORY="summary",
    PLACES="run",
    Result="run",
    candidates="run",
    force="force",
    forced_means="summary",
    nearest_objects="counterparts",
    run="run",
    summarise="summary",
    summarise_bodies="bodies",
    with_forced="summary",
)
