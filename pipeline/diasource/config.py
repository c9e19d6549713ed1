"""Configuration of detection and measurement."""

from __future__ import annotations

from pipeline.config import PlaneNames, StageConfig, param
from pipeline.masks import NO_FLUX, NO_PEAK, ordered

__all__ = ["Config"]


class Config(StageConfig):
    """How sources are found, measured and classified."""

    threshold: float = param(5.0, "Least |score| of a source.", gt=0)
    ledger: float = param(3.0, "Least |score| of a peak that enters the ledger.", gt=0)
    veto: PlaneNames = param(
        ordered(NO_PEAK), "Mask planes that stop a peak when set at its pixel."
    )
    unusable: PlaneNames = param(
        ordered(NO_FLUX), "Mask planes whose pixels are left out of every fit."
    )
    min_good: float = param(
        0.4, "Least part of Σ P² on usable pixels for a peak to become a source.", ge=0, le=1
    )
    prominence: float = param(
        3.0, "Least height of a second peak above the saddle to a higher one.", ge=0
    )
    prominence_fraction: float = param(
        0.05, "The same as a part of the footprint's highest score.", ge=0
    )
    distinct: float = param(
        0.5,
        "A detection whose place ends nearer than this to that of a brighter one is part of it.",
        unit="FWHM",
        ge=0,
    )
    fit_radius: float = param(8.0, "Radius of the pixels in PSF fits.", unit="pixel", gt=2)
    max_shift: float = param(2.0, "Farthest a fitted position may move.", unit="pixel", gt=0)
    sky_floor: float = param(
        0.008, "Astrometric floor of a visit in the errors of ra and dec.", unit="arcsec", ge=0
    )
    registration: float = param(
        0.010, "Error of the registration of the template.", unit="arcsec", ge=0
    )
    residual: float = param(
        0.004, "Share of its flux that a constant star leaves, where too few stars tell.", ge=0
    )
    colours: float = param(
        0.7, "Scatter of the colours g - i of sources, for the refraction.", unit="mag", ge=0
    )
    aperture_radius: float = param(12.0, "Radius of the aperture.", unit="pixel", gt=0)
    trail_gain: float = param(12.0, "Least Δχ² against a point for a source to be trailed.", gt=0)
    dipole_range: float = param(
        3.0, "Farthest opposite peak that suggests a dipole.", unit="FWHM", gt=0
    )
    dipole_balance: float = param(
        0.65, "Largest part of a dipole's flux in one lobe.", gt=0.5, le=1
    )
    dipole_gain: float = param(20.0, "Least Δχ² of a dipole against a point.", gt=0)
    sub_threshold: float = param(
        4.0, "Least |score| of the sub-threshold peaks that are measured.", gt=0
    )
    sub_random: int = param(30, "Most sub-threshold peaks drawn at random.", ge=0)
    sub_share: float = param(
        0.1, "Most random peaks and empty places, one at least, over the detections.", ge=0
    )
    sub_near: int = param(100, "Most sub-threshold peaks kept near each list of places.", ge=0)
    sub_radius: float = param(2.0, "How near to a place.", unit="arcsec", gt=0)
    sky_sources: int = param(20, "Empty places measured as sky sources.", ge=0)
    classify: bool = param(
        True, "Whether sources get a reliability; false to collect examples for a new training."
    )
    reliability_cut: float = param(0.5, "Reliability below which the ledger records the cut.", ge=0)
