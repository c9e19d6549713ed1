"""Sources of a difference image: detect, measure, classify, and keep a ledger of every peak.

>>> from pipeline import diasource
>>> result = diasource.run(difference, science, template)  # doctest: +SKIP
>>> result.sources.column("psfFlux")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.diasource.config import Config
from pipeline.lazy import lazy

if TYPE_CHECKING:
    from pipeline.diasource.causes import Colours
    from pipeline.diasource.run import Result, run

__all__ = ["VERSION", "Colours", "Config", "Result", "run"]

VERSION: int = 19
"""Raised when the same input and configuration give different rows."""

# Who reads the configuration or plans needs no loops over pixels.
__getattr__ = lazy(__name__, Colours="causes", Result="run", run="run")
