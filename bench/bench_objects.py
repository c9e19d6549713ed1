"""Truth of association on a catalogue of two years, as JSON lines.

``science [SEED]``; nothing is timed here.  Stars, fast stars, transients and solar-system bodies
are drawn with known identities, seen in the visits of two seasons, and associated visit by visit as
a campaign does; nothing is rendered.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bench.report import reporter
from pipeline import diaobject
from pipeline.diaobject.astrometry import barycentric
from pipeline.ids import pack
from pipeline.schema import DIA_OBJECT, DIA_SOURCE, SS_EPHEMERIS, to_numpy
from pipeline.sphere import basis, displaced

T0, YEAR = 59000.25, 365.25
PLACE = (150.0, -20.0)
SIDE = 1500.0  # arcsec
report = reporter("diaobject")


@dataclass
class Scene:
    """Things with places and motions; numbers from 0, bodies behind the stars."""

    east: Any
    north: Any
    pm: Any
    parallax: Any
    born: Any
    dead: Any

    def at(self, day: float) -> tuple[Any, Any]:
        """Positions in degrees at a day after T0."""
        years = (day - YEAR) / YEAR
        ra, dec = displaced(np.full(len(self.east), PLACE[0]), np.full(len(self.east), PLACE[1]),
                            self.east, self.north)  # fmt: skip
        earth = barycentric("earth", np.array([T0 + day]))[0]
        shift = [-self.parallax * 1e-3 * (axis @ earth) for axis in basis(ra, dec)]
        return displaced(ra, dec, self.pm[0] * years + shift[0], self.pm[1] * years + shift[1])


def scene(rng: Any, n: int, speed: float, transients: int) -> Scene:
    """Stars that move by `speed` (mas/yr) in random directions, and transients of 60 days."""
    total = n + transients
    east, north = rng.uniform(-SIDE / 2, SIDE / 2, (2, total))
    angle = rng.uniform(0, 2 * np.pi, total)
    pm = speed * 1e-3 * np.array([np.cos(angle), np.sin(angle)]) * (np.arange(total) < n)
    parallax = rng.uniform(0, 50, total) * (np.arange(total) < n) * (speed > 0)
    born = np.where(np.arange(total) < n, -1e9, rng.uniform(-60, 2 * YEAR, total))
    return Scene(east, north, pm, parallax, born, np.where(born < -1e6, 1e9, born + 60))


def nights(rng: Any) -> Any:
    """Days of the visits: seven months of each year, a visit about every week."""
    seasons = [s * YEAR + np.sort(rng.uniform(0, 215, 30)) for s in range(2)]
    return np.concatenate(seasons)


def sources_of(rng: Any, visit: int, day: float, ra: Any, dec: Any, sigma: float) -> pa.Table:
    n = len(ra)
    seen = displaced(ra, dec, *rng.normal(0, sigma, (2, n)))
    return DIA_SOURCE.to_arrow(
        {"diaSourceId": pack(visit, 1, 0) + 1 + np.arange(n), "ra": seen[0], "dec": seen[1],
         "psfFlux": rng.normal(1000, 100, n), "templateFlux": np.zeros(n),
         "templateFluxErr": np.full(n, 50.0), "scienceRa": seen[0], "scienceDec": seen[1],
         "scienceRaErr": np.full(n, sigma / 3600), "scienceDecErr": np.full(n, sigma / 3600)},
        visit=visit, detector=1, midpointMjdTai=T0 + day, x=0.0, y=0.0, raErr=sigma / 3600,
        decErr=sigma / 3600, ra_dec_Cov=0.0, scienceRa_scienceDec_Cov=0.0, psfFluxErr=50.0,
        psfNdata=100, trailNdata=0, dipoleNdata=0, bboxSize=21, band="g", timeProcessedMjdTai=T0,
    )  # fmt: skip


def bodies_of(rng: Any, day: float, n: int, first: int) -> tuple[pa.Table, Any, Any]:
    """Ephemerides of main-belt and near-Earth bodies in the field, and their places now."""
    rate = np.where(np.arange(n) % 3 > 0, rng.uniform(25, 45, n), 10 ** rng.uniform(2, 3, n))
    angle = rng.uniform(0, 2 * np.pi, n)
    east, north = rng.uniform(-SIDE / 2, SIDE / 2, (2, n))
    hours = np.arange(-2, 4) - 0.4
    along = rate[:, None] * hours
    ra, dec = displaced(
        np.full(along.shape, PLACE[0]), np.full(along.shape, PLACE[1]),
        east[:, None] + along * np.cos(angle)[:, None],
        north[:, None] + along * np.sin(angle)[:, None],
    )  # fmt: skip
    table = SS_EPHEMERIS.to_arrow(
        {"ssObjectId": np.repeat(first + np.arange(n), len(hours)),
         "mjdTai": T0 + day + np.tile(hours, n) / 24, "ra": ra.ravel(), "dec": dec.ravel()},
        topocentricDistance=1.7, heliocentricDistance=2.5, vMag=20.0, phaseAngle=10.0,
    )  # fmt: skip
    now = displaced(np.full(n, PLACE[0]), np.full(n, PLACE[1]), east, north)
    return table, *now


@dataclass
class Truth:
    """What became of every detection: its true number, and the object it was given."""

    true: Any
    found: Any
    objects: pa.Table
    sky: Scene
    bodies: int
    lost_bodies: int

    @property
    def pure(self) -> float:
        """Part of the objects whose sources are all of one thing."""
        kinds = np.unique(np.stack([self.found, self.true]), axis=1)[0]
        return float(np.mean(np.unique(kinds, return_counts=True)[1] == 1))

    @property
    def whole(self) -> float:
        """Part of the things seen twice or more whose sources share one object."""
        _, count = np.unique(self.true, return_counts=True)
        kinds = np.unique(np.stack([self.true, self.found]), axis=1)[0]
        parts = np.unique(kinds, return_counts=True)[1]
        return float(np.mean(parts[count > 1] == 1))

    def pulls(self, name: str) -> Any:
        """Errors of ``pmRa``, ``pmDec`` or ``parallax`` of whole stars, in quoted errors."""
        found, true = np.unique(np.stack([self.found, self.true]), axis=1)
        _, kind, count = np.unique(found, return_inverse=True, return_counts=True)
        alone = (count[kind] == 1) & (np.bincount(true)[true] == 1)
        ids = to_numpy(self.objects, "diaObjectId")
        row = np.argsort(ids)[np.searchsorted(np.sort(ids), found[alone])]
        sky = {"pmRa": self.sky.pm[0] * 1e3, "pmDec": self.sky.pm[1] * 1e3,
               "parallax": self.sky.parallax}  # fmt: skip
        off = to_numpy(self.objects, name)[row] - sky[name][true[alone]]
        pull = off / to_numpy(self.objects, f"{name}Err")[row]
        return pull[np.isfinite(pull)]


def associate(
    seed: int, *, n: int, sigma: float, speed: float = 0.0, transients: int = 0, bodies: int = 0
) -> Truth:
    """Draw two years, associate them visit by visit, and keep who was who."""
    rng = np.random.default_rng(seed)
    sky, objects, history = scene(rng, n, speed, transients), DIA_OBJECT.empty(), []
    true, lost = [], 0
    config = diaobject.Config()
    for k, day in enumerate(nights(rng)):
        ra, dec = sky.at(day)
        seen = (rng.random(len(ra)) < 0.5) & (sky.born <= day) & (day < sky.dead)
        who = np.flatnonzero(seen)
        ephemeris, *places = bodies_of(rng, day, bodies, 10**6 * (k + 1))
        ra, dec = np.r_[ra[seen], places[0]], np.r_[dec[seen], places[1]]
        sources = sources_of(rng, 1000 + k, day, ra, dec, sigma)
        past = (
            pa.concat_tables(history) if history else DIA_SOURCE.empty().select(diaobject.HISTORY)
        )
        result = diaobject.run(
            sources, objects, past, ephemeris, config=config, processed_mjd_tai=T0 + 1e4 + k
        )
        kept = np.isin(to_numpy(objects, "diaObjectId"), to_numpy(result.objects, "diaObjectId"))
        objects = pa.concat_tables([objects.filter(pa.array(~kept)), result.objects])
        history.append(result.sources.select([*diaobject.HISTORY, "ssObjectId"]))
        true.append(np.r_[who, np.full(bodies, -1)])
        lost += int((to_numpy(result.sources, "ssObjectId")[len(who) :] < 0).sum())
    found = to_numpy(pa.concat_tables(history), "diaObjectId")
    who = np.concatenate(true)
    star = (who >= 0) & (found >= 0)
    return Truth(who[star], found[star], objects, sky, int((who < 0).sum()), lost)


def science(seed: int) -> None:
    plain = associate(seed, n=1000, sigma=0.1, transients=500, bodies=20)
    population = f"1000 variables, 500 transients, 60 visits, seed {seed}"
    report("pure, 0.1 arcsec", plain.pure, "", 0.995, population, least=True)
    report("whole, 0.1 arcsec", plain.whole, "", 0.99, population, least=True)
    bodies = f"{plain.bodies} main-belt and near-Earth bodies (25 to 1000 arcsec/h)"
    report("bodies as objects", plain.lost_bodies / plain.bodies, "", 0.01, bodies)
    rough = associate(seed + 1, n=1000, sigma=0.4)
    report("split, 0.4 arcsec", 1 - rough.whole, "", 0.05, "1000 variables, 60 visits")
    fast = associate(seed + 2, n=1000, sigma=0.1, speed=800.0)
    population = "1000 stars, parallaxes of 0 to 50 mas, 60 visits"
    report("split, 800 mas/yr", 1 - fast.whole, "", 0.02, population)
    for name in ("pmRa", "pmDec", "parallax"):
        off = abs(float(np.std(fast.pulls(name))) - 1.0)
        report(f"{name} pull off one", off, "", 0.1, population)


if __name__ == "__main__":
    if sys.argv[1:2] != ["speed"]:
        science(int(sys.argv[2]) if len(sys.argv) > 2 else 7001)
