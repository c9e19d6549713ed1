"""One detector of one visit: from the sky to the raw pixels, and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.camera import Camera, Detector
from pipeline.exposure import FloatArray, Image
from sims import artefacts as artefact
from sims import electronics, sky
from sims.artefacts import Defects, Map
from sims.calibration import true_flat
from sims.conditions import REFERENCE_COLOUR, Conditions
from sims.geometry import DetectorGeometry
from sims.lightcurves import BANDS, KINDS, fluxes
from sims.minorplanets import bodies
from sims.profiles import Profile
from sims.render import Light, render
from sims.schedule import Visit
from sims.solarsystem import apparent
from sims.streams import stream

__all__ = ["Frame", "Scene", "make_frame", "scene_of", "truth_table"]

_MARGIN = 220.0  # pixels beyond the edge from which a source can shine in
_DIGITS = 256.0  # expected counts are rounded to 1/256 electron before noise is drawn


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
    light : Light
        The same as the renderer needs it: pixels, electrons, shapes, trails.
    """

    sources: npt.NDArray[Any]
    ra: FloatArray
    dec: FloatArray
    flux: FloatArray
    light: Light


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A simulated frame and its truth.

    Attributes
    ----------
    raw : ndarray, raw_shape, uint16, ADU
        What the controller sends.
    artefacts : ndarray, (ny, nx), uint32
        Bits of `sims.artefacts.ARTEFACTS`, trimmed pixels.
    truth : pyarrow.Table
        One row per source whose centre is on the detector (`schema.TRUTH_VISIT`).
    """

    raw: npt.NDArray[np.uint16]
    artefacts: Map
    truth: pa.Table


def scene_of(profile: Profile, seed: int, conditions: Conditions, detector: Detector) -> Scene:
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
    """
    visit = conditions.visit
    geometry = DetectorGeometry(Camera.load(profile.camera), detector)
    outline = geometry.outline(conditions.pointing, _MARGIN)
    fixed = profile.sky_of(seed).sources(sky.cells_of(*outline))
    ra, dec = sky.at_epoch(fixed, visit.midpoint)
    flux = fluxes(fixed, visit.band, visit.midpoint)
    moving, moving_ra, moving_dec, moving_flux, step = _moving(profile, seed, visit)
    sources = np.concatenate([fixed, moving])
    ra, dec = np.concatenate([ra, moving_ra]), np.concatenate([dec, moving_dec])
    flux = np.concatenate([flux, moving_flux])
    x, y = geometry.to_pixel(conditions.pointing, ra, dec)
    x_end, y_end = geometry.to_pixel(conditions.pointing, moving_ra + step[0], moving_dec + step[1])
    trail_x, trail_y = np.zeros(len(x)), np.zeros(len(x))
    trail_x[len(fixed) :], trail_y[len(fixed) :] = x_end - x[len(fixed) :], y_end - y[len(fixed) :]
    ny, nx = detector.shape
    near = (np.abs(x - 0.5 * nx) < 0.5 * nx + _MARGIN) & (np.abs(y - 0.5 * ny) < 0.5 * ny + _MARGIN)
    near &= flux > 0.0
    order = np.flatnonzero(near)
    order = order[np.argsort(sources["truthId"][order], kind="stable")]
    sources, flux = sources[order], flux[order]
    dx, dy = _displacement(profile, seed, conditions, geometry, sources)
    light = _light(
        conditions,
        geometry,
        sources,
        (x[order] + dx, y[order] + dy),
        flux,
        (trail_x[order], trail_y[order]),
    )
    return Scene(sources, ra[order], dec[order], flux, light)


def _moving(
    profile: Profile, seed: int, visit: Visit
) -> tuple[npt.NDArray[Any], FloatArray, FloatArray, FloatArray, tuple[FloatArray, FloatArray]]:
    orbits = bodies(profile, seed)
    rows = np.zeros(len(orbits), sky.SOURCE)
    now = apparent(orbits, visit.midpoint)
    half = 0.5 * visit.exptime / 86400.0
    before, after = apparent(orbits, visit.midpoint - half), apparent(orbits, visit.midpoint + half)
    rows["truthId"] = orbits.ids
    rows["kind"] = np.where(orbits.neo, KINDS.index("neo"), KINDS.index("asteroid"))
    rows["ra"], rows["dec"] = now.ra, now.dec
    for b, band in enumerate(BANDS):
        rows["flux"][:, b] = now.flux(band)
    step = (after.ra - before.ra + 180.0) % 360.0 - 180.0, after.dec - before.dec
    return rows, now.ra, now.dec, now.flux(visit.band), step


def _displacement(
    profile: Profile,
    seed: int,
    conditions: Conditions,
    geometry: DetectorGeometry,
    sources: npt.NDArray[Any],
) -> tuple[FloatArray, FloatArray]:
    """Shift in pixels by turbulence and by refraction that depends on colour."""
    rng = stream(seed, conditions.visit.number, geometry.detector.number, "turbulence")
    scale = geometry.camera.pixel_scale
    dx, dy = rng.normal(0.0, profile.turbulence / scale, (2, len(sources)))
    blue, red = (sources["flux"][:, BANDS.index(b)] for b in "gi")
    colour = -2.5 * np.log10(blue / red)
    up = conditions.refraction * (REFERENCE_COLOUR - colour) / scale
    angle = geometry.pixel_angle(np.array(conditions.zenith_angle))
    return dx + up * np.cos(angle), dy + up * np.sin(angle)


