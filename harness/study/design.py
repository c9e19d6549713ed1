"""Designs of studies: what is injected, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import ConfigDict, ValidationError, model_validator

from harness.settings import explain_invalid
from harness.settings.file import at, read
from pipeline.config import StageConfig, param
from pipeline.errors import ConfigError
from pipeline.exposure import FloatArray
from sims import inject

__all__ = ["StudyDesign", "load_design"]

_PACKING = 0.35
"""Share of the area that disks of the separation may cover; random packing stalls at 0.54."""

Range = tuple[float, float]


class StudyDesign(StageConfig):
    """What a study injects into every visit image."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    sources: int = param(200, "sources per image and realisation", gt=0)
    realisations: int = param(1, "how often every image is painted, each time anew", gt=0)
    seed: int = param(1, "seed of the design", ge=0)
    snr: Range = param((3.0, 50.0), "true signal-to-noise ratio, log-uniform")
    near_threshold: float = param(
        0.0, "fraction drawn at the threshold only, on top of the rest", ge=0, le=1
    )
    threshold_snr: Range = param((4.0, 8.0), "true signal-to-noise ratio of these, log-uniform")
    hosted: float = param(0.3, "fraction placed on galaxies", ge=0, le=1)
    host_flux: Range = param((600.0, 300_000.0), "flux of the hosts, even in magnitude", unit="nJy")
    host_offset: Range = param((0.0, 2.0), "distance from the host", unit="half-light radius")
    negative: float = param(0.1, "fraction painted into the template instead", ge=0, le=1)
    trails: float = param(0.0, "fraction that moves during the exposure", ge=0, le=1)
    trail_length: Range = param((1.0, 5.0), "length of trails", unit="arcsec")
    events: float = param(
        0.0, "fraction that are events, seen by every visit of the detector", ge=0, le=1
    )
    light_curve: Literal["ia", "kilonova", "flare"] = param("ia", "of the events")
    peak_magnitude: Range = param((20.0, 24.0), "AB magnitude at the peak of events", unit="mag")
    near_bright: float = param(0.1, "fraction placed around saturated stars", ge=0, le=1)
    bright_distance: Range = param((15.0, 150.0), "distance from them", unit="pixel")
    edge: float = param(20.0, "margin of the image without injections", unit="pixel", ge=0)
    separation: float = param(
        30.0,
        "least distance of an injection from any other and from what is detected without it",
        unit="pixel",
        gt=0,
    )
    match_radius: float = param(
        0.6, "farthest detection that is the injection's own", unit="FWHM", gt=0, le=3
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in (
            "snr",
            "threshold_snr",
            "host_flux",
            "host_offset",
            "trail_length",
            "bright_distance",
        ):
            low, high = getattr(self, name)
            least = 0.0 if name == "host_offset" else 1e-9
            if not least <= low < high:
                raise ValueError(f"{name} must be two rising positive numbers")
        if self.near_threshold and not (
            self.snr[0] <= self.threshold_snr[0] and self.threshold_snr[1] <= self.snr[1]
        ):
            raise ValueError("threshold_snr must lie within snr")
        if self.negative + self.trails > 1:
            raise ValueError("negative and trails must not exceed 1 together")
        if self.events + self.hosted + self.negative + self.trails > 1:
            raise ValueError("events, hosted, negative and trails must not exceed 1 together")
        if self.hosted + self.near_bright > 1:
            raise ValueError("hosted and near_bright must not exceed 1 together")
        return self

    @property
    def n_events(self) -> int:
        """Events of one detector and realisation."""
        return round(self.events * self.sources)

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse a design that an image has no room for.

        Parameters
        ----------
        shape : tuple of int, (ny, nx)
            The image.

        Raises
        ------
        ConfigError
            If the margins leave nothing, or the sources would overlap.
        """
        sides = [side - 1 - 2 * self.edge for side in shape]
        if min(sides) <= 0:
            raise ConfigError(
                "leaves no room: every source would be off the image",
                key="edge",
                expected=f"less than {(min(shape) - 1) / 2:.0f} pixels",
            )
        most = int(_PACKING * sides[0] * sides[1] / (0.7854 * self.separation**2))
        if self.sources > most:
            raise ConfigError(
                f"{self.sources} sources {self.separation:g} pixels apart would overlap",
                key="sources",
                expected=f"at most {most} per image",
                hint="use more realisations",
            )

    def concentrated(self, snr: FloatArray) -> FloatArray:
        """Move log-uniform ratios so that a fraction of them is log-uniform at the threshold.

        Parameters
        ----------
        snr : ndarray, (n,)
            Log-uniform in the range `snr`.

        Returns
        -------
        ndarray, (n,)
            By the inverse of the cumulative distribution, so that strata stay strata.
        """
        knots = np.log([self.snr[0], *self.threshold_snr, self.snr[1]])
        rest = (knots - knots[0]) / (knots[3] - knots[0])
        share = (1 - self.near_threshold) * rest + self.near_threshold * np.array([0.0, 0, 1, 1])
        chance = (np.log(snr) - knots[0]) / (knots[3] - knots[0])
        return np.exp(np.interp(chance, share, knots)) if self.near_threshold else snr

    def of_image(self) -> inject.Design:
        """Return the part of the design that `sims.inject` draws."""
        return inject.Design(
            n=self.sources,
            snr=self.snr,
            hosted=self.hosted,
            host_limits=self.host_flux,
            offsets=self.host_offset,
            template_only=self.negative,
            trailed=self.trails,
            trail_lengths=self.trail_length,
            edge=self.edge,
        )


def load_design(path: Path | None, options: Mapping[str, Any] | None = None) -> StudyDesign:
    """Read a design file; options of the command line win.

    Parameters
    ----------
    path : Path, optional
        TOML with the fields of `StudyDesign` as keys; without it every value is the default.
    options : mapping, optional
        Values that replace those of the file; None is no value.

    Returns
    -------
    StudyDesign
        The design, validated.

    Raises
    ------
    ConfigError
        For a missing file, broken TOML, an unknown key or an impossible value.
    """
    values: dict[str, Any] = {}
    text = ""
    if path is not None:
        values, text = read(path)
    values |= {name: value for name, value in (options or {}).items() if value is not None}
    try:
        return StudyDesign.model_validate(values)
    except ValidationError as err:
        keys = [str(k) for k in err.errors(include_url=False)[0]["loc"]]
        where = at(path, text, keys) if path is not None else "design"
        raise explain_invalid(StudyDesign, err, where) from err
