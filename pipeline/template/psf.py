"""Point spread functions of warped and coadded exposures, at any position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.exposure import FloatArray, GridPsf, Psf
from pipeline.template.lanczos import transfer
from pipeline.template.mapping import Mapping

__all__ = ["coadd_psf", "warped_psf"]

_PHASES = 5
"""Output pixels on each side of a node whose sub-pixel phases are averaged, in steps of 13."""


def warped_psf(
    psf: Psf | None, mapping: Mapping, shape: tuple[int, int], step: int
) -> GridPsf | None:
    """Point spread function after warping.

    The input PSF is resampled with the local linear map, and smoothed by the mean transfer
    function of the interpolation at the sub-pixel phases found round the node.

    Parameters
    ----------
    psf : Psf, optional
        That of the input.
    mapping : Mapping
        Input coordinates of output pixels.
    shape : tuple of int, (ny, nx)
        Size of the output.
    step : int, pixel
        Largest spacing of the nodes.

    Returns
    -------
    GridPsf or None
        None if the input had none.
    """
    if psf is None:
        return None
    x, y = _nodes(shape[1], step), _nodes(shape[0], step)
    cube = [[_warped_stamp(psf, mapping, float(u), float(v)) for u in x] for v in y]
    return GridPsf(np.array(cube), x, y)


def coadd_psf(psfs: Sequence[GridPsf], weights: FloatArray) -> GridPsf:
    """Weighted mean of PSFs on a common grid.

    Parameters
    ----------
    psfs : sequence of GridPsf
        Warped PSFs; NaN stamps do not count.
    weights : ndarray, (n, ny, nx)
        Weight of each input at each node, zero where it has no data.

    Returns
    -------
    GridPsf
        Their mean; where no input has data, the mean of all nodes.
    """
    side = max(p.side for p in psfs)
    cubes = np.array([_padded(p.cube, side) for p in psfs])
    total = weights.sum(0)
    mean = np.einsum("nyx,nyxij->yxij", weights, np.nan_to_num(cubes))
    covered = total > 0
    mean[covered] /= total[covered][:, None, None]
    mean[~covered] = mean[covered].mean(0) if covered.any() else np.nan
    return GridPsf(mean, psfs[0].x, psfs[0].y)


def _nodes(size: int, step: int) -> FloatArray:
    # Only centres of pixels have the sub-pixel phases of pixels.
    return np.rint(np.linspace(0.0, size - 1.0, max(2, -(-size // step) + 1)))


def _padded(cube: FloatArray, side: int) -> FloatArray:
    pad = (side - cube.shape[-1]) // 2
    return np.pad(cube, ((0, 0), (0, 0), (pad, pad), (pad, pad)))


def _warped_stamp(psf: Psf, mapping: Mapping, x: float, y: float) -> FloatArray:
    from scipy.ndimage import map_coordinates

    at_x, at_y = (float(v) for v in mapping.at(x, y))
    jacobian = mapping.jacobian(x, y)
    if not np.isfinite([at_x, at_y, *jacobian.ravel()]).all():
        return np.full((psf.side, psf.side), np.nan)
    stamp = _smoothed(psf.at(at_x, at_y), mapping, x, y)
    half = (psf.side - 1) / 2
    v, u = np.mgrid[: psf.side, : psf.side] - half
    places = np.tensordot(jacobian, np.stack([u, v]), axes=1) + half
    moved = map_coordinates(stamp, places[::-1], order=5, mode="constant")
    return np.asarray(moved / moved[np.hypot(u, v) <= Psf.FLUX_RADIUS].sum())


def _smoothed(stamp: FloatArray, mapping: Mapping, x: float, y: float) -> FloatArray:
    """Apply the mean transfer function of the interpolation near an output position."""
    offset = 13.0 * np.arange(-_PHASES, _PHASES + 1)
    near_x, near_y = mapping.at(*np.meshgrid(x + offset, y + offset))
    size = 2 * stamp.shape[0]
    frequency = np.fft.fftfreq(size)
    along_x = transfer((near_x % 1.0).ravel(), frequency[: size // 2 + 1])
    along_y = transfer((near_y % 1.0).ravel(), frequency)
    spectrum = np.fft.rfft2(stamp, (size, size)) * along_y[:, None] * along_x[None, :]
    return np.asarray(np.fft.irfft2(spectrum, (size, size))[: stamp.shape[0], : stamp.shape[1]])
