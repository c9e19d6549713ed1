"""Asteroids on two-body orbits, and the ephemeris table of those that are known.

Orbits are drawn so that every detector sees its share in every night: a position on the detector,
a distance, a velocity.  From then on gravity decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import erfa
import numpy as np
import numpy.typing as npt

from pipeline.exposure import NJY_ZERO_POINT, FloatArray
from pipeline.sphere import radec, unit_vectors
from sims.lightcurves import BANDS
from sims.schedule import LATITUDE, LONGITUDE

__all__ = ["Apparent", "Orbits", "apparent", "draw_orbit", "observer"]

_GM = 0.01720209895**2  # Gauss, AU³ / d²
_LIGHT = 173.14463  # AU / d
_OBLIQUITY = np.radians(23.43928)
_TAI_TO_TT = 32.184 / 86400.0
_EARTH_RADIUS = 6378.137 / 1.495978707e8
_SUN_COLOUR = np.array([1.6, 0.3, -0.2, -0.35, -0.33, -0.3])  # band - V of an S-type asteroid
_PHASE_SLOPE = 0.035  # mag / deg


@dataclass(frozen=True, slots=True, eq=False)
class Orbits:
    """Osculating two-body orbits.

    Attributes
    ----------
    ids : ndarray of int64, (n,)
        Identifier of each body.
    known : ndarray of bool
        Whether the body is in the ephemeris table.
    neo : ndarray of bool
        Near-Earth or main belt.
    a, e : ndarray
        Semi-major axis (AU) and eccentricity.
    p, q : ndarray, (n, 3)
        Unit vectors towards perihelion and 90° ahead of it (ICRS).
    mean_anomaly, epoch : ndarray
        Mean anomaly (rad) at the epoch (MJD TAI).
    h : ndarray, mag
        Absolute magnitude in V.
    """

    ids: npt.NDArray[np.int64]
    known: npt.NDArray[np.bool_]
    neo: npt.NDArray[np.bool_]
    a: FloatArray
    e: FloatArray
    p: FloatArray
    q: FloatArray
    mean_anomaly: FloatArray
    epoch: FloatArray
    h: FloatArray

    def __len__(self) -> int:
        """Return the number of bodies."""
        return len(self.ids)

    def take(self, rows: npt.NDArray[np.bool_ | np.integer]) -> Orbits:
        """Return some of the bodies."""
        return Orbits(*(getattr(self, name)[rows] for name in self.__slots__))

    @classmethod
    def join(cls, parts: list[Orbits]) -> Orbits:
        """Return all bodies of several sets."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__slots__))

    def positions(self, mjd: FloatArray) -> FloatArray:
        """Heliocentric positions, AU, ``(n, 3)``, one date (MJD TAI) per body."""
        m = self.mean_anomaly + np.sqrt(_GM / self.a**3) * (mjd - self.epoch)
        big_e = m + self.e * np.sin(m)
        for _ in range(12):
            big_e -= (big_e - self.e * np.sin(big_e) - m) / (1 - self.e * np.cos(big_e))
        x = self.a * (np.cos(big_e) - self.e)
        y = self.a * np.sqrt(1 - self.e**2) * np.sin(big_e)
        return np.asarray(x[:, None] * self.p + y[:, None] * self.q)

    def elements(self) -> dict[str, FloatArray]:
        """Keplerian elements by their names in `pipeline.schema.MPC_ORBITS`, ``(n,)`` each.

        Angles in degrees with respect to the ecliptic and equinox of J2000, times in MJD (TT),
        distances in AU; ``g`` is left out, since the phase law here is linear.
        """
        p, q = _ecliptic(self.p), _ecliptic(self.q)
        pole = np.cross(p, q)
        motion = np.sqrt(_GM / self.a**3)
        epoch = self.epoch + _TAI_TO_TT
        anomaly = np.remainder(self.mean_anomaly, 2 * np.pi)
        return {
            "a": self.a,
            "q": self.a * (1 - self.e),
            "e": self.e,
            "i": np.degrees(np.arctan2(np.hypot(pole[:, 0], pole[:, 1]), pole[:, 2])),
            "node": np.degrees(np.arctan2(pole[:, 0], -pole[:, 1])) % 360.0,
            "argperi": np.degrees(np.arctan2(p[:, 2], q[:, 2])) % 360.0,
            "mean_anomaly": np.degrees(anomaly),
            "mean_motion": np.degrees(motion),
            "period": 2 * np.pi / motion,
            "peri_time": epoch - anomaly / motion,
            "epoch_mjd": epoch,
            "h": self.h,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Apparent:
    """What an observer sees of bodies at a time; all arrays ``(n,)``.

    Attributes
    ----------
    ra, dec : ndarray, deg
        Topocentric position.
    v : ndarray, mag
        V magnitude.
    heliocentric, topocentric : ndarray, AU
        Distances.
    phase : ndarray, deg
        Sun-body-observer angle.
    """

    ra: FloatArray
    dec: FloatArray
    v: FloatArray
    heliocentric: FloatArray
    topocentric: FloatArray
    phase: FloatArray

    def flux(self, band: str) -> FloatArray:
        """Fluxes in nJy."""
        mag = self.v + _SUN_COLOUR[BANDS.index(band)]
        return np.asarray(10.0 ** (-0.4 * (mag - NJY_ZERO_POINT)))


@lru_cache(maxsize=256)
def observer(mjd: float) -> tuple[FloatArray, FloatArray]:
    """Heliocentric position (AU) and velocity (AU/d) of the telescope at a date (MJD TAI).

    Parameters
    ----------
    mjd : float, d
        Date, MJD TAI.

    Returns
    -------
    position : ndarray, (3,), AU
        Heliocentric, equatorial axes.
    velocity : ndarray, (3,), AU / d
        The same axes.
    """
    heliocentric, _ = erfa.epv00(2400000.5, mjd + _TAI_TO_TT)
    sidereal = np.radians(
        280.46061837 + 360.98564736629 * (mjd - 35.0 / 86400 - 51544.5) + LONGITUDE
    )
    lat = np.radians(LATITUDE)
    c = np.cos(lat) * _EARTH_RADIUS
    topocentric = np.array(
        [c * np.cos(sidereal), c * np.sin(sidereal), np.sin(lat) * _EARTH_RADIUS]
    )
    return np.asarray(heliocentric["p"] + topocentric), np.asarray(heliocentric["v"])


def apparent(orbits: Orbits, mjd: float) -> Apparent:
    """Apparent positions and magnitudes at one date (MJD TAI), light time included.

    Parameters
    ----------
    orbits : Orbits
        n bodies.
    mjd : float, d
        Date, MJD TAI.

    Returns
    -------
    Apparent
        Positions, distances and magnitudes of the n bodies.
    """
    eye, _ = observer(mjd)
    delay = np.zeros(len(orbits))
    for _ in range(3):
        body = orbits.positions(mjd - delay)
        line = body - eye
        distance = np.linalg.norm(line, axis=1)
        delay = distance / _LIGHT
    r = np.linalg.norm(body, axis=1)
    phase = _phase(body, line)
    v = orbits.h + _dimming(body, eye)
    return Apparent(*radec(line), v, r, distance, phase)


def draw_orbit(
    rng: np.random.Generator,
    ident: int,
    ra: float,
    dec: float,
    mjd: float,
    v_mag: float,
    *,
    known: bool,
    neo: bool,
) -> Orbits:
    """Draw one body that is seen at a given place and brightness at a given date.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the numbers.
    ident : int
        Its identifier.
    ra, dec : float, deg
        Where it is seen.
    mjd : float, TAI
        When.
    v_mag : float, mag
        How bright.
    known, neo : bool
        Whether it is in the ephemeris table; whether it passes near the Earth.

    Returns
    -------
    Orbits
        One body.
    """
    eye, earth_velocity = observer(mjd)
    line = unit_vectors(ra, dec)
    while True:
        if neo:
            body = eye + float(rng.uniform(0.05, 0.25)) * line
            kick = rng.normal(0.0, 1.0, 3)
            kick *= rng.uniform(0.002, 0.006) / np.linalg.norm(kick)
            velocity = earth_velocity + kick
        else:
            body = eye + _distance_to(eye, line, float(rng.uniform(2.1, 3.2))) * line
            velocity = _belt_velocity(rng, body)
        if _is_bound(body, velocity):
            break
    delay = float(np.linalg.norm(body - eye)) / _LIGHT
    orbit = _from_state(ident, body, velocity, mjd - delay, known=known, neo=neo)
    return replace(orbit, h=v_mag - _dimming(body[None], eye))


def _distance_to(eye: FloatArray, line: FloatArray, radius: float) -> float:
    """Distance along a line of sight at which it is `radius` from the Sun."""
    along = float(eye @ line)
    return -along + float(np.sqrt(along**2 - eye @ eye + radius**2))


def _is_bound(body: FloatArray, velocity: FloatArray) -> bool:
    radius = float(np.linalg.norm(body))
    pull = _cross(velocity, _cross(body, velocity)) / _GM - body / radius
    return bool(2.0 / radius > velocity @ velocity / _GM and np.linalg.norm(pull) < 0.9)


def _dimming(body: FloatArray, eye: FloatArray) -> FloatArray:
    """Apparent minus absolute magnitude: distances and phase."""
    line = body - eye
    r, distance = np.linalg.norm(body, axis=1), np.linalg.norm(line, axis=1)
    return np.asarray(5.0 * np.log10(r * distance) + _PHASE_SLOPE * _phase(body, line))


def _phase(body: FloatArray, line: FloatArray) -> FloatArray:
    norm = np.linalg.norm(body, axis=1) * np.linalg.norm(line, axis=1)
    cosine = np.einsum("ij,ij->i", body, line) / norm
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _ecliptic(vectors: FloatArray) -> FloatArray:
    """Turn equatorial vectors ``(n, 3)`` into the ecliptic."""
    c, s = np.cos(_OBLIQUITY), np.sin(_OBLIQUITY)
    return np.asarray(vectors @ np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]]))


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    # numpy.cross takes 30 µs for one pair.
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _belt_velocity(rng: np.random.Generator, body: FloatArray) -> FloatArray:
    # Nearly circular, prograde, the smallest inclination that reaches this place and a bit more.
    pole = np.array([0.0, -np.sin(_OBLIQUITY), np.cos(_OBLIQUITY)])
    radial = body / np.linalg.norm(body)
    forward = _cross(pole, radial)
    forward /= np.linalg.norm(forward)
    up = _cross(radial, forward)
    tilt = np.radians(rng.uniform(-12.0, 12.0))
    speed = np.sqrt(_GM / np.linalg.norm(body)) * rng.uniform(0.93, 1.07)
    direction = np.cos(tilt) * forward + np.sin(tilt) * up + rng.uniform(-0.1, 0.1) * radial
    return np.asarray(speed * direction)


def _from_state(
    ident: int, r: FloatArray, v: FloatArray, mjd: float, *, known: bool, neo: bool
) -> Orbits:
    radius = float(np.linalg.norm(r))
    momentum = _cross(r, v)
    eccentricity = _cross(v, momentum) / _GM - r / radius
    e = float(np.linalg.norm(eccentricity))
    a = 1.0 / (2.0 / radius - float(v @ v) / _GM)
    p = eccentricity / e
    q = _cross(momentum / np.linalg.norm(momentum), p)
    big_e = np.arctan2(float(r @ q) / np.sqrt(1 - e**2), float(r @ p) + a * e)
    one = np.ones(1)
    return Orbits(
        np.array([ident], np.int64),
        np.array([known]),
        np.array([neo]),
        a * one,
        e * one,
        p[None],
        q[None],
        (big_e - e * np.sin(big_e)) * one,
        mjd * one,
        0.0 * one,
    )
