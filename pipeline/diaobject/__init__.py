"""Sources become objects: association, summaries, neighbours, forced photometry."""

from __future__ import annotations

from pipeline.diaobject.bodies import summarise_bodies
from pipeline.diaobject.config import Config
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
