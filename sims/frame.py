"""One detector of one visit: from the sky to the raw pixels, and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.camera import Camera, Detector
from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image
from sims import artefacts as artefact
from sims import electronics
from sims.artefacts import Defects, Map
from sims.calibration import true_flat
from sims.conditions import MEAN_GAIN, Conditions
from sims.electronics import Spill
from sims.geometry import DetectorGeometry
from sims.profiles import Profile
from sims.render import render
from sims.scene import Scene, scene_of
from sims.streams import stream
from sims.trails import paint, trails

__all__ = ["Frame", "make_frame"]

_ROWS = 256  # rows whose photons are drawn at a time
_PARTNER_FAINTEST = 3000.0 * MEAN_GAIN  # what leaks from fainter sources is below 0.03 ADU


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


@dataclass(frozen=True, slots=True, eq=False)
class _Exposed:
    """What an exposure left beside the charge in the pixels."""

    artefacts: Map
    spill: Spill
    scene: Scene


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

    Returns
    -------
    Frame
        The raw pixels, and what went into them.
    """
    detector = Camera.load(profile.camera).detector(number)
    conditions = profile.conditions(seed, profile.visit(visit))
    numbers = _sources(profile, detector)
    planes = np.zeros((len(numbers), *detector.shape), np.float32)
    exposed = _expose(profile, seed, conditions, detector, planes[0])
    _measure(profile, seed, conditions, numbers, planes)
    raw = electronics.read_out(
        stream(seed, visit, number, "read noise"),
        detector,
        planes,
        numbers,
        electronics.Pedestal.draw(seed, visit, detector),
        exposed.spill,
        exposed.artefacts,
    )
    truth = _truth_table(exposed.scene, conditions, detector, exposed.artefacts)
    return Frame(raw, exposed.artefacts, truth)


@lru_cache(maxsize=2)
def _flat(camera: str, seed: int, band: str, number: int) -> Image:
    loaded = Camera.load(camera)
    return true_flat(seed, band, loaded, loaded.detector(number))


@lru_cache(maxsize=1)
def _defects(camera: str, seed: int, number: int, unlisted: int) -> Defects:
    return artefact.defects(seed, Camera.load(camera).detector(number), unlisted)


def _expose(
    profile: Profile, seed: int, conditions: Conditions, detector: Detector, charge: Image
) -> _Exposed:
    """Fill the pixels with charge: light, dark current, cosmic rays; let full ones bleed."""
    geometry = DetectorGeometry(Camera.load(profile.camera), detector)
    visit = conditions.visit
    scene = scene_of(profile, seed, conditions, detector)
    plane = geometry.to_plane(scene.light.x, scene.light.y)
    image = render(scene.light, conditions.psf, plane, detector.shape)
    flat = _flat(profile.camera, seed, visit.band, detector.number)
    bad = _defects(profile.camera, seed, detector.number, profile.unlisted_columns)
    artefacts = bad.artefacts.copy()
    for trail in trails(seed, visit.number, geometry.camera, profile.trails):
        paint(image, artefacts, trail, geometry, conditions.psf, conditions.sky)
    _cosmic_rays(seed, conditions, detector, charge)
    _collect(charge, image, artefacts, (flat, bad), seed, conditions, geometry)
    spill = _bleed(charge, artefacts, detector)
    return _Exposed(artefacts, spill, scene)


def _collect(
    charge: Image,
    image: FloatArray,
    artefacts: Map,
    static: tuple[Image, Defects],
    seed: int,
    conditions: Conditions,
    geometry: DetectorGeometry,
) -> None:
    """Add photons with their noise to the charge of cosmic rays, and mark the latter."""
    visit = conditions.visit
    sky = conditions.sky_at(geometry)
    flat, bad = static
    detector = geometry.detector
    noise = float(np.mean([a.read_noise for a in detector.amplifiers])) ** 2
    rng = stream(seed, visit.number, detector.number, "photons")
    for y in range(0, len(image), _ROWS):
        part = slice(y, y + _ROWS)
        plane = np.array([sky[0] + sky[2] * y, sky[1], sky[2]])
        expected = image[part]
        _illuminate(
            expected, flat[part], bad.response[part], bad.charge[part], plane, visit.exptime
        )
        photons = rng.poisson(expected)
        _gather(charge[part], photons, expected, noise, artefacts[part], artefact.bit("CR"))


def _sources(profile: Profile, detector: Detector) -> list[int]:
    """Return the number of a detector and of those that leak into it."""
    camera = Camera.load(profile.camera)
    others = [n for n in detector.partners if camera.detector(n).status != "dead"]
    return [detector.number, *others]


