"""What can be chosen when an exposure is calibrated."""

from __future__ import annotations

from typing import Literal

from pipeline.calibrate.background import Config as BackgroundConfig
from pipeline.calibrate.cosmicray import Config as CosmicRayConfig
from pipeline.config import StageConfig, param

__all__ = ["Config"]


class Config(StageConfig):
    """Configuration of the calibration of one exposure of one detector."""

    background: BackgroundConfig = param(BackgroundConfig(), "Model of the sky")
    cosmic_rays: CosmicRayConfig = param(CosmicRayConfig(), "Finder of cosmic rays")
    min_usable_fraction: float = param(
        0.1, "Least share of usable pixels; below it the unit fails", ge=0, le=1
    )
    max_saturated_fraction: float = param(
        0.3, "Largest share of saturated pixels; above it the unit fails", ge=0, le=1
    )
    detection_threshold: float = param(
        5.0, "Score of the faintest source, in units of the source-free noise", gt=0
    )
    psf_snr: float = param(
        50.0, "Signal-to-noise ratio of PSF stars; a fifth of it where they are scarce", gt=0
    )
    psf_order: int = param(2, "Highest spatial order of the PSF; few stars lower it", ge=0, le=2)
    min_psf_stars: int = param(2, "Fewest stars for a PSF; below it the unit fails", ge=1)
    max_psf_stars: int = param(200, "At most so many stars make the PSF, the brightest", ge=10)
    max_disturbance: float = param(
        0.02, "Neighbours' light on a PSF star; five times as much where stars are scarce", gt=0
    )
    photometric_system: Literal["natural", "ps1-decam"] = param(
        "natural", "System of the reference fluxes: the camera's own, or one with colour terms"
    )
    max_offset: float = param(60.0, "Largest error of the pointing", unit="arcsec", gt=0)
    max_rotation: float = param(0.5, "Largest error of the position angle", unit="deg", ge=0)
    max_chance: float = param(
        1e-4, "Expected number of chance matches at which a match is still believed", gt=0
    )
    min_astrometry_stars: int = param(4, "Fewest reference stars for a match", ge=3)
    min_photometry_stars: int = param(1, "Fewest reference stars for a zero point", ge=1)
    max_zero_point_scatter: float = param(
        0.2, "Scatter of the standards beyond the noise at which the unit fails", unit="mag", gt=0
    )
    rescale_variance: bool = param(
        False,
        "Scale the variance of each amplifier to the noise of neighbouring pixels; for real data"
        " that was not resampled",
    )
    max_noise_correction: float = param(
        0.2, "Variance scales are kept within 1 minus half of this and 1 plus this", ge=0, le=1
    )
