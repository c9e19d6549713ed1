"""What is left of the wings of bright stars, as noise of the score: ring by ring.

Kernel and PSF end within the wings, whose shape changes from image to image; the core of a
saturated star, which would tell its flux, is lost as well.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled, pixel
from pipeline.exposure import FloatArray, Image
from pipeline.statistics import MAD_TO_SIGMA

__all__ = ["count_rings"]

_MOST_RING = 0.3
"""Largest share of the light of a star's wings that may be left in a ring: what varies by half and
outshines the wings three times is seen."""

_RING, _RINGS, _MOST_RINGS = 3.0, 16, 24
"""Width of the rings, in pixels, their number, and up to how many as long as each has something."""

_WINGS = 2, 8
"""Rings of stars that are not saturated: what is nearer could be their own variation, what is
farther is too faint to show."""

_BEAM = 30.0
"""Pixels that share one independent value of the score."""

_MOST_RINGED = 2000
_RING_TAIL = 0.8  # a variable covers less than a fifth of a ring
_SIGMAS_AT_RING_TAIL = 1.2815516  # Φ⁻¹(0.9)


def count_rings(
    significance: Image,
    scale: npt.NDArray[np.float32],
    scene: Image,
    usable: npt.NDArray[np.uint8],
    stars: FloatArray,
    saturated: npt.NDArray[np.bool_],
) -> None:
    """Divide a score by its noise with what is left of the wings of bright stars, in place.

    Parameters
    ----------
    significance : ndarray, (ny, nx)
        Score of the difference, divided by `scale`.
    scale : ndarray, (ny, nx)
        What it was divided by; multiplied by what it is divided by here.
    scene : ndarray, (ny, nx)
        As in `pipeline.subtract.scene.measure_scene`.
    usable : ndarray of uint8, (ny, nx)
        Pixels that count.
    stars : ndarray, (n, 2), pixel
        Centres x and y, the brightest first.
    saturated : ndarray of bool, (n,)
        Those whose cores are lost; of the others, rings within six pixels are left alone.
    """
    ring = np.zeros(significance.shape, np.float32)
    for (x, y), lost in zip(stars[:_MOST_RINGED], saturated, strict=False):
        rings = (1, _MOST_RINGS) if lost else _WINGS  # the star itself may vary
        _ring_noise(significance, scale, scene, usable, x, y, rings, ring)
    _divide(significance, scale, ring)


@compiled
def _ring_noise(
    significance: Image,
    scale: npt.NDArray[np.float32],
    scene: Image,
    usable: npt.NDArray[np.uint8],
    x: float,
    y: float,
    rings: tuple[int, int],
    out: npt.NDArray[np.float32],
) -> None:
    """Noise of the score in the rings round a star; where rings of stars meet, the larger one."""
    first, end = rings
    (ny, nx), reach = scene.shape, _RING * end
    y0, y1 = max(0, pixel(y - reach)), min(ny, pixel(y + reach) + 2)
    x0, x1 = max(0, pixel(x - reach)), min(nx, pixel(x + reach) + 2)
    size = max(0, y1 - y0) * max(0, x1 - x0)
    ring, count = np.full(size, -1), np.zeros(end, np.int64)
    values = np.empty((end, 3, int(8.0 * _RING * reach)))
    for k in range(size):
        j, i = y0 + k // (x1 - x0), x0 + k % (x1 - x0)
        n = int(np.sqrt((i - x) ** 2 + (j - y) ** 2) / _RING)
        if n >= end:
            continue
        ring[k] = n
        if usable[j, i]:
            values[n, :, count[n]] = abs(significance[j, i]), scale[j, i], scene[j, i]
            count[n] += 1
    level = np.zeros(end)
    for n in range(first, end):
        if n >= _RINGS and level[n - 1] == 0.0:
            break
        if count[n] > 0:
            level[n] = _ring_level(values[n, :, : count[n]])
    for k in range(size):
        j, i = y0 + k // (x1 - x0), x0 + k % (x1 - x0)
        if ring[k] >= 0:
            out[j, i] = max(out[j, i], level[ring[k]])


@compiled
def _ring_level(values: FloatArray) -> float:
    """Noise that explains the scores of a ring (3, n: |score|, scale, light), within the bound."""
    core, tail = np.median(values[0]) * MAD_TO_SIGMA, np.quantile(values[0], _RING_TAIL)
    width = max(core, tail / _SIGMAS_AT_RING_TAIL)
    if width < 1.0 + 2.0 / np.sqrt(values.shape[1] / _BEAM):
        return 0.0
    noise = np.sqrt(width * width - 1.0) * np.median(values[1])
    return float(max(0.0, min(noise, _MOST_RING * np.median(values[2]))))


@compiled
def _divide(significance: Image, scale: npt.NDArray[np.float32], ring: Image) -> None:
    """Add the noise of rings to that of the score."""
    one = np.float32(1.0)
    for y in range(ring.shape[0]):
        for x in range(ring.shape[1]):
            if ring[y, x] > 0.0:
                factor = np.sqrt(one + (ring[y, x] / scale[y, x]) ** 2)
                significance[y, x] /= factor
                scale[y, x] *= factor
