"""Sources in which both images are compared to find the kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.errors import SubtractionError
from pipeline.exposure import FloatArray, Image, Psf
from pipeline.subtract.config import Config
from pipeline.subtract.prepare import WorkingImage

__all__ = ["Stamps", "find", "from_psfs", "peaks", "resized"]

_T = TypeVar("_T", bound=np.generic)
_MOST_PEAKS = 20000
_RING = 4.0
"""Width of the filter that closes rings, pixel."""

_GRID, _FLUX = 5, 1e4
"""Stars per axis and their flux, in units of the noise, when they come from PSF models."""


@dataclass(frozen=True, slots=True, eq=False)
class Stamps:
    """Cut-outs round sources of both images.

    Attributes
    ----------
    x, y : ndarray, (n,), pixel
        Their centres, whole numbers.
    science, template : ndarray, (n, wide, wide)
        Background-free pixels, a kernel's half width wider on each side than what is fitted.
    science_variance, template_variance : ndarray, (n, side, side)
        Variances of the fitted part, that of the science free of its own noise.
    good : ndarray, (n, side, side)
        Whether a fitted pixel counts.
    """

    x: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    science: FloatArray
    template: FloatArray
    science_variance: FloatArray
    template_variance: FloatArray
    good: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def ratio(self) -> float:
        """First guess of the photometric ratio: of the sums over the stamps."""
        half = self.good.shape[-1] // 2
        core = _core(self.science.shape[-1], half // 2)
        sums = self.science[core].sum((1, 2)), self.template[core].sum((1, 2))
        return float(np.median(sums[0] / sums[1]))

    @property
    def sharpness(self) -> tuple[float, float]:
        """Median share of the flux in the central 3 × 3 pixels, science and template."""
        shares = []
        for cube in (self.science, self.template):
            wide = cube[_core(cube.shape[-1], 6)].sum((1, 2))
            shares.append(float(np.median(cube[_core(cube.shape[-1], 1)].sum((1, 2)) / wide)))
        return shares[0], shares[1]


def _core(size: int, half: int) -> tuple[slice, slice, slice]:
    middle = slice(size // 2 - half, size // 2 + half + 1)
    return (slice(None), middle, middle)


def find(
    science: WorkingImage,
    template: WorkingImage,
    config: Config,
    least: int = 3,
    bridged: bool = False,
    rings: bool = False,
) -> Stamps:
    """Choose stamps: bright, unsaturated, spread over the image.

    Parameters
    ----------
    science, template : WorkingImage
        The two images.
    config : Config
        Sizes, thresholds and numbers.
    least : int
        How many are enough.
    bridged : bool
        Whether a source may lie on a gap that has been bridged.
    rings : bool
        Whether stars may be rings: sources are then where smoothed images have their peaks.

    Returns
    -------
    Stamps
        The cut-outs.

    Raises
    ------
    SubtractionError
        If fewer sources qualify.
    """
    bad = science.bad | template.bad
    seen = (_smoothed(science), _smoothed(template)) if rings else (science, template)
    x, y, snr = peaks(*seen, bad, config.stamp_snr, _MOST_PEAKS)
    margin = config.stamp_half + config.kernel_half
    ny, nx = science.shape
    inside = (x >= margin) & (x < nx - margin) & (y >= margin) & (y < ny - margin)
    x, y, snr = x[inside], y[inside], snr[inside]
    unknown = _unknown(science) | _unknown(template) if bridged else bad
    chosen = _spread(x, y, snr, unknown, config)
    if len(chosen) < least:
        raise SubtractionError(
            "too few sources to fit the matching kernel", stamps=len(chosen), needed=least
        )
    return _cut(x[chosen], y[chosen], science, template, config)


def _smoothed(working: WorkingImage) -> WorkingImage:
    """Image in which a ring is one peak, which is half as high as the ring, and so is the noise."""
    from scipy.ndimage import gaussian_filter

    return replace(working, image=gaussian_filter(working.image, _RING), noise=0.5 * working.noise)


def _unknown(working: WorkingImage) -> npt.NDArray[np.bool_]:
    """Mark bad pixels that were not bridged."""
    out = working.bad.copy()
    out.ravel()[working.bridged[0]] = False
    return out


def peaks(
    science: WorkingImage,
    template: WorkingImage,
    bad: npt.NDArray[np.bool_],
    threshold: float,
    most: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Local maxima of the science image that stand out in both images.

    Parameters
    ----------
    science, template : WorkingImage
        The images.
    bad : ndarray of bool, (ny, nx)
        Pixels that are no peak.
    threshold : float
        In units of the noise of a pixel, in both images.
    most : int
        The search ends after so many.

    Returns
    -------
    x, y : ndarray, (n,), pixel
        Positions, row by row.
    snr : ndarray, (n,)
        Peak over noise in the image where that is less.
    """
    return _peaks(
        science.image,
        template.image,
        bad.view(np.uint8),
        science.sky,
        template.sky,
        science.noise,
        template.noise,
        float(threshold),
        most,
    )


