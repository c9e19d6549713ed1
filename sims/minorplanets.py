"""The asteroids of a campaign, and the ephemeris table of the known ones."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.camera import Camera
from pipeline.exposure import FloatArray
from sims.geometry import DetectorGeometry
from sims.profiles import Profile
from sims.schedule import Visit
from sims.solarsystem import Orbits, apparent, draw_orbit
from sims.streams import stream

__all__ = ["FIRST_ID", "bodies", "designation", "ephemerides", "orbits"]

FIRST_ID = 10**13
"""Identifiers of bodies start here, above those of anything fixed on the sky."""

_HOUR = 1.0 / 24.0
_NODES_AROUND = 4  # hours of ephemeris before the first and after the last visit of a night
_EDGE = 0.12  # fraction of the detector that stays free at its edges at the first visit
_MAGNITUDES = (19.0, 21.8)


@lru_cache(maxsize=4)
def bodies(profile: Profile, seed: int) -> Orbits:
    """Draw all bodies of a campaign.

    For every detector and night some are put on the detector at the first visit of that night.

    Parameters
    ----------
    profile : Profile
        The campaign.
    seed : int
        Its seed.
    """
    camera = Camera.load(profile.camera)
    found: list[Orbits] = []
    for anchor in _first_of_nights(profile.visits):
        pointing = profile.conditions(seed, anchor).pointing
        for number in profile.detectors:
            geometry = DetectorGeometry(camera, camera.detector(number))
            rng = stream(seed, anchor.number, number, "asteroids")
            near = int(rng.poisson(profile.near_earth))
            main = profile.known_asteroids + profile.unknown_asteroids
            ny, nx = geometry.detector.shape
            for k in range(main + near):
                x, y = rng.uniform(_EDGE, 1 - _EDGE, 2) * (nx, ny)
                ra, dec = geometry.to_sky(pointing, x, y)
                found.append(
                    draw_orbit(
                        rng,
                        FIRST_ID + (anchor.number * 100 + number) * 100 + k,
                        float(ra),
                        float(dec),
                        anchor.midpoint,
                        float(rng.uniform(*_MAGNITUDES)),
                        known=k < profile.known_asteroids or k % 2 == 1,
                        neo=k >= main,
                    )
                )
    return Orbits.join(found)


def _first_of_nights(visits: tuple[Visit, ...]) -> list[Visit]:
    first: dict[tuple[str, int], Visit] = {}
    for visit in sorted(visits, key=lambda v: v.midpoint):
        first.setdefault((visit.field, visit.night), visit)
    return list(first.values())


def designation(ident: int) -> str:
    """Return the name of a body.

    Parameters
    ----------
    ident : int
        Identifier of the body.

    Returns
    -------
    str
        Its name.
    """
    return f"SIM {ident - FIRST_ID:d}"


def ephemerides(profile: Profile, seed: int) -> pa.Table:
    """Ephemeris of the known bodies at full hours around the visits (`schema.SS_EPHEMERIS`).

    Parameters
    ----------
    profile : Profile
        The campaign.
    seed : int
        Its seed.

    Returns
    -------
    pyarrow.Table
        `pipeline.schema.SS_EPHEMERIS`.
    """
    known = _known(profile, seed)
    parts = [_night(known, visits) for visits in _nights(profile.visits)]
    return pa.concat_tables(parts)


def orbits(profile: Profile, seed: int) -> pa.Table:
    """Osculating elements of the known bodies, as the Minor Planet Center tabulates them.

    Parameters
    ----------
    profile : Profile
        The campaign.
    seed : int
        Its seed.

    Returns
    -------
    pyarrow.Table
        `pipeline.schema.MPC_ORBITS`.
    """
    known = _known(profile, seed)
    names = [designation(int(i)) for i in known.ids]
    return schema.MPC_ORBITS.to_arrow(
        {
            "id": np.arange(1, len(known) + 1),
            "designation": names,
            "packed_primary_provisional_designation": names,
            "unpacked_primary_provisional_designation": names,
            **known.elements(),
        }
    )


def _known(profile: Profile, seed: int) -> Orbits:
    everything = bodies(profile, seed)
    return everything.take(np.flatnonzero(everything.known))


def _nights(visits: tuple[Visit, ...]) -> list[list[Visit]]:
    groups: dict[int, list[Visit]] = {}
    for visit in visits:
        groups.setdefault(visit.night, []).append(visit)
    return [groups[n] for n in sorted(groups)]


def _night(orbits: Orbits, visits: list[Visit]) -> pa.Table:
    first = int(np.floor(min(v.midpoint for v in visits) / _HOUR)) - _NODES_AROUND
    last = int(np.ceil(max(v.midpoint for v in visits) / _HOUR)) + _NODES_AROUND
    parts = [_node(orbits, hour * _HOUR) for hour in range(first, last + 1)]
    return pa.concat_tables(parts)


def _node(orbits: Orbits, mjd: float) -> pa.Table:
    now = apparent(orbits, mjd)
    ra_rate, dec_rate = _rates(orbits, mjd, now.dec)
    return schema.SS_EPHEMERIS.to_arrow(
        {
            "ssObjectId": orbits.ids,
            "designation": [designation(int(i)) for i in orbits.ids],
            "ra": now.ra,
            "dec": now.dec,
            "raRate": ra_rate,
            "decRate": dec_rate,
            "vMag": now.v,
            "heliocentricDistance": now.heliocentric,
            "topocentricDistance": now.topocentric,
            "phaseAngle": now.phase,
        },
        mjdTai=mjd,
    )


def _rates(orbits: Orbits, mjd: float, dec: FloatArray) -> tuple[FloatArray, FloatArray]:
    step = 0.01 * _HOUR
    before, after = apparent(orbits, mjd - step), apparent(orbits, mjd + step)
    turn = (after.ra - before.ra + 180.0) % 360.0 - 180.0
    ra_rate = turn / (2 * step) * np.cos(np.radians(dec))
    return ra_rate, (after.dec - before.dec) / (2 * step)
