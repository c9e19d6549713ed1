"""Injection of synthetic sources into calibrated images, simulated or real."""

from sims.inject.design import Design, draw, null_sigma
from sims.inject.painter import paint

__all__ = ["Design", "draw", "null_sigma", "paint"]
