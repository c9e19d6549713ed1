"""What real skies leave in a difference: structure that no polynomial follows, correlated noise.

Moonlight, fringes, flat fields and amplifiers differ between two nights on scales of some tens of
pixels.  What can be told from noise is subtracted; what is finer, the matched filter adds up, so
its normalisation has to know of it.  Neither changes a difference whose noise is as expected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image
from pipeline.psfphot import hats
from pipeline.subtract.metrics import robust_std
from pipeline.subtract.pixels import region_sums

__all__ = [
    "Colour",
    "Sky",
    "colour",
    "dark_sky",
    "looks_wide",
    "noise_excess",
    "structure",
    "without_changes",
]

_CELL = 64
_LEAST = 400
"""Pixels of a cell that say something."""

_FEW = 8
_SIGNIFICANT, _NOTABLE = 3.0, 2.0
"""Standard errors from which on structure is taken off, and a score is rescaled."""

_RELEVANT = 0.02
"""Excess of the score's width that is worth a second look."""

_BEAM = 25.0
"""Pixels that share one independent value of the score."""

_CALM, _BOX = 1.04, 7
_CLIP = 4.0
_CHANGED, _HALO, _STEP = 6.0, 10, 3
"""Boxes that show what has changed: threshold in σ, what is hidden round them, their distance."""

_MOST, _BLOCK = 2048, 1024
"""Pixels per axis, in the middle, that are looked at, and at a time."""

_REACH = 30
"""Largest lag looked at."""

_WIDTHS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


