"""Noise of the sky as the pixels show it, against what files say of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.exposure import FloatArray, Image
from pipeline.io.planes import Raw

__all__ = [
    "checked_gain",
    "contradicting_gain",
    "given_variance",
    "measured_gain",
    "sky_blocks",
    "sky_noise",
]

_BLOCK = 64
_LEAST = 50
_FACTOR = 4.0
"""A variance that is off by more than this is looked at again: standard deviation, or weight?"""

_IMPOSSIBLE = 2.0
"""Photon noise of the sky over all its noise that no gain explains."""

_CLEAR_SKY = 5.0
"""Sky level over its noise from which on a gain follows from the two."""

_CROWDED = 1.15
"""Width of the darker half over that of its wing from which on sources crowd; noise has one."""

_DARK = 0.3
"""Share of the pixels of a crowded block that show its noise."""

_MEAN, _LIT, _AROUND, _CLIP = 5, 3.5, 9, 20.0
"""Box of means, widths above the sky at which they show light, pixels across that are then left
out, and widths to which single pixels count."""


def sky_noise(image: Image, bad: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Level and noise of the sky: medians over blocks of some 64 pixels, see `sky_blocks`.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Pixels.
    bad : ndarray of bool, (ny, nx)
        Pixels to leave out.

    Returns
    -------
    level, noise : float, image unit
        NaN where no block has 50 good pixels.
    """
    level, noise, _ = sky_blocks(image, bad)
    found = np.isfinite(level)
    if not found.any():
        return float("nan"), float("nan")
    return float(np.median(level[found])), float(np.median(noise[found]))


def sky_blocks(image: Image, bad: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray, bool]:
    """Level and noise of the sky in blocks of some 64 pixels, and whether sources crowd.

    Pixels with the light of sources are left out.  Where they crowd, none are without, and the
    darker half scatters by faint stars: its wing falls off faster than that of a Gaussian.  What
    differs between neighbours is noise all the same, and is looked at where the pixels round
    them, not they themselves, are dark.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Pixels.
    bad : ndarray of bool, (ny, nx)
        Pixels to leave out.

    Returns
    -------
    level, noise : ndarray, (rows, columns), image unit
        Median and half the width of the middle 68 per cent of each block; where sources crowd,
        median of its darkest places and width of what differs between neighbours there.
        Not-a-number with fewer than 50 good pixels.
    crowded : bool
        Whether they do.
    """
    level, noise, wing, _ = _open(image, bad)
    width, tail = (float(np.nanmedian(a)) if np.isfinite(a).any() else 0.0 for a in (noise, wing))
    if width > _CROWDED * tail:
        dark = _dark(image, bad)
        if np.isfinite(dark[0]).any():
            return *dark, True
    lit = _lit(image, bad, level, noise)
    if lit.any():
        free, _, _, scatter = _open(image, bad | lit)
        level = np.where(np.isnan(free), level, free)
        noise = np.where(np.isnan(scatter), noise, scatter)
    return level, noise, False


