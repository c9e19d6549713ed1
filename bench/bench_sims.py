"""Speed and memory of the simulator, full-size frames with everything written; its accuracy.

Prints one JSON object per line: name, stage, value, unit, bound, goal, holds, population.
Usage: ``python -m bench.bench_sims [speed | science] [--seed 1] [--detector 10]``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

import sims  # noqa: E402
import sims.campaign  # noqa: E402
from sims.optics import INSTRUMENT_FWHM, PsfField  # noqa: E402
from sims.render import Light, render  # noqa: E402

SCALE, SIDE = 0.2626, 256


def emit(name, value, unit, bound, population, *, goal=None):
    row = {"name": name, "stage": "sims", "value": round(float(value), 6), "unit": unit}
    row |= {"bound": bound, "goal": goal, "holds": bool(value <= bound)}
    print(json.dumps(row | {"population": int(population)}))
    sys.stdout.flush()


def speed(seed: int, detector: int) -> None:
    """CPU of frames in a warm process: raw extension, truth, artefact map, assembly."""
    visits = [v.number for v in sims.profiles()["mini"].visits]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sims.simulate(root, "mini", seed=seed, visits=visits[:1], detectors=[detector])
        times = []
        for visit in visits[1:]:
            start = time.process_time()
            sims.simulate(root, "mini", seed=seed, visits=[visit], detectors=[detector])
            times.append(time.process_time() - start)
    emit("cpu_per_frame", np.median(times), "s", 3.0, len(times), goal=1.5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    emit("peak_rss", peak, "MiB", 800.0, 1)


def accuracy(n: int = 24) -> None:
    """Stars of all brightnesses and places against galsim.drawImage."""
    import galsim

    psf = PsfField.draw(1, 1, 0.85, SCALE)
    rng = np.random.default_rng(1)
    precise = galsim.GSParams(kvalue_accuracy=1e-7, folding_threshold=2e-4, maximum_fft_size=16384)
    base = galsim.Convolve(
        [
            galsim.Kolmogorov(fwhm=psf.atmosphere_fwhm, gsparams=precise),
            galsim.Gaussian(fwhm=INSTRUMENT_FWHM / SCALE),
        ]
    )
    worst, flux_error, shift = 0.0, 0.0, 0.0
    column, row = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for _ in range(n):
        x, y = rng.uniform(110, 146, 2)
        flux = 10.0 ** rng.uniform(3.0, 7.0)
        plane = rng.uniform(-200, 200, (2, 1))
        size, g1, g2 = (float(v[0]) for v in psf.at(*plane))
        ours = render(Light.points(x, y, flux), psf, tuple(plane), (SIDE, SIDE))
        profile = base.dilate(size).shear(g1=g1, g2=g2).withFlux(flux)
        middle = 0.5 * (SIDE - 1)
        theirs = profile.drawImage(
            nx=SIDE, ny=SIDE, scale=1.0, offset=(x - middle, y - middle), dtype=float
        ).array
        worst = max(worst, np.abs((ours - theirs) / np.sqrt(theirs + 396.0)).max())
        near = np.hypot(column - x, row - y) < 16
        flux_error = max(flux_error, abs(ours[near].sum() / theirs[near].sum() - 1))
        centres = [
            np.array([(a * column)[near].sum(), (a * row)[near].sum()]) / a[near].sum()
            for a in (ours, theirs)
        ]
        shift = max(shift, np.abs(centres[0] - centres[1]).max() * SCALE * 1000)
    emit("worst_pixel", worst, "sigma", 0.02, n)
    emit("aperture_flux_error", flux_error, "relative", 1e-3, n)
    emit("centroid_error", shift, "mas", 0.1, n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("speed", "science"), nargs="?", default="speed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--detector", type=int, default=10)
    options = parser.parse_args()
    if options.kind == "speed":
        speed(options.seed, options.detector)
    else:
        accuracy()


if __name__ == "__main__":
    main()
