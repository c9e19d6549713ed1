"""What real skies leave in a difference: structure that no polynomial follows, correlated noise.

Moonlight, fringes, flat fields and amplifiers differ between two nights on scales of some tens of
pixels.  What can be told from noise is subtracted; what is finer, the matched filter adds up, so
its normalisation has to know of it.  Neither changes a difference whose noise is as expected.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray, GridPsf, Image
from pipeline.subtract.metrics import robust_std
from pipeline.subtract.pixels import region_sums

__all__ = ["noise_excess", "structure"]

_CELL = 64
_LEAST = 400
"""Pixels of a cell that say something."""

_FEW = 8
_SIGNIFICANT = 4.0
_BEAM = 25.0
"""Pixels that share one independent value of the score."""


def structure(image: Image, variance: Image, blank: npt.NDArray[np.uint8]) -> Image | None:
    """Background that varies from cell to cell, or from row to row, by more than noise.

    Means of cells, then of rows, are shrunk towards zero by the share that noise has in their
    scatter, so that no more is taken off than is there.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        Whitened difference and the variance of its source-free model.
    blank : ndarray of uint8, (ny, nx)
        Non-zero where there is nothing but noise.

    Returns
    -------
    ndarray, (ny, nx), optional
        The background; None if the means scatter no more than they should.
    """
    ny, nx = image.shape
    cells = (max(1, round(ny / _CELL)), max(1, round(nx / _CELL)))
    background = None
    for tiles in (cells, (ny, 1)):
        left = image if background is None else image - background
        found = _means(left, variance, blank, tiles)
        if found is not None:
            background = found if background is None else background + found
    return background


def _means(
    image: Image, variance: Image, blank: npt.NDArray[np.uint8], tiles: tuple[int, int]
) -> Image | None:
    """Shrunken means of tiles as a smooth image; None if they are what noise makes of nothing."""
    least = min(_LEAST, image.size // (2 * tiles[0] * tiles[1]))
    count, total = np.moveaxis(region_sums(image, variance, blank, *tiles)[..., :2], -1, 0)
    known = count >= least
    if np.count_nonzero(known) < _FEW:
        return None
    pulls = total[known] / np.sqrt(count[known])
    excess = robust_std(pulls - np.median(pulls)) ** 2 - 1.0
    # The robust variance of n values is known to 2.3 / √n of itself.
    if excess < _SIGNIFICANT * 2.3 / np.sqrt(known.sum()):
        return None
    power = excess / float(np.median(count[known]))
    number = np.maximum(count, 1.0)
    mean = total / number * power / (power + 1.0 / number)
    noise = np.sqrt(np.median(variance[blank > 0]))
    rows, columns = (_bilinear(n, t) for n, t in zip(image.shape, tiles, strict=True))
    return np.asarray(rows @ (noise * mean).astype(np.float32) @ columns.T)


def _bilinear(size: int, nodes: int) -> Image:
    """Weights, (size, nodes), of nodes in the middle of even cells; constant beyond the last."""
    place = np.clip((np.arange(size) + 0.5) * nodes / size - 0.5, 0, nodes - 1)
    low = np.minimum(place.astype(int), max(nodes - 2, 0))
    out = np.zeros((size, nodes), np.float32)
    out[np.arange(size), low] = 1.0 - (place - low)
    out[np.arange(size), np.minimum(low + 1, nodes - 1)] += place - low
    return out


def noise_excess(
    score: Image,
    variance: Image,
    null_variance: Image,
    blank: npt.NDArray[np.uint8],
    psf: GridPsf,
) -> float:
    """Factor by which a score scatters more than its noise model says, one if it does not.

    Parameters
    ----------
    score : ndarray, (ny, nx)
        The matched filter's signal to noise.
    variance, null_variance : ndarray, (ny, nx)
        Variance of the difference, sources included and not.
    blank : ndarray of uint8, (ny, nx)
        Non-zero where there is nothing but noise.
    psf : GridPsf
        PSF of the difference.

    Returns
    -------
    float
        The factor, at least one.
    """
    quiet = blank > 0
    number = int(np.count_nonzero(quiet))
    if number < 10 * _BEAM:
        return 1.0
    limit = 1.0 + _SIGNIFICANT * 1.17 * np.sqrt(_BEAM / number)
    if robust_std(score[::3, ::3][quiet[::3, ::3]]) < limit:
        return 1.0
    # Photons of sources nearby are noise that the score does not count, and no reason to rescale.
    expected = _expected(variance, null_variance, psf)
    factor = robust_std((score / expected)[::3, ::3][quiet[::3, ::3]])
    return factor if factor >= limit else 1.0


def _expected(variance: Image, null_variance: Image, psf: GridPsf) -> FloatArray:
    """Scatter of the score that its definition allows, with the PSF of the middle."""
    from scipy.signal import fftconvolve

    stamp = psf.cube[len(psf.y) // 2, len(psf.x) // 2, ::-1, ::-1] ** 2
    known = np.isfinite(variance) & (null_variance > 0)
    weight = np.where(known, 1.0 / np.where(known, null_variance, 1.0), 0.0)
    with_sources = np.where(known, variance, 0.0) * weight**2
    sums = [fftconvolve(plane, stamp, mode="same") for plane in (with_sources, weight)]
    floor = 1e-3 * float(np.median(sums[1][known])) if known.any() else 1.0
    return np.sqrt(np.maximum(sums[0], floor) / np.maximum(sums[1], floor))