def _boxes(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Blocks of some 64 pixels, at least two per axis: row and column, and where they are."""
    tiles = [np.array_split(np.arange(n), max(2, n // _BLOCK)) for n in shape]
    for j, rows in enumerate(tiles[0]):
        for i, columns in enumerate(tiles[1]):
            yield (j, i), np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _per_block(shape: tuple[int, ...], n: int) -> FloatArray:
    return np.full((n, *(max(2, size // _BLOCK) for size in shape)), np.nan)


def _open(image: Image, bad: npt.NDArray[np.bool_]) -> FloatArray:
    """Median of each block, width of its darker half, of the wing beyond, and of both halves."""
    found = _per_block(image.shape, 4)
    for place, box in _boxes(image.shape):
        values = image[box][~bad[box]].astype(float)
        if values.size >= _LEAST:
            lowest, low, middle, high = np.percentile(values, [2.275, 15.865, 50.0, 84.135])
            widths = middle - low, low - lowest, 0.5 * (high - low)
            found[(slice(None), *place)] = middle, *widths
    return found


def _dark(image: Image, bad: npt.NDArray[np.bool_]) -> FloatArray:
    """Level and noise of the darkest places of each block."""
    curvature, around = _neighbours(image)
    found = _per_block(image.shape, 2)
    for place, box in _boxes(image.shape):
        good = ~bad[box]
        if int(good.sum()) >= _LEAST:
            found[(slice(None), *place)] = _darkest(image[box], curvature[box], around[box], ~good)
    return found


def _lit(
    image: Image, bad: npt.NDArray[np.bool_], level: FloatArray, noise: FloatArray
) -> npt.NDArray[np.bool_]:
    """Pixels with the light of sources that show in means of 5 × 5 pixels, and those around.

    The scatter of the means is measured on their darker half, for neighbours may share noise.
    """
    from scipy.ndimage import maximum_filter, uniform_filter

    pulls = np.zeros(image.shape, np.float32)
    for place, box in _boxes(image.shape):
        if noise[place] > 0:
            pulls[box] = (image[box] - level[place]) / noise[place]
    pulls[bad | ~np.isfinite(pulls)] = 0.0
    mean = uniform_filter(np.clip(pulls, -_CLIP, _CLIP), _MEAN)
    low, middle = np.percentile(mean[::2, ::2], [15.865, 50.0])
    bright = mean > middle + _LIT * (middle - low)
    return np.asarray(maximum_filter(bright, _AROUND))


def _neighbours(image: Image) -> tuple[Image, Image]:
    """Pixels against their four neighbours, with the scatter of one; mean of the four at corners.

    In white noise the two are independent.
    """
    curvature, around = np.full((2, *image.shape), np.float32(np.nan))
    near = image[1:-1, :-2] + image[1:-1, 2:] + image[:-2, 1:-1] + image[2:, 1:-1]
    curvature[1:-1, 1:-1] = (4 * image[1:-1, 1:-1] - near) / np.float32(20.0**0.5)
    corners = image[:-2, :-2] + image[:-2, 2:] + image[2:, :-2] + image[2:, 2:]
    around[1:-1, 1:-1] = corners / np.float32(4.0)
    return curvature, around


def _darkest(
    image: Image, curvature: Image, around: Image, bad: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """Level and noise where the surroundings of a pixel are dark; not-a-number with too few."""
    good = ~bad & np.isfinite(curvature) & np.isfinite(around)
    if int(good.sum()) < _LEAST:
        return float("nan"), float("nan")
    dark = good & (around <= np.percentile(around[good], 100.0 * _DARK))
    low, high = np.percentile(curvature[dark].astype(float), [15.865, 84.135])
    return float(np.median(image[dark])), float(0.5 * (high - low))


def measured_gain(
    image: Image, bad: npt.NDArray[np.bool_], read_noise: float = 0.0
) -> float | None:
    """Electrons per image unit from the photon noise of the sky, its pedestal taken as zero.

    Parameters
    ----------
    image, bad : ndarray, (ny, nx)
        Pixels, and those to leave out.
    read_noise : float, electron
        What scatters beside the photons.

    Returns
    -------
    float, electron per image unit, optional
        Janesick's photon transfer, from noise² = level / gain + (read noise / gain)²; None where
        the sky has been subtracted.
    """
    level, noise = sky_noise(image, bad)
    if not (noise > 0 and level > _CLEAR_SKY * noise):
        return None
    return 0.5 * (level + float(np.hypot(level, 2.0 * noise * read_noise))) / noise**2


def contradicting_gain(image: Image, bad: npt.NDArray[np.bool_], gain: float) -> str | None:
    """Say if a gain contradicts the noise: sky photons alone would scatter more than the sky does.

    Parameters
    ----------
    image, bad : ndarray, (ny, nx)
        Pixels, and those to leave out.
    gain : float, electron per image unit
        What is claimed.

    Returns
    -------
    str, optional
        A note; None if all is well or nothing can be said.
    """
    level, noise = sky_noise(image, bad)
    if not (noise > 0 and level > _CLEAR_SKY * noise):
        return None
    expected = float(np.sqrt(level / gain))
    fits = f"{level / noise**2:.3g} would fit"
    if expected > _IMPOSSIBLE * noise:
        return (
            f"gain {gain:g} contradicts the noise: {expected:.3g} expected of the sky,"
            f" {noise:.3g} measured; {fits} if there is no pedestal"
        )
    if expected < 0.25 * noise:
        return (
            f"gain {gain:g} leaves most of the noise unexplained: {expected:.3g} expected of the"
            f" sky, {noise:.3g} measured; {fits}"
        )
    return None


def checked_gain(image: Image, bad: npt.NDArray[np.bool_], gain: float) -> tuple[float, str | None]:
    """Gain to work with: the measured one where that of the header cannot be.

    Parameters
    ----------
    image, bad : ndarray, (ny, nx)
        Pixels, and those to leave out.
    gain : float, electron per image unit
        What is claimed.

    Returns
    -------
    gain : float, electron per image unit
        Another one only if the photons of the sky alone would scatter twice as much as it does.
    note : str, optional
        See `contradicting_gain`.
    """
    note = contradicting_gain(image, bad, gain)
    measured = measured_gain(image, bad)
    if note and measured is not None and measured > _IMPOSSIBLE**2 * gain:
        return measured, f"{note}; used"
    return gain, note


def given_variance(raw: Raw, bad: npt.NDArray[np.bool_], notes: list[str]) -> Image | None:
    """Variance of an image from the plane that came with it.

    Parameters
    ----------
    raw : Raw
        Image with a variance, a weight or neither.
    bad : ndarray of bool, (ny, nx)
        Pixels to leave out of comparisons.
    notes : list of str
        What was found is added here.

    Returns
    -------
    ndarray, (ny, nx), image unit squared, optional
        Not positive where there is no data; None if there is no such plane.

    Raises
    ------
    InputError
        If the plane is not a variance but a standard deviation or a weight.
    """
    if raw.variance is None and raw.weight is None:
        return None
    measured = sky_noise(raw.image, bad)[1] ** 2
    if raw.variance is None:
        assert raw.weight is not None
        return _from_weight(raw.weight, bad, measured, notes)
    good = ~bad & np.isfinite(raw.variance) & (raw.variance > 0)
    if measured > 0 and good.any():
        _compare(float(np.median(raw.variance[good])), measured, raw.files, notes)
    return raw.variance


def _from_weight(
    weight: Image, bad: npt.NDArray[np.bool_], measured: float, notes: list[str]
) -> Image:
    good = np.isfinite(weight) & (weight > 0)
    variance = np.divide(1.0, weight, out=np.zeros_like(weight), where=good)
    ratio = measured / float(np.median(variance[good & ~bad])) if (good & ~bad).any() else 1.0
    if measured > 0 and not 1 / _FACTOR < ratio < _FACTOR:
        variance *= np.float32(ratio)
        notes.append(f"weight: relative, scaled to the measured noise of the sky (1/{ratio:.3g})")
    else:
        notes.append("weight taken as inverse variance")
    return variance


def _compare(given: float, measured: float, files: tuple[Path, ...], notes: list[str]) -> None:
    ratio = measured / given
    if 1 / _FACTOR < ratio < _FACTOR:
        return
    for what, value, hint in (
        ("a weight (inverse variance)", 1.0 / given, "--science-weight or --template-weight"),
        ("a standard deviation (RMS)", given**2, "square it, or name its extension RMS"),
    ):
        if 0.5 < measured / value < 2.0:
            raise InputError(
                f"the variance plane is {what}: median {given:.3g}, measured noise squared"
                f" {measured:.3g}",
                path=files[0], expected="a variance", hint=hint,
            )  # fmt: skip
    notes.append(f"variance: {1 / ratio:.3g} times the measured noise of the sky, squared")
