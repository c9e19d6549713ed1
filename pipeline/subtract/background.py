"""Structure of the sky that no polynomial follows, and where a difference shows nothing else.

Moonlight, fringes, flat fields and amplifiers differ between two nights on scales of some tens of
pixels.  What can be told from noise is subtracted; what is finer is noise to the matched filter,
see `pipeline.subtract.excess`.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, polynomial_terms
from pipeline.smooth import hats
from pipeline.subtract.metrics import robust_std
from pipeline.subtract.pixels import pull_sums

__all__ = ["sky_polynomial", "sky_structure", "source_free", "subtract_polynomial"]

_LOG = logging.getLogger(__name__)

_CELL = 64
_LEAST = 400
"""Pixels of a cell that say something."""

_FEW_CELLS = 8
_SIGNIFICANT = 3.0
"""Standard errors from which on structure is subtracted."""

_CHANGED, _HALO, _STEP = 6.0, 10, 3
"""Boxes that show what has changed: threshold in σ, what is hidden round them, their distance."""


def source_free(
    image: Image, variance: Image, blank: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Blank pixels without the surroundings of what has changed, light that is no background.

    Sums of pulls over boxes as wide as a PSF find what has changed nearly as well as the matched
    filter, which cannot be had before the background is known.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        Whitened difference and the variance of its source-free model.
    blank : ndarray of uint8, (ny, nx)
        Non-zero where the template shows nothing.

    Returns
    -------
    ndarray of uint8, (ny, nx)
        The same without the surroundings of boxes that stand out of the others.
    """
    boxes = _box_pulls(image, variance, blank)
    limit = _CHANGED * robust_std(boxes[boxes != 0])
    out = blank.copy()
    for y, x in zip(*(_STEP * k for k in np.nonzero(np.abs(boxes) > limit)), strict=True):
        out[max(0, y - _HALO) : y + _HALO + 1, max(0, x - _HALO) : x + _HALO + 1] = 0
    return out


