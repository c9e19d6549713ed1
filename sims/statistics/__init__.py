"""Values measured on simulated frames beside their inputs, each with a bound."""

from sims.statistics.channels import laboratory
from sims.statistics.oracle import rendering
from sims.statistics.page import page
from sims.statistics.rows import Curve, Row, Statistics
from sims.statistics.stars import astrometry, undisturbed
from sims.statistics.workspace import campaign

__all__ = [
    "Curve",
    "Row",
    "Statistics",
    "astrometry",
    "campaign",
    "laboratory",
    "page",
    "rendering",
    "undisturbed",
]
