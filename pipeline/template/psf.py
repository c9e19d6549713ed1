"""Point spread functions of warped and coadded exposures, at any position."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray, GridPsf, Psf
from pipeline.template.lanczos import transfer
from pipeline.template.mapping import Mapping

__all__ = ["coadd_psf", "warped_psf"]

_PHASES = 5
"""Output pixels on each side of a node whose sub-pixel phases are averaged, in steps of 13."""

_TABLE_STEPS = 256
"""Sub-pixel phases whose transfer functions are kept."""


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
    at = np.meshgrid(x, y)
    place = np.stack(mapping.at(*at), axis=-1)
    jacobian = mapping.jacobian(*at)
    responses = _responses(mapping, *at, 2 * psf.side)
    cube = np.full((len(y), len(x), psf.side, psf.side), np.nan)
    for node in np.ndindex(len(y), len(x)):
        if np.isfinite(place[node]).all() and np.isfinite(jacobian[node]).all():
            stamp = _smoothed(psf.at(*place[node].tolist()), *(r[node] for r in responses))
            cube[node] = _moved(stamp, jacobian[node])
    return GridPsf(_completed(cube), x, y)


def _completed(cube: FloatArray) -> FloatArray:
    """Take for nodes that the coordinates of the input do not reach what the nearest node has."""
    known = np.isfinite(cube[..., 0, 0])
    if known.all() or not known.any():
        return cube
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(cube[tuple(nearest)])


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


def _responses(
    mapping: Mapping, x: FloatArray, y: FloatArray, size: int
) -> tuple[FloatArray, FloatArray]:
    """Mean transfer functions of the interpolation near output positions, ``(..., size)`` each."""
    steps = 13.0 * np.arange(-_PHASES, _PHASES + 1)
    east, north = (s.ravel() for s in np.meshgrid(steps, steps))
    near = mapping.at(x[..., None] + east, y[..., None] + north)
    table = _transfer_table(size)
    index = [np.rint(np.nan_to_num(p) % 1.0 * _TABLE_STEPS).astype(int) for p in near]
    return table[index[0]].mean(-2), table[index[1]].mean(-2)


@cache
def _transfer_table(size: int) -> FloatArray:
    """Transfer functions at all sub-pixel phases, for transforms of a given length."""
    phases = np.arange(_TABLE_STEPS + 1) / _TABLE_STEPS
    return transfer(phases[:, None], np.fft.fftfreq(size))


def _smoothed(stamp: FloatArray, along_x: FloatArray, along_y: FloatArray) -> FloatArray:
    """Apply the transfer functions of the interpolation."""
    size = len(along_x)
    spectrum = fft.rfft2(stamp, (size, size))
    spectrum *= along_y[:, None] * along_x[None, : size // 2 + 1]
    return np.asarray(fft.irfft2(spectrum, (size, size))[: stamp.shape[0], : stamp.shape[1]])


def _moved(stamp: FloatArray, jacobian: FloatArray) -> FloatArray:
    """Resample a stamp with a linear map, to unit sum."""
    from scipy.ndimage import affine_transform

    half = (len(stamp) - 1) / 2
    matrix = jacobian[::-1, ::-1]  # rows before columns
    offset = half - matrix @ np.full(2, half)
    moved = affine_transform(stamp, matrix, offset, order=5, mode="constant")
    return np.asarray(moved / moved[_disc(len(stamp))].sum())


@cache
def _disc(side: int) -> npt.NDArray[np.bool_]:
    """Pixels of a stamp that count for its flux."""
    v, u = np.mgrid[:side, :side] - (side - 1) / 2
    return np.asarray(np.hypot(u, v) <= Psf.FLUX_RADIUS)
