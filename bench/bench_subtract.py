"""Speed and accuracy of the subtraction on pairs with known truth.

    python -m bench.bench_subtract speed|science [--seeds 6]

Prints one JSON object per measurement.  Peers are run on the same pair when they are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from bench.pairs import GAIN, Pair, make_pair  # noqa: E402
from pipeline import subtract, template  # noqa: E402
from pipeline.subtract.metrics import lag1, robust_std  # noqa: E402
from pipeline.subtract.pixels import region_sums  # noqa: E402

SIZES = ((512, 512), (1024, 1024), (2048, 2048), (4096, 2048), (4096, 4096))


def show(
    name: str, value: float, unit: str, bound: str, goal: str, holds: bool | None, n: int
) -> None:
    """Print one measurement."""
    keys = ("name", "stage", "value", "unit", "bound", "goal", "holds", "population")
    row = dict(zip(keys, (name, "subtract", value, unit, bound, goal, holds, n), strict=True))
    print(json.dumps(row), flush=True)


def mean_within(name: str, values: list[float], low: float, high: float, unit: str = "") -> None:
    """Judge a mean by its bounds; three standard errors must fit into the tolerance."""
    mean, error = float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))
    fits = 3 * error < (high - low)
    holds = low <= mean <= high if fits else None
    show(name, mean, unit, f"{low:g} to {high:g}", "", holds, len(values))


def judge(pair: Pair, *, declared: bool = True) -> dict[str, float]:
    """Measure one difference against the truth, the template's noise declared or not."""
    deep = pair.template if declared else pair.template.replace(noise_correlation=None)
    config = subtract.Config(measure_correlation=not declared)
    difference = subtract.run(pair.science, deep, config)
    e, truth = difference.exposure, pair.truth
    clean = (e.mask & subtract.EXCLUDED) == 0
    quiet = clean & (pair.static < 0.5 * np.sqrt(300 / GAIN))
    for x, y in zip(truth.x, truth.y, strict=True):
        quiet[int(y) - 14 : int(y) + 15, int(x) - 14 : int(x) + 15] = False
    quiet[:30] = quiet[-30:] = quiet[:, :30] = quiet[:, -30:] = False
    regions = lag1(region_sums(e.image, e.variance, quiet.view(np.uint8), 8, 4))
    flux, null, total, snr = forced(difference, pair)
    bright = flux[2] > 20 * null
    return {
        "pixel std": robust_std((e.image / np.sqrt(e.variance))[quiet]),
        "score std": robust_std(difference.score[quiet]),
        "lag-1, largest of 32 regions": float(np.nanmax(np.abs(regions))),
        "lag-1, mean": float(np.nanmean(regions)),
        "star chi2 mean": difference.metrics["starChi2Mean"],
        "star chi2 p90": difference.metrics["starChi2P90"],
        "flux ratio": float(
            np.average((flux[0] / flux[1])[bright], weights=((flux[1] / total) ** 2)[bright])
        ),
        "pull std": robust_std((flux[0] - flux[1]) / total),
        "masked": float(1 - clean.mean()),
        "snr50": snr50(flux[1] / null, snr),
        "false positives": float(false_positives(difference, truth)),
    }


def forced(difference: Any, pair: Pair) -> tuple[Any, Any, Any, Any]:
    """Forced fluxes at the true places: (measured, true, true), null and full errors, score."""
    e, t = difference.exposure, pair.truth
    rows = []
    for x, y, flux in zip(t.x, t.y, t.flux, strict=True):
        i, j = round(x), round(y)
        p = e.psf.at(x, y)
        k = np.fft.fftfreq(p.shape[0])
        wave = np.exp(-2j * np.pi * (k[:, None] * (y - j) + k * (x - i)))
        h = p.shape[0] // 2
        p = np.real(np.fft.ifft2(np.fft.fft2(p) * wave))[h - 10 : h + 11, h - 10 : h + 11]
        box = np.s_[j - 10 : j + 11, i - 10 : i + 11]
        if ((e.mask[box] & subtract.EXCLUDED) != 0).any():
            continue
        w = p / difference.null_variance[box]
        norm = (w * p).sum()
        measured = (w * e.image[box]).sum() / norm
        error = np.sqrt((w**2 * e.variance[box]).sum()) / norm
        peak = difference.score[j - 2 : j + 3, i - 2 : i + 3].max()
        rows.append((measured, flux, norm**-0.5, error, peak))
    measured, true, null, error, peak = np.array(rows).T
    return (measured, true, true), null, error, peak


