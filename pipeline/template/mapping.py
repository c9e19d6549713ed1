"""Where the pixels of one grid lie on another: exact on a coarse grid, bilinear in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from pipeline.exposure import FloatArray

__all__ = ["Mapping", "sky_mapping"]


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """Input coordinates of output pixels at the corners of square cells.

    Attributes
    ----------
    x, y : ndarray, (rows, columns), pixel
        Input coordinates at output coordinates (``column * cell``, ``row * cell``); NaN where the
        input's sky does not reach.
    cell : int, pixel
        Side of the cells.
    """

    x: FloatArray
    y: FloatArray
    cell: int

    def at(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Input coordinates of output positions, bilinear as in the pixel loop."""
        u = np.asarray(x, float) / self.cell
        v = np.asarray(y, float) / self.cell
        i = np.clip(np.floor(u).astype(int), 0, self.x.shape[1] - 2)
        j = np.clip(np.floor(v).astype(int), 0, self.x.shape[0] - 2)
        return _bilinear(self.x, i, j, u - i, v - j), _bilinear(self.y, i, j, u - i, v - j)

    def jacobian(self, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
        """Return ∂(input x, y)/∂(output x, y), ``(..., 2, 2)``, by central differences."""
        x, y, h = np.asarray(x, float), np.asarray(y, float), 0.5 * self.cell
        east, west = self.at(x + h, y), self.at(x - h, y)
        north, south = self.at(x, y + h), self.at(x, y - h)
        rows = [
            np.stack([(east[k] - west[k]) / (2 * h), (north[k] - south[k]) / (2 * h)], axis=-1)
            for k in (0, 1)
        ]
        return np.stack(rows, axis=-2)


def _bilinear(
    grid: FloatArray,
    i: npt.NDArray[np.int_],
    j: npt.NDArray[np.int_],
    t: FloatArray,
    s: FloatArray,
) -> FloatArray:
    low = (1 - t) * grid[j, i] + t * grid[j, i + 1]
    high = (1 - t) * grid[j + 1, i] + t * grid[j + 1, i + 1]
    return np.asarray((1 - s) * low + s * high)


def sky_mapping(source: WCS, target: WCS, shape: tuple[int, int], cell: int) -> Mapping:
    """Map the pixels of `target` through the sky to those of `source`.

    Parameters
    ----------
    source, target : astropy.wcs.WCS
        World coordinates of the input and of the output grid.
    shape : tuple of int, (ny, nx)
        Size of the output.
    cell : int, pixel
        Spacing of the exact positions: 32 px err by 3·10⁻⁴ px for DECam's distortion.

    Returns
    -------
    Mapping
        Input coordinates of the output pixels.
    """
    columns = np.arange((shape[1] - 1) // cell + 2) * cell
    rows = np.arange((shape[0] - 1) // cell + 2) * cell
    x, y = np.meshgrid(columns.astype(float), rows.astype(float))
    sky = target.all_pix2world(np.column_stack([x.ravel(), y.ravel()]), 0)
    pixels = _world_to_pixel(source, sky)
    return Mapping(pixels[:, 0].reshape(x.shape), pixels[:, 1].reshape(x.shape), cell)


def _world_to_pixel(wcs: WCS, sky: FloatArray) -> FloatArray:
    # Positions far off the detector need not converge; they are outside in any case.
    pixels = wcs.all_world2pix(sky, 0, quiet=True, tolerance=1e-5)
    return np.asarray(pixels, float)
