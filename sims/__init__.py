"""A sky, a camera, a night: raw exposures with complete truth."""

from sims.campaign import simulate
from sims.profiles import Profile, Unit, expected, profiles

__all__ = ["Profile", "Unit", "expected", "profiles", "simulate"]
