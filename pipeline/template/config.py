"""What can be chosen when a template is built."""

from __future__ import annotations

from pipeline.config import StageConfig, param

__all__ = ["Config"]


class Config(StageConfig):
    """Configuration of warping and coaddition."""

    margin: int = param(16, "Rim of the sky patch around its inputs", unit="pixel", ge=0)
    cell: int = param(
        32, "Spacing of the exact sky mapping; bilinear in between", unit="pixel", ge=4
    )
    tile: int = param(
        128, "Side of the tiles that carry a noise autocovariance", unit="pixel", ge=32
    )
    psf_step: int = param(256, "Largest spacing of the nodes of the PSF", unit="pixel", ge=32)
    max_inputs: int = param(0, "Use only so many inputs, sharpest first; 0 means all", ge=0)
    max_fwhm_ratio: float = param(
        1.5,
        "Inputs this much softer than the sharpest are left out while three remain",
        ge=1.0,
    )
    suspect_sigma: float = param(3.0, "Deviation from the mean that calls for a second look", gt=0)
    clip_sigma: float = param(5.0, "Deviation of a PSF-matched input that rejects it", gt=0)
    clip_mismatch: float = param(
        0.5,
        "Share of the light within 2 pixels by which PSF-matched inputs may differ: stars vary",
        ge=0,
    )
    band_rows: int = param(
        256, "Rows coadded at a time; bounds the memory", unit="pixel", product=False, ge=16
    )
