"""Visit image minus template: PSF matching, decorrelation, score."""

from pipeline.subtract.config import ALGORITHMS, Config
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

VERSION: int = 12
"""Raised when the pixels that come out change."""
