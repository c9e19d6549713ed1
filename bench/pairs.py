"""Pairs of images with known truth: stars and galaxies as mixtures of Gaussians.

A point spread function is three elliptical Gaussians whose size and shape vary over the image, a
galaxy is one more; their convolution is exact and needs no transform.  Templates are either drawn
on the pixels of the science image, or coadded by `pipeline.template` from dithered visits, which
makes their noise correlated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.wcs import WCS

from pipeline import template
from pipeline.exposure import Exposure, GridPsf, VisitInfo, polynomial_terms
from pipeline.masks import bits

PIXEL = 0.263 / 3600
SHARES, WIDTHS = (0.62, 0.30, 0.08), (0.85, 1.45, 3.2)
HALF, SATURATION, GAIN, SKY = 20, 45_000.0, 4.0, 300.0
RATIO = 1 / 1.3
"""Flux in the science image over flux in the template."""


@dataclass(frozen=True)
class Seeing:
    """Width and shear of the PSF as linear functions of the position (-1 to 1)."""

    sigma: float
    slope: tuple[float, float]
    shear: tuple[float, float, float, float]

    def covariance(self, u: Any, v: Any) -> tuple[Any, Any, Any]:
        s2 = (self.sigma * (1 + self.slope[0] * u + self.slope[1] * v)) ** 2
        e1 = self.shear[0] + self.shear[1] * u
        e2 = self.shear[2] + self.shear[3] * v
        return s2 * (1 + e1), s2 * (1 - e1), s2 * e2

    def grid(self, shape: tuple[int, int]) -> GridPsf:
        x, y = np.linspace(0, shape[1] - 1, 5), np.linspace(0, shape[0] - 1, 9)
        k = np.arange(-HALF, HALF + 1.0)
        cube = np.empty((9, 5, 2 * HALF + 1, 2 * HALF + 1))
        for j, v in enumerate(np.linspace(-1, 1, 9)):
            for i, u in enumerate(np.linspace(-1, 1, 5)):
                stamp = profile(k[None, :], k[:, None], self.covariance(u, v), (0, 0, 0))
                cube[j, i] = stamp / stamp[np.hypot(k[None], k[:, None]) <= 12].sum()
        return GridPsf(cube, x, y)

    def encircled(self, u: Any, v: Any) -> float:
        """Share of the flux within 12 pixels, which is what a PSF flux measures."""
        k = np.arange(-HALF, HALF + 1.0)
        stamp = profile(k[None, :], k[:, None], self.covariance(u, v), (0, 0, 0))
        return float(stamp[np.hypot(k[None], k[:, None]) <= 12].sum())


def profile(dx: Any, dy: Any, psf: tuple[Any, Any, Any], galaxy: tuple[Any, Any, Any]) -> Any:
    total = 0.0
    for share, width in zip(SHARES, WIDTHS, strict=True):
        xx, yy, xy = (p * width**2 + g for p, g in zip(psf, galaxy, strict=True))
        det = xx * yy - xy**2
        square = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / det
        total = total + share / (2 * np.pi * np.sqrt(det)) * np.exp(-0.5 * square)
    return total


@dataclass
class Sky:
    """Sources: sky positions as pixels of the science grid, fluxes, and shapes of galaxies."""

    x: Any
    y: Any
    flux: Any
    shape: Any

    @classmethod
    def random(cls, rng: Any, size: tuple[int, int], stars: int, galaxies: int) -> Sky:
        n = stars + galaxies
        magnitude = np.where(
            np.arange(n) < stars,
            12.4 + np.log10(1 + rng.uniform(size=n) * (10 ** (0.3 * 11.2) - 1)) / 0.3,
            17.0 + np.log10(1 + rng.uniform(size=n) * (10 ** (0.4 * 7) - 1)) / 0.4,
        )
        radius = np.where(np.arange(n) < stars, 0.0, rng.lognormal(0.5, 0.4, n)) ** 2
        e = np.clip(rng.normal(0, 0.25, (2, n)), -0.6, 0.6)
        shape = np.stack([radius * (1 + e[0]), radius * (1 - e[0]), radius * e[1] * 0.8], axis=1)
        return cls(
            rng.uniform(0, size[1], n), rng.uniform(0, size[0], n),
            10 ** (0.4 * (28 - magnitude)), shape,
        )  # fmt: skip


def draw(sky: Sky, seeing: Seeing, shape: tuple[int, int], wcs: WCS, base: WCS) -> Any:
    """Noise-free image of a sky on a grid."""
    image = np.zeros(shape)
    at = wcs.all_world2pix(base.all_pix2world(np.column_stack([sky.x, sky.y]), 0), 0)
    for (x, y), flux, galaxy in zip(at, sky.flux, sky.shape, strict=True):
        half = int(np.clip(8 * (flux / 50) ** 0.22, 14, 60) + 3 * galaxy[:2].max() ** 0.5)
        i, j = round(x), round(y)
        x0, x1, y0, y1 = (
            max(0, i - half),
            min(shape[1], i + half + 1),
            max(0, j - half),
            min(shape[0], j + half + 1),
        )
        if x0 >= x1 or y0 >= y1:
            continue
        psf = seeing.covariance(2 * x / shape[1] - 1, 2 * y / shape[0] - 1)
        dx, dy = np.arange(x0, x1)[None] - x, np.arange(y0, y1)[:, None] - y
        image[y0:y1, x0:x1] += flux * profile(dx, dy, psf, galaxy)
    return image


@dataclass
class Pair:
    """Two exposures, their scenes without noise (less the transients), and what is in them."""

    science: Exposure
    template: Exposure
    static: Any
    scene: Any
    stars: Sky
    truth: Sky


def _wcs(shape: tuple[int, int], shift: Any = (0.0, 0.0), degrees: float = 0.0) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.1, 2.2]
    wcs.wcs.crpix = [shape[1] / 2 + shift[0], shape[0] / 2 + shift[1]]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    wcs.wcs.cd = PIXEL * np.array([[-c, s], [s, c]])
    return wcs


def _observe(rng: Any, static: Any, level: float, visit: int, wcs: WCS, seeing: Seeing) -> Exposure:
    """Add noise; the sky is subtracted, the variance is the noise-free model."""
    variance = (np.maximum(static, 0) + level) / GAIN + 3.0
    image = static + rng.normal(size=static.shape) * np.sqrt(variance)
    mask = np.where(image + level >= SATURATION, bits("SAT"), np.uint32(0))
    return Exposure(
        np.minimum(image, SATURATION - level).astype(np.float32),
        variance.astype(np.float32),
        mask.astype(np.uint32),
        VisitInfo(visit, 1, "r", 90.0, 57000.0 + visit, saturation=SATURATION),
        wcs=wcs,
        psf=seeing.grid(static.shape),
        unit="electron",
    )


def make_pair(
    seed: int,
    shape: tuple[int, int] = (4096, 2048),
    *,
    coadd: bool = True,
    misreg: float = 0.0,
    template_sigma: float = 1.55,
    science_sigma: float = 1.78,
) -> Pair:
    """Simulate a pair; source counts follow the area, 400 transients on 8 Mpixel.

    With `misreg` the template's sources lie elsewhere by so many pixels rms, a smooth field.
    """
    rng = np.random.default_rng(seed)
    area = shape[0] * shape[1] / 2**23
    sky = Sky.random(rng, shape, round(2500 * area), round(3000 * area))
    a, b = rng.uniform(0, 2 * np.pi, 2)
    seeing = Seeing(
        science_sigma, (0.055 * np.cos(a), 0.055 * np.sin(a)), (0.03, 0.04, -0.02, 0.03)
    )
    base = _wcs(shape)
    static = draw(sky, seeing, shape, base, base)
    n = round(400 * area)
    new = Sky(
        rng.uniform(40, shape[1] - 40, n), rng.uniform(40, shape[0] - 40, n),
        10 ** rng.uniform(2.1, 3.6, n), np.zeros((n, 3)),
    )  # fmt: skip
    changed = draw(new, seeing, shape, base, base)
    science = _observe(rng, static + changed, SKY, 1, base, seeing)
    places = zip(2 * new.x / shape[1] - 1, 2 * new.y / shape[0] - 1, strict=True)
    new.flux = new.flux * np.array([seeing.encircled(u, v) for u, v in places])
    moved = _displaced(np.random.default_rng([seed, 1]), sky, shape, misreg)
    visits, scenes = [], []
    for k in range(4 if coadd else 1):
        shift = rng.uniform(-12, 12, 2) if coadd else (0.0, 0.0)
        own = Seeing(
            template_sigma * (1 + 0.06 * k * coadd),
            (0.02 * np.cos(b), 0.02 * np.sin(b)),
            (0.01, 0.01, 0.01, -0.01),
        )
        wcs = _wcs(shape, shift, 0.02 * k * coadd)
        scenes.append(draw(moved, own, shape, wcs, base) / RATIO)
        visits.append(_observe(rng, scenes[k], SKY if coadd else SKY / 3, 100 + k, wcs, own))
    if not coadd:
        return Pair(science, visits[0], static, scenes[0], sky, new)
    quiet = [v.replace(image=s.astype(np.float32)) for v, s in zip(visits, scenes, strict=True)]
    deep, still = (template.run(each, base, shape).template for each in (visits, quiet))
    return Pair(science, deep, static, still.image, sky, new)


def _displaced(rng: Any, sky: Sky, size: tuple[int, int], rms: float) -> Sky:
    """Shift sources by quadratic functions of their position."""
    terms = polynomial_terms(sky.x, sky.y, size, 2)
    shifts = terms @ rng.normal(size=(6, 2))
    shifts *= rms / np.sqrt((shifts**2).sum(1).mean())
    return replace(sky, x=sky.x + shifts[:, 0], y=sky.y + shifts[:, 1])
