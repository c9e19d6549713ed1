"""Accuracy and speed from raw frames to masked electrons, on simulated frames with truth.

``python -m bench.bench_isr [speed | science] [--seed 7] [--visits 2] [--workspace FOLDER]`` prints
one JSON object per line: name, stage, value, unit, bound, goal, holds, population.  Times are
processor time of one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from scipy.ndimage import binary_dilation

import sims
from bench.report import reporter
from bench.timing import cpu
from pipeline import calibrate, io, isr
from pipeline.calibrate import background, cosmicray
from pipeline.camera import Camera
from pipeline.exposure import RawFrame, VisitInfo
from pipeline.io.hdus import read_pixels
from pipeline.masks import NO_SKY, bits
from pipeline.quantise import grid_step, quantised, to_grid
from pipeline.statistics import mad_std
from sims import calibration
from sims.artefacts import ARTEFACTS, cosmic_rays
from sims.streams import stream

ELECTRONS_PER_ADU = 4.0
report = reporter("isr")


def pixels(path, name):
    with io.open_fits(path, scaled=False) as hdus:
        return read_pixels(hdus[name])


def calibration_frames(root, number, band):
    names = (f"bias_{number:02d}.fits", f"flat_{band}_{number:02d}.fits")
    planes = (pixels(root / "calib" / name, "IMAGE") for name in names)
    return isr.Calibs(*(np.ascontiguousarray(p, np.float32) for p in planes))


class Frame:
    """A simulated frame on its way through the steps."""

    def __init__(self, root, camera, path, number, seed):
        self.raw = io.read_raw(path, camera, number)
        self.path, self.camera, self.detector = path, camera, camera.detector(number)
        band, visit = self.raw.info.band, self.raw.info.visit
        self.calibs = calibration_frames(root, number, band)
        truth = root / "truth" / "artefacts" / f"{visit}_{number:02d}.fits"
        self.artefacts = pixels(truth, "ARTEFACTS").view(np.uint32)
        rng = stream(seed, visit, number, "cosmic rays")
        self.charge = np.zeros(self.detector.shape, np.float32)
        cosmic_rays(rng, self.charge, self.raw.info.exptime)
        self.result = isr.run(self.raw, self.detector, self.calibs)
        self.exposure = self.result.exposure
        e = self.exposure
        self.background = background.model(e.image, e.mask)
        self.flux = e.image - self.background.image
        fwhm = camera.psf_fwhm_min / camera.pixel_scale
        self.rays = cosmicray.find(self.flux, e.variance, e.mask, 0.0, fwhm)

    def truth(self, *names):
        bits = sum(1 << list(ARTEFACTS).index(n) for n in names)
        return (self.artefacts & np.uint32(bits)) != 0


def masks(frames):
    """Completeness of saturation, bleeds, defects and unlisted columns, and what they cost."""
    tally = {k: [0, 0] for k in ("saturated or bleed", "listed defects", "unlisted columns")}
    lost = area = rows = hit = 0
    for f in frames:
        pairs = {
            "saturated or bleed": (f.truth("SATURATED", "BLEED"), ("SAT", "BLEED")),
            "listed defects": (f.truth("DEFECT"), ("BAD",)),
            "unlisted columns": (f.truth("UNLISTED"), ("BAD",)),
        }
        for name, (truth, planes) in pairs.items():
            tally[name][0] += int((f.exposure.has(*planes) & truth).sum())
            tally[name][1] += int(truth.sum())
        lost += int((f.exposure.has("UNLISTED") & ~f.truth("UNLISTED")).sum())
        area += f.flux.size
        corrupted = f.truth("EDGEBLEED")
        rows += int(corrupted.sum())
        hit += int((corrupted & f.exposure.has("EDGEBLEED")).sum())
    for (name, (found, total)), bound in zip(tally.items(), (0.995, 1.0, 0.95), strict=True):
        if total:
            report(f"mask completeness: {name}", found / total, "fraction", bound, total,
                   least=True)  # fmt: skip
    report("good pixels lost to unlisted columns", lost / area, "fraction", 5e-4, area)
    if rows:
        report(
            "mask completeness: corrupted overscan", hit / rows, "fraction", 0.95, rows, least=True
        )


def rays(frames):
    """Completeness and false rate of the cosmic-ray finder against the simulated charge."""
    found = flagged = total = false = area = 0
    for f in frames:
        e = f.exposure
        noise = np.sqrt(np.maximum(e.variance - f.charge, 36.0))
        bright = (f.charge > 6 * noise) & ~e.has(*NO_SKY - {"CR"})
        near = binary_dilation(f.charge > 0, structure=np.ones((3, 3)))
        found += int((f.rays.found & bright).sum())
        flagged += int((f.rays.mask & bright).sum())
        other = f.truth("SATELLITE", "UNLISTED", "EDGEBLEED")  # no good pixels either
        false += int((f.rays.found & ~near & ~other).sum())
        total, area = total + int(bright.sum()), area + f.flux.size
    report("cosmic-ray pixels above 6 sigma masked", flagged / total, "fraction", 0.99, total,
           goal=0.997, least=True, stage="calibrate")  # fmt: skip
    report("cosmic-ray pixels above 6 sigma found before dilation", found / total, "fraction", 0.99,
           total, goal=0.997, least=True, stage="calibrate")  # fmt: skip
    report("false cosmic-ray pixels before dilation", false / area, "fraction", 1e-5, area,
           goal=3e-6, stage="calibrate")  # fmt: skip


def sharp_stars_and_tracks(samples):
    """Diffused tracks, and stars alone in the best seeing, drawn as the tests draw them."""
    field = scene_maker("test_cosmicray", "isr")
    shape, sharpest = (1024, 1024), field.SHARPEST
    for diffusion in (0.0, 0.3, 0.45):
        found = total = false = 0
        for seed, fwhm in ((s, f) for s in range(samples) for f in (2.7, 4.2)):
            rng = np.random.default_rng([500, seed])
            stars, _ = field._stars(shape, fwhm, 150, rng)
            charge = field._tracks(shape, 120, rng, diffusion)
            rays, good = found_in(field, stars, charge, rng, sharpest)
            bright = (charge > 6 * np.sqrt(stars + field.SKY + 36)) & good
            near = binary_dilation(charge > 0.1, iterations=2)
            found, total = found + int((rays.found & bright).sum()), total + int(bright.sum())
            false += int((rays.found & ~near).sum())
        label = f"diffusion {diffusion} px"
        report(f"cosmic-ray pixels above 6 sigma found before dilation, {label}", found / total,
               "fraction", 0.99, total, goal=0.997, least=True, stage="calibrate")  # fmt: skip
        area = 2 * samples * shape[0] * shape[1]
        report(f"false cosmic-ray pixels before dilation, {label}", false / area, "fraction", 1e-5,
               area, goal=3e-6, stage="calibrate")  # fmt: skip
    hit = count = 0
    for seed in range(samples):
        rng = np.random.default_rng([600, seed])
        stars, cores = field._stars(shape, 0.70 / 0.2626, 500, rng)
        rays, _ = found_in(field, stars, 0.0, rng, sharpest)
        hit, count = hit + int((rays.found & cores).sum()), count + int(cores.sum())
    report("pixels of star cores (SNR > 100) taken for cosmic rays, seeing 0.7 arcsec", hit,
           "pixel", 0, count, stage="calibrate")  # fmt: skip


def scene_maker(name, package):
    """Load a module of the tests that draws scenes."""
    path = Path(__file__).parents[1] / "tests" / package / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found_in(field, stars, charge, rng, sharpest):
    image, variance = field._observe(stars + charge, rng)
    saturated = stars > 1.7e5
    mask = np.where(saturated, bits("SAT"), np.uint32(0)).astype(np.uint32)
    return cosmicray.find(image, variance, mask, field.SKY, sharpest), ~saturated


def levels(frames):
    """Steps between amplifiers, and empirical noise over the variance plane, on clean sky."""
    steps, ratios = [], []
    for f in frames:
        e = f.exposure
        good = (e.mask == 0) & ~f.rays.mask & (np.abs(f.flux) < 3 * np.sqrt(e.variance))
        edge = f.detector.amplifiers[0].trimmed.shape[1]
        sides = [np.s_[:, edge - 100 : edge], np.s_[:, edge : edge + 100]]
        means = [e.image[s][good[s]].mean() for s in sides]
        steps.append(abs(means[0] - means[1]) / np.mean(means))
        # Neighbours far from any source: a 2-D mask of what stands out on a larger scale.
        a, b = e.image[:, :-1:2], e.image[:, 1::2]
        keep = good[:, :-1:2] & good[:, 1::2]
        median = mad_std((a - b)[keep], 0.0) / np.sqrt(2)
        ratios.append(median**2 / np.median(e.variance[:, :-1:2][keep]))
    report("largest step between amplifiers", max(steps), "fraction of sky", 3e-3, len(steps))
    report("noise variance over variance plane, worst", np.abs(np.array(ratios) - 1).max(),
           "fraction off 1", 0.02, len(ratios))  # fmt: skip


def files(f, folder):
    """Image plus background is the image before, bit by bit, through a file of stated size."""
    step = grid_step(float(np.sqrt(np.median(f.exposure.variance))))
    total, sky = to_grid(f.exposure.image, step), to_grid(f.background.image, step)
    product = quantised(f.exposure.replace(image=total - sky, background=sky))
    path = folder / "product.fits"
    io.write_exposure(path, product)
    back = io.read_exposure(path)
    wrong = int((back.image + back.background != total).sum())
    area, size = total.size, path.stat().st_size / 1e6
    report("pixels where image + background differs from before", wrong, "pixel", 0, area,
           stage="io")  # fmt: skip
    report("size of a visit image", size, "MB", 16.0, 1, stage="io")
    write = cpu(lambda: io.write_exposure(path, product))
    report("write a visit image", write, "CPU s", 0.8, 5, stage="io")
    report("read a visit image", cpu(lambda: io.read_exposure(path)), "CPU s", 0.8, 5, stage="io")


def crosstalk(folder, seed, number_of_ccds):
    """Residual of a 40,000 ADU source over amplifiers, with coefficients known as published."""
    calibration.write_camera(folder, "decam", seed)
    true, nominal = Camera.load("decam"), Camera.load(folder / "decam.toml")
    good = [n for n, d in true.detectors.items() if d.status == "good" and d.crosstalk]
    residuals = []
    sky_noise = np.sqrt(100.0 / ELECTRONS_PER_ADU + (6.0 / ELECTRONS_PER_ADU) ** 2)
    for number in good[:: max(1, len(good) // number_of_ccds)]:
        residuals += _crosstalk(true.detector(number), nominal.detector(number), sky_noise)
    values = np.array(residuals)
    report("crosstalk residual of 40,000 ADU, median", np.median(values), "sky noise", 0.06,
           len(values))  # fmt: skip
    report("crosstalk residual of 40,000 ADU, 95th percentile", np.percentile(values, 95),
           "sky noise", 0.15, len(values))  # fmt: skip


def _crosstalk(true, nominal, sky_noise):
    rng = np.random.default_rng(true.number)
    bright = (slice(1000, 1200), slice(300, 500))
    out = []
    for entry in (c for c in true.crosstalk if c.source == true.number):
        source, victim = true.amplifier(entry.source_amp), true.amplifier(entry.victim_amp)
        counts = {a.name: np.full(a.data.shape, 100.0) for a in true.amplifiers}
        counts[source.name][bright] = 40_000.0
        leak = entry.coefficient * counts[source.name]
        over = np.maximum(counts[source.name] - entry.onset, 0.0)
        high = entry.coefficient * entry.onset + over * (
            entry.p1 + over * (entry.p2 + over * entry.p3)
        )
        leak = np.where(over > 0, high, leak)
        flip = (slice(None, None, -1 if source.at_top != victim.at_top else 1),
                slice(None, None, -1 if source.at_right != victim.at_right else 1))  # fmt: skip
        counts[victim.name] = counts[victim.name] + leak[flip]
        data = np.full(true.raw_shape, 2000.0)
        for amp in true.amplifiers:
            data[amp.data.slices] += counts[amp.name]
        data += rng.normal(0, 1.5, data.shape)
        data = np.rint(data).clip(0, 65535).astype(np.uint16)
        raw = RawFrame(data, {}, VisitInfo(1, true.number, "g", 86.0, 57070.0))
        plain = nominal.replace(defects=())
        image = isr.run(raw, plain, config=isr.Config(find_columns=False)).exposure.image
        part = image[victim.trimmed.slices] / nominal.amplifier(victim.name).gain
        ghost = np.zeros(part.shape, bool)
        ghost[bright] = True
        ghost = ghost[flip]
        ring = binary_dilation(ghost, iterations=30) & ~ghost
        out.append(abs(part[ghost].mean() - part[ring].mean()) / sky_noise)
    return out


def blank_sky(samples):
    """Bias of the background of a frame without any source."""
    biases = []
    for seed in range(samples):
        rng = np.random.default_rng(seed + 50)
        image = (400 + 20 * rng.standard_normal((4096, 2048), np.float32)).astype(np.float32)
        model = background.model(image, np.zeros(image.shape, np.uint32))
        biases.append(model.image.mean(dtype=float) - 400.0)
    error = float(np.std(biases, ddof=1) / np.sqrt(samples)) / ELECTRONS_PER_ADU
    report("bias of blank sky", abs(np.mean(biases)) / ELECTRONS_PER_ADU, "ADU", 0.03, samples,
           stage="calibrate", stderr=error)  # fmt: skip


def galaxies(frame):
    """Flux within four half-light radii that the background takes, galaxies put into a frame."""
    import galsim

    e = frame.exposure
    before = frame.background.image
    ny, nx = e.shape
    yy, xx = np.mgrid[:ny, :nx]
    scale = frame.camera.pixel_scale
    for radius, bound in ((3, 0.03), (8, 0.03), (20, 0.07)):
        lost = []
        for index in (1, 4):
            flux = 10 ** (0.4 * (31.34 - 22.0)) * 2 * np.pi * radius**2
            galaxy = galsim.Sersic(index, half_light_radius=radius, flux=flux, trunc=6 * radius)
            seen = galsim.Convolve(
                galaxy.shear(g1=0.2, g2=0.1),
                galsim.Moffat(beta=3, fwhm=1.0),
                gsparams=galsim.GSParams(maximum_fft_size=8192),
            )
            x, y = nx * 0.55, ny * 0.4
            light = seen.drawImage(
                galsim.ImageF(nx, ny, scale=scale), center=galsim.PositionD(x + 1, y + 1)
            ).array
            inside = np.hypot(xx - x, yy - y) < 4 * radius / scale
            after = background.model(e.image + light, e.mask).image
            lost.append(abs(float((after - before)[inside].sum() / light[inside].sum())))
        report(f"flux lost round galaxies of {radius} arcsec", max(lost), "fraction", bound,
               len(lost), stage="calibrate")  # fmt: skip


def speed(frame):
    """CPU seconds per step on one full-size CCD, and the comparison with astroscrappy."""
    e, f = frame.exposure, frame
    number = f.detector.number
    report("read a raw frame", cpu(lambda: io.read_raw(f.path, f.camera, number)), "CPU s", 0.3, 5,
           goal=0.15, stage="io")  # fmt: skip
    report("remove the instrument signature", cpu(lambda: isr.run(f.raw, f.detector, f.calibs)),
           "CPU s", 0.5, 5, goal=0.2)  # fmt: skip
    report("model the background", cpu(lambda: background.model(e.image, e.mask)), "CPU s", 0.6, 5,
           stage="calibrate")  # fmt: skip
    fwhm = f.camera.psf_fwhm_min / f.camera.pixel_scale
    ours = cpu(lambda: cosmicray.find(f.flux, e.variance, e.mask, 0.0, fwhm))
    report("find cosmic rays", ours, "CPU s", 0.15, 5, stage="calibrate")
    try:
        import astroscrappy
    except ImportError:
        return
    start = time.process_time()
    theirs, _ = astroscrappy.detect_cosmics(
        e.image, inmask=e.mask != 0, sigclip=4.5, objlim=5.0, gain=1.0, readnoise=6.0, niter=4,
        satlevel=1.6e5, sepmed=True, cleantype="medmask", fsmode="median", psffwhm=4.2,
    )  # fmt: skip
    spent = time.process_time() - start
    report("cosmic rays: astroscrappy over ours", spent / ours, "ratio", 50.0, 1, least=True,
           stage="calibrate")  # fmt: skip
    noise = np.sqrt(np.maximum(e.variance - f.charge, 36.0))
    bright = (f.charge > 6 * noise) & (e.mask == 0)
    gain = (f.rays.mask & bright).sum() - (theirs & bright).sum()
    report("cosmic rays: more complete than astroscrappy", gain / bright.sum(), "fraction", 0.0,
           bright.sum(), least=True, stage="calibrate")  # fmt: skip


def chain(root, camera, path, number, scratch):
    """Raw file to written visit image in a process that does nothing else."""
    catalogue = io.read_parquet(root / "refcat" / "refcat.parquet")
    detector = camera.detector(number)
    target = scratch / "visit_image.fits"

    def run():
        raw = io.read_raw(path, camera, number)
        frames = calibration_frames(root, number, raw.info.band)
        exposure = isr.run(raw, detector, frames).exposure
        result = calibrate.run(exposure, catalogue, psf_fwhm_min=camera.psf_fwhm_min)
        io.write_exposure(target, result.visit_image)

    report("raw file to written visit image", cpu(run), "CPU s", 3.0, 5, goal=2.0, stage="visit")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("peak memory from raw file to written visit image", memory, "MiB", 1024.0, 1,
           stage="visit")  # fmt: skip
    report("size of a written visit image", target.stat().st_size / 1e6, "MB", 16.0, 1,
           stage="visit")  # fmt: skip


def workspace(options, scratch):
    """Simulate frames unless a folder with some is given."""
    root = options.workspace or scratch / "workspace"
    if not (root / "raw").is_dir():
        visits = sorted({u.visit for u in sims.expected("mini")})[-options.visits :]
        sims.simulate(root, "mini", seed=options.seed, jobs=1, visits=visits)
    return root


def science(frames, scratch, options):
    masks(frames)
    rays(frames)
    sharp_stars_and_tracks(6)
    levels(frames)
    blank_sky(8)
    galaxies(frames[0])
    crosstalk(scratch / "camera", options.seed, options.ccds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", nargs="?", choices=["speed", "science", "chain"], default="speed")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--visits", type=int, default=2)
    parser.add_argument("--ccds", type=int, default=30)
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        root = workspace(options, scratch)
        camera = Camera.load(root / "calib" / "camera" / "decam.toml")
        places = [
            (path, number)
            for path in sorted((root / "raw").glob("*.fits.fz"))
            for number in io.list_raw(path, camera)
        ]
        if options.kind == "chain":
            chain(root, camera, *places[0], scratch)
        elif options.kind == "speed":
            again = [sys.executable, "-m", "bench.bench_isr", "chain", "--workspace", str(root)]
            subprocess.run(again, check=True)
            frame = Frame(root, camera, *places[0], options.seed)
            files(frame, scratch)
            speed(frame)
        else:
            science([Frame(root, camera, *p, options.seed) for p in places], scratch, options)


if __name__ == "__main__":
    main()
