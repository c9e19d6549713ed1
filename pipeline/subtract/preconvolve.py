"""A short filter for the image that is matched, where no short kernel could match the other to it.

A kernel divides by the transfer function of the image that it convolves.  Where that of a trailed
or otherwise odd PSF changes its sign, the quotient has a pole, and the kernel rings on far beyond
its stamps.  If the image that has to be matched is first convolved with a short filter C that
vanishes there as well, the kernel κ = C P_target / P_source is short again (cross-convolution,
Yuan & Akerlof 2008, ApJ 677, 808).  The decorrelation whitens what C has coloured: the filtered
image is an image like any other, with noise of a known autocovariance.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from pipeline.exposure import Exposure, FloatArray, GridPsf, MatchingKernel, Psf
from pipeline.subtract.basis import Basis
from pipeline.subtract.convolve import centres, convolve
from pipeline.subtract.masks import spread
from pipeline.subtract.prepare import WorkingImage

__all__ = ["design_filter", "filtered"]

_HALF = 3
"""Half width of the filter; one zero of a transfer function takes three pixels in its direction."""

_RIDGE = 2e-4
"""What holds the filter near δ, in units of Σ P²: room for errors of the PSF models."""

_STABLE = 2e-6
"""What keeps the equations of the kernel regular, in the same units."""

_WEIGHT = 2.0
"""Width of the Gaussian, pixel, within which the middle of a PSF is kept where it was."""


def design_filter(source: FloatArray, target: FloatArray, basis: Basis) -> FloatArray:
    """Find the filter that lets a short kernel match two PSFs.

    Filter and kernel together are a ridge regression: what is left of C ⊗ P_target − κ ⊗ P_source
    is balanced against the size of C − δ, for what C suppresses the decorrelation lifts again.
    The Gaussian-weighted middle of C ⊗ P_target is that of P_target: only the kernel moves images.

    Parameters
    ----------
    source, target : ndarray, (side, side)
        PSF of the image that is convolved and of the one it has to match, of unit flux.
    basis : Basis
        Functions of the kernel.

    Returns
    -------
    ndarray, (7, 7)
        C, of unit sum.
    """
    side, half = 2 * _HALF + 1, basis.lines.shape[1] // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(target, _HALF), (side, side))
    shifted = windows[..., ::-1, ::-1].reshape(target.size, -1).T - target.ravel()
    matched = np.empty((1, basis.size, *target.shape), np.float32)
    basis.convolve(np.pad(source, half)[None], matched)
    design = np.concatenate([-shifted, matched.reshape(basis.size, -1).astype(float)])
    matrix = design @ design.T
    unit, n = float((target**2).sum()), side**2
    matrix[np.diag_indices_from(matrix)] += unit * _STABLE
    # What the other pixels gain, the middle loses: |C − δ|² = Σ c² + (Σ c)².
    matrix[:n, :n] += unit * _RIDGE * (np.identity(n) + 1.0)
    pull = np.zeros((len(matrix), 2))
    pull[:n] = shifted @ _middle(len(target))
    zeros = np.zeros((2, 2))
    moved = np.linalg.solve(
        np.block([[matrix, pull], [pull.T, zeros]]), np.append(design @ target.ravel(), [0.0, 0.0])
    )[:n]
    moved[n // 2] += 1.0 - moved.sum()
    return np.asarray(moved.reshape(side, side))


def _middle(side: int) -> FloatArray:
    """Weights, (side², 2), whose sums with a stamp are its weighted moments in x and y."""
    y, x = np.indices((side, side)) - side // 2
    weight = np.exp(-0.5 * (x**2 + y**2) / _WEIGHT**2)
    return np.stack([(weight * x).ravel(), (weight * y).ravel()], axis=1)


def filtered(
    exposure: Exposure,
    working: WorkingImage,
    name: str,
    kernel: FloatArray,
    share: float,
    core: int,
) -> Exposure:
    """Convolve an exposure, with all that is known of it, with a filter.

    Parameters
    ----------
    exposure : Exposure
        The image; it has a PSF.
    working : WorkingImage
        Its working copy.
    name : str
        ``science`` or ``template``.
    kernel : ndarray, (side, side)
        The filter, of unit sum.
    share : float
        A pixel is masked when masked pixels carry this share of Σ|C|.
    core : int, pixel
        Size of the tiles.

    Returns
    -------
    Exposure
        Image, variance, mask, PSF and noise autocovariance of C ⊗ image.
    """
    assert exposure.psf is not None
    correlation, gain = _correlation(working.correlation, kernel)
    variance = convolve(working.variance, _constant(kernel**2, exposure.shape), core)
    return exposure.replace(
        image=convolve(working.image, _constant(kernel, exposure.shape), core)
        + np.float32(working.level),
        variance=np.maximum(variance, np.finfo(np.float32).tiny)
        * np.float32(gain / (kernel**2).sum()),
        mask=spread(exposure.mask, name, kernel, share, working.bridged),
        psf=_psf(exposure.psf, kernel, exposure.shape, core),
        noise_correlation=correlation,
    )


def _constant(kernel: FloatArray, shape: tuple[int, int]) -> MatchingKernel:
    """Make a kernel that is the same everywhere."""
    return MatchingKernel(
        kernel[None], np.ones((1, 1)), 0, shape, np.zeros(1), 1.0, np.zeros((0, 4))
    )


def _correlation(known: FloatArray | None, kernel: FloatArray) -> tuple[FloatArray, float]:
    """Autocovariance of the filtered noise, one in the middle, and the median gain in variance."""
    if known is None:
        known = np.ones((1, 1, 1, 1))
    side = known.shape[-1] + 2 * (kernel.shape[-1] - 1)
    power = np.abs(fft.rfft2(kernel, (side, side))) ** 2
    reach = kernel.shape[-1] - 1
    full = fft.irfft2(power * fft.rfft2(known, (side, side)), (side, side))
    full = np.roll(full, (reach, reach), axis=(-2, -1))
    gain = full[..., side // 2 : side // 2 + 1, side // 2 : side // 2 + 1]
    return full / gain, float(np.median(gain))


def _psf(psf: Psf, kernel: FloatArray, shape: tuple[int, int], core: int) -> GridPsf:
    """PSF of the filtered image, with a node in the middle of every tile."""
    x, y = centres(shape, core)
    half = kernel.shape[-1] // 2
    wide = np.pad(psf.stamps(x, y), ((0, 0), (half, half), (half, half)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, kernel.shape, (1, 2))
    cube = np.tensordot(windows, kernel[::-1, ::-1], axes=2)
    x, y = np.unique(x), np.unique(y)
    return GridPsf(cube.reshape(len(y), len(x), *cube.shape[1:]), x, y)
