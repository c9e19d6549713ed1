"""From electrons to a visit image: sky, cosmic rays, PSF, coordinates, zero point.

`run` calibrates one exposure of one detector.  `align` ties an exposure to another one where
there is no reference catalogue.
"""

from pipeline.calibrate.alignment import align
from pipeline.calibrate.config import Config
from pipeline.calibrate.run import Result, run

__all__ = ["VERSION", "Config", "Result", "align", "run"]

VERSION: int = 10
"""Changes when the same input gives another product."""
