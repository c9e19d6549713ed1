"""Accuracy and speed from electrons to visit images, on frames with known answers.

Usage: ``python -m bench.bench_calibrate speed|science``.  Prints one JSON object per line: name,
stage, value, unit, bound, goal, holds, population and where it is an estimate its standard error.
Seeds from 900 on are kept for this program: nothing was tuned on them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from bench.report import reporter
from bench.timing import cpu
from pipeline import calibrate
from pipeline.calibrate.astrometry import fit_astrometry, image_centre
from pipeline.calibrate.kaiser import resample
from pipeline.calibrate.match import match
from pipeline.calibrate.psf import cut_stamps, fit_psf
from pipeline.calibrate.refcat import reference_stars
from pipeline.calibrate.tpv import Coordinates
from pipeline.sphere import project

ROOT = Path(__file__).parents[1]
SEED = 900
report = reporter("calibrate")
FIELDS = 12  # per case of the PSF
SHAPE = (4096, 2048)
ZERO_POINT = 31.5
K = np.arange(-20, 21)


def _scenes():
    """Load the maker of synthetic frames, which the tests use as well."""
    path = ROOT / "tests" / "calibrate" / "conftest.py"
    spec = importlib.util.spec_from_file_location("calibrate_scenes", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


scenes = _scenes()


def mean_error(values):
    """Standard error of the mean of independent values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


# --- point spread function -------------------------------------------------------------------


def sky_free(scene):
    v, u = np.mgrid[: scene.exposure.shape[0], : scene.exposure.shape[1]]
    level = 1200.0 * (
        1.0 + 0.01 * u / scene.exposure.shape[1] - 0.006 * v / scene.exposure.shape[0]
    )
    return (scene.exposure.image - level).astype(np.float32)


def psf_stamps(scene):
    image, noise = sky_free(scene), np.full(scene.exposure.shape, 1249.0, np.float32)
    bad = np.zeros(scene.exposure.shape, bool)
    return cut_stamps(image, bad, noise, scene.x, scene.y, scene.flux)


def held_out_chi2(psf, scene):
    """χ² per pixel within nine pixels of stars that the PSF has not seen; flux and place free."""
    image, variance = sky_free(scene), scene.exposure.variance
    k = np.arange(-9, 10)
    disk = np.hypot(k[:, None], k) <= 9.0
    chi2 = []
    for x, y in zip(scene.x, scene.y, strict=True):
        ix, iy = round(x), round(y)
        at = np.s_[iy - 9 : iy + 10, ix - 9 : ix + 10]
        p = resample(psf.at(x, y)[None], np.array([ix - x]), np.array([iy - y]), 19)[0]
        py, px = np.gradient(p)
        root = np.sqrt(variance[at][disk])
        design = np.stack([p[disk], px[disk], py[disk]], axis=1) / root[:, None]
        data = image[at][disk] / root
        fit = np.linalg.lstsq(design, data, rcond=None)[0]
        chi2.append(np.sum((data - design @ fit) ** 2) / (disk.sum() - 3))
    return np.array(chi2)


def shapes(stamps):
    """Adaptive-like size and ellipticities with the window taken out."""
    w = np.exp(-0.5 * (K[:, None] ** 2 + K[None] ** 2) / 9.0) * stamps
    norm = w.sum(axis=(1, 2))
    xx = (w * K[None] ** 2).sum(axis=(1, 2)) / norm
    yy = (w * K[:, None] ** 2).sum(axis=(1, 2)) / norm
    xy = (w * K[None] * K[:, None]).sum(axis=(1, 2)) / norm
    inverse = np.linalg.inv(np.moveaxis(np.array([[xx, xy], [xy, yy]]), 2, 0)) - np.eye(2) / 9.0
    moments = np.linalg.inv(inverse)
    size = moments[:, 0, 0] + moments[:, 1, 1]
    return size, (moments[:, 0, 0] - moments[:, 1, 1]) / size, 2 * moments[:, 0, 1] / size


def psf_errors(psf, truth, shape):
    x, y = (a.ravel() for a in np.mgrid[30 : shape[1] - 30 : 8j, 30 : shape[0] - 30 : 14j])
    true = np.array([truth.stamp(a, b, half=20) for a, b in zip(x, y, strict=True)])
    model = psf.stamps(x, y)
    size, e1, e2 = (a - b for a, b in zip(shapes(model), shapes(true), strict=True))
    flux = (true * model).sum(axis=(1, 2)) / (model**2).sum(axis=(1, 2))
    return size / shapes(true)[0], e1, e2, flux / flux.mean() - 1.0


