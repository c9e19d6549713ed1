"""From electrons to a visit image: sky, cosmic rays, PSF, coordinates, zero point.

`run` calibrates one exposure of one detector.  `align` ties an exposure to another one where
there is no reference catalogue.
"""

from typing import TYPE_CHECKING

from pipeline.lazy import lazy

if TYPE_CHECKING:
    from pipeline.calibrate.alignment import align
    from pipeline.calibrate.config import Config
    from pipeline.calibrate.stage import Result, run

__all__ = ["VERSION", "Config", "Result", "align", "run"]

VERSION: int = 5
"""Changes when the same input gives another product."""

# Whoever wants the PSF of an image needs no reference catalogue.
__getattr__ = lazy(__name__, Config="config", Result="stage", run="stage", align="alignment")
