"""Visit image minus template: PSF matching, decorrelation, score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.lazy import lazy
from pipeline.subtract.config import ALGORITHMS, Config

if TYPE_CHECKING:
    from pipeline.subtract.masks import RULES, Rule
    from pipeline.subtract.run import Subtractor, run, wants_template_psf

__all__ = [
    "ALGORITHMS",
    "RULES",
    "VERSION",
    "Config",
    "Rule",
    "Subtractor",
    "run",
    "wants_template_psf",
]

VERSION: int = 17
"""Raised when the pixels that come out change."""

# Who reads the configuration or plans needs no loops over pixels.
__getattr__ = lazy(
    __name__, RULES="masks", Rule="masks", Subtractor="run", run="run", wants_template_psf="run"
)
