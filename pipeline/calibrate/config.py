"""What can be chosen when an exposure is calibrated."""

from __future__ import annotations

from typing import Literal

from pipeline.config import StageConfig, param

__all__ = ["BackgroundConfig", "Config", "CosmicRayConfig"]


class BackgroundConfig(StageConfig):
    """How the background is measured."""

    bin_side: int = param(4, "side of the bins in which sources are masked", unit="pixel", ge=1)
    smoothing: float = param(1.5, "Gaussian smoothing of the binned image", unit="bin", gt=0)
    threshold: float = param(2.0, "what stands out more is a source", unit="sigma", gt=0)
    smallest: int = param(12, "fewer connected bins are noise", unit="bin", ge=1)
    growth: float = param(0.8, "widening of a source's mask per radius of the source", ge=0)
    margin: float = param(2.0, "least widening of a source's mask", unit="bin", ge=0)
    cell: int = param(256, "side of a cell of the mesh", unit="pixel", ge=16)
    clean: float = param(0.35, "cells with a smaller clean fraction are filled", ge=0, le=1)
    fill_order: int = param(2, "degree of the polynomial that fills cells", ge=0, le=4)


class CosmicRayConfig(StageConfig):
    """Thresholds of the cosmic-ray finder."""

    threshold: float = param(6.0, "contrast to opposite neighbours", unit="sigma", gt=0)
    sharpness: float = param(
        0.9, "factor on the sharpest star's neighbour-to-peak ratio; smaller is safer", gt=0, le=1
    )
    margin: float = param(3.0, "significance of being sharper than a star", unit="sigma", ge=0)
    faintest: float = param(4.0, "pixels below this are never tested", unit="sigma", gt=0)
    grow_threshold: float = param(2.5, "the same for neighbours of found pixels", unit="sigma")
    rounds: int = param(6, "rounds of testing neighbours of found pixels", ge=0)
    dilate: int = param(1, "widening of the final mask", unit="pixel", ge=0)
    reach: int = param(8, "how far to look for clean pixels to fill from", unit="pixel", ge=1)


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
