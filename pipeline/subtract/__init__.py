"""Visit image minus template: PSF matching, decorrelation, score."""

from pipeline.subtract.config import Config
from pipeline.subtract.masks import RULES, Rule
from pipeline.subtract.stage import run, wants_template_psf

__all__ = ["RULES", "VERSION", "Config", "Rule", "run", "wants_template_psf"]

VERSION: int = 6
"""Raised when the pixels that come out change."""
