"""Catalogues written beside the frames: reference stars, deep objects, and the truth."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.camera import Camera
from pipeline.exposure import NJY_ZERO_POINT, FloatArray
from sims import sky
from sims.galaxies import sersic_indices
from sims.geometry import DetectorGeometry
from sims.lightcurves import BANDS, KINDS, TRANSIENTS, Sources
from sims.minorplanets import bodies
from sims.profiles import Profile
from sims.solarsystem import apparent
from sims.streams import stream

__all__ = ["objects", "reference", "truth"]

_MARGIN = 150.0  # pixels
_REFERENCE_LIMITS = (13.0, 21.5)
_OBJECT_LIMIT = 24.5
_POINTS = ("star", "rr_lyrae", "eclipsing", "long_period", "agn")


@lru_cache(maxsize=1)
def _all_sources(profile: Profile, seed: int) -> Sources:
    """Return the sources in all cells that any detector sees."""
    camera = Camera.load(profile.camera)
    cells: set[int] = set()
    # Visits of one field differ by arcseconds: the first is enough.
    fields = {v.field: v for v in reversed(profile.visits)}
    for field in fields.values():
        pointing = profile.conditions(seed, field).pointing
        for number in profile.detectors:
            geometry = DetectorGeometry(camera, camera.detector(number))
            cells |= set(sky.cells_of(*geometry.outline(pointing, _MARGIN)))
    return profile.sky_of(seed).sources(tuple(sorted(cells)))


def _of(sources: Sources, *kinds: str) -> npt.NDArray[np.bool_]:
    return np.isin(sources["kind"], [KINDS.index(k) for k in kinds])


def _magnitude(flux: FloatArray) -> FloatArray:
    return np.asarray(NJY_ZERO_POINT - 2.5 * np.log10(np.maximum(flux, 1e-9)))


def reference(profile: Profile, seed: int) -> pa.Table:
    """Point sources as an astrometric and photometric survey lists them (`schema.REFCAT`).

    Positions err by 0.05 to 1 mas, proper motions by a tenth of that per year, fluxes by 0.5 %
    and their noise.  Variables are in it with their mean fluxes: being constant is no condition.

    Parameters
    ----------
    profile : Profile
        The campaign.
    seed : int
        Its seed.

    Returns
    -------
    pyarrow.Table
        `pipeline.schema.REFCAT`.
    """
    everything = _all_sources(profile, seed)
    mag = _magnitude(everything["flux"][:, 1])
    bright = (mag > _REFERENCE_LIMITS[0]) & (mag < _REFERENCE_LIMITS[1])
    stars = everything[bright & _of(everything, *_POINTS)]
    mag = mag[bright & _of(everything, *_POINTS)]
    rng = stream(seed, 0, 0, "reference catalogue")
    err = np.maximum(0.05, 0.05 * 10.0 ** (0.25 * (mag - 16.0)))
    ra, dec = _blurred(rng, stars, err)
    columns: dict[str, Any] = {
        "objectId": stars["truthId"],
        "ra": ra,
        "dec": dec,
        "raErr": err,
        "decErr": err,
        "pmRa": stars["pmRa"] + 0.1 * err * rng.standard_normal(len(err)),
        "pmDec": stars["pmDec"] + 0.1 * err * rng.standard_normal(len(err)),
        "parallax": stars["parallax"] + err * rng.standard_normal(len(err)),
    }
    columns |= _measured_fluxes(rng, stars, floor=0.005, depth=24.0)
    return schema.REFCAT.to_arrow(columns, epochMjdTai=sky.EPOCH)


def objects(profile: Profile, seed: int) -> pa.Table:
    """Stars and galaxies of a deep coadd (`schema.OBJECT`), complete to g = 24.5.

    Parameters
    ----------
    profile : Profile
        The campaign.
    seed : int
        Its seed.

    Returns
    -------
    pyarrow.Table
        `pipeline.schema.OBJECT`.
    """
    everything = _all_sources(profile, seed)
    deep = _magnitude(everything["flux"][:, 1]) < _OBJECT_LIMIT
    rows = everything[deep & _of(everything, "galaxy", *_POINTS)]
    rng = stream(seed, 0, 0, "object catalogue")
    err = np.clip(2.0 * 10.0 ** (0.3 * (_magnitude(rows["flux"][:, 1]) - 20.0)), 2.0, 150.0)
    ra, dec = _blurred(rng, rows, err)
    columns: dict[str, Any] = {
        "objectId": rows["truthId"],
        "ra": ra,
        "dec": dec,
        "raErr": err,
        "decErr": err,
        "objectType": np.where(_of(rows, "galaxy"), "galaxy", "star").tolist(),
        "radius": rows["radius"],
    }
    columns |= _measured_fluxes(rng, rows, floor=0.01, depth=26.5)
    return schema.OBJECT.to_arrow(columns)


def _blurred(
    rng: np.random.Generator, rows: Sources, err_mas: FloatArray
) -> tuple[FloatArray, FloatArray]:
    step = err_mas / 3.6e6 * rng.standard_normal((2, len(rows)))
    dec = rows["dec"] + step[1]
    return rows["ra"] + step[0] / np.cos(np.radians(rows["dec"])), dec


def _measured_fluxes(
    rng: np.random.Generator, rows: Sources, floor: float, depth: float
) -> dict[str, FloatArray]:
    """Fluxes with the noise of a survey whose 5 σ limit is `depth` in every band."""
    out = {}
    limit = 0.2 * 10.0 ** (-0.4 * (depth - NJY_ZERO_POINT))
    for b, band in enumerate(BANDS):
        flux = rows["flux"][:, b]
        err = np.hypot(floor * flux, limit)
        out[f"{band}Flux"] = flux + err * rng.standard_normal(len(flux))
        out[f"{band}FluxErr"] = err
    return out


def truth(profile: Profile, seed: int) -> pa.Table:
    """Everything that is simulated (`schema.TRUTH_OBJECT`).

    Fluxes of transients are zero and their peak stands in ``peakFlux`` (g); bodies of the solar
    system have the position they have at the first visit.

    Parameters
    ----------
    profile : Profile
        The campaign.
    seed : int
        Its seed.

    Returns
    -------
    pyarrow.Table
        `pipeline.schema.TRUTH_OBJECT`.
    """
    rows = _all_sources(profile, seed)
    transient = _of(rows, *TRANSIENTS)
    galaxy = _of(rows, "galaxy")
    shear = np.where(galaxy, rows["shear"], np.nan)
    periodic = _of(rows, "rr_lyrae", "eclipsing", "long_period")
    hosted = rows["hostId"] > 0
    columns: dict[str, Any] = {
        "truthId": rows["truthId"],
        "kind": [KINDS[k] for k in rows["kind"]],
        "ra": rows["ra"],
        "dec": rows["dec"],
        "pmRa": rows["pmRa"],
        "pmDec": rows["pmDec"],
        "parallax": rows["parallax"],
        "radius": rows["radius"],
        "sersicIndex": np.where(galaxy, np.array(sersic_indices())[rows["sersic"]], np.nan),
        "axisRatio": (1 - shear) / (1 + shear),
        "positionAngle": np.where(galaxy, rows["pa"], np.nan),
        "hostId": np.where(hosted, rows["hostId"].astype(float), np.nan),
        "hostOffset": _host_offset(rows),
        "objectId": np.where(transient, np.nan, rows["truthId"].astype(float)),
        "period": np.where(periodic, rows["law"][:, 0], np.nan),
        "peakMjdTai": _peak_time(rows),
        "peakFlux": np.where(transient, rows["flux"][:, 1], np.nan),
    }
    for b, band in enumerate(BANDS):
        columns[f"{band}Flux"] = np.where(transient, 0.0, rows["flux"][:, b])
    fixed = schema.TRUTH_OBJECT.to_arrow(columns)
    return pa.concat_tables([fixed, _bodies(profile, seed)])


def _bodies(profile: Profile, seed: int) -> pa.Table:
    orbits = bodies(profile, seed)
    seen = apparent(orbits, profile.visits[0].midpoint)
    columns: dict[str, Any] = {
        "truthId": orbits.ids,
        "kind": np.where(orbits.neo, "neo", "asteroid").tolist(),
        "ra": seen.ra,
        "dec": seen.dec,
        "ssObjectId": np.where(orbits.known, orbits.ids.astype(float), np.nan),
    }
    columns |= {f"{band}Flux": seen.flux(band) for band in BANDS}
    return schema.TRUTH_OBJECT.to_arrow(columns)


def _host_offset(rows: Sources) -> FloatArray:
    order = np.argsort(rows["truthId"])
    place = order[np.searchsorted(rows["truthId"], rows["hostId"], sorter=order) % len(rows)]
    host = rows[place]
    dec = np.radians(rows["dec"])
    offset = 3600.0 * np.hypot((rows["ra"] - host["ra"]) * np.cos(dec), rows["dec"] - host["dec"])
    return np.where(rows["hostId"] > 0, offset, np.nan)


def _peak_time(rows: Sources) -> FloatArray:
    t0, rise, fall = (rows["law"][:, i] for i in range(3))
    supernova = _of(rows, "sn_ia", "sn_ii", "sn_ibc")
    safe = np.where(supernova, rise, 1.0)
    peak = np.where(supernova, t0 + safe * np.log1p(fall / safe), np.nan)
    return np.where(_of(rows, "flare"), t0, peak)
