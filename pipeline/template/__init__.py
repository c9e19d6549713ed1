"""Visit images to a template on a patch of sky; warping onto any grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.lazy import lazy
from pipeline.template.config import Config

if TYPE_CHECKING:
    from pipeline.template.patch import patch
    from pipeline.template.run import Result, run
    from pipeline.template.warp import warp

__all__ = ["VERSION", "Config", "Result", "patch", "run", "warp"]

VERSION: int = 7
"""Raised when the pixels that come out change."""

# Who reads the configuration or plans needs no loops over pixels.
__getattr__ = lazy(__name__, Result="run", patch="patch", run="run", warp="warp")