def snr50(true: Any, peak: Any) -> float:
    """SNR at which half of the sources exceed a score of five, by a logistic fit."""
    from scipy.optimize import minimize

    found = peak >= 5.0

    def loss(q: Any) -> float:
        z = np.clip((true - q[0]) / np.exp(q[1]), -30, 30)
        return float(np.sum(np.logaddexp(0, np.where(found, -z, z))))

    return float(minimize(loss, [5.0, -0.5], method="Nelder-Mead").x[0])


def false_positives(difference: Any, truth: Any) -> int:
    """Local maxima of the score above five away from every transient."""
    from scipy.ndimage import maximum_filter
    from scipy.spatial import cKDTree

    score = np.nan_to_num(difference.score)
    clean = (difference.exposure.mask & subtract.EXCLUDED) == 0
    y, x = np.nonzero((score >= 5.0) & (score == maximum_filter(score, 9)) & clean)
    if not len(x):
        return 0
    near = cKDTree(np.column_stack([truth.x, truth.y])).query(np.column_stack([x, y]))[0] < 10
    return int((~near).sum())


def science(seeds: int) -> None:
    """Accuracy, on white and on resampled templates."""
    for kind, coadd, declared in (
        ("white template", False, True),
        ("coadded template", True, True),
        ("coadded template, noise not declared", True, False),
    ):
        found: dict[str, list[float]] = {}
        for seed in range(9000, 9000 + seeds):
            pair = make_pair(seed, coadd=coadd)
            for name, value in judge(pair, declared=declared).items():
                found.setdefault(name, []).append(value)
        bounds = {
            "pixel std": (0.99, 1.01),
            "score std": (0.99, 1.01),
            "lag-1, largest of 32 regions": (0.0, 0.005),
            "lag-1, mean": (-0.005, 0.005),
            "star chi2 mean": (0.0, 1.02),
            "star chi2 p90": (0.0, 1.22),
            "flux ratio": (0.997, 1.003),
            "masked": (0.0, 0.005),
            "snr50": (4.5, 5.1),
            "false positives": (0.0, 4.0),
            "pull std": (0.95, 1.05),
        }
        for name, values in found.items():
            mean_within(f"{name}, {kind}", values, *bounds[name])


def speed() -> None:
    """CPU time by size, peak memory, and hotpants on the same pair when it is installed."""
    times: list[tuple[int, float]] = []
    for shape in SIZES:
        pair = make_pair(1, shape, coadd=False)
        subtract.run(pair.science, pair.template)
        start = time.process_time()
        subtract.run(pair.science, pair.template)
        used = time.process_time() - start
        pixels = shape[0] * shape[1]
        times.append((pixels, used))
        reference = shape == (4096, 2048)
        bound, goal = ("2.2", "1.6") if reference else ("", "")
        show(f"subtract {shape[1]} x {shape[0]}", used, "CPU s", bound, goal,
             used <= 2.2 if reference else None, 1)  # fmt: skip
    pixels, used = np.array(times).T
    slope = float(np.polyfit(np.log(pixels[1:]), np.log(used[1:]), 1)[0])
    show("growth of time with pixels", slope, "exponent", "0.8 to 1.1", "", 0.8 <= slope <= 1.1, 4)
    warp_speed()
    coadd_speed()
    whole_process()


def warp_speed() -> None:
    """Warp of one CCD."""
    pair = make_pair(2, (4096, 2048), coadd=False)
    shifted = pair.science.wcs.deepcopy()
    shifted.wcs.crpix = shifted.wcs.crpix + 3.3
    template.warp(pair.template, shifted, (4096, 2048))
    start = time.process_time()
    template.warp(pair.template, shifted, (4096, 2048))
    used = time.process_time() - start
    show("warp 2048 x 4096, three planes", used, "CPU s", "0.8", "0.5", used <= 0.8, 1)


