"""Synthetic sources in calibrated images, simulated or real: where, how bright, painted how."""

from sims.inject.design import Design, draw, null_sigma
from sims.inject.painter import paint

__all__ = ["Design", "draw", "null_sigma", "paint"]