def science_psf():
    cases = [("120 stars", 120, False, 1.05), ("120 stars, curved", 120, True, 1.05),
             ("35 stars", 35, False, 1.10), ("15 stars", 15, False, 1.30)]  # fmt: skip
    for label, n, curved, bound in cases:
        chi2, rows = [], []
        for i in range(FIELDS):
            options = {"shape": SHAPE, "n_faint": 0, "isolated": True, "curved": curved}
            scene = scenes.make_scene(SEED + i, n_stars=n, turbulence=0.0, **options)
            other = scenes.make_scene(SEED + 50 + i, n_stars=80, turbulence=0.0, **options)
            psf = fit_psf(psf_stamps(scene), SHAPE).psf
            chi2.append(held_out_chi2(psf, other))
            rows.append(psf_errors(psf, scene.psf, SHAPE))
        size, e1, e2, flux = (np.array(column) for column in zip(*rows, strict=True))
        _report_fields(f"PSF χ²/pixel held out, {label}", [c.mean() for c in chi2], bound, low=0.95)
        if n < 100:
            continue
        _report_fields(f"PSF size bias, {label}", size.mean(axis=1), 0.002)
        _report_fields(f"PSF size rms, {label}", size.std(axis=1), 0.006, low=0.0)
        for name, e in (("e1", e1), ("e2", e2)):
            _report_fields(f"PSF {name} bias, {label}", e.mean(axis=1), 0.0015)
            _report_fields(f"PSF {name} rms, {label}", e.std(axis=1), 0.004, low=0.0)
        _report_fields(f"PSF flux over the chip, {label}", flux.std(axis=1), 0.003, low=0.0)


def _report_fields(name, values, bound, *, low=None):
    """Print the mean of one value per field."""
    report(name, np.mean(values), "", bound, len(values), low=-bound if low is None else low,
           stderr=mean_error(values))  # fmt: skip


# --- coordinates and fluxes ------------------------------------------------------------------


def science_stage():
    """Whole stage: coordinates, zero point, noise."""
    seen = []
    offsets, rms, zero, pulls, noise, flux = [], [], [], [], [], []
    x, y = (a.ravel() for a in np.mgrid[50:750:8j, 50:750:8j])
    for i in range(120):
        scene = scenes.make_scene(SEED + 100 + i, shape=(800, 800), n_stars=70, n_faint=60,
                                  isolated=True)  # fmt: skip
        result = calibrate.run(scene.exposure, scene.refcat, psf_fwhm_min=0.68)
        true = scene.wcs.all_pix2world(x, y, 0)
        off = project(
            *result.visit_image.wcs.all_pix2world(x, y, 0), image_centre(scene.wcs, (800, 800))
        )
        off -= project(*true, image_centre(scene.wcs, (800, 800)))
        offsets.append(np.hypot(*np.median(off, axis=0)) * 3.6e6)
        rms.append((off * 3.6e6).std(axis=0))
        calib = result.visit_image.photo_calib
        zero.append(calib.zero_point - ZERO_POINT)
        pulls.append(zero[-1] / calib.zero_point_err)
        noise.append(result.summary["noiseRatio"])
        seen.append([result.summary[f"astrometryRms{axis}"] for axis in ("Ra", "Dec")])
        flux.append(_flux_scatter(scene, result))
    report("astrometry rms per axis, ≥ 50 stars", np.mean(seen), "mas", 20.0, len(seen), low=0.0)
    report("error of the coordinates per axis", np.mean(rms), "mas", 20.0, len(rms), low=0.0)
    report("astrometry offset, ≥ 50 stars", np.median(offsets), "mas", 10.0, len(offsets), low=0.0)
    report("zero point bias", np.mean(zero), "mag", 0.005, len(zero), low=-0.005)
    report("zero point pull", np.std(pulls), "", 1.2, len(pulls), low=0.8)
    report("noise over variance plane", np.mean(noise) - 1.0, "", 0.02, len(noise), low=-0.02)
    report("PSF flux of SNR > 200 over the chip", np.mean(flux), "", 0.003, len(flux), low=0.0)


def _flux_scatter(scene, result):
    """Scatter of PSF fluxes of bright stars beyond their photon noise."""
    names = ("x", "y", "psfFlux", "psfFluxErr")
    x, y, flux, err = (result.sources[n].to_numpy(zero_copy_only=False) for n in names)
    njy = scene.flux * 10 ** (0.4 * (31.4 - ZERO_POINT))
    ratio, variance = [], []
    for a, b, f in zip(scene.x, scene.y, njy, strict=True):
        distance = np.hypot(x - a, y - b)
        i = int(np.argmin(distance))
        if distance[i] < 1.0 and flux[i] > 200.0 * err[i]:
            ratio.append(flux[i] / f)
            variance.append((err[i] / flux[i]) ** 2)
    return np.sqrt(max(np.var(ratio) - np.mean(variance), 0.0))


