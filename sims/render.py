"""Noise-free images of many sources: one product in Fourier space per source and stamp.

    I(k) = flux · G_n(|S_gal k| r_h) · P(|S_psf k| s) · sinc(k_x) sinc(k_y) sinc(k·t) · exp(-i k·c)

G is the transform of a Sérsic profile, P that of the point spread function, t a trail, c the
position.  Stamps are as large as the source is visible, at least `MIN_SIDE_STAR` pixels: what
falls outside folds back in, always with the same sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray
from sims import galaxies
from sims.optics import PROFILE_STEP, PsfField, profile_table

__all__ = ["EDGE_BRIGHTNESS", "SIDES", "Light", "render"]

SIDES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536)
"""Sides of the stamps in pixels."""

EDGE_BRIGHTNESS = 0.12
"""A stamp ends where the source is fainter than this, electron per pixel."""

MIN_SIDE_STAR, MIN_SIDE_GALAXY = 64, 48
_BLOCK = 2_000_000
_Q_STEP = galaxies.STEP


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """Sources as the renderer needs them; all arrays of one length.

    Attributes
    ----------
    x, y : ndarray, pixel
        Positions; the centre of the first pixel is 0.
    flux : ndarray, electron
        Total fluxes; negative ones are allowed.
    radius : ndarray, pixel
        Half-light radii (geometric mean of the axes); 0 for points.
    index : ndarray of int
        Position in `galaxies.sersic_indices`; unused for points.
    g1, g2 : ndarray
        Reduced shears of the galaxy in pixel axes.
    trail_x, trail_y : ndarray, pixel
        Motion during the exposure.
    """

    x: FloatArray
    y: FloatArray
    flux: FloatArray
    radius: FloatArray
    index: npt.NDArray[np.int64]
    g1: FloatArray
    g2: FloatArray
    trail_x: FloatArray
    trail_y: FloatArray

    def __len__(self) -> int:
        """Return the number of sources."""
        return len(self.x)

    def take(self, rows: npt.NDArray[np.intp]) -> Light:
        """Return some of the sources, in that order."""
        return Light(*(getattr(self, name)[rows] for name in self.__slots__))

    @classmethod
    def points(cls, x: npt.ArrayLike, y: npt.ArrayLike, flux: npt.ArrayLike) -> Light:
        """Return point sources at rest."""
        px, py, f = (np.atleast_1d(np.asarray(a, float)) for a in (x, y, flux))
        zero = np.zeros(len(px))
        return cls(px, py, f, zero, np.zeros(len(px), np.int64), zero, zero, zero, zero)


def render(
    light: Light,
    psf: PsfField,
    plane: tuple[FloatArray, FloatArray],
    shape: tuple[int, int],
    *,
    edge: float = EDGE_BRIGHTNESS,
) -> FloatArray:
    """Draw sources into an empty image.

    Parameters
    ----------
    light : Light
        The sources.
    psf : PsfField
        Point spread function of the visit.
    plane : tuple of ndarray, mm
        Positions of the sources in the focal plane, where the PSF is evaluated.
    shape : tuple of int, (ny, nx)
        Size of the image.
    edge : float, electron / pixel
        Brightness at the edge of a stamp.

    Returns
    -------
    ndarray, (ny, nx), electron
        Expected counts; the same bits for the same sources, whatever else is drawn elsewhere.
    """
    image = np.zeros(shape)
    sides = stamp_sides(light, psf, edge)
    half = 0.5 * sides
    seen = (light.x > -half) & (light.x < shape[1] + half)
    seen &= (light.y > -half) & (light.y < shape[0] + half) & (light.flux != 0.0)
    forms = _quadratic_forms(light, psf, plane)
    profile, tables = profile_table(psf), galaxies.transforms()
    for side in SIDES:
        rows = np.flatnonzero(seen & (sides == side))
        step = max(1, _BLOCK // (side * (side // 2 + 1)))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            _draw_block(image, light.take(part), forms[part], side, profile, tables)
    return image


def stamp_sides(light: Light, psf: PsfField, edge: float) -> npt.NDArray[np.int64]:
    """Side of each source's stamp: the first of `SIDES` that reaches its faint edge."""
    bright = np.abs(light.flux)
    wing = (bright * psf.wing / edge) ** (3.0 / 11.0)
    galaxy = light.radius > 0
    half = np.maximum(wing, 0.0)
    if galaxy.any():
        major = light.radius * np.sqrt(
            (1 + np.hypot(light.g1, light.g2)) / (1 - np.hypot(light.g1, light.g2))
        )
        visible = galaxies.reach(light.index, bright, np.maximum(major, 1e-3), edge)
        half = np.where(galaxy, np.maximum(half, visible + 1.5 * psf.fwhm), half)
    trail = np.maximum(np.abs(light.trail_x), np.abs(light.trail_y))
    wanted = 2.0 * half + trail
    least = np.where(galaxy, MIN_SIDE_GALAXY, MIN_SIDE_STAR)
    wanted = np.maximum(wanted, least + trail)
    row = np.minimum(np.searchsorted(SIDES, wanted), len(SIDES) - 1)
    return np.asarray(np.array(SIDES)[row], np.int64)


