"""Resampling of exposures onto another pixel grid.

Flux per pixel is conserved: values are multiplied by the area of an output pixel in input
pixels.  Image, variance and mask go through one compiled loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from pipeline.compiled import compiled
from pipeline.errors import TemplateError
from pipeline.exposure import Exposure, FloatArray, Image, Mask
from pipeline.masks import bits
from pipeline.template.config import Config
from pipeline.template.lanczos import HALF, STEPS, TAPS, table
from pipeline.template.mapping import Mapping, sky_mapping
from pipeline.template.noise import warped_noise
from pipeline.template.psf import warped_psf

__all__ = ["Warper", "warp"]

_LANES = 32
"""Output pixels that are made side by side."""

_FEWEST = 3
"""Fewer pixels than this cost less one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class Warper:
    """One exposure on its way to another grid; pixels are made band by band.

    Attributes
    ----------
    exposure : Exposure
        The input.
    mapping : Mapping
        Its pixel coordinates as a function of those of the output.
    shape : tuple of int, (ny, nx)
        Size of the output.
    noise : ndarray, (ty, tx, k, k)
        Noise autocovariance of the output per tile, one in the middle.
    variance_factor : ndarray, (ty, tx)
        What correlated input noise multiplies the variance by.
    """

    exposure: Exposure
    mapping: Mapping
    shape: tuple[int, int]
    noise: FloatArray
    variance_factor: FloatArray

    @classmethod
    def to(cls, exposure: Exposure, wcs: WCS, shape: tuple[int, int], config: Config) -> Warper:
        """Prepare the way of an exposure to a grid."""
        if exposure.wcs is None:
            raise TemplateError("an exposure without sky coordinates cannot be warped")
        mapping = sky_mapping(exposure.wcs, wcs, shape, config.cell)
        noise, factor = warped_noise(exposure, mapping, shape, config.tile)
        return cls(exposure, mapping, shape, noise, factor)

    def band(self, first: int, rows: int) -> tuple[Image, Image, Mask]:
        """Image, variance and mask of some rows of the output.

        Parameters
        ----------
        first, rows : int
            First row and number of rows.

        Returns
        -------
        tuple of ndarray, (rows, nx)
            NaN and NO_DATA where the input does not reach.
        """
        size = (rows, self.shape[1])
        image, variance = np.empty(size, np.float32), np.empty(size, np.float32)
        mask = np.empty(size, np.uint32)
        self.fill(first, image, variance, mask)
        return image, variance, mask

    def fill(self, first: int, image: Image, variance: Image, mask: Mask) -> None:
        """Put rows of the output from `first` on into arrays of their own."""
        source = self.exposure
        _warp(
            np.ascontiguousarray(source.image),
            np.ascontiguousarray(source.variance),
            np.ascontiguousarray(source.mask),
            table(),
            self.mapping.x,
            self.mapping.y,
            self.mapping.cell,
            first,
            bits("NO_DATA"),
            image,
            variance,
            mask,
        )
        self._correct(variance, first)

    def _correct(self, variance: Image, first: int) -> None:
        if np.all(self.variance_factor == 1.0):
            return
        factor = self.variance_factor.astype(np.float32)
        rows = _tile_index(first + np.arange(variance.shape[0]), self.shape[0], len(factor))
        columns = _tile_index(np.arange(self.shape[1]), self.shape[1], factor.shape[1])
        for tile in np.unique(rows):
            low, high = np.searchsorted(rows, [tile, tile + 1])
            variance[low:high] *= factor[tile, columns]


