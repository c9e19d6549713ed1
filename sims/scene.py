"""Sources of light on a detector in a visit, as the renderer needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.camera import Camera, Detector
from pipeline.exposure import FloatArray
from sims import sky
from sims.conditions import REFERENCE_COLOUR, Conditions
from sims.geometry import DetectorGeometry
from sims.lightcurves import BANDS, KINDS, Sources, fluxes
from sims.minorplanets import bodies
from sims.profiles import Profile
from sims.render import Light
from sims.schedule import Visit
from sims.solarsystem import apparent
from sims.streams import stream
from sims.waves import Waves

__all__ = ["Scene", "scene_of"]

_MARGIN = 220.0  # pixels beyond the edge from which a source can shine in
_STAR_FLAT = 0.004  # illumination error of the flats, relative


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Everything that shines on a detector in a visit.

    Attributes
    ----------
    sources : structured ndarray, (n,)
        Rows of `sims.sky.SOURCE`; asteroids are among them.
    ra, dec : ndarray, deg
        True positions at the middle of the exposure.
    flux : ndarray, nJy
        True fluxes.
    trail_angle : ndarray, deg
        Direction of motion, north through east; zero for what is at rest.
    light : Light
        The same as the renderer needs it: pixels, electrons, shapes, trails.
    """

    sources: npt.NDArray[Any]
    ra: FloatArray
    dec: FloatArray
    flux: FloatArray
    trail_angle: FloatArray
    light: Light


@dataclass(frozen=True, slots=True, eq=False)
class _Sky:
    """Sources on the sky at the time of a visit; motion during the exposure in degrees."""

    sources: npt.NDArray[Any]
    ra: FloatArray
    dec: FloatArray
    flux: FloatArray
    ra_step: FloatArray
    dec_step: FloatArray

    def take(self, rows: npt.NDArray[np.intp]) -> _Sky:
        return _Sky(*(getattr(self, name)[rows] for name in self.__slots__))


def scene_of(
    profile: Profile,
    seed: int,
    conditions: Conditions,
    detector: Detector,
    *,
    faintest: float = 0.0,
) -> Scene:
    """Collect what shines on a detector in a visit.

    Parameters
    ----------
    profile : Profile
        The campaign.
    seed : int
        Its seed.
    conditions : Conditions
        Of the visit.
    detector : Detector
        One detector of its camera.
    faintest : float, electron
        Leave out what is fainter than this.

    Returns
    -------
    Scene
        Sources in the order of their identifiers.
    """
    geometry = DetectorGeometry(Camera.load(profile.camera), detector)
    everything = _on_the_sky(profile, seed, conditions, geometry)
    x, y = geometry.to_pixel(conditions.pointing, everything.ra, everything.dec)
    ny, nx = detector.shape
    near = (np.abs(x - 0.5 * nx) < 0.5 * nx + _MARGIN) & (np.abs(y - 0.5 * ny) < 0.5 * ny + _MARGIN)
    near &= (everything.flux > 0.0) & (everything.flux * conditions.electrons_per_njy >= faintest)
    rows = np.flatnonzero(near)
    rows = rows[np.argsort(everything.sources["truthId"][rows], kind="stable")]
    seen = everything.take(rows)
    light = _light(profile, seed, conditions, geometry, seen)
    east = seen.ra_step * np.cos(np.radians(seen.dec))
    bearing = np.degrees(np.arctan2(east, seen.dec_step)) % 360.0
    return Scene(seen.sources, seen.ra, seen.dec, seen.flux, bearing, light)


def _on_the_sky(
    profile: Profile, seed: int, conditions: Conditions, geometry: DetectorGeometry
) -> _Sky:
    visit = conditions.visit
    outline = geometry.outline(conditions.pointing, _MARGIN)
    fixed = profile.sky_of(seed).sources(sky.cells_of(*outline))
    moving = _moving(profile, seed, visit)
    ra, dec = sky.at_epoch(fixed, visit.midpoint)
    rest = np.zeros(len(fixed))
    return _Sky(
        np.concatenate([fixed, moving.sources]),
        np.concatenate([ra, moving.ra]),
        np.concatenate([dec, moving.dec]),
        np.concatenate([fluxes(fixed, visit.band, visit.midpoint), moving.flux]),
        np.concatenate([rest, moving.ra_step]),
        np.concatenate([rest, moving.dec_step]),
    )


