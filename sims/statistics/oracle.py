"""The renderer against an independent one: `galsim.drawImage`, source by source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.exposure import FloatArray
from sims import galaxies
from sims.optics import INSTRUMENT_FWHM, PsfField
from sims.render import EDGE_BRIGHTNESS, Light, render, stamp_sides
from sims.statistics.rows import Row, Statistics

__all__ = ["CLASSES", "Agreement", "agreement", "drawn_by_galsim", "examples", "rendering"]

CLASSES = ("star", "disk", "n = 2", "de Vaucouleurs", "trail")
"""Kinds of source that are drawn differently."""

_SIDE = 200  # pixels of the images that are compared
_SKY, _READ_NOISE = 360.0, 6.0  # electrons: a dark g sky of 86 s
_APERTURE = 16.0  # pixels
_ZERO_POINT = 31.3  # of an exposure of 86 s in g, 1 electron
_PLACES = ((100.3, 99.8), (99.51, 100.49), (100.0, 100.0))
_PLANE = np.array([10.0]), np.array([-50.0])
_ONE = np.ones(1)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two images of one source differ.

    Attributes
    ----------
    pixel : float
        Largest difference of a pixel in units of its noise.
    flux : float
        Relative difference within 16 pixels.
    centroid : float, pixel
        Difference of the first moments within 16 pixels, the larger axis.
    """

    pixel: float
    flux: float
    centroid: float


def drawn_by_galsim(
    light: Light, psf: PsfField, plane: tuple[FloatArray, FloatArray], side: int
) -> FloatArray:
    """Return the image, ``(side, side)``, electron, that GalSim draws of a single source.

    Parameters
    ----------
    light : Light
        One source.
    psf : PsfField
        Point spread function.
    plane : tuple of ndarray
        x and y of the image in the focal plane, mm.
    side : int, pixel
        Side of the image.

    Returns
    -------
    ndarray, (side, side), electron
        The image.
    """
    import galsim

    precise = galsim.GSParams(kvalue_accuracy=1e-7, folding_threshold=2e-4, maximum_fft_size=16384)
    size, g1, g2 = (float(v[0]) for v in psf.at(*plane))
    atmosphere = galsim.Kolmogorov(fwhm=psf.atmosphere_fwhm, gsparams=precise)
    instrument = galsim.Gaussian(fwhm=INSTRUMENT_FWHM / psf.pixel_scale)
    point = galsim.Convolve([atmosphere, instrument]).dilate(size).shear(g1=g1, g2=g2)
    parts: list[Any] = [point]
    if light.radius[0] > 0:
        index, radius = galaxies.sersic_indices()[light.index[0]], float(light.radius[0])
        sersic = galsim.Sersic(index, half_light_radius=radius, trunc=galaxies.TRUNCATION * radius)
        parts.append(sersic.shear(g1=float(light.g1[0]), g2=float(light.g2[0])))
    length = float(np.hypot(light.trail_x[0], light.trail_y[0]))
    if length > 0:
        angle = np.arctan2(light.trail_y[0], light.trail_x[0]) * galsim.radians
        parts.append(galsim.Box(length, 1e-3).rotate(angle))
    profile = galsim.Convolve(parts, gsparams=precise).withFlux(float(light.flux[0]))
    middle = 0.5 * (side - 1)
    offset = float(light.x[0]) - middle, float(light.y[0]) - middle
    drawn = profile.drawImage(nx=side, ny=side, scale=1.0, offset=offset, dtype=float)
    return np.asarray(drawn.array)


def agreement(light: Light, psf: PsfField) -> Agreement:
    """Draw a source near the middle of an image of 200 × 200 pixels twice and compare.

    Parameters
    ----------
    light : Light
        One source.
    psf : PsfField
        Point spread function.

    Returns
    -------
    Agreement
        How far the two images differ.
    """
    ours = render(light, psf, _PLANE, (_SIDE, _SIDE))
    theirs = drawn_by_galsim(light, psf, _PLANE, _SIDE)
    noise = np.sqrt(np.maximum(theirs, 0.0) + _SKY + _READ_NOISE**2)
    column, row = np.meshgrid(np.arange(_SIDE), np.arange(_SIDE))
    near = np.hypot(column - light.x[0], row - light.y[0]) < _APERTURE
    flux = [float(image[near].sum()) for image in (ours, theirs)]
    centres = [
        np.array([(image * column)[near].sum(), (image * row)[near].sum()]) / total
        for image, total in zip((ours, theirs), flux, strict=True)
    ]
    return Agreement(
        float(np.abs((ours - theirs) / noise).max()),
        abs(flux[0] / flux[1] - 1.0),
        float(np.abs(centres[0] - centres[1]).max()),
    )


def examples(psf: PsfField) -> Iterator[tuple[str, int, Light]]:
    """Yield class, stamp size and source: one of each class for every size that it is drawn in.

    Stars are of 11 to 25 mag; galaxies of 16 to 25 mag have the size that goes with their
    brightness; trails of asteroids and near-Earth objects are 3 to 40 pixels long.

    Parameters
    ----------
    psf : PsfField
        Decides how large a stamp a source needs.

    Yields
    ------
    str, int, Light
        Class of the source, side of its stamp (pixel), and the source.
    """
    seen: set[tuple[str, int]] = set()
    for name in CLASSES:
        for k, g in enumerate(np.arange(25.0, 10.9, -0.25).tolist()):
            if name != "star" and g < 16.0:
                continue
            light = _example(name, g, k, psf.pixel_scale)
            side = int(stamp_sides(light, psf, EDGE_BRIGHTNESS)[0])
            if (name, side) not in seen:
                seen.add((name, side))
                yield name, side, light


def _example(name: str, g: float, k: int, scale: float) -> Light:
    x, y = _PLACES[k % len(_PLACES)]
    light = Light.points(x, y, 10.0 ** (-0.4 * (g - _ZERO_POINT)))
    if name == "trail":
        length, angle = 3.0 + 37.0 * ((k * 0.618) % 1.0), 0.7 * k
        return replace(
            light, trail_x=length * np.cos(angle) * _ONE, trail_y=length * np.sin(angle) * _ONE
        )
    if name == "star":
        return light
    radius = 0.55 * 10.0 ** (-0.11 * (g - 22.5)) / scale
    shear, index = 0.4 * ((k * 0.618) % 1.0), CLASSES.index(name) - 1
    return replace(
        light, radius=radius * _ONE, index=np.array([index]),
        g1=shear * np.cos(1.3 * k) * _ONE, g2=shear * np.sin(1.3 * k) * _ONE,
    )  # fmt: skip


def rendering(psf: PsfField) -> Statistics:
    """Compare all `examples` with GalSim.

    Parameters
    ----------
    psf : PsfField
        Point spread function; its pixel scale is the camera's.

    Returns
    -------
    Statistics
        For every class and stamp size: pixels within 0.02 σ, aperture fluxes within 0.1 %,
        centroids within 0.1 mas.
    """
    rows: list[Row] = []
    for name, side, light in examples(psf):
        found, subject = agreement(light, psf), f"{name}, {side} px"
        mas = 1000.0 * psf.pixel_scale * found.centroid
        rows += [
            Row("pixels of noise-free images", subject, found.pixel, 0.0, 0.02, "σ", _SIDE**2),
            Row("aperture flux, 16 px", subject, found.flux, 0.0, 1e-3, "relative", 1),
            Row("centroid of noise-free images", subject, mas, 0.0, 0.1, "mas", 1),
        ]
    return Statistics(tuple(rows))
