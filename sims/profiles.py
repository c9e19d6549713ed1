"""What can be simulated: cameras, fields, visits, detectors, and how rich the sky is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from pipeline.camera import Camera
from sims.conditions import Conditions
from sims.schedule import Visit, hits2015
from sims.sky import Sky

__all__ = ["Profile", "Unit", "expected", "profiles"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A campaign to simulate.

    Attributes
    ----------
    name : str
        Its name.
    camera : str
        Name of the camera.
    detectors : tuple of int
        Detectors that are read out.
    visits : tuple of Visit
        Exposures in the order of time, templates among them.
    sky : Sky
        Densities; the seed is set by `sky_of`.
    template_seeing, science_seeing : tuple of float, arcsec
        Ranges of the delivered seeing.
    cloud : float, mag
        Largest extinction by clouds.
    known_asteroids, unknown_asteroids, near_earth : float
        Bodies per detector and night: in the ephemerides, not in them, and fast ones.
    trails : float
        Satellites and aeroplanes per visit over the whole focal plane.
    unlisted_columns : int
        Bad columns per detector that are in no list.
    turbulence : float, arcsec
        Atmospheric jitter of each source in each visit, per axis.
    description : str
        One line for a person.
    """

    name: str
    camera: str
    detectors: tuple[int, ...]
    visits: tuple[Visit, ...]
    sky: Sky
    template_seeing: tuple[float, float] = (0.82, 0.95)
    science_seeing: tuple[float, float] = (0.90, 1.30)
    cloud: float = 0.15
    known_asteroids: int = 3
    unknown_asteroids: int = 1
    near_earth: float = 0.15
    trails: float = 0.8
    unlisted_columns: int = 4
    turbulence: float = 0.008
    description: str = ""

    def visit(self, number: int) -> Visit:
        """Return the visit of a number.

        Raises
        ------
        KeyError
            If the profile has no such visit.
        """
        for visit in self.visits:
            if visit.number == number:
                return visit
        raise KeyError(f"profile {self.name} has no visit {number}")

    def sky_of(self, seed: int) -> Sky:
        """Return the sky of a seed: explosions and flares where the visits can see them."""
        science = sorted(v.midpoint for v in self.visits if v.role == "science")
        return replace(self.sky, seed=seed, visible=tuple(science))

    def conditions(self, seed: int, visit: Visit) -> Conditions:
        """Return the conditions of one of the visits."""
        seeing = self.template_seeing if visit.role == "template" else self.science_seeing
        return Conditions.draw(
            seed, visit, seeing, Camera.load(self.camera).pixel_scale, self.cloud
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """One frame of a campaign."""

    visit: int
    detector: int
    role: str


def expected(profile: str) -> tuple[Unit, ...]:
    """All frames of a profile: the pinned list against which a campaign is counted.

    Parameters
    ----------
    profile : str
        Name of a profile.

    Raises
    ------
    KeyError
        If there is no such profile.
    """
    p = profiles()[profile]
    return tuple(Unit(v.number, d, v.role) for v in p.visits for d in p.detectors)


_FIELD = "Blind15A_40"
_TEMPLATES = (410985, 411035, 411069)
_SCIENCE = (411420, 411772, 412568, 419802)


def _seven_visits() -> tuple[Visit, ...]:
    template = hits2015(_FIELD, "g", numbers=_TEMPLATES, role="template")
    return template + hits2015(_FIELD, "g", numbers=_SCIENCE)


@lru_cache(maxsize=1)
def profiles() -> dict[str, Profile]:
    """Return every profile by name."""
    area = (512 * 0.2626 / 3600.0) ** 2
    found = [
        Profile(
            "tiny",
            "testcam",
            (1, 2),
            _seven_visits(),
            Sky(
                0,
                stars=110.0 / area,
                supernovae=14.0 / area,
                flares=4.0 / area,
                variables=8.0 / area,
                agn=4.0 / area,
                star_limits=(13.5, 25.0),
            ),
            unlisted_columns=2,
            trails=0.3,
            known_asteroids=2,
            description="two CCDs of 512 x 512 pixels, seven visits: a whole campaign in seconds",
        ),
        Profile(
            "mini",
            "decam",
            (10, 56),
            _seven_visits(),
            Sky(0),
            description="two full-size DECam CCDs, three template and four science visits",
        ),
    ]
    return {p.name: p for p in found}