def _moving(profile: Profile, seed: int, visit: Visit) -> _Sky:
    orbits = bodies(profile, seed)
    rows = np.zeros(len(orbits), sky.SOURCE)
    now = apparent(orbits, visit.midpoint)
    half = 0.5 * visit.exptime / 86400.0
    before, after = apparent(orbits, visit.midpoint - half), apparent(orbits, visit.midpoint + half)
    rows["truthId"] = orbits.ids
    rows["kind"] = np.where(orbits.neo, KINDS.index("neo"), KINDS.index("asteroid"))
    for b, band in enumerate(BANDS):
        rows["flux"][:, b] = now.flux(band)
    turn = (after.ra - before.ra + 180.0) % 360.0 - 180.0
    return _Sky(rows, now.ra, now.dec, now.flux(visit.band), turn, after.dec - before.dec)


def _light(
    profile: Profile,
    seed: int,
    conditions: Conditions,
    geometry: DetectorGeometry,
    seen: _Sky,
) -> Light:
    at = conditions.pointing
    x0, y0 = geometry.to_pixel(at, seen.ra - 0.5 * seen.ra_step, seen.dec - 0.5 * seen.dec_step)
    x1, y1 = geometry.to_pixel(at, seen.ra + 0.5 * seen.ra_step, seen.dec + 0.5 * seen.dec_step)
    moving = (seen.ra_step != 0.0) | (seen.dec_step != 0.0)
    dx, dy = _displacement(profile, seed, conditions, geometry, seen.sources)
    x, y = 0.5 * (x0 + x1) + dx, 0.5 * (y0 + y1) + dy
    angle = geometry.pixel_angle(seen.sources["pa"])
    return Light(
        x=x,
        y=y,
        flux=seen.flux
        * conditions.electrons_per_njy
        * _throughput(seed, conditions, geometry, x, y),
        radius=seen.sources["radius"] / geometry.camera.pixel_scale,
        index=seen.sources["sersic"],
        g1=seen.sources["shear"] * np.cos(2 * angle),
        g2=seen.sources["shear"] * np.sin(2 * angle),
        trail_x=np.where(moving, x1 - x0, 0.0),
        trail_y=np.where(moving, y1 - y0, 0.0),
    )


def _throughput(
    seed: int,
    conditions: Conditions,
    geometry: DetectorGeometry,
    x: FloatArray,
    y: FloatArray,
) -> FloatArray:
    """Relative signal of sources: thin clouds of this visit, and what flats do not correct."""
    x_mm, y_mm = geometry.to_plane(x, y)
    illumination = Waves.draw(stream(seed, 0, 0, "star flat"), _STAR_FLAT, (120.0, 500.0))
    return np.asarray(
        (1.0 + conditions.clouds.at(x_mm, y_mm)) * (1.0 + illumination.at(x_mm, y_mm))
    )


def _displacement(
    profile: Profile,
    seed: int,
    conditions: Conditions,
    geometry: DetectorGeometry,
    sources: Sources,
) -> tuple[FloatArray, FloatArray]:
    """Shift in pixels by turbulence and by refraction that depends on colour.

    Turbulence is the same for a source on whatever detector it falls, and whatever else is drawn.
    """
    scale = geometry.camera.pixel_scale
    jitter = _jitter(seed, conditions.visit.number, sources["truthId"])
    dx, dy = profile.turbulence / scale * jitter
    blue, red = (sources["flux"][:, BANDS.index(b)] for b in "gi")
    colour = -2.5 * np.log10(blue / red)
    up = conditions.refraction * (REFERENCE_COLOUR - colour) / scale
    angle = geometry.pixel_angle(np.array(conditions.zenith_angle))
    return dx + up * np.cos(angle), dy + up * np.sin(angle)


def _jitter(seed: int, visit: int, ids: npt.NDArray[np.int64]) -> FloatArray:
    # Two normal numbers per identifier: a hash (SplitMix64, Steele et al. 2014), then Box-Muller.
    start = stream(seed, visit, 0, "turbulence").integers(1 << 62, size=2, dtype=np.uint64)
    u = np.array([_hash(ids.astype(np.uint64) ^ s) for s in start]) / 2.0**64
    radius = np.sqrt(-2.0 * np.log(u[0] + 2.0**-66))
    return np.asarray(radius * np.array([np.cos(2 * np.pi * u[1]), np.sin(2 * np.pi * u[1])]))


def _hash(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = z * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
