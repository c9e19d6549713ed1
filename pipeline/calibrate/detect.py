"""Detection: a matched filter, its peaks and their footprints in compiled passes.

The filter is a round Gaussian about as wide as a star, which loses less than two per cent of the
signal-to-noise ratio of the true PSF and needs no PSF to exist yet.  The score is in units of the
noise of the *source-free* image, so that a bright source does not hide its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import add_row, compiled
from pipeline.exposure import Exposure, FloatArray, Image, Mask
from pipeline.masks import bits
from pipeline.statistics import GAUSS_FWHM

_GONE = int(bits("NO_DATA", "UNMASKEDNAN"))
_BAD, _BAD_OR_FILLED = int(bits("BAD")), int(bits("BAD", "INTRP"))

_STEP = 4
"""Side of the grid on which footprints are measured, pixel."""
_WING_BEGINS = 2.5
"""Radius in full widths of a star from which on its profile is that of its wing."""
_FAINTEST_WING = 0.05
"""Height over the noise of a pixel at which the wing of a star ends."""
_WING_POWER, _WING_WIDTH = 11.0 / 3.0, 5.0 / 3.0 + 2.0
_WING = 0.024 * GAUSS_FWHM**_WING_WIDTH * np.pi / (4.0 * np.log(2.0))
"""Wing at one pixel over the peak of a Gaussian star of unit width; powers of radius and width."""
_LEAST_PEAK = 0.5
"""Least peak of a star over that which the size of its footprint asks for."""

__all__ = ["Detections", "detect", "score_image", "with_footprints", "with_wings"]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Peaks of the score, brightest first.

    Attributes
    ----------
    x, y : ndarray of int, (n,), pixel
        The peaks.
    snr : ndarray, (n,)
        Score there.
    footprint : ndarray of int, (n,)
        Number of the footprint a peak lies in, from 1.
    labels : ndarray of int32, (ny, nx)
        Footprint of every pixel, 0 outside.
    area : ndarray of int, (n,), pixel
        Size of the peak's footprint.
    """

    x: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    snr: npt.NDArray[np.float64]
    footprint: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    area: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.x)


def detect(exposure: Exposure, noise: Image, *, sigma: float, threshold: float = 5.0) -> Detections:
    """Find sources in a background-subtracted image.

    Parameters
    ----------
    exposure : Exposure
        Image and mask; pixels that are NaN, or bad and not interpolated, count as empty sky.
    noise : ndarray, (ny, nx), image unit squared
        Source-free variance, see `pipeline.smooth.smooth_variance`.
    sigma : float, pixel
        Width of the Gaussian filter.
    threshold : float
        Score of the faintest peak and of the edge of a footprint.

    Returns
    -------
    Detections
        Sorted by score, then row, then column.
    """
    score = score_image(_filled(exposure), noise, sigma)
    # Planes are made here: numpy asks the system for large pages, compiled code does not.
    labels = np.zeros(score.shape, np.int32)
    areas, peaks, snr = _label(score, np.float32(threshold), labels)
    order = np.lexsort((peaks[:, 0], peaks[:, 1], -snr))
    peaks, snr = peaks[order], snr[order]
    return Detections(peaks[:, 0], peaks[:, 1], snr, peaks[:, 2], labels, areas[peaks[:, 2]])


def _filled(exposure: Exposure) -> Image:
    """Image with zeros where there is nothing, or nothing that was interpolated."""
    image = np.ascontiguousarray(exposure.image, np.float32)
    out = np.empty_like(image)
    _blank(image.ravel(), np.ravel(exposure.mask), out.ravel())
    return out


@compiled
def _blank(image: Image, mask: Mask, out: Image) -> None:
    for i in range(image.size):
        bad = mask[i] & np.uint32(_GONE) != 0 or mask[i] & np.uint32(_BAD_OR_FILLED) == _BAD
        out[i] = np.float32(0) if bad or not np.isfinite(image[i]) else image[i]


def score_image(image: Image, noise: Image, sigma: float) -> Image:
    """Apply a matched filter with a Gaussian, in units of the source-free noise.

    Parameters
    ----------
    image, noise : ndarray, (ny, nx)
        Background-subtracted image and its source-free variance, finite.
    sigma : float, pixel
        Width of the Gaussian.

    Returns
    -------
    ndarray, (ny, nx)
        ``(g ⊗ image) / sqrt(noise Σg²)``.
    """
    half = int(np.ceil(3.0 * sigma))
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2).astype(np.float32)
    taps /= np.sqrt(np.sum(taps**2))
    out = np.empty(image.shape, np.float32)
    _separable(np.ascontiguousarray(image, np.float32), noise, taps, out)
    return out


@compiled
def _separable(image: Image, noise: Image, taps: Image, out: Image) -> None:
    ny, nx = image.shape
    half = len(taps) // 2
    line = np.zeros(nx + 2 * half, np.float32)
    middle = line[half : half + nx]
    for y in range(ny):
        line[:] = 0
        for j in range(max(0, y - half), min(ny, y + half + 1)):
            add_row(middle, image[j], taps[j - y + half])
        row = out[y]
        row[:] = 0
        for i in range(len(taps)):
            add_row(row, line[i : i + nx], taps[i])
        for x in range(nx):
            row[x] /= np.sqrt(noise[y, x])


