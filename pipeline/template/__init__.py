"""Visit images to a template on a patch of sky; warping onto any grid."""

from pipeline.template.config import Config
from pipeline.template.patch import patch
from pipeline.template.run import Result, run
from pipeline.template.warp import warp

__all__ = ["VERSION", "Config", "Result", "patch", "run", "warp"]

VERSION: int = 7
"""Raised when the pixels that come out change."""
