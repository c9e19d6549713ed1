"""Solar-system bodies: where the ephemeris puts them, and the sources that are theirs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.diaobject.astrometry import barycentric
from pipeline.diaobject.config import Config
from pipeline.diaobject.groups import Groups
from pipeline.diaobject.matching import Sky
from pipeline.exposure import FloatArray
from pipeline.schema import SS_SOURCE, to_numpy
from pipeline.sphere import ARCSEC, basis, offsets, radec, unit_vectors

__all__ = ["Prediction", "predict", "solar_system_sources"]

_KM_PER_S = 149597870.7 / 86400.0
_OBLIQUITY = np.radians(84381.406 / 3600.0)
_ECLIPTIC = np.array(
    [
        [1.0, 0.0, 0.0],
        [0.0, np.cos(_OBLIQUITY), np.sin(_OBLIQUITY)],
        [0.0, -np.sin(_OBLIQUITY), np.cos(_OBLIQUITY)],
    ]
)
# Rotation from ICRS to galactic coordinates (ESA 1997, The Hipparcos catalogue, eq. 1.5.11)
_GALACTIC = np.array(
    [
        [-0.0548755604162154, -0.8734370902348850, -0.4838350155487132],
        [0.4941094278755837, -0.4448296299600112, 0.7469822444972189],
        [-0.8676661490190047, -0.1980763734312015, 0.4559837761750669],
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Bodies at one instant.

    Attributes
    ----------
    ids : ndarray, (n,)
        `ssObjectId`.
    designation : ndarray of str, (n,)
        Names, None where unknown.
    direction : ndarray, (n, 3)
        Unit vectors.
    motion : ndarray, (n, 3), rad/d
        Their rate of change.
    distance, distance_rate : ndarray, (n,), AU, AU/d
        From the observer; NaN where the table does not say.
    v_mag, phase_angle : ndarray, (n,), mag, deg
        Brightness and phase angle; NaN where unknown.
    """

    ids: npt.NDArray[np.int64]
    designation: npt.NDArray[np.object_]
    direction: FloatArray
    motion: FloatArray
    distance: FloatArray
    distance_rate: FloatArray
    v_mag: FloatArray
    phase_angle: FloatArray

    def sky(self, config: Config) -> Sky:
        """Positions with an error of their own and one along the track, that of the clock."""
        ra, dec = radec(self.direction)
        rate = np.stack([np.sum(self.motion * axis, axis=1) for axis in basis(ra, dec)], axis=-1)
        slip = rate / ARCSEC * (config.ephemeris_clock / 86400.0)
        own = config.ephemeris_sigma**2 * np.eye(2)
        return Sky(self.ids, ra, dec, own + slip[:, :, None] * slip[:, None, :])


def predict(ephemeris: pa.Table, mjd_tai: float, config: Config) -> Prediction:
    """Interpolate an ephemeris to one instant.

    Up to four nodes round the instant carry a Lagrange polynomial in the components of the unit
    vector; with nodes an hour apart this errs by less than a milliarcsecond for a near-Earth
    asteroid.  Bodies whose nodes do not enclose the instant closely enough are left out.

    Parameters
    ----------
    ephemeris : pyarrow.Table
        `pipeline.schema.SS_EPHEMERIS`.
    mjd_tai : float, d
        The instant.
    config : Config
        `Config.ephemeris_max_gap`.

    Returns
    -------
    Prediction
        Places of the bodies that could be interpolated.
    """
    ids, time = to_numpy(ephemeris, "ssObjectId"), to_numpy(ephemeris, "mjdTai")
    order = np.lexsort((time, ids))
    groups = Groups.of(ids[order])
    time = time[order] - mjd_tai
    before = groups.sum(time <= 0).astype(np.int64)
    enclosed = (before > 0) & (before < groups.count)
    low = (groups.starts + before - 1)[enclosed]
    enclosed[enclosed] = (time[low + 1] - time[low]) * 24.0 <= config.ephemeris_max_gap
    rows, weights, slopes = _nodes(groups, time, before, np.flatnonzero(enclosed))
    rows = order[rows]

    def at(name: str) -> FloatArray:
        return np.asarray(np.sum(weights * to_numpy(ephemeris, name)[rows], axis=1))

    vectors = unit_vectors(to_numpy(ephemeris, "ra"), to_numpy(ephemeris, "dec"))[rows]
    direction = np.einsum("mk,mkc->mc", weights, vectors)
    length = np.linalg.norm(direction, axis=1)[:, None]
    distance = to_numpy(ephemeris, "topocentricDistance")[rows]
    return Prediction(
        ids=groups.keys[enclosed],
        designation=to_numpy(ephemeris, "designation").astype(object)[rows[:, 0]],
        direction=direction / length,
        motion=np.einsum("mk,mkc->mc", slopes, vectors) / length,
        distance=np.sum(weights * distance, axis=1),
        distance_rate=np.sum(slopes * distance, axis=1),
        v_mag=at("vMag"),
        phase_angle=at("phaseAngle"),
    )


