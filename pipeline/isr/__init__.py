"""Raw exposure to electrons with the instrument's signature removed."""

from pipeline.isr.config import Config
from pipeline.isr.run import VERSION, Calibs, Result, run

__all__ = ["VERSION", "Calibs", "Config", "Result", "run"]
