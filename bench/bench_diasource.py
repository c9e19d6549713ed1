"""Accuracy and speed of detection and measurement on synthetic differences.

White noise of known variance, an exact PSF, sources of known truth with their own noise: what is
left is the error of the measurements themselves.  Prints one JSON document per line.

    python bench/bench_diasource.py [--n 2000] [--seed 1] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WCS
from scipy.signal import fftconvolve
from scipy.special import erf

from pipeline import diasource
from pipeline.exposure import (
    Difference,
    Exposure,
    FloatArray,
    GridPsf,
    MatchingKernel,
    PhotoCalib,
    VisitInfo,
)

SKY = 100.0
GAIN = 4.0
SIDE = 31
SCALE = 0.2637


@dataclass(frozen=True)
class Star:
    """An analytic PSF that includes the pixel; width is the FWHM in pixels."""

    width: float = 4.2
    kind: str = "gauss"

    def stamp(self, x: float, y: float, side: int = SIDE) -> FloatArray:
        """Unit-flux image centred on the middle pixel plus (x, y)."""
        k = np.arange(side) - side // 2
        if self.kind == "gauss":
            s = self.width / 2.3548 * np.sqrt(2.0)
            fx, fy = (0.5 * (erf((k + 0.5 - c) / s) - erf((k - 0.5 - c) / s)) for c in (x, y))
            return np.outer(fy, fx)
        nodes, weights = np.polynomial.legendre.leggauss(5)
        fine = (k[:, None] + nodes / 2).ravel()
        w = np.tile(weights / 2, side)
        beta = 3.5
        r0 = self.width / 2 / np.sqrt(2 ** (1 / beta) - 1)
        r2 = (fine - x) ** 2 + (fine[:, None] - y) ** 2
        f = (beta - 1) / np.pi / r0**2 * (1 + r2 / r0**2) ** -beta * w * w[:, None]
        return f.reshape(side, 5, side, 5).sum(axis=(1, 3))

    def psf(self) -> GridPsf:
        """The same as the pipeline knows it, of unit sum within 12 pixels."""
        return GridPsf(self.stamp(0, 0)[None, None] / self.norm(), np.zeros(1), np.zeros(1))

    def norm(self) -> float:
        """Flux within 12 pixels."""
        k = np.arange(SIDE) - SIDE // 2
        return float(self.stamp(0, 0)[np.hypot(*np.meshgrid(k, k)) <= 12].sum())

    def sigma_flux(self) -> float:
        """Error of the flux of a faint source."""
        return float(np.sqrt(SKY / ((self.stamp(0, 0) / self.norm()) ** 2).sum()))


def wcs() -> WCS:
    """A rotated tangent plane."""
    w = WCS(naxis=2)
    w.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    w.wcs.crval = [150.0, -20.0]
    w.wcs.crpix = [500.0, 400.0]
    c, s = np.cos(0.3) * SCALE / 3600, np.sin(0.3) * SCALE / 3600
    w.wcs.cd = [[-c, s], [s, c]]
    return w


def grid(shape: tuple[int, int], step: int, rng: np.random.Generator) -> FloatArray:
    """Well separated positions with random sub-pixel phases, ``(n, 2)``."""
    ys, xs = np.mgrid[step // 2 : shape[0] - step // 2 : step, step // 2 : shape[1] - step // 2 : step]
    at = np.column_stack([xs.ravel(), ys.ravel()]).astype(float)
    return at + rng.uniform(-0.5, 0.5, at.shape)


def add(
    image: FloatArray, variance: FloatArray, star: Star, at: FloatArray, flux: FloatArray,
    rng: np.random.Generator, shape: Callable[[int], FloatArray] | None = None,
) -> None:  # fmt: skip
    """Add sources and their noise; `shape(k)` may give offsets (m, 3: dx, dy, weight) of parts."""
    for k, ((x, y), f) in enumerate(zip(at, flux, strict=True)):
        ix, iy = round(x), round(y)
        parts = np.array([[0.0, 0.0, 1.0]]) if shape is None else shape(k)
        side = SIDE + 2 * int(np.ceil(np.abs(parts[:, :2]).max()))
        side += 1 - side % 2
        stamp = sum(
            w * star.stamp(x - ix + dx, y - iy + dy, side) for dx, dy, w in parts
        ) * (f / star.norm())  # fmt: skip
        h = side // 2
        box = np.s_[iy - h : iy + h + 1, ix - h : ix + h + 1]
        noise = np.abs(stamp) / GAIN
        variance[box] += noise
        image[box] += stamp + rng.normal(0, 1, stamp.shape) * np.sqrt(noise)


def exposure(image: FloatArray, variance: FloatArray, star: Star, visit: int = 1) -> Exposure:
    """Wrap arrays into an exposure."""
    return Exposure(
        image.astype(np.float32), variance.astype(np.float32), np.zeros(image.shape, np.uint32),
        VisitInfo(visit, 1, "g", 90.0, 57070.0), wcs(), star.psf(), PhotoCalib(31.4, 0.0, 0.0, 9),
        unit="nJy",
    )  # fmt: skip


def difference(image: FloatArray, variance: FloatArray, star: Star, visit: int = 1) -> Difference:
    """Wrap arrays into a difference with its matched-filter score."""
    p = star.psf().cube[0, 0]
    score = fftconvolve(image, p[::-1, ::-1], mode="same") / np.sqrt(SKY * (p**2).sum())
    kernel = MatchingKernel(np.ones((1, 1, 1)), np.ones((1, 1)), 0, image.shape, np.zeros(1), 1.0, np.zeros((0, 4)))  # fmt: skip
    null = np.full(image.shape, SKY, np.float32)
    return Difference(exposure(image, variance, star, visit), score.astype(np.float32), null, kernel)


@dataclass(frozen=True)
class Scene:
    """A synthetic difference, with the science and template images behind it."""

    difference: Difference
    science: Exposure
    template: Exposure


def blank(shape: tuple[int, int], rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Noise and its variance."""
    return rng.normal(0, np.sqrt(SKY), shape), np.full(shape, SKY)


