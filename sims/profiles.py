"""What can be simulated: cameras, fields, visits, detectors, and how rich the sky is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from pipeline.camera import Camera
from sims.conditions import Conditions
from sims.schedule import Visit, hits2015, season2014
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
    chromatic : bool
        Whether air refracts colours differently.
    ideal : bool
        Whether the telescope points where its header says and air refracts all colours alike.
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
    chromatic: bool = True
    ideal: bool = False
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
        scale = Camera.load(self.camera).pixel_scale
        drawn = Conditions.draw(seed, visit, seeing, scale, self.cloud)
        if self.ideal or not self.chromatic:
            drawn = replace(drawn, refraction=0.0)
        return replace(drawn, pointing=drawn.nominal) if self.ideal else drawn


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

    Returns
    -------
    tuple of Unit
        Visit, detector and role of every frame.

    Raises
    ------
    KeyError
        If there is no such profile.
    """
    p = profiles()[profile]
    return tuple(Unit(v.number, d, v.role) for v in p.visits for d in p.detectors)


_FIELD = "Blind15A_40"
_FIELDS = ("Blind15A_26", "Blind15A_40", "Blind15A_42")
_TEMPLATES = (410985, 411035, 411069)
_SCIENCE = (411420, 411772, 412568, 419802)
_LOW = (411470, 411872, 412321, 412718)
"""Visits of the field low in the sky, air masses 1.65 to 1.74."""
_CI_G = (411269, 411420, 411721, 411822, 412074, 412321, 412568, 413649, 415378, 419802)
_CI_R = (411722, 412322, 413599, 419394)


def _seven_visits() -> tuple[Visit, ...]:
    template = hits2015(_FIELD, "g", numbers=_TEMPLATES, role="template")
    return template + hits2015(_FIELD, "g", numbers=_SCIENCE)


def _ci_visits() -> tuple[Visit, ...]:
    science = hits2015(_FIELD, "g", numbers=_CI_G) + hits2015(_FIELD, "r", numbers=_CI_R)
    return _in_time(season2014(_FIELD, "g", 3) + season2014(_FIELD, "r", 3) + science)


def _hits_visits() -> tuple[Visit, ...]:
    visits = [season2014(f, "g", 5) + hits2015(f, "g") for f in _FIELDS]
    return _in_time(sum(visits, ()))


def _in_time(visits: tuple[Visit, ...]) -> tuple[Visit, ...]:
    return tuple(sorted(visits, key=lambda v: v.start_mjd_utc))


@lru_cache(maxsize=1)
def profiles() -> dict[str, Profile]:
    """Return every profile by name."""
    found = [_tiny(), _mini(), _ci(), _hits(), _sixteen(), *_varied()]
    return {p.name: p for p in found}


def _small_sky(area: float) -> Sky:
    """Return a sky dense enough for detectors of 512 × 512 pixels of `area` square degrees."""
    return Sky(
        0,
        stars=110.0 / area,
        supernovae=14.0 / area,
        flares=4.0 / area,
        variables=8.0 / area,
        agn=4.0 / area,
        star_limits=(13.5, 25.0),
    )


def _tiny() -> Profile:
    return Profile(
        "tiny",
        "testcam",
        (1, 2),
        _seven_visits(),
        _small_sky((512 * 0.2626 / 3600.0) ** 2),
        unlisted_columns=2,
        known_asteroids=2,
        trails=0.3,
        description="two CCDs of 512 x 512 pixels, seven visits: a whole campaign in seconds",
    )


def _varied() -> tuple[Profile, ...]:
    """Return `tiny` and `mini` under other skies, to train and try the classifier of sources."""
    tiny, mini = _tiny(), _mini()
    template = [v for v in tiny.visits if v.role == "template"]
    science = [v for v in tiny.visits if v.role == "science"]
    low = replace(
        tiny,
        name="tiny-low",
        visits=_in_time((*template[:2], *hits2015(_FIELD, "g", numbers=_LOW))),
        description="tiny at air masses of 1.7, with templates at 1.1 and 1.3",
    )
    return (
        replace(
            tiny,
            name="tiny-poor",
            template_seeing=(1.00, 1.20),
            science_seeing=(1.25, 1.80),
            description="tiny in seeing a third worse",
        ),
        replace(
            tiny,
            name="tiny-sharp",
            template_seeing=(0.55, 0.65),
            science_seeing=(0.60, 0.85),
            description="tiny in seeing that the pixels hardly sample",
        ),
        replace(
            tiny,
            name="tiny-shallow",
            visits=(template[0], *science),
            description="tiny with a single exposure as template",
        ),
        replace(
            tiny,
            name="tiny-moving",
            unknown_asteroids=4,
            near_earth=3.0,
            trails=1.5,
            description="tiny with many asteroids, near-earth objects and satellites",
        ),
        low,
        replace(
            low,
            name="tiny-low-achromatic",
            chromatic=False,
            description="tiny-low in air that refracts all colours alike",
        ),
        replace(
            mini,
            name="mini-variable",
            sky=replace(mini.sky, variables=10 * mini.sky.variables, agn=10 * mini.sky.agn),
            description="mini with ten times as many variable stars and active nuclei",
        ),
    )


def _mini() -> Profile:
    return Profile(
        "mini",
        "decam",
        (10, 56),
        _seven_visits(),
        Sky(0),
        description="two full-size DECam CCDs, three template and four science visits",
    )


def _ci() -> Profile:
    return Profile(
        "ci",
        "decam",
        (25, 26, 27, 56),
        _ci_visits(),
        Sky(0),
        description="one field, ten g and four r epochs, three neighbouring CCDs and one far away",
    )


def _hits() -> Profile:
    return Profile(
        "hits",
        "decam",
        (*range(3, 61), 62),
        _hits_visits(),
        Sky(0),
        description="the 84 visits and 59 CCDs of LDM-533, with templates from a season before",
    )


def _sixteen() -> Profile:
    return Profile(
        "sixteen",
        "lsstlike",
        (1,),
        _seven_visits(),
        _small_sky((512 * 0.2 / 3600.0) ** 2),
        template_seeing=(0.65, 0.75),
        science_seeing=(0.70, 0.95),
        unlisted_columns=2,
        trails=0.3,
        description="one CCD with sixteen amplifiers: nothing is DECam-shaped by accident",
    )
