"""Accuracy and speed of warping and coaddition on a detector at the edge of the focal plane.

Usage: ``python -m bench.bench_template speed|science``.  Prints one JSON object per line: name,
stage, value, unit, bound, goal, holds, population.  Seeds from 700 on are kept for this program.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from bench.report import reporter
from bench.timing import cpu
from pipeline import template
from pipeline.camera import Camera
from pipeline.exposure import Exposure, GridPsf, VisitInfo
from pipeline.template.mapping import sky_mapping
from sims.geometry import DetectorGeometry, Pointing, tpv_cards

SHAPE = (4096, 2048)
FAR_OUT = 1  # detector
SEED = 700
report = reporter("template")
FLUX, SPACING, HALF = 1e5, 61.37, 14
DITHERS = (
    (0.0, 0.0, 0.0),
    (7.3, -4.1, 0.02),
    (-11.2, 6.6, -0.05),
    (23.9, 17.4, 0.1),
    (-3.7, 31.0, 0.0),
)
"""Arcseconds east and north, and degrees, by which visits differ."""


def coordinates(dither) -> WCS:
    """TPV coordinates of the detector in one visit."""
    camera = Camera.load("decam")
    detector = camera.detectors[FAR_OUT]
    pointing = Pointing(150.0 + dither[0] / 3600, 2.0 + dither[1] / 3600, dither[2])
    header = fits.Header()
    header.update(tpv_cards(DetectorGeometry(camera, detector), pointing))
    return WCS(header)


def exposure(dither, seed=0, sigma=1.8, noise=0.0, flux=FLUX):
    """Stars on a grid of the sky, Gaussian and sampled at the middles of the pixels."""
    rng = np.random.default_rng(SEED + seed)
    wcs = coordinates(dither)
    image = np.zeros(SHAPE)
    for x, y in zip(*places(wcs), strict=True):
        i, j = round(x), round(y)
        if HALF <= i < SHAPE[1] - HALF and HALF <= j < SHAPE[0] - HALF:
            k = np.arange(-HALF, HALF + 1)
            along = [np.exp(-0.5 * ((k + m - c) / sigma) ** 2) for m, c in ((j, y), (i, x))]
            image[j - HALF : j + HALF + 1, i - HALF : i + HALF + 1] += np.outer(*along)
    image *= flux / (2 * np.pi * sigma**2)
    image += noise * rng.normal(size=SHAPE)
    k = np.arange(-15, 16)
    line = np.exp(-0.5 * (k / sigma) ** 2)
    stamp = np.outer(line, line) / line.sum() ** 2
    return Exposure(
        image=image.astype(np.float32),
        variance=np.full(SHAPE, max(noise, 1.0) ** 2, np.float32),
        mask=np.zeros(SHAPE, np.uint32),
        info=VisitInfo(100 + seed, FAR_OUT, "g", 60.0, 57000.0 + seed),
        wcs=wcs,
        psf=GridPsf(stamp[None, None], np.zeros(1), np.zeros(1)),
        unit="nJy",
    )


def places(wcs: WCS):
    """Pixels of the stars of the grid, which is fixed on the sky."""
    first = coordinates(DITHERS[0])
    x, y = np.meshgrid(
        np.arange(30.0, SHAPE[1] - 30, SPACING), np.arange(30.0, SHAPE[0] - 30, SPACING)
    )
    sky = first.all_pix2world(np.column_stack([x.ravel(), y.ravel()]), 0)
    return wcs.all_world2pix(sky, 0, tolerance=1e-7).T


def stars_of(image, wcs):
    """Sums, shifts and second moments of the stars well inside an image."""
    k = np.arange(-12, 13)
    rows = []
    for x, y in zip(*places(wcs), strict=True):
        i, j = round(x), round(y)
        box = image[max(j - 12, 0) : j + 13, max(i - 12, 0) : i + 13].astype(float)
        if i < 40 or j < 40 or box.shape != (25, 25) or not np.isfinite(box).all():
            continue
        total = box.sum()
        dx, dy = (box * k).sum() / total + i - x, (box * k[:, None]).sum() / total + j - y
        size = (box * ((k + i - x) ** 2 + (k[:, None] + j - y) ** 2)).sum() / total
        rows.append((total, dx, dy, size))
    return np.array(rows).T


def science():
    """Mapping, fluxes, places, variances and PSFs of warped and coadded images."""
    target = coordinates(DITHERS[0])
    rng = np.random.default_rng(SEED)
    place = rng.uniform(0, 1, (20_000, 2)) * (SHAPE[1] - 1, SHAPE[0] - 1)
    sky = target.all_pix2world(place, 0)
    worst = 0.0
    for dither in DITHERS[1:]:
        source = coordinates(dither)
        exact = source.all_world2pix(sky, 0, tolerance=1e-7)
        found = np.column_stack(
            sky_mapping(source, target, SHAPE, template.Config().cell).at(*place.T)
        )
        worst = max(worst, float(np.hypot(*(found - exact).T).max()))
    report("mapping, largest error", worst, "px", 1e-3, 4 * len(place))

    for sigma in (1.3, 1.8, 2.5):
        fluxes, shifts, ratios = [], [], []
        for dither in DITHERS[1:]:
            warped = template.warp(exposure(dither, sigma=sigma), target, SHAPE)
            flux, dx, dy, size = stars_of(warped.image, target)
            fluxes.append(flux / FLUX)
            shifts.append(np.hypot(dx, dy))
            stamp = warped.psf.at(1024, 2048)
            k = np.arange(stamp.shape[0]) - stamp.shape[0] // 2
            model = (stamp * (k**2 + k[:, None] ** 2)).sum() / stamp.sum()
            ratios.append(model / np.mean(size) - 1)
        n = sum(map(len, fluxes))
        scatter = float(np.std(np.concatenate(fluxes)))
        wide = f"stars of σ {sigma} px"
        report(f"flux scatter, {wide}", scatter, "", 1e-4, n, goal=2e-5)
        bias = float(np.mean(np.concatenate(fluxes)) - 1)
        report(f"flux bias, {wide}", bias, "", 1e-4, n, low=-1e-4)
        worst = float(np.percentile(np.concatenate(shifts), 99))
        report(f"shift, 99th percentile, {wide}", worst, "px", 2e-3, n)
        off = float(np.abs(ratios).max())
        report(f"size of the PSF against the stars, {wide}", off, "", 5e-3, n)

    pulls, correlations = [], []
    for seed, dither in enumerate(DITHERS[1:], start=1):
        warped = template.warp(exposure(dither, seed, noise=7.0, flux=0.0), target, SHAPE)
        z = warped.image / np.sqrt(warped.variance)
        pulls.append(float(np.nanstd(z)))
        claimed = warped.noise_correlation
        rows, columns, half = claimed.shape[0], claimed.shape[1], claimed.shape[2] // 2
        tiles = (rows, SHAPE[0] // rows, columns, SHAPE[1] // columns)
        product = np.full(SHAPE, np.nan)
        product[:, 1:] = z[:, 1:] * z[:, :-1]
        found = product.reshape(tiles).mean((1, 3)) / pulls[-1] ** 2  # of tiles that are whole
        correlations.append(float(np.nanmean(found - claimed[:, :, half, half + 1])))
    spread = float(np.abs(np.array(pulls) - 1).max())
    report("noise over the propagated one, largest deviation", spread, "", 5e-3, len(pulls))
    off = float(np.abs(correlations).max())
    report("correlation of neighbours against the stored one", off, "", 5e-3, len(pulls))

    visits = [exposure(d, k, noise=7.0) for k, d in enumerate(DITHERS)]
    made = template.run(visits, target, SHAPE).template
    flux, _, _, _ = stars_of(made.image, target)
    error = float(np.std(flux) / np.sqrt(len(flux)) / FLUX)
    bias = float(np.mean(flux) / FLUX - 1)
    report("flux bias of a coadd of five", bias, "", "±2e-3 within 3 errors", len(flux),
           holds=abs(bias) < 2e-3 + 3 * error)  # fmt: skip


def speed():
    """CPU time of a warp of one CCD, and of a coadd of five on top of the warps."""
    target = coordinates(DITHERS[1])
    visits = [exposure(d, k, noise=7.0) for k, d in enumerate(DITHERS)]
    one = cpu(lambda: template.warp(visits[0], target, SHAPE))
    report("warp 2048 x 4096, three planes", one, "CPU s", 0.8, 5, goal=0.5)
    # One warp at a time: memory for five would be counted against the warps.
    warps = sum(cpu(lambda v=v: template.warp(v, target, SHAPE)) for v in visits)
    visits = [v.replace(info=replace(v.info, visit=500 + k)) for k, v in enumerate(visits)]
    whole = cpu(lambda: template.run(visits, target, SHAPE))
    report("template of five, warps included", whole, "CPU s", 4.5, 5)
    own = whole - warps
    report("coadd of five, warps taken off", own, "CPU s", 0.5, 5)


if __name__ == "__main__":
    {"speed": speed, "science": science}[sys.argv[1]]()
