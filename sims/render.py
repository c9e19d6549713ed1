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

__all__ = ["EDGE_BRIGHTNESS", "MIN_SIDE_STAR", "SIDES", "Light", "render", "stamp_sides"]

SIDES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536)
"""Sides of the stamps in pixels."""

EDGE_BRIGHTNESS = 0.12
"""A stamp ends where the source is fainter than this, electron per pixel."""

MIN_SIDE_STAR = 64
_MIN_SIDE_GALAXY = 48  # up to the width of `_WIDE`, else as for stars
_WIDE = 4.0
_FOLDING = 3.0  # electrons at the Nyquist frequency from which folding is drawn
_FOLDING_FROM = 0.55 * np.pi
_BLOCK = 120_000  # frequencies filled at a time: what the second-level cache holds
_PER_Q_STEP, _PER_PROFILE_STEP = 1.0 / galaxies.STEP, 1.0 / PROFILE_STEP


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
    """Side of each source's stamp: the first of `SIDES` that reaches its faint edge.

    Parameters
    ----------
    light : Light
        Sources of an image.
    psf : PsfField
        Point spread function of the image.
    edge : float, electron
        Charge per pixel below which a source is cut off.

    Returns
    -------
    ndarray of int, (n,), pixel
        Sides.
    """
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
    small = _MIN_SIDE_GALAXY if psf.fwhm < _WIDE else MIN_SIDE_STAR
    least = np.where(galaxy, small, MIN_SIDE_STAR)
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
    arguments = np.ascontiguousarray(scalars), forms, rows, profile, tables
    _fill(block, *arguments)
    _fold(block, *arguments)
    stamps = irfft2(block, s=(side, side), workers=1, overwrite_x=True)
    _add(image, stamps, x0, y0)


@compiled
def _lookup(table: FloatArray, position: float) -> float:
    if not 0.0 <= position < len(table) - 1:
        return 0.0 if position >= 0.0 else np.nan
    i = int(position)
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
    tables: FloatArray,
) -> None:
    n_sources, side, half = block.shape
    kx = np.arange(half) * (2.0 * np.pi / side)
    ky = np.arange(side) * (2.0 * np.pi / side)
    ky[half:] -= 2.0 * np.pi
    pixel = np.array([_sinc(0.5 * k) for k in ky])
    shift_x = np.empty(half, np.complex128)
    for s in range(n_sources):
        cx, cy, flux, tx, ty = scalars[s]
        a, b, c, ga, gb, gc = forms[s]
        extended, table = rows[s] >= 0, tables[max(rows[s], 0)]
        trailed = tx != 0.0 or ty != 0.0
        for i in range(half):
            shift_x[i] = np.exp(-1j * kx[i] * cx) * pixel[i]
        for j in range(side):
            v = ky[j]
            shift = np.exp(-1j * v * cy) * (flux * pixel[j])
            for i in range(half):
                u = kx[i]
                q2 = a * u * u + 2.0 * b * u * v + c * v * v
                value = _lookup(profile, np.sqrt(max(q2, 0.0)) * _PER_PROFILE_STEP)
                if extended and value != 0.0:
                    q2 = ga * u * u + 2.0 * gb * u * v + gc * v * v
                    value *= _lookup(table, np.sqrt(max(q2, 0.0)) * _PER_Q_STEP)
                if trailed:
                    value *= _sinc(0.5 * (u * tx + v * ty))
                block[s, j, i] = value * shift_x[i] * shift


@compiled
def _fold(
    block: npt.NDArray[np.complex128],
    scalars: FloatArray,
    forms: FloatArray,
    rows: npt.NDArray[np.int64],
    profile: FloatArray,
    tables: FloatArray,
) -> None:
    # Sampling folds frequencies beyond Nyquist back, which only bright sources show.
    n_sources, side, half = block.shape
    step = 2.0 * np.pi / side
    # The frequency, and the nearest of its aliases, along x and along y.
    ux, vy = np.empty((2, half)), np.empty((2, side))
    for i in range(half):
        ux[0, i], ux[1, i] = step * i, step * (i - side)
    for j in range(side):
        v = step * (j if j < half else j - side)
        vy[0, j], vy[1, j] = v, (v - 2.0 * np.pi if v > 0.0 else v + 2.0 * np.pi)
    first = int(np.ceil(_FOLDING_FROM / step))
    phase_x, phase_y = np.empty((2, half), np.complex128), np.empty((2, side), np.complex128)
    for s in range(n_sources):
        cx, cy, flux, tx, ty = scalars[s]
        a, b, c, ga, gb, gc = forms[s]
        extended, table = rows[s] >= 0, tables[max(rows[s], 0)]
        nyquist = _lookup(profile, np.pi * np.sqrt(min(a, c)) * _PER_PROFILE_STEP)
        if abs(flux) * nyquist < _FOLDING:
            continue
        for k in range(2):
            for i in range(half):
                phase_x[k, i] = np.exp(-1j * ux[k, i] * cx) * _sinc(0.5 * ux[k, i])
            for j in range(side):
                phase_y[k, j] = np.exp(-1j * vy[k, j] * cy) * (flux * _sinc(0.5 * vy[k, j]))
        trailed = tx != 0.0 or ty != 0.0
        for j in range(side):
            start = 0 if abs(vy[0, j]) >= _FOLDING_FROM else first
            for i in range(start, half):
                for k in range(1, 4):
                    fu, fv = ux[k & 1, i], vy[k >> 1, j]
                    q2 = a * fu * fu + 2.0 * b * fu * fv + c * fv * fv
                    value = _lookup(profile, np.sqrt(max(q2, 0.0)) * _PER_PROFILE_STEP)
                    if abs(flux) * value < 0.01 * _FOLDING:
                        continue
                    if extended:
                        q2 = ga * fu * fu + 2.0 * gb * fu * fv + gc * fv * fv
                        value *= _lookup(table, np.sqrt(max(q2, 0.0)) * _PER_Q_STEP)
                    if trailed:
                        value *= _sinc(0.5 * (fu * tx + fv * ty))
                    block[s, j, i] += value * phase_x[k & 1, i] * phase_y[k >> 1, j]


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
            # Slices let the inner loop run over several pixels at once.
            under = image[y0[s] + j, x0[s] + left : x0[s] + right]
            row = stamps[s, j, left:right]
            for i in range(len(row)):
                under[i] += row[i]