def _tile_index(pixel: npt.NDArray[np.int_], size: int, tiles: int) -> npt.NDArray[np.int_]:
    return np.minimum(pixel * tiles // size, tiles - 1)


def warp(
    exposure: Exposure, wcs: WCS, shape: tuple[int, int], config: Config | None = None
) -> Exposure:
    """Resample an exposure onto another grid of pixels.

    Parameters
    ----------
    exposure : Exposure
        The input, with sky coordinates.
    wcs : astropy.wcs.WCS
        Sky coordinates of the output.
    shape : tuple of int, (ny, nx)
        Size of the output.
    config : Config, optional
        Grid spacings.

    Returns
    -------
    Exposure
        The input on the new grid, with its PSF, and with the noise autocovariance that
        interpolation leaves.

    Raises
    ------
    TemplateError
        If the input has no sky coordinates or does not overlap the grid.
    """
    config = config or Config()
    warper = Warper.to(exposure, wcs, shape, config)
    image, variance, mask = warper.band(0, shape[0])
    if bool(np.all(mask & bits("NO_DATA"))):
        raise TemplateError("template and science do not overlap on the sky", overlap=0.0)
    return exposure.replace(
        image=image,
        variance=variance,
        mask=mask,
        wcs=wcs,
        psf=warped_psf(exposure.psf, warper.mapping, shape, config.psf_step),
        background=None,
        noise_correlation=warper.noise,
    )


@compiled
def _warp(
    image: Image,
    variance: Image,
    mask: Mask,
    weights: npt.NDArray[np.float32],
    grid_x: FloatArray,
    grid_y: FloatArray,
    cell: int,
    first: int,
    no_data: np.uint32,
    out_image: Image,
    out_variance: Image,
    out_mask: Mask,
) -> None:
    rows, columns = out_image.shape
    corners = np.empty((2, _LANES), np.int64)
    taps, sums = np.empty(2 * TAPS * _LANES, np.float32), np.empty(2 * _LANES, np.float32)
    for row in range(rows):
        j, s = divmod(first + row, cell)
        upper, lower = s / cell, 1.0 - s / cell
        for i in range((columns - 1) // cell + 1):
            x0 = lower * grid_x[j, i] + upper * grid_x[j + 1, i]
            y0 = lower * grid_y[j, i] + upper * grid_y[j + 1, i]
            dx = (lower * grid_x[j, i + 1] + upper * grid_x[j + 1, i + 1] - x0) / cell
            dy = (lower * grid_y[j, i + 1] + upper * grid_y[j + 1, i + 1] - y0) / cell
            # ∂(x, y)/∂row along the middle of the cell
            ex = 0.5 * (grid_x[j + 1, i] + grid_x[j + 1, i + 1] - grid_x[j, i] - grid_x[j, i + 1])
            ey = 0.5 * (grid_y[j + 1, i] + grid_y[j + 1, i + 1] - grid_y[j, i] - grid_y[j, i + 1])
            area = np.float32(abs(dx * ey - dy * ex) / cell)
            for start in range(i * cell, min((i + 1) * cell, columns), _LANES):
                stop = min(start + _LANES, (i + 1) * cell, columns)
                _stretch(
                    image,
                    variance,
                    mask,
                    weights,
                    (x0, y0, dx, dy),
                    start - i * cell,
                    area,
                    no_data,
                    corners,
                    taps,
                    sums,
                    out_image[row, start:stop],
                    out_variance[row, start:stop],
                    out_mask[row, start:stop],
                )


@compiled
def _stretch(
    image: Image,
    variance: Image,
    mask: Mask,
    weights: npt.NDArray[np.float32],
    line: tuple[float, float, float, float],
    first: int,
    area: np.float32,
    no_data: np.uint32,
    corners: npt.NDArray[np.int64],
    taps: npt.NDArray[np.float32],
    sums: npt.NDArray[np.float32],
    out_image: npt.NDArray[np.float32],
    out_variance: npt.NDArray[np.float32],
    out_mask: npt.NDArray[np.uint32],
) -> None:
    """Up to `_LANES` neighbours in a row of the output.

    Where the input pixels of neighbours are neighbours in one row, their sums are made side by
    side, in the order of `_pixel` and so the same to the last bit.
    """
    ny, nx = image.shape
    x0, y0, dx, dy = line
    size, last = out_image.shape[0], first + _LANES - 1
    whole = _inside(x0 + first * dx, y0 + first * dy, nx, ny)
    whole &= _inside(x0 + last * dx, y0 + last * dy, nx, ny)
    alike = whole and _prepare(weights, line, first, corners, taps)
    start = 0
    while start < size:
        end = size if alike else start + 1
        if whole:
            iy, left = corners[0, start], corners[1, start] - HALF + 1
            while end < size and corners[0, end] == iy and corners[1, end] == corners[1, start]:
                end += 1
            if end - start >= _FEWEST and left >= 0 and left + _LANES + TAPS - 1 <= nx:
                _sum(image, variance, taps, iy - HALF + 1, left, sums)
                # The lanes after `end` are overwritten in their turn.
                _write(mask, sums, iy, left + HALF - 1, start, area, no_data,
                       out_image, out_variance, out_mask)  # fmt: skip
                start = end
                continue
        for lane in range(start, end):
            x, y = x0 + (first + lane) * dx, y0 + (first + lane) * dy
            value, spread, flags = _pixel(image, variance, mask, weights, x, y, no_data)
            out_image[lane] = value * area
            out_variance[lane] = spread * area * area
            out_mask[lane] = flags
        start = end


@compiled
def _prepare(
    weights: npt.NDArray[np.float32],
    line: tuple[float, float, float, float],
    first: int,
    corners: npt.NDArray[np.int64],
    taps: npt.NDArray[np.float32],
) -> bool:
    """Row, and column less lane, below each position; its weights along x, then along y.

    True if row and difference are the same for all lanes.
    """
    x0, y0, dx, dy = line
    other = 0
    for lane in range(_LANES):
        x, y = x0 + (first + lane) * dx, y0 + (first + lane) * dy
        ix, iy = int(x), int(y)
        corners[0, lane], corners[1, lane] = iy, ix - lane
        px, py = int((x - ix) * STEPS + 0.5), int((y - iy) * STEPS + 0.5)
        for m in range(TAPS):
            taps[m * _LANES + lane] = weights[px, m]
            taps[(TAPS + m) * _LANES + lane] = weights[py, m]
        other |= (iy ^ corners[0, 0]) | ((ix - lane) ^ corners[1, 0])
    return bool(other == 0)


@compiled
def _sum(
    image: Image,
    variance: Image,
    taps: npt.NDArray[np.float32],
    low: int,
    left: int,
    sums: npt.NDArray[np.float32],
) -> None:
    """Weighted sums of the image and the variance for all lanes."""
    sums[:] = 0.0
    for k in range(TAPS):
        pixels = image[low + k, left : left + _LANES + TAPS - 1]
        noises = variance[low + k, left : left + _LANES + TAPS - 1]
        wy = taps[(TAPS + k) * _LANES : (TAPS + k + 1) * _LANES]
        for lane in range(_LANES):
            line, lines = np.float32(0.0), np.float32(0.0)
            for m in range(TAPS):
                w = taps[m * _LANES + lane]
                line += w * pixels[lane + m]
                lines += w * w * noises[lane + m]
            sums[lane] += wy[lane] * line
            sums[_LANES + lane] += wy[lane] * wy[lane] * lines


@compiled
def _write(
    mask: Mask,
    sums: npt.NDArray[np.float32],
    iy: int,
    column: int,
    start: int,
    area: np.float32,
    no_data: np.uint32,
    out_image: npt.NDArray[np.float32],
    out_variance: npt.NDArray[np.float32],
    out_mask: npt.NDArray[np.uint32],
) -> None:
    """Put the sums of the lanes from `start` on, and the masks of their footprints, in place."""
    nan, zero = np.float32(np.nan), np.float32(0.0)
    n = out_mask.shape[0] - start
    lower, upper = mask[iy, column + start :], mask[iy + 1, column + start :]
    flags, values, noises = out_mask[start:], out_image[start:], out_variance[start:]
    own, theirs = sums[start:_LANES], sums[_LANES + start :]
    for lane in range(n):
        flags[lane] = lower[lane] | lower[lane + 1] | upper[lane] | upper[lane + 1]
    for lane in range(n):
        total, spread = own[lane], theirs[lane]
        good = (total - total == zero) & (spread - spread == zero)  # both finite
        values[lane] = total * area if good else nan
        noises[lane] = spread * area * area if good else nan
        flags[lane] |= np.uint32(0) if good else no_data


@compiled
def _inside(x: float, y: float, nx: int, ny: int) -> bool:
    # A comparison with NaN is false: positions outside the mapping are outside.
    return x >= HALF - 1 and x <= nx - 1 - HALF and y >= HALF - 1 and y <= ny - 1 - HALF


@compiled
def _pixel(
    image: Image,
    variance: Image,
    mask: Mask,
    weights: npt.NDArray[np.float32],
    x: float,
    y: float,
    no_data: np.uint32,
) -> tuple[np.float32, np.float32, np.uint32]:
    ny, nx = image.shape
    nan = np.float32(np.nan)
    if not _inside(x, y, nx, ny):
        return nan, nan, no_data
    ix, iy = int(x), int(y)
    wx = weights[int((x - ix) * STEPS + 0.5)]
    wy = weights[int((y - iy) * STEPS + 0.5)]
    left, low = ix - HALF + 1, iy - HALF + 1
    total, spread = np.float32(0.0), np.float32(0.0)
    for k in range(2 * HALF):
        line, lines = np.float32(0.0), np.float32(0.0)
        for m in range(2 * HALF):
            line += wx[m] * image[low + k, left + m]
            lines += wx[m] * wx[m] * variance[low + k, left + m]
        total += wy[k] * line
        spread += wy[k] * wy[k] * lines
    flags = mask[iy, ix] | mask[iy, ix + 1] | mask[iy + 1, ix] | mask[iy + 1, ix + 1]
    if not (np.isfinite(total) and np.isfinite(spread)):
        return nan, nan, flags | no_data
    return total, spread, flags
