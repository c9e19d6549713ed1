"""Sources of a difference image: detect, measure, classify, and keep a ledger of every peak.

>>> from pipeline import diasource
>>> result = diasource.run(difference, science, template)  # doctest: +SKIP
>>> result.sources.column("psfFlux")  # doctest: +SKIP
"""

from pipeline.diasource.causes import Colours
from pipeline.diasource.config import Config
from pipeline.diasource.run import VERSION, Result, run

__all__ = ["VERSION", "Colours", "Config", "Result", "run"]