@dataclass(frozen=True, slots=True)
class Colour:
    """Correlated noise beyond that of the model.

    Attributes
    ----------
    share : float
        Its variance over that of the white noise.
    width : float, pixel
        Its autocovariance falls as a Gaussian of this width.
    """

    share: float
    width: float

    def power(self, size: tuple[int, int]) -> FloatArray:
        """Power over that of the white noise on the half plane of a real transform."""
        ky, kx = fft.fftfreq(size[0])[:, None], fft.rfftfreq(size[1])[None, :]
        k2 = (2 * np.pi) ** 2 * (kx**2 + ky**2)
        return np.asarray(
            self.share * 2 * np.pi * self.width**2 * np.exp(-0.5 * k2 * self.width**2)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sky:
    """What a first look at a difference found.

    Attributes
    ----------
    background : ndarray, (ny, nx), optional
        From `structure`.
    colour : Colour
        From `colour`, with the background gone.
    """

    background: Image | None
    colour: Colour


def without_changes(
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


def structure(image: Image, variance: Image, blank: npt.NDArray[np.uint8]) -> Image | None:
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
    thin = np.s_[::3, ::3]
    noise = np.sqrt(np.median(variance[thin][blank[thin] > 0]))
    nodes = (noise * mean).astype(np.float32)
    if nodes.shape[0] < len(image):
        nodes = hats(len(image), tiles[0]) @ nodes
    return np.asarray(nodes @ hats(image.shape[1], tiles[1]).T)


def noise_excess(score: Image, dark: npt.NDArray[np.bool_]) -> float:
    """Factor by which a score scatters more than its noise model says, one if it does not.

    Parameters
    ----------
    score : ndarray, (ny, nx)
        The matched filter's signal to noise.
    dark : ndarray of bool, (ny, nx)
        Pixels with nothing but noise, see `dark_sky`.

    Returns
    -------
    float
        The factor, at least one.
    """
    values = score[dark]
    return robust_std(values) if _too_wide(values, 1, _NOTABLE) else 1.0


def looks_wide(score: Image, blank: npt.NDArray[np.uint8]) -> bool:
    """Whether a score scatters by more than one; a quick look, for most differences do not."""
    return _too_wide(score[::3, ::3][blank[::3, ::3] > 0], 9, _NOTABLE)


def _too_wide(values: npt.NDArray[np.floating], each: int, significance: float) -> bool:
    """Whether values of a score, one of `each` pixels, scatter by more than one.

    By significantly more, that is, and by so much that it matters.
    """
    number = max(values.size * each / _BEAM, 1.0)
    excess = max(_RELEVANT, significance * 1.17 / np.sqrt(number))
    return bool(number > _FEW and robust_std(values) > 1.0 + excess)


def dark_sky(
    variance: Image, null_variance: Image, blank: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """Blank pixels whose score hardly knows the photons of sources nearby.

    They are noise that the score does not count: none of the model's business here.

    Parameters
    ----------
    variance, null_variance : ndarray, (ny, nx)
        Variance of the difference, sources included and not.
    blank : ndarray of uint8, (ny, nx)
        Non-zero where there is nothing but noise.

    Returns
    -------
    ndarray of bool, (ny, nx)
        The pixels.
    """
    from scipy.ndimage import uniform_filter

    share = np.divide(variance, null_variance, where=blank > 0, out=np.ones_like(variance))
    uniform_filter(share, _BOX, output=share)
    quiet = blank > 0
    if quiet.any():
        quiet &= share < _CALM * np.percentile(share[::3, ::3][quiet[::3, ::3]], 25)
    return np.asarray(quiet)


def colour(
    image: Image, variance: Image, score: Image, dark: npt.NDArray[np.bool_]
) -> Colour | None:
    """Noise that neighbours share beyond what the images explain: fringes, flat fields, drifts.

    Its autocovariance is described by a Gaussian of the lag, fitted to the rings of that of the
    whitened difference.  Places that stand out are left aside: changes and what bright stars
    leave are no noise, though a few per cent of the pixels with them would look like it.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        Whitened difference and the variance of its source-free model.
    score : ndarray, (ny, nx)
        Its matched filter's signal to noise, which shows whether there is any.
    dark : ndarray of bool, (ny, nx)
        Pixels with nothing but noise, see `dark_sky`.

    Returns
    -------
    Colour, optional
        The noise; None if there is none.
    """
    dark = without_changes(image, variance, dark.view(np.uint8)) > 0
    if not _too_wide(score[::2, ::2][dark[::2, ::2]], 4, _SIGNIFICANT):
        return None
    middle = tuple(
        slice(max(0, n - _MOST) // 2, max(0, n - _MOST) // 2 + _MOST) for n in dark.shape
    )
    image, variance, dark = image[middle], variance[middle], dark[middle]
    pulls = np.sqrt(variance)
    np.divide(image, pulls, out=pulls)
    use = dark & (pulls > -_CLIP) & (pulls < _CLIP)
    if np.count_nonzero(use) < _LEAST:
        return None
    pulls -= np.mean(pulls, where=use)
    pulls[~use] = 0.0
    sums, counts = _autocovariance(pulls), _autocovariance(use.astype(np.float32))
    lags = np.arange(-_REACH, _REACH + 1)
    rho = sums / sums[_REACH, _REACH] * counts[_REACH, _REACH] / counts
    radius = np.hypot(lags[:, None], lags)
    ring = (radius > 0) & (radius <= _REACH) & (lags[:, None] != 0)
    best = min((_fit_ring(rho[ring], radius[ring], width) for width in _WIDTHS), key=lambda f: f[0])
    return Colour(best[1], best[2]) if best[1] > 0 else None


def _autocovariance(plane: Image) -> FloatArray:
    """Sum the products of pixels that lie up to `_REACH` apart, block by block to save memory."""
    total = np.zeros((2 * _REACH + 1,) * 2)
    lags = np.arange(-_REACH, _REACH + 1)
    for y in range(0, plane.shape[0], _BLOCK):
        for x in range(0, plane.shape[1], _BLOCK):
            block = plane[y : y + _BLOCK, x : x + _BLOCK]
            size = [fft.next_fast_len(n + _REACH, real=True) for n in block.shape]
            sums = fft.irfft2(np.abs(fft.rfft2(block, size)) ** 2, size)
            total += sums[lags[:, None], lags]
    return total


def _fit_ring(rho: FloatArray, radius: FloatArray, width: float) -> tuple[float, float, float]:
    """Fit a Gaussian of one width and a constant: sum of squares, height, width."""
    design = np.stack([np.exp(-0.5 * (radius / width) ** 2), np.ones_like(radius)], axis=1)
    solution, *_ = np.linalg.lstsq(design, rho, rcond=None)
    return float(np.sum((rho - design @ solution) ** 2)), float(solution[0]), width