def from_psfs(
    science: Psf, template: Psf, ratio: float, shape: tuple[int, int], config: Config
) -> Stamps:
    """Make stamps of noise-free stars from PSF models, where the images have too few.

    Parameters
    ----------
    science, template : Psf
        The models.
    ratio : float
        Flux in the science image over flux in the template.
    shape : tuple of int, (ny, nx)
        Size of the images.
    config : Config
        Sizes; they must not exceed those of the PSFs.

    Returns
    -------
    Stamps
        Stars of equal flux on a grid, bright compared with their nominal noise.
    """
    side, wide = 2 * config.stamp_half + 1, 2 * (config.stamp_half + config.kernel_half) + 1
    steps = (np.arange(_GRID) + 0.5) / _GRID
    x, y = (a.ravel() for a in np.meshgrid(steps * (shape[1] - 1), steps * (shape[0] - 1)))
    new, old = (_FLUX * resized(psf.stamps(x, y), wide) for psf in (science, template))
    one = np.ones((len(x), side, side))
    u, v = (np.rint(a).astype(np.int64) for a in (x, y))
    return Stamps(u, v, new, old / ratio, one, np.zeros_like(one), one > 0)


def resized(cube: FloatArray, side: int) -> FloatArray:
    """Cut stamps to another odd side, or pad them with zeros.

    Parameters
    ----------
    cube : ndarray, (n, size, size)
        Stamps of an odd side.
    side : int, pixel
        The other one.

    Returns
    -------
    ndarray, (n, side, side)
        The same about their middles.
    """
    extra = (side - cube.shape[-1]) // 2
    if extra < 0:
        return cube[:, -extra:extra, -extra:extra]
    return np.pad(cube, ((0, 0), (extra, extra), (extra, extra)))