def _quadratic_forms(
    light: Light, psf: PsfField, plane: tuple[FloatArray, FloatArray]
) -> FloatArray:
    # The transform of a profile sheared by S is F(S k): |S k|² = A kx² + 2 B kx ky + C ky².
    size, g1, g2 = psf.at(*plane)
    point = _form(g1, g2) * (size**2)[:, None]
    extended = _form(light.g1, light.g2) * (light.radius**2)[:, None]
    return np.ascontiguousarray(np.concatenate([point, extended], axis=1))


def _form(g1: FloatArray, g2: FloatArray) -> FloatArray:
    square = g1**2 + g2**2
    columns = [1 + square + 2 * g1, 2 * g2, 1 + square - 2 * g1]
    return np.stack(columns, axis=1) / (1 - square)[:, None]


def _draw_block(
    image: FloatArray,
    light: Light,
    forms: FloatArray,
    side: int,
    profile: FloatArray,
    tables: FloatArray,
) -> None:
    from scipy.fft import irfft2

    x0 = np.rint(light.x).astype(np.int64) - side // 2
    y0 = np.rint(light.y).astype(np.int64) - side // 2
    scalars = np.stack(
        [light.x - x0, light.y - y0, light.flux, light.trail_x, light.trail_y], axis=1
    )
    block = np.empty((len(light), side, side // 2 + 1), np.complex128)
    rows = np.where(light.radius > 0, light.index, -1)
    _fill(block, np.ascontiguousarray(scalars), forms, rows, profile, PROFILE_STEP, tables)
    stamps = irfft2(block, s=(side, side), workers=1, overwrite_x=True)
    _add(image, stamps, x0, y0)


@compiled
def _lookup(table: FloatArray, position: float) -> float:
    i = int(position)
    if i >= len(table) - 1:
        return 0.0
    t = position - i
    return float(table[i] * (1.0 - t) + table[i + 1] * t)


@compiled
def _sinc(half_phase: float) -> float:
    if abs(half_phase) < 1e-6:
        return 1.0
    return float(np.sin(half_phase) / half_phase)


@compiled
def _fill(
    block: npt.NDArray[np.complex128],
    scalars: FloatArray,
    forms: FloatArray,
    rows: npt.NDArray[np.int64],
    profile: FloatArray,
    step: float,
    tables: FloatArray,
) -> None:
    n_sources, side, half = block.shape
    kx = np.empty(half)
    ky = np.empty(side)
    for i in range(half):
        kx[i] = 2.0 * np.pi * i / side
    for j in range(side):
        ky[j] = 2.0 * np.pi * (j if j < half else j - side) / side
    shift_x = np.empty(half, np.complex128)
    for s in range(n_sources):
        cx, cy, flux, tx, ty = scalars[s]
        a, b, c, ga, gb, gc = forms[s]
        row = rows[s]
        trailed = tx != 0.0 or ty != 0.0
        for i in range(half):
            shift_x[i] = np.exp(-1j * kx[i] * cx) * _sinc(0.5 * kx[i])
        for j in range(side):
            shift_y = np.exp(-1j * ky[j] * cy) * (flux * _sinc(0.5 * ky[j]))
            for i in range(half):
                q2 = a * kx[i] * kx[i] + 2.0 * b * kx[i] * ky[j] + c * ky[j] * ky[j]
                value = _lookup(profile, np.sqrt(max(q2, 0.0)) / step)
                if row >= 0 and value != 0.0:
                    q2 = ga * kx[i] * kx[i] + 2.0 * gb * kx[i] * ky[j] + gc * ky[j] * ky[j]
                    value *= _lookup(tables[row], np.sqrt(max(q2, 0.0)) / _Q_STEP)
                if trailed:
                    value *= _sinc(0.5 * (kx[i] * tx + ky[j] * ty))
                block[s, j, i] = value * shift_x[i] * shift_y


@compiled
def _add(
    image: FloatArray,
    stamps: FloatArray,
    x0: npt.NDArray[np.int64],
    y0: npt.NDArray[np.int64],
) -> None:
    ny, nx = image.shape
    n, side, _ = stamps.shape
    for s in range(n):
        left, right = max(0, -x0[s]), min(side, nx - x0[s])
        for j in range(max(0, -y0[s]), min(side, ny - y0[s])):
            for i in range(left, right):
                image[y0[s] + j, x0[s] + i] += stamps[s, j, i]