def science_five_stars():
    rms = []
    for i in range(40):
        rng = np.random.default_rng([SEED, i])
        wcs = scenes.make_wcs(SHAPE)
        x, y = rng.uniform(60, SHAPE[1] - 60, 5), rng.uniform(60, SHAPE[0] - 60, 5)
        table = scenes.refcat_of(wcs, x, y, np.linspace(2e5, 5e4, 5), rng)
        stars = reference_stars(table, "g", scenes.EPOCH, image_centre(wcs, SHAPE), 0.3)
        noise = rng.normal(0.0, 8.0 / 262.6, (2, 5))
        moved = Coordinates.of(wcs).turned(
            image_centre(wcs, SHAPE), rng.uniform(-55, 55, 2) / 3600.0,
            np.radians(rng.uniform(-0.5, 0.5)),
        )  # fmt: skip
        fit = fit_astrometry(moved.wcs, SHAPE, x + noise[0], y + noise[1], np.full(5, 3.0), stars)
        at = np.stack([x, y])
        off = project(*fit.wcs.all_pix2world(*at, 0), (150.3, -3.2))
        off -= project(*wcs.all_pix2world(*at, 0), (150.3, -3.2))
        rms.append(np.sqrt(np.mean((off * 3.6e6) ** 2)))
    report("astrometry rms per axis, 5 stars, 60″ and 0.5° off", np.mean(rms), "mas", 50.0,
           len(rms), low=0.0)  # fmt: skip


def _field(rng, n, dense):
    size = np.array([270.0, 540.0])
    stars = rng.uniform(-size, size, (n, 2))
    others = rng.uniform(-1.2 * size, 1.2 * size, ((dense - 1) * n, 2))
    angle = np.radians(rng.uniform(-0.5, 0.5))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = rng.uniform(-58.0, 58.0, 2)
    seen = (stars + rng.normal(0.0, 0.05, stars.shape) - offset) @ matrix
    seen = np.concatenate([seen, rng.uniform(-size, size, (int(0.3 * n) + 1, 2))])
    catalogue = np.concatenate([stars, others])
    return seen, catalogue, matrix, offset


def science_match():
    wrong, trials = 0, 0
    for n, least in ((5, 0.96), (10, 0.99), (50, 1.0), (500, 1.0)):
        right = 0
        for i in range(60):
            rng = np.random.default_rng([SEED, n, i])
            seen, catalogue, matrix, offset = _field(rng, n, 3 if n < 100 else 1)
            found = match(seen, catalogue, n_detections=200, n_references=400)
            trials += 1
            if found is None or found.log_chance > np.log(1e-4 / 3):
                continue
            corners = np.array([[-270.0, -540.0], [270.0, 540.0]])
            error = corners @ found.matrix.T + found.offset - corners @ matrix.T - offset
            good = np.hypot(*error.T).max() < 2.0
            right, wrong = right + good, wrong + (not good)
        report(f"match found, {n} stars", right / 60, "", 1.0, 60, low=least)
    report("wrong matches accepted", wrong, "", 0, trials, low=0)


# --- speed -----------------------------------------------------------------------------------


def speed():
    scene = scenes.make_scene(SEED, shape=SHAPE, n_stars=160, n_faint=1500)
    bright = scenes.make_scene(SEED + 1, shape=SHAPE, n_stars=160, n_faint=0, isolated=True)
    stars = psf_stamps(bright)
    image = sky_free(bright)
    noise, bad = np.full(SHAPE, 1249.0, np.float32), np.zeros(SHAPE, bool)
    megapixels = SHAPE[0] * SHAPE[1]

    def model():
        return fit_psf(cut_stamps(image, bad, noise, bright.x, bright.y, bright.flux), SHAPE)

    report("PSF model", cpu(model), "CPU s", 0.15, len(stars), goal=0.10, low=0.0)
    seen, catalogue, _, _ = _field(np.random.default_rng(SEED), 50, 3)
    report("astrometric match", cpu(lambda: match(seen, catalogue)), "CPU s", 0.02, 50, low=0.0)

    def stage():
        return calibrate.run(scene.exposure, scene.refcat, psf_fwhm_min=0.68)

    report("electrons to visit image", cpu(stage, 3), "CPU s", 1.5, megapixels, low=0.0)


def main():
    if sys.argv[1:] == ["speed"]:
        speed()
        return
    for science in (science_psf, science_match, science_five_stars, science_stage):
        science()


if __name__ == "__main__":
    main()