@compiled
def _peaks(
    science: Image,
    template: Image,
    bad: npt.NDArray[np.uint8],
    science_sky: Image,
    template_sky: Image,
    science_noise: Image,
    template_noise: Image,
    threshold: float,
    most: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Local maxima of the science image that stand out in both images."""
    ny, nx = science.shape
    ty, tx = science_noise.shape
    xs, ys = np.empty(most, np.int64), np.empty(most, np.int64)
    snr = np.empty(most, np.float32)
    n = 0
    limit = science_sky + np.float32(threshold) * science_noise
    for y in range(2, ny - 2):
        j = min(y * ty // ny, ty - 1)
        for x in range(2, nx - 2):
            v = science[y, x]
            i = x * tx // nx
            if not v > limit[j, i] or bad[y, x]:
                continue
            first = (v - science_sky[j, i]) / science_noise[j, i]
            second = (template[y, x] - template_sky[j, i]) / template_noise[j, i]
            if not second > threshold:
                continue
            if n < most and _is_top(science, y, x):
                xs[n], ys[n] = x, y
                snr[n] = min(first, second)
                n += 1
    return xs[:n], ys[:n], snr[:n]


@compiled
def _is_top(image: Image, y: int, x: int) -> bool:
    """Whether a pixel is the largest of 5 × 5; of equal ones the first."""
    v = image[y, x]
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            other = image[y + dy, x + dx]
            if other > v or (other == v and (dy < 0 or (dy == 0 and dx < 0))):
                return False
    return True


def _spread(
    x: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    snr: npt.NDArray[np.float32],
    bad: npt.NDArray[np.bool_],
    config: Config,
) -> list[int]:
    """Brightest first, cell by cell in turn, none on top of another, few bad pixels."""
    order = np.lexsort((x, y, -snr))
    cell = (y // config.stamp_cell) * 10000 + x // config.stamp_cell
    kept: list[int] = []
    rank: dict[int, int] = {}
    queue: list[tuple[int, int, int]] = []
    for place, k in enumerate(order):
        r = rank.get(int(cell[k]), 0)
        if r * len(rank) > 4 * config.max_stamps:
            continue
        rank[int(cell[k])] = r + 1
        queue.append((r, place, int(k)))
    taken = np.zeros(bad.shape, bool)
    for _, _, k in sorted(queue):
        if len(kept) == config.max_stamps:
            break
        if taken[y[k], x[k]] or not _clean(bad, int(x[k]), int(y[k]), config.stamp_half):
            continue
        h = config.stamp_half
        taken[max(0, y[k] - h) : y[k] + h + 1, max(0, x[k] - h) : x[k] + h + 1] = True
        kept.append(k)
    return kept


def _clean(bad: npt.NDArray[np.bool_], x: int, y: int, half: int) -> bool:
    if bad[y - 4 : y + 5, x - 4 : x + 5].any():
        return False
    return bool(bad[y - half : y + half + 1, x - half : x + half + 1].mean() < 0.2)


def _cut(
    x: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    science: WorkingImage,
    template: WorkingImage,
    config: Config,
) -> Stamps:
    wide, side = config.stamp_half + config.kernel_half, config.stamp_half
    cubes = [_stack(w.image, x, y, wide).astype(float) for w in (science, template)]
    bad = [_stack(w.bad, x, y, side) for w in (science, template)]
    return Stamps(
        x,
        y,
        cubes[0],
        cubes[1],
        _smooth_variance(science, cubes[0], x, y, side),
        _smooth_variance(template, cubes[1], x, y, side),
        ~(bad[0] | _grown(bad[1]) | _grown(bad[0], 1)),
    )


def _smooth_variance(
    working: WorkingImage,
    cube: FloatArray,
    x: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    half: int,
) -> FloatArray:
    """Variance from the mean of 3 × 3 pixels, as weights must not follow a pixel's own noise."""
    ny, nx = working.shape
    ty, tx = working.noise.shape
    tile = np.minimum(y * ty // ny, ty - 1), np.minimum(x * tx // nx, tx - 1)
    power, sky = working.noise[tile] ** 2, working.sky[tile]
    middle = slice(cube.shape[-1] // 2 - half - 1, cube.shape[-1] // 2 + half + 2)
    core = cube[:, middle, middle]
    rows = core[:, :-2] + core[:, 1:-1] + core[:, 2:]
    mean = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9.0
    excess = np.maximum(mean - sky[:, None, None], 0.0)
    return np.asarray(power[:, None, None] + working.inverse_gain * excess)


def _grown(bad: npt.NDArray[np.bool_], by: int = 3) -> npt.NDArray[np.bool_]:
    for axis in (1, 2):
        wide = bad.copy()
        for k in range(1, by + 1):
            wide |= np.roll(bad, k, axis) | np.roll(bad, -k, axis)
        bad = wide
    return bad


def _stack(
    plane: npt.NDArray[_T],
    x: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    half: int,
) -> npt.NDArray[_T]:
    size = 2 * half + 1
    windows = np.lib.stride_tricks.sliding_window_view(plane, (size, size))
    return np.asarray(windows[y - half, x - half])