def _light(
    conditions: Conditions,
    geometry: DetectorGeometry,
    sources: npt.NDArray[Any],
    position: tuple[FloatArray, FloatArray],
    flux: FloatArray,
    trail: tuple[FloatArray, FloatArray],
) -> Light:
    angle = geometry.pixel_angle(sources["pa"])
    return Light(
        x=position[0],
        y=position[1],
        flux=flux * conditions.electrons_per_njy,
        radius=sources["radius"] / geometry.camera.pixel_scale,
        index=sources["sersic"],
        g1=sources["shear"] * np.cos(2 * angle),
        g2=sources["shear"] * np.sin(2 * angle),
        trail_x=trail[0],
        trail_y=trail[1],
    )


@lru_cache(maxsize=4)
def _static(profile: str, camera: str, seed: int, band: str, number: int, unlisted: int) -> Any:
    loaded = Camera.load(camera)
    detector = loaded.detector(number)
    flat = true_flat(seed, band, loaded, detector)
    bad = artefact.defects(seed, detector, unlisted)
    return flat, bad, electronics.full_well(detector)


def make_frame(profile: Profile, seed: int, visit: int, number: int) -> Frame:
    """Simulate one detector of one visit.

    Parameters
    ----------
    profile : Profile
        The campaign.
    seed : int
        Its seed.
    visit, number : int
        Exposure number and CCD number.
    """
    camera = Camera.load(profile.camera)
    detector = camera.detector(number)
    conditions = profile.conditions(seed, profile.visit(visit))
    geometry = DetectorGeometry(camera, detector)
    scene = scene_of(profile, seed, conditions, detector)
    plane = geometry.to_plane(scene.light.x, scene.light.y)
    image = render(scene.light, conditions.psf, plane, detector.shape)
    flat, bad, wells = _static(
        profile.name, profile.camera, seed, conditions.visit.band, number, profile.unlisted_columns
    )
    artefacts = bad.artefacts.copy()
    charge = _collect(seed, conditions, detector, image, flat, bad, artefacts)
    _bleed(charge, wells, artefacts, detector)
    planes = {number: electronics.counts(detector, charge)}
    raw = electronics.read_out(
        stream(seed, visit, number, "read noise"),
        detector,
        planes,
        electronics.Pedestal.draw(seed, visit, detector),
        artefacts,
    )
    return Frame(raw, artefacts, truth_table(scene, conditions, detector, artefacts))


def _collect(
    seed: int,
    conditions: Conditions,
    detector: Detector,
    image: FloatArray,
    flat: Image,
    bad: Defects,
    artefacts: Map,
) -> Image:
    """Photons, charge of hot pixels and cosmic rays, with their noise."""
    visit = conditions.visit
    image += conditions.sky
    image *= flat
    image *= bad.response
    image += bad.charge * visit.exptime
    np.maximum(image, 0.0, out=image)
    np.rint(image * _DIGITS, out=image)
    image /= _DIGITS
    sigma = np.sqrt(image + np.mean([a.read_noise for a in detector.amplifiers]) ** 2)
    charge = stream(seed, visit.number, detector.number, "photons").poisson(image)
    rays = artefact.cosmic_rays(
        stream(seed, visit.number, detector.number, "cosmic rays"), detector.shape, visit.exptime
    )
    artefact.mark(artefacts, rays > sigma, "CR")
    return np.asarray(charge + rays, np.float32)


def _bleed(charge: Image, wells: Image, artefacts: Map, detector: Detector) -> None:
    names = list(artefact.ARTEFACTS)
    bits = 1 << names.index("BLEED"), 1 << names.index("SATURATED")
    for rows in sorted({(a.trimmed.y0, a.trimmed.y1) for a in detector.amplifiers}):
        part = slice(*rows)
        artefact.bleed(charge[part], wells[rows[0]], artefacts[part], *bits)


def truth_table(
    scene: Scene, conditions: Conditions, detector: Detector, artefacts: Map
) -> pa.Table:
    """Rows of `schema.TRUTH_VISIT` of the sources whose centre is on the detector."""
    light = scene.light
    ny, nx = detector.shape
    column, row = np.rint(light.x).astype(int), np.rint(light.y).astype(int)
    on = np.flatnonzero((column >= 0) & (column < nx) & (row >= 0) & (row < ny))
    saturated = np.uint32(1 << list(artefact.ARTEFACTS).index("SATURATED"))
    camera_scale = conditions.psf.pixel_scale
    trail = np.hypot(light.trail_x[on], light.trail_y[on]) * camera_scale
    return schema.TRUTH_VISIT.to_arrow(
        {
            "truthId": scene.sources["truthId"][on],
            "x": light.x[on],
            "y": light.y[on],
            "ra": scene.ra[on],
            "dec": scene.dec[on],
            "flux": scene.flux[on],
            "fluxElectrons": light.flux[on],
            "trailLength": trail,
            "saturated": (artefacts[row[on], column[on]] & saturated) != 0,
        },
        visit=conditions.visit.number,
        detector=detector.number,
        band=conditions.visit.band,
        midpointMjdTai=conditions.visit.midpoint,
    )