@compiled
def _label(
    score: Image, threshold: np.float32, labels: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """Flood every region above the threshold and list its local maxima (x, y, label)."""
    ny, nx = score.shape
    stack = np.empty(ny * nx // 4 + 16, np.int64)
    areas = [0]
    peaks = [(0, 0, 0)]
    heights = [0.0]
    for y in range(ny):
        for x in range(nx):
            if not score[y, x] > threshold:
                continue
            if labels[y, x] == 0:
                areas.append(_flood(score, threshold, labels, stack, x, y, len(areas)))
            if _is_peak(score, x, y):
                peaks.append((x, y, int(labels[y, x])))
                heights.append(float(score[y, x]))
    return np.array(areas), np.array(peaks)[1:], np.array(heights)[1:]


@compiled
def _flood(
    score: Image,
    threshold: np.float32,
    labels: npt.NDArray[np.int32],
    stack: npt.NDArray[np.int64],
    x: int,
    y: int,
    label: int,
) -> int:
    ny, nx = score.shape
    labels[y, x] = label
    stack[0] = y * nx + x
    depth, area = 1, 0
    while depth > 0:
        depth -= 1
        area += 1
        q, p = divmod(stack[depth], nx)
        for j in range(max(q - 1, 0), min(q + 2, ny)):
            for i in range(max(p - 1, 0), min(p + 2, nx)):
                room = depth < len(stack)
                if room and labels[j, i] == 0 and score[j, i] > threshold:
                    labels[j, i] = label
                    stack[depth] = j * nx + i
                    depth += 1
    return area


@compiled
def _is_peak(score: Image, x: int, y: int) -> bool:
    """Higher than the earlier neighbours, not lower than the later ones: plateaus count once."""
    ny, nx = score.shape
    here = score[y, x]
    for j in range(max(y - 1, 0), min(y + 2, ny)):
        for i in range(max(x - 1, 0), min(x + 2, nx)):
            earlier = j < y or (j == y and i < x)
            if score[j, i] > here or (earlier and score[j, i] == here):
                return False
    return True


def with_footprints(mask: Mask, detections: Detections) -> Mask:
    """Copy of a mask, ``(ny, nx)``, with DETECTED set in the footprints.

    Parameters
    ----------
    mask : ndarray, (ny, nx), uint32
        Mask of the image; it stays as it is.
    detections : Detections
        Their footprints.

    Returns
    -------
    ndarray, (ny, nx), uint32
        The copy.
    """
    out = np.array(mask, np.uint32)
    out[detections.labels > 0] |= bits("DETECTED")
    return out


def with_wings(
    exposure: Exposure, noise: Image, detections: Detections, sigma: float, threshold: float
) -> Mask:
    """Copy of the mask of an image, ``(ny, nx)``, with DETECTED set in the wings of bright stars.

    A footprint ends where the score is at its threshold, which is ``threshold / √(4π) sigma`` of
    the noise in a pixel: half of it is left round the brightest stars.  From there the wing that
    turbulence gives every star, 0.024 w^(5/3) r^(-11/3) of the flux per pixel for a width w (Racine
    1996, PASP 108, 699), tells where it has 0.05 of the noise without knowing the flux of a
    saturated star.  Galaxies and groups are larger than the wing of their brightest pixel explains,
    and stay as they are.

    Parameters
    ----------
    exposure : Exposure
        The image, without sky; it stays as it is.
    noise : ndarray, (ny, nx), image unit squared
        Source-free variance.
    detections : Detections
        Their footprints.
    sigma : float, pixel
        Width of the stars and of the filter that found them.
    threshold : float
        Score at the edge of a footprint.

    Returns
    -------
    ndarray, (ny, nx), uint32
        The copy.
    """
    from scipy import ndimage

    out = np.array(exposure.mask, np.uint32)
    grid = slice(_STEP // 2, None, _STEP)
    lit = detections.labels[grid, grid] > 0
    if lit.all():
        return out
    inside = _STEP * ndimage.distance_transform_edt(lit)
    centre = inside > _WING_BEGINS * GAUSS_FWHM * sigma
    centre &= inside == ndimage.maximum_filter(inside, 5)
    edge = threshold / (np.sqrt(4.0 * np.pi) * sigma)
    growth = max(1.0, edge / _FAINTEST_WING) ** (1.0 / _WING_POWER)
    for j, i in np.argwhere(centre):
        y, x, radius = _STEP * j + _STEP // 2, _STEP * i + _STEP // 2, inside[j, i]
        height = edge * float(np.sqrt(noise[y, x])) * radius**_WING_POWER
        if _is_star(exposure, x, y, radius, height / (_WING * sigma**_WING_WIDTH)):
            _mark_disc(out, x, y, growth * radius)
    return out


def _is_star(exposure: Exposure, x: int, y: int, radius: float, peak: float) -> bool:
    """Whether a star is inside that is saturated, or has the peak that a footprint asks for."""
    near = _disc_box(x, y, radius)
    if (exposure.mask[near] & bits("SAT")).any():
        return True
    return bool(np.nanmax(exposure.image[near]) > _LEAST_PEAK * peak)


def _disc_box(x: int, y: int, radius: float) -> tuple[slice, slice]:
    half = int(radius)
    return slice(max(y - half, 0), y + half + 1), slice(max(x - half, 0), x + half + 1)


def _mark_disc(mask: Mask, x: int, y: int, radius: float) -> None:
    rows, columns = _disc_box(x, y, radius)
    part = mask[rows, columns]
    v = np.arange(rows.start, rows.start + part.shape[0]) - y
    u = np.arange(columns.start, columns.start + part.shape[1]) - x
    part[v[:, None] ** 2 + u**2 <= radius**2] |= bits("DETECTED")
