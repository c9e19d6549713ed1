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
from pipeline.exposure import Exposure, FloatArray, Image, Mask, bits
from pipeline.template.config import Config
from pipeline.template.lanczos import HALF, STEPS, table
from pipeline.template.mapping import Mapping, sky_mapping
from pipeline.template.noise import warped_noise
from pipeline.template.psf import warped_psf

__all__ = ["Warper", "warp"]


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
        return image, variance, mask

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
            for column in range(i * cell, min((i + 1) * cell, columns)):
                step = column - i * cell
                value, spread, flags = _pixel(
                    image, variance, mask, weights, x0 + step * dx, y0 + step * dy, no_data
                )
                out_image[row, column] = value * area
                out_variance[row, column] = spread * area * area
                out_mask[row, column] = flags


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
    # A comparison with NaN is false: positions outside the mapping end here too.
    if not (x >= HALF - 1 and x <= nx - 1 - HALF and y >= HALF - 1 and y <= ny - 1 - HALF):
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
