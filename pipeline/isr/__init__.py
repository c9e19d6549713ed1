"""Raw exposure to electrons with the instrument's signature removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.isr.config import Config
from pipeline.lazy import lazy

if TYPE_CHECKING:
    from pipeline.isr.run import Calibs, Result, run

__all__ = ["VERSION", "Calibs", "Config", "Result", "run"]

VERSION: int = 3
"""Raised when the same input and configuration give another product."""

# Who reads the configuration or plans needs no loops over pixels.
__getattr__ = lazy(__name__, Calibs="run", Result="run", run="run")
