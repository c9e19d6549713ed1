"""Configuration of association, summaries and forced photometry."""

from __future__ import annotations

from pipeline.config import StageConfig, param

__all__ = ["Config"]


class Config(StageConfig):
    """Everything that can be chosen about objects."""

    radius_min: float = param(0.5, "association radius, at least", unit="arcsec", gt=0)
    radius_max: float = param(2.0, "association radius, at most", unit="arcsec", gt=0)
    radius_sigma: float = param(4.0, "association radius in combined errors", gt=0)
    position_floor: float = param(
        0.05, "systematic error added to every separation", unit="arcsec", ge=0
    )
    registration: float = param(
        20.0,
        "error of the registration of science and template; it moves the centroid on the"
        " difference by the ratio of static to variable flux",
        unit="mas",
        ge=0,
    )
    motion_prior: float = param(
        200.0, "spread of the motions expected before any is known", unit="mas/yr", gt=0
    )
    position_default: float = param(
        0.2, "error of a position that came without one", unit="arcsec", gt=0
    )
    ephemeris_sigma: float = param(
        0.05, "error of a predicted position along each axis", unit="arcsec", ge=0
    )
    ephemeris_clock: float = param(
        10.0, "error of the clock that matching bodies allows for", unit="s", ge=0
    )
    ephemeris_max_gap: float = param(
        3.0, "largest distance of ephemeris nodes that is interpolated", unit="h", gt=0
    )
    visit_floor: float = param(
        10.0, "systematic error of one visit's astrometry, in means and motions", unit="mas", ge=0
    )
    pm_min_epochs: int = param(5, "epochs needed for a proper motion", ge=3)
    pm_min_span: float = param(0.5, "time needed for a proper motion", unit="yr", gt=0)
    parallax_min_span: float = param(1.0, "time needed for a parallax", unit="yr", gt=0)
    characterization_window: float = param(
        365.25,
        "time before an object's latest source whose fluxes describe it (DMS-REQ-0319)",
        unit="d",
        gt=0,
    )
    static_template_snr: float = param(
        3.0,
        "template flux over its error below which a centroid on the difference is taken for"
        " that of the object",
        gt=0,
    )
    period_min_points: int = param(10, "points needed for a period", ge=6)
    period_min_span: float = param(3.0, "time needed for a period", unit="d", gt=0)
    period_max_frequency: float = param(10.0, "highest frequency searched", unit="d**-1", gt=0)
    period_oversampling: float = param(5.0, "frequencies per 1/span", gt=0)
    neighbour_radius: float = param(60.0, "search radius for neighbours", unit="arcsec", gt=0)
    neighbour_stars: int = param(3, "nearest stars kept", ge=0)
    neighbour_galaxies: int = param(3, "nearest galaxies kept", ge=0)
    neighbour_prior: float = param(
        0.8, "chance that an object has a counterpart in the deep catalogue", gt=0, lt=1
    )
    precovery_window: float = param(
        30.0, "time before an object's first source in which it is precovered", unit="d", ge=0
    )
