"""A sky, a camera, a night: raw exposures with complete truth."""
