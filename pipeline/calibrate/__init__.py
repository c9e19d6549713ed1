"""From electrons to a visit image: sky, cosmic rays, PSF, coordinates, zero point.

`run` calibrates one exposure of one detector.  `align` ties an exposure to another one where
there is no reference catalogue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.calibrate.config import Config
from pipeline.lazy import lazy

if TYPE_CHECKING:
    from pipeline.calibrate.alignment import align
    from pipeline.calibrate.run import Result, run

__all__ = ["VERSION", "Config", "Result", "align", "run"]

VERSION: int = 12
"""Changes when the same input gives another product."""

# Who reads the configuration or plans needs no loops over pixels.
__getattr__ = lazy(__name__, Result="run", align="alignment", run="run")