def coadd_speed() -> None:
    """Coadd of five warped CCDs: what comes on top of warping them."""
    shape = (4096, 2048)
    pair = make_pair(2, shape, coadd=False)
    visits = []
    for k in range(5):
        info = replace(pair.template.info, visit=100 + k)
        moved = pair.template.wcs.deepcopy()
        moved.wcs.crpix = moved.wcs.crpix + 1.7 * k
        visits.append(pair.template.replace(info=info, wcs=moved))
    template.run(visits, pair.science.wcs, shape)
    start = time.process_time()
    template.run(visits, pair.science.wcs, shape)
    used = time.process_time() - start
    start = time.process_time()
    for visit in visits:
        template.warp(visit, pair.science.wcs, shape)
    own = used - (time.process_time() - start)
    show("template of five, warps included", used, "CPU s", "4.5", "", used <= 4.5, 1)
    show("coadd of five, warps taken off", own, "CPU s", "0.5", "", own <= 0.5, 1)


def whole_process() -> None:
    """Time files to files, in fresh processes, beside the peers that are here."""
    from astropy.io import fits

    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        pair = make_pair(3, (4096, 2048), coadd=False)
        for name, e in (("science", pair.science), ("template", pair.template)):
            header = e.wcs.to_header()
            header["SATURATE"] = 44_600.0
            for suffix, plane in (
                ("", e.image),
                ("_var", e.variance),
                ("_mask", (e.mask != 0).astype(np.int16)),
                ("_sig", np.sqrt(e.variance)),
            ):
                fits.writeto(here / f"{name}{suffix}.fits", plane, header)
        ours = [sys.executable, "-m", "harness.cli.main", "subtract", "science.fits",
                "template.fits", "-o", "out"]  # fmt: skip
        for name in ("science", "template"):
            ours += [
                f"--{name}-variance",
                f"{name}_var.fits",
                f"--{name}-mask",
                f"{name}_mask.fits",
            ]
        wall, cpu, peak = timed(ours, here)
        theirs = None
        if shutil.which("hotpants"):
            command = ("hotpants -inim science.fits -tmplim template.fits -outim hp.fits -ini "
                       "science_sig.fits -tni template_sig.fits -imi science_mask.fits -tmi "
                       "template_mask.fits -oni noise.fits -il -200 -iu 44600 -tl -200 -tu 44600 "
                       "-c t -n i -ko 2 -bgo 1 -nsx 10 -nsy 20 -r 10 -rss 18 "
                       "-ng 3 6 0.7 4 1.5 2 3.0 -v 0")  # fmt: skip
            theirs = timed(command.split(), here)[0]
            show("hotpants, whole process", theirs, "s", "", "", None, 1)
        holds = None if theirs is None else wall <= theirs / 2
        show(
            "nightjar subtract, whole process",
            wall,
            "s",
            "1/2 of hotpants",
            "1/3 of hotpants",
            holds,
            1,
        )
        show("nightjar subtract, whole process, CPU", cpu, "CPU s", "", "", None, 1)
        show("nightjar subtract, peak memory", peak, "MB", "700", "", peak <= 700, 1)


def timed(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Wall time, CPU time and peak memory (MB) of a second run of a command."""
    root = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root}
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.monotonic()
        probe = ("import resource,subprocess,sys;subprocess.run(sys.argv[1:],check=True,"
                 "stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL);"
                 "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")  # fmt: skip
        done = subprocess.run([sys.executable, "-c", probe, *command], cwd=folder, env=env,
                              capture_output=True, text=True, check=True)  # fmt: skip
        wall = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, float(done.stdout) / 1024


def main() -> None:
    """Run one kind of benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("speed", "science"))
    parser.add_argument("--seeds", type=int, default=6)
    args = parser.parse_args()
    if args.kind == "speed":
        speed()
    else:
        science(args.seeds)


if __name__ == "__main__":
    main()
