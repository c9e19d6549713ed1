"""The best possible difference of a simulated pair: what a subtraction can be compared with.

The noise-free scenes are taken off both images, so that nothing is left but noise and transients,
and what is left is subtracted properly (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27, with the noise
power P of a resampled template).  With the true PSFs p and q of science and template, the true
ratio r of their fluxes and their variances s and t,

    D = (q N - r p R) √(s + r² t P(0)) / √(s |q|² + r² t P |p|²)

is white, and a source keeps its flux in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import fft

from bench.pairs import RATIO, Pair
from bench.quality import Planes
from pipeline.exposure import GridPsf
from pipeline.masks import bits
from pipeline.subtract.convolve import tiles

__all__ = ["proper"]

_CORE, _GRID, _HALF, _PSF_HALF = 256, 128, 32, 20
_FLOOR = 1e-14


def proper(pair: Pair) -> Planes:
    """Subtract without error."""
    both = (pair.science, pair.template)
    usable = ((pair.science.mask | pair.template.mask) & bits("SAT", "NO_DATA", "BAD")) == 0
    usable &= np.isfinite(pair.template.image)
    noise = [
        _padded(np.where(usable, e.image - scene, 0.0))
        for e, scene in zip(both, (pair.static, pair.scene), strict=True)
    ]
    variances = [np.nan_to_num(e.variance) for e in both]
    spread = [_padded(v) for v in variances]
    image, variance = (np.empty(pair.static.shape, np.float32) for _ in range(2))
    stamps, rows, columns = [], set(), set()
    for box in tiles(pair.static.shape, _CORE):
        y, x = ((b.start + b.stop - 1) / 2 for b in box)
        powers = [float(np.median(v[box][usable[box]])) for v in variances]
        kernels, psf, correction = _filters(pair, x, y, powers)
        image[box] = sum(_local(n, k, box) for n, k in zip(noise, kernels, strict=True))
        added = sum(_local(v, k**2, box) for v, k in zip(spread, kernels, strict=True))
        variance[box] = correction * np.maximum(added, 1e-3 * np.median(added))
        stamps.append(psf)
        rows.add(y)
        columns.add(x)
    nodes = np.array(sorted(columns)), np.array(sorted(rows))
    cube = np.array(stamps).reshape(len(rows), len(columns), *stamps[0].shape)
    return Planes(image, variance, GridPsf(cube, *nodes), usable)


def _filters(pair: Pair, x: float, y: float, powers: list[float]) -> tuple[list[Any], Any, float]:
    """Filters of science and template, PSF of the difference, correction of its variance."""
    stamps = [e.psf.at(x, y) for e in (pair.science, pair.template)]
    p, q = (_spectrum(stamp / stamp.sum()) for stamp in stamps)
    colour = _colour(pair, x, y)
    total = powers[0] * np.abs(q) ** 2 + RATIO**2 * powers[1] * colour * np.abs(p) ** 2
    level = total[0, 0]
    scale = np.sqrt(level / (total + _FLOOR * level))
    kernels = [_stamp(f * scale, _HALF) for f in (q, -RATIO * p)]
    plain = sum(power * (k**2).sum() for power, k in zip(powers, kernels, strict=True))
    return kernels, _stamp(stamps[0].sum() * p * q * scale, _PSF_HALF), level / plain


def _colour(pair: Pair, x: float, y: float) -> Any:
    """Noise power of the template in units of its variance plane."""
    known = pair.template.noise_correlation
    if known is None:
        return np.ones((_GRID, _GRID))
    ny, nx = pair.static.shape
    tile = known[int(y * known.shape[0] / ny), int(x * known.shape[1] / nx)]
    return np.maximum(_spectrum(tile).real, 0.0)


def _spectrum(stamp: Any) -> Any:
    half = stamp.shape[0] // 2
    wide = np.zeros((_GRID, _GRID))
    wide[: 2 * half + 1, : 2 * half + 1] = stamp
    return fft.fft2(np.roll(wide, (-half, -half), (0, 1)))


def _stamp(spectrum: Any, half: int) -> Any:
    kernel = np.roll(np.real(fft.ifft2(spectrum)), (half, half), (0, 1))
    return kernel[: 2 * half + 1, : 2 * half + 1]


def _padded(plane: Any) -> Any:
    return np.pad(plane, _HALF, mode="reflect").astype(np.float32)


def _local(padded: Any, kernel: Any, box: Any) -> Any:
    """Convolve one tile of a padded plane."""
    part = padded[tuple(slice(b.start, b.stop + 2 * _HALF) for b in box)]
    size = [fft.next_fast_len(n, real=True) for n in part.shape]
    product = fft.rfft2(part, size) * fft.rfft2(kernel.astype(np.float32), size)
    rows, columns = (b.stop - b.start for b in box)
    return fft.irfft2(product, size)[2 * _HALF : 2 * _HALF + rows, 2 * _HALF : 2 * _HALF + columns]