@compiled
def _box_pulls(image: Image, variance: Image, blank: npt.NDArray[np.uint8]) -> Image:
    """Σz / √n of 5 × 5 pixels round every third one, both ways; zero where none counts."""
    ny, nx = image.shape
    out = np.zeros((-(-ny // _STEP), -(-nx // _STEP)), np.float32)
    sums, counts = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    for j in range(out.shape[0]):
        sums[:], counts[:] = 0, 0
        for y in range(max(0, _STEP * j - 2), min(ny, _STEP * j + 3)):
            for x in range(nx):
                if blank[y, x]:
                    sums[x] += image[y, x] / np.sqrt(variance[y, x])
                    counts[x] += 1
        for i in range(out.shape[1]):
            low, high = max(0, _STEP * i - 2), min(nx, _STEP * i + 3)
            n = counts[low:high].sum()
            if n > 0:
                out[j, i] = sums[low:high].sum() / np.sqrt(n)
    return out


def sky_polynomial(
    image: Image, variance: Image, blank: npt.NDArray[np.uint8], order: int
) -> FloatArray:
    """Fit a polynomial to the means of cells of a difference.

    Stamps of stars tell the kernel, but the sky only to some hundredths of the noise of a pixel,
    which the matched filter adds up; the source-free pixels are many times as many.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Whitened difference.
    variance : ndarray, (ny, nx)
        Variance of its source-free model.
    blank : ndarray of uint8, (ny, nx)
        Non-zero where there is nothing but noise.
    order : int
        Largest degree; 0 where fewer than twelve cells have such pixels.

    Returns
    -------
    ndarray, (6,)
        Coefficients of a quadratic as in `pipeline.exposure.polynomial_terms`; zero without pixels.
    """
    ny, nx = image.shape
    cells = max(1, round(ny / _CELL)), max(1, round(nx / _CELL))
    count, total = np.moveaxis(pull_sums(image, variance, blank, *cells), -1, 0)
    out = np.zeros(6)
    if not count.any():
        return out
    y, x = (a.ravel() for a in np.mgrid[: cells[0], : cells[1]] + 0.5)
    x, y, count, total = x * nx / cells[1], y * ny / cells[0], count.ravel(), total.ravel()
    design = polynomial_terms(x, y, (ny, nx), order if np.count_nonzero(count) >= 12 else 0)
    mean, root = _typical(variance, blank) * total / np.maximum(count, 1.0), np.sqrt(count)
    out[: design.shape[1]] = np.linalg.lstsq(design * root[:, None], mean * root, rcond=None)[0]
    _LOG.info("sky of the difference in the middle: %.4g", out[0])
    return out


def subtract_polynomial(image: Image, terms: FloatArray) -> None:
    """Subtract a quadratic from an image, in place.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        The image.
    terms : ndarray, (6,)
        Its coefficients, see `sky_polynomial`.
    """
    ny, nx = image.shape
    u, v = (polynomial_terms(np.arange(n), 0, (1, n), 1)[:, 1] for n in (nx, ny))
    columns = np.stack([np.ones(nx), u, u**2]).astype(np.float32)
    by_row = [terms[0] + terms[2] * v + terms[5] * v**2, terms[1] + terms[4] * v, 0 * v + terms[3]]
    rows = np.stack(by_row, axis=1).astype(np.float32)
    for first in range(0, ny, _CELL):
        image[first : first + _CELL] -= rows[first : first + _CELL] @ columns


def sky_structure(image: Image, variance: Image, blank: npt.NDArray[np.uint8]) -> Image | None:
    """Take off a background that varies from cell to cell, or from row to row, by more than noise.

    Means of cells, then of rows, are shrunk towards zero by the share that noise has in their
    scatter, so that no more is taken off than is there.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Whitened difference, changed in place.
    variance : ndarray, (ny, nx)
        Variance of its source-free model.
    blank : ndarray of uint8, (ny, nx)
        Non-zero where there is nothing but noise.

    Returns
    -------
    ndarray, (ny, nx), optional
        What was taken off; None if the means scatter no more than they should.
    """
    ny, nx = image.shape
    cells = (max(1, round(ny / _CELL)), max(1, round(nx / _CELL)))
    background = None
    for tiles in (cells, (ny, 1)):
        found = _means(image, variance, blank, tiles)
        if found is not None:
            image -= found
            background = found if background is None else np.add(background, found, out=found)
    return background


def _means(
    image: Image, variance: Image, blank: npt.NDArray[np.uint8], tiles: tuple[int, int]
) -> Image | None:
    """Shrunken means of tiles as a smooth image; None if they are what noise makes of nothing."""
    least = max(1, min(_LEAST, image.size // (2 * tiles[0] * tiles[1])))
    count, total = np.moveaxis(pull_sums(image, variance, blank, *tiles), -1, 0)
    known = count >= least
    if np.count_nonzero(known) < _FEW_CELLS:
        return None
    pulls = total[known] / np.sqrt(count[known])
    excess = robust_std(pulls - np.median(pulls)) ** 2 - 1.0
    # The robust variance of n values is known to 2.3 / √n of itself.
    if excess < _SIGNIFICANT * 2.3 / np.sqrt(known.sum()):
        return None
    power = excess / float(np.median(count[known]))
    number = np.maximum(count, 1.0)
    mean = total / number * power / (power + 1.0 / number)
    nodes = (_typical(variance, blank) * mean).astype(np.float32)
    if nodes.shape[0] < len(image):
        nodes = hats(len(image), tiles[0]) @ nodes
    return np.asarray(nodes @ hats(image.shape[1], tiles[1]).T)


def _typical(variance: Image, blank: npt.NDArray[np.uint8]) -> float:
    """Noise of a source-free pixel, the median."""
    return float(np.sqrt(np.median(variance[blank > 0][::9])))
