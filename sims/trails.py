"""Trails of satellites and aeroplanes across the focal plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.camera import Camera
from pipeline.compiled import compiled, pixel
from pipeline.exposure import FloatArray
from sims.artefacts import Map, bit
from sims.geometry import DetectorGeometry
from sims.optics import PROFILE_STEP, PsfField, profile_table
from sims.streams import stream

__all__ = ["Trail", "paint", "trails"]

_REACH = 40.0  # pixels from the middle of a trail at which it ends
_STEP = 0.1
_PLANE_FRACTION = 0.15
_PLANE_WIDTH = 1.2  # mm between the two rows of lights
_VISIBLE = 0.3  # sigma of the sky from which a trail is marked


@dataclass(frozen=True, slots=True)
class Trail:
    """A straight line of light in the focal plane.

    Attributes
    ----------
    x, y : float, mm
        A point of it.
    angle : float, rad
        Its direction.
    brightness : float, electron / pixel
        Charge per pixel of length.
    period : float, pixel
        Length over which it brightens and fades once.
    depth : float
        Relative amplitude of that; 1 and more for lights that blink.
    """

    x: float
    y: float
    angle: float
    brightness: float
    period: float
    depth: float


def trails(seed: int, visit: int, camera: Camera, rate: float) -> list[Trail]:
    """Draw the trails of a visit.

    Parameters
    ----------
    seed, visit : int
        Choose the stream.
    camera : Camera
        Its detectors span the area that trails cross.
    rate : float
        Mean number per visit.

    Returns
    -------
    list of Trail
        Poisson-distributed in number; often empty.
    """
    rng = stream(seed, visit, 0, "trails")
    radius = max(np.hypot(d.x_mm, d.y_mm) for d in camera.detectors.values()) + 5.0
    found: list[Trail] = []
    for _ in range(int(rng.poisson(rate))):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-radius, radius)
        bright = float(10.0 ** rng.uniform(1.8, 3.6))
        plane = rng.random() < _PLANE_FRACTION
        period = float(rng.uniform(60.0, 200.0) if plane else rng.uniform(800.0, 20000.0))
        depth = 2.0 if plane else float(rng.uniform(0.0, 0.6))
        for shift in (0.0, _PLANE_WIDTH) if plane else (0.0,):
            across = offset + shift
            x, y = -across * np.sin(angle), across * np.cos(angle)
            found.append(Trail(float(x), float(y), float(angle), bright, period, depth))
    return found


def paint(
    image: FloatArray,
    artefacts: Map,
    trail: Trail,
    geometry: DetectorGeometry,
    psf: PsfField,
    sky: float,
) -> None:
    """Add a trail to the expected counts of a detector and mark its pixels.

    Parameters
    ----------
    image : ndarray, (ny, nx), electron
        Changed in place.
    artefacts : ndarray, (ny, nx), uint32
        Gets the bit.
    trail : Trail
        The trail.
    geometry : DetectorGeometry
        The detector.
    psf : PsfField
        Sets the width of the trail.
    sky : float, electron
        Its noise decides what is visible.
    """
    direction = np.array([np.cos(trail.angle), np.sin(trail.angle)])
    x, y = geometry.from_plane(
        trail.x + np.array([0.0, direction[0]]), trail.y + np.array([0.0, direction[1]])
    )
    norm = np.hypot(x[1] - x[0], y[1] - y[0])
    if not _crosses(x, y, image.shape):
        return
    _paint(
        image,
        artefacts,
        float(x[0]),
        float(y[0]),
        float((x[1] - x[0]) / norm),
        float((y[1] - y[0]) / norm),
        trail.brightness,
        2 * np.pi / trail.period,
        trail.depth,
        _line_spread(psf),
        _VISIBLE * float(np.sqrt(sky)),
        bit("SATELLITE"),
    )


def _crosses(x: FloatArray, y: FloatArray, shape: tuple[int, ...]) -> bool:
    """Tell whether the line through two points comes near a detector."""
    corners = np.array([[0, 0, shape[1], shape[1]], [0, shape[0], 0, shape[0]]])
    away = (corners[0] - x[0]) * (y[1] - y[0]) - (corners[1] - y[0]) * (x[1] - x[0])
    away /= np.hypot(x[1] - x[0], y[1] - y[0])
    return bool(away.min() < _REACH + 1.0 and away.max() > -_REACH - 1.0)


def _line_spread(psf: PsfField) -> FloatArray:
    """Image of a long line across itself: the cosine transform of a cut through the PSF's."""
    table = profile_table(psf)
    k = np.arange(len(table)) * PROFILE_STEP
    distance = np.arange(0.0, _REACH + _STEP, _STEP)
    weight = table * np.sinc(k / (2 * np.pi)) * PROFILE_STEP / np.pi
    weight[0] *= 0.5
    return np.asarray(np.cos(np.outer(distance, k)) @ weight)


@compiled
def _paint(
    image: FloatArray,
    artefacts: Map,
    x0: float,
    y0: float,
    ux: float,
    uy: float,
    brightness: float,
    wave: float,
    depth: float,
    spread: FloatArray,
    visible: float,
    flag: int,
) -> None:
    ny, nx = image.shape
    reach = (len(spread) - 2) * 0.1
    for y in range(ny):
        # |(x - x0) uy - (y - y0) ux| < reach
        middle, half = float(x0), float(nx + ny)
        if abs(uy) > 1e-6:
            middle, half = x0 + (y - y0) * ux / uy, reach / abs(uy)
        for x in range(max(0, pixel(middle - half)), min(nx, pixel(middle + half) + 2)):
            d = abs((x - x0) * uy - (y - y0) * ux) * 10.0
            if not d < len(spread) - 1:
                continue
            i = int(d)
            along = (x - x0) * ux + (y - y0) * uy
            level = max(0.0, 1.0 + depth * np.sin(wave * along))
            t = d - i
            value = brightness * level * (spread[i] * (1.0 - t) + spread[i + 1] * t)
            image[y, x] += value
            if value > visible:
                artefacts[y, x] |= np.uint32(flag)
