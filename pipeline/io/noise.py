"""Noise of the sky as the pixels show it, against what files say of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.exposure import Image
from pipeline.io.planes import Raw

__all__ = ["checked_gain", "contradicting_gain", "given_variance", "measured_gain", "sky_noise"]

_BLOCK = 64
_LEAST = 50
_FACTOR = 4.0
"""A variance that is off by more than this is looked at again: standard deviation, or weight?"""

_IMPOSSIBLE = 2.0
"""Photon noise of the sky over all its noise that no gain explains."""

_CLEAR_SKY = 5.0
"""Sky level over its noise from which on a gain follows from the two."""


def sky_noise(image: Image, bad: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Level and noise of the sky: median over blocks of 64 pixels of the darker half's width.

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
    found = []
    for y in range(0, image.shape[0], _BLOCK):
        for x in range(0, image.shape[1], _BLOCK):
            box = np.s_[y : y + _BLOCK, x : x + _BLOCK]
            values = image[box][~bad[box]]
            if values.size >= _LEAST:
                low, middle = np.percentile(values.astype(float), [15.865, 50.0])
                found.append((middle, middle - low))
    if not found:
        return float("nan"), float("nan")
    level, noise = np.median(found, axis=0)
    return float(level), float(noise)


def measured_gain(image: Image, bad: npt.NDArray[np.bool_]) -> float | None:
    """Electrons per image unit from the photon noise of the sky, its pedestal taken as zero.

    Parameters
    ----------
    image, bad : ndarray, (ny, nx)
        Pixels, and those to leave out.

    Returns
    -------
    float, electron per image unit, optional
        Janesick's photon transfer, level over variance; None where the sky has been subtracted.
    """
    level, noise = sky_noise(image, bad)
    if not (noise > 0 and level > _CLEAR_SKY * noise):
        return None
    return level / noise**2


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
