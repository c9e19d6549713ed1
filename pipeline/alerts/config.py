"""Configuration of alerts."""

from __future__ import annotations

from pipeline.config import StageConfig, param

__all__ = ["Config"]


class Config(StageConfig):
    """Which sources are announced, and with what."""

    reliability_min: float = param(
        0.5,
        "least reliability of an announced source: at a half it is real more likely than not; "
        "sources without one are announced",
        ge=0,
        le=1,
    )
    injected: bool = param(False, "whether synthetic sources are announced")
    history: float = param(365.0, "how far back previous measurements reach", unit="d", gt=0)
    cutout_min: int = param(51, "least side of a cut-out", unit="pixel", ge=30)
    cutout_max: int = param(102, "largest side of a cut-out", unit="pixel", ge=30)
    psf_side: int = param(31, "largest side of the PSF image, odd", unit="pixel", ge=5)