def _nodes(
    groups: Groups,
    time: FloatArray,
    before: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Rows (m, 4), weights and slopes of the interpolation at time zero; fewer nodes weigh 0."""
    rows = np.zeros((len(chosen), 4), np.int64)
    weights, slopes = np.zeros((len(chosen), 4)), np.zeros((len(chosen), 4))
    number = np.minimum(groups.count[chosen], 4)
    for n in (2, 3, 4):
        here = number == n
        group = chosen[here]
        start = np.clip(before[group] - n // 2, 0, groups.count[group] - n)
        picked = (groups.starts[group] + start)[:, None] + np.arange(n)
        rows[here] = np.pad(picked, ((0, 0), (0, 4 - n)), mode="edge")
        weights[here, :n], slopes[here, :n] = _lagrange(time[picked])
    return rows, weights, slopes


def _lagrange(nodes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Values and derivatives at zero of the Lagrange polynomials of nodes (m, n)."""
    n = nodes.shape[1]
    values, slopes = np.ones_like(nodes), np.zeros_like(nodes)
    for k in range(n):
        others = [j for j in range(n) if j != k]
        for j in others:
            values[:, k] *= -nodes[:, j] / (nodes[:, k] - nodes[:, j])
            term = 1.0 / (nodes[:, k] - nodes[:, j])
            for i in others:
                if i != j:
                    term = term * -nodes[:, i] / (nodes[:, k] - nodes[:, i])
            slopes[:, k] += term
    return values, slopes


def solar_system_sources(
    sources: pa.Table, bodies: Prediction, which: npt.NDArray[np.int64], mjd_tai: float
) -> pa.Table:
    """Describe matched sources by what the ephemeris says.

    Parameters
    ----------
    sources : pyarrow.Table, n rows
        The matched sources (columns ``diaSourceId ra dec``).
    bodies : Prediction
        All bodies at the instant.
    which : ndarray, (n,)
        Index of the body of each source.
    mjd_tai : float, d
        The instant.

    Returns
    -------
    pyarrow.Table
        `pipeline.schema.SS_SOURCE`.
    """
    ra, dec = to_numpy(sources, "ra"), to_numpy(sources, "dec")
    direction, motion = bodies.direction[which], bodies.motion[which]
    predicted_ra, predicted_dec = radec(direction)
    east, north = offsets(predicted_ra, predicted_dec, ra, dec)
    to_east, to_north = basis(predicted_ra, predicted_dec)
    rate_ra = np.degrees(np.sum(motion * to_east, axis=1))
    rate_dec = np.degrees(np.sum(motion * to_north, axis=1))
    rate = np.hypot(rate_ra, rate_dec)
    safe = np.where(rate > 0, rate, np.nan)
    places = unit_vectors(ra, dec)
    lon, lat = radec(places @ _ECLIPTIC.T)
    gal_lon, gal_lat = radec(places @ _GALACTIC.T)
    columns = {
        "diaSourceId": to_numpy(sources, "diaSourceId"),
        "ssObjectId": bodies.ids[which],
        "designation": bodies.designation[which],
        "eclLambda": lon,
        "eclBeta": lat,
        "galLon": gal_lon,
        "galLat": gal_lat,
        "phaseAngle": bodies.phase_angle[which],
        "ephRa": predicted_ra,
        "ephDec": predicted_dec,
        "ephVmag": bodies.v_mag[which],
        "ephRate": rate,
        "ephRateRa": rate_ra,
        "ephRateDec": rate_dec,
        "ephOffset": np.hypot(east, north),
        "ephOffsetRa": east,
        "ephOffsetDec": north,
        "ephOffsetAlongTrack": (east * rate_ra + north * rate_dec) / safe,
        "ephOffsetCrossTrack": (north * rate_ra - east * rate_dec) / safe,
    }
    return SS_SOURCE.to_arrow(columns | _states(bodies, which, mjd_tai))


def _states(
    bodies: Prediction, which: npt.NDArray[np.int64], mjd_tai: float
) -> dict[str, FloatArray]:
    """Cartesian states seen from observer and Sun, at the time the light left."""
    distance = bodies.distance[which][:, None]
    topo = distance * bodies.direction[which]
    topo_v = (
        bodies.distance_rate[which][:, None] * bodies.direction[which]
        + distance * bodies.motion[which]
    )
    times = mjd_tai + np.array([-0.5, 0.0, 0.5])
    observer = barycentric("earth", times) - barycentric("sun", times)
    helio, helio_v = topo + observer[1], topo_v + observer[2] - observer[0]
    helio_range = np.linalg.norm(helio, axis=1)
    columns: dict[str, FloatArray] = {
        "topoRange": distance[:, 0],
        "topoRangeRate": bodies.distance_rate[which] * _KM_PER_S,
        "helioRange": helio_range,
        "helioRangeRate": np.sum(helio * helio_v, axis=1) / helio_range * _KM_PER_S,
        "elongation": _angle(bodies.direction[which], -observer[1]),
    }
    for prefix, place, speed in (("helio", helio, helio_v), ("topo", topo, topo_v)):
        for k, axis in enumerate("xyz"):
            columns[f"{prefix}_{axis}"] = place[:, k]
            columns[f"{prefix}_v{axis}"] = speed[:, k] * _KM_PER_S
        columns[f"{prefix}_vtot"] = np.linalg.norm(speed, axis=1) * _KM_PER_S
    return columns


def _angle(directions: FloatArray, vector: FloatArray) -> FloatArray:
    """Angles in degrees between unit vectors (n, 3) and one vector of any length."""
    cosine = directions @ vector / np.linalg.norm(vector)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
