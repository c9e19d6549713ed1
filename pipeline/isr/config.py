"""Configuration of the removal of the instrument's signature."""

from __future__ import annotations

from pipeline.config import StageConfig, param

__all__ = ["Config"]


class Config(StageConfig):
    """How the instrument's signature is removed."""

    overscan_trim: int = param(5, "overscan columns left out at each side", unit="pixel", ge=0)
    overscan_clip: float = param(
        8.0, "overscan values further from the median of their row are left out", unit="read noise"
    )
    overscan_smooth: int = param(25, "half width of the running mean over rows", unit="row", ge=0)
    overscan_reject: float = param(
        6.0, "rows whose level departs more from their neighbours' are corrupted", unit="sigma"
    )
    crosstalk: bool = param(True, "subtract the signal that leaks from other channels")
    crosstalk_suspect: float = param(
        1.0, "victims of saturated pixels are flagged if they receive more", unit="read noise"
    )
    linearity: bool = param(True, "apply the linearity tables")
    calibration_noise: float = param(
        0.0, "noise of bias and flat frames, added to the variance", unit="electron", ge=0
    )
    least_flat: float = param(0.05, "pixels with a smaller flat are bad", gt=0)
    saturation_growth: int = param(1, "widening of saturated areas", unit="pixel", ge=0)
    bleed_run: int = param(2, "saturated pixels in a column that make a bleed", unit="pixel", ge=1)
    bleed_reach: int = param(64, "how far a bleed is followed beyond them", unit="pixel", ge=0)
    bleed_excess: float = param(3.0, "a bleed exceeds both sides by this", unit="sigma", ge=0)
    edge: int = param(15, "border with doubtful response", unit="pixel", ge=0)
    find_columns: bool = param(True, "look for bad columns that no list knows")
    column_block: int = param(64, "rows over which a column is judged", unit="pixel", ge=8)
    column_sigma: float = param(7.0, "departure of a block from its neighbours", unit="sigma")
    column_blocks: int = param(3, "such blocks that make a bad column", ge=1)
    interpolate: bool = param(True, "fill bad pixels from their neighbours")
    interpolate_reach: int = param(
        8, "how far to look for good pixels to fill from", unit="pixel", ge=1
    )