def scene(image: FloatArray, variance: FloatArray, star: Star, rng: np.random.Generator) -> Scene:
    """Science of which the difference is half the variance, and an empty template."""
    empty, v = blank(image.shape, rng)
    return Scene(
        difference(image, variance, star),
        exposure(image, variance, star),
        exposure(empty, v, star),
    )


def log_uniform(low: float, high: float, n: int, rng: np.random.Generator) -> FloatArray:
    """Numbers whose logarithm is uniform."""
    return np.exp(rng.uniform(np.log(low), np.log(high), n))


def match(table: Any, at: FloatArray, radius: float = 3.0) -> tuple[Any, Any]:
    """Indices of truths and of the rows that detect them (above threshold, nearest)."""
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    usable = ~(table["isSubThreshold"].to_numpy() | table["isDeblendParent"].to_numpy())
    rows = np.flatnonzero(usable)
    from scipy.spatial import cKDTree

    d, k = cKDTree(np.column_stack([x, y])[rows]).query(at)
    found = np.flatnonzero(d < radius)
    return found, rows[k[found]]


def main() -> None:
    """Run the named measurements."""
    rng = np.random.default_rng(1)
    star = Star()
    image, variance = blank((1024, 1024), rng)
    at = grid(image.shape, 48, rng)
    snr = log_uniform(7, 500, len(at), rng)
    sign = np.where(rng.random(len(at)) < 0.3, -1, 1)
    add(image, variance, star, at, sign * snr * star.sigma_flux(), rng)
    s = scene(image, variance, star, rng)
    for _ in range(2):
        t = time.process_time()
        r = diasource.run(s.difference, s.science, s.template)
        print("cpu", time.process_time() - t, r.sources.num_rows, r.metrics)
    t = r.sources.to_pandas() if False else {c: r.sources[c] for c in r.sources.column_names}
    i, k = match(r.sources, at)
    print(len(at), len(i))
    import pyarrow.compute as pc
    for c in r.sources.column_names:
        col = r.sources[c]
        print(c, col.null_count, col[:2].to_pylist() if len(col) else "")


if __name__ == "__main__":
    main()