def _measure(
    profile: Profile,
    seed: int,
    conditions: Conditions,
    numbers: list[int],
    planes: npt.NDArray[np.float32],
) -> None:
    """Turn the charge of a detector, the first plane, into counts, and add those that leak.

    Of the others only what is bright is drawn, whether they are read out in this campaign or not.
    """
    camera = Camera.load(profile.camera)
    for plane, number in zip(planes, numbers, strict=True):
        if number != numbers[0]:
            _bright_charge(profile, seed, conditions, camera.detector(number), plane)
        electronics.to_counts(camera.detector(number), plane)


def _bright_charge(
    profile: Profile, seed: int, conditions: Conditions, detector: Detector, charge: Image
) -> None:
    geometry = DetectorGeometry(Camera.load(profile.camera), detector)
    scene = scene_of(profile, seed, conditions, detector, faintest=_PARTNER_FAINTEST)
    plane = geometry.to_plane(scene.light.x, scene.light.y)
    _cosmic_rays(seed, conditions, detector, charge)
    charge += render(scene.light, conditions.psf, plane, detector.shape)
    charge += np.float32(conditions.sky)
    _bleed(charge, np.zeros(detector.shape, np.uint32), detector)


def _cosmic_rays(seed: int, conditions: Conditions, detector: Detector, charge: Image) -> None:
    visit = conditions.visit
    rng = stream(seed, visit.number, detector.number, "cosmic rays")
    artefact.cosmic_rays(rng, charge, visit.exptime)


@compiled
def _illuminate(
    image: FloatArray,
    flat: Image,
    response: Image,
    dark: Image,
    sky: FloatArray,
    seconds: float,
) -> None:
    # Expected counts from sources, sky (a plane: level and its steps along x and y) and defects,
    # rounded to 1/256 electron so that a last bit can never change the random numbers.
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            light = image[y, x] + sky[0] + sky[1] * x + sky[2] * y
            value = light * flat[y, x] * response[y, x] + dark[y, x] * seconds
            image[y, x] = np.rint(max(value, 0.0) * 256.0) / 256.0


@compiled
def _gather(
    charge: Image,
    photons: npt.NDArray[np.int64],
    expected: FloatArray,
    noise: float,
    artefacts: Map,
    bit: int,
) -> None:
    ny, nx = expected.shape
    for y in range(ny):
        for x in range(nx):
            ray = charge[y, x]
            if ray > 0.0 and ray * ray > expected[y, x] + noise:
                artefacts[y, x] |= np.uint32(bit)
            charge[y, x] = np.float32(photons[y, x] + ray)


def _bleed(charge: Image, artefacts: Map, detector: Detector) -> Spill:
    """Let columns bleed; return what ran into the serial register of each channel."""
    over = np.zeros((len(detector.amplifiers), detector.shape[1]))
    bits = artefact.bit("BLEED"), artefact.bit("SATURATED")
    wells = {a.name: electronics.full_well(a) for a in detector.amplifiers}
    for y0, y1 in sorted({(a.trimmed.y0, a.trimmed.y1) for a in detector.amplifiers}):
        here = [(i, a) for i, a in enumerate(detector.amplifiers) if a.trimmed.y0 == y0]
        capacity = np.empty(detector.shape[1], np.float32)
        for _, amp in here:
            capacity[amp.trimmed.x0 : amp.trimmed.x1] = wells[amp.name]
        ends = artefact.bleed(charge[y0:y1], capacity, artefacts[y0:y1], *bits)
        for i, amp in here:
            columns = slice(amp.trimmed.x0, amp.trimmed.x1)
            over[i, columns] = ends[1 if amp.at_top else 0, columns]
    return electronics.spill(detector, over)


def _truth_table(
    scene: Scene, conditions: Conditions, detector: Detector, artefacts: Map
) -> pa.Table:
    light = scene.light
    ny, nx = detector.shape
    column, row = np.rint(light.x).astype(int), np.rint(light.y).astype(int)
    on = np.flatnonzero((column >= 0) & (column < nx) & (row >= 0) & (row < ny))
    saturated = np.uint32(artefact.bit("SATURATED"))
    trail = np.hypot(light.trail_x[on], light.trail_y[on])
    return schema.TRUTH_VISIT.to_arrow(
        {
            "truthId": scene.sources["truthId"][on],
            "x": light.x[on],
            "y": light.y[on],
            "ra": scene.ra[on],
            "dec": scene.dec[on],
            "flux": scene.flux[on],
            "fluxElectrons": light.flux[on],
            "trailLength": trail * conditions.psf.pixel_scale,
            "trailAngle": np.where(trail > 0.0, scene.trail_angle[on], np.nan),
            "saturated": (artefacts[row[on], column[on]] & saturated) != 0,
        },
        visit=conditions.visit.number,
        detector=detector.number,
        band=conditions.visit.band,
        midpointMjdTai=conditions.visit.midpoint,
    )
