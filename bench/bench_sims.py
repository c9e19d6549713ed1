"""Speed and memory of the simulator, full-size frames with everything written; its accuracy.

Prints one JSON object per line: name, stage, value, unit, bound, goal, holds, population.
Usage: ``python -m bench.bench_sims [speed | science] [--seed 11] [--detectors 10 56 ...]``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

import sims  # noqa: E402
from bench.report import reporter  # noqa: E402
from pipeline.camera import Camera  # noqa: E402
from sims.optics import PsfField  # noqa: E402
from sims.statistics import Statistics, astrometry, campaign, laboratory, rendering  # noqa: E402

WIDTHS = (0.8, 1.0, 1.3)  # arcsec
UNITS = ((411420, 10), (411069, 56))
LEAKY = (6, 53)  # what leaks into them from their neighbours has bounds too
report = reporter("sims")


def tell(where: str, statistics: Statistics) -> None:
    """Print of each statistic the row closest to its bound; the population is all rows'."""
    for row in statistics.worst():
        same = [r for r in statistics.rows if r.name == row.name]
        unit = "relative" if row.relative else row.unit
        name = f"{where}: {row.name} ({len(same)} compared, worst {row.subject})"
        report(name, row.error, unit, row.bound, sum(r.population for r in same))


def speed(seed: int, detectors: list[int]) -> None:
    """CPU of frames in a warm process: raw extension, truth, artefact map, assembly."""
    visits = [v.number for v in sims.profiles()["mini"].visits]
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for detector in detectors:
            root = Path(folder) / str(detector)
            sims.simulate(root, "mini", seed=seed, visits=visits[:1], detectors=[detector])
            for visit in visits[1:]:
                start = time.process_time()
                sims.simulate(root, "mini", seed=seed, visits=[visit], detectors=[detector])
                times.append(time.process_time() - start)
    report("cpu_per_frame", np.median(times), "s", 3.0, len(times), goal=1.5)
    report("cpu_per_frame_worst", np.max(times), "s", 3.0, len(times))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("peak_rss", peak, "MiB", 800e6 / 2**20, len(times))


def science(seed: int, detectors: list[int]) -> None:
    """Every statistic of the simulator on full-size frames, and its determinism."""
    scale = Camera.load("decam").pixel_scale
    widths = (rendering(PsfField.draw(seed, k, w, scale)) for k, w in enumerate(WIDTHS))
    tell("noise-free against GalSim", Statistics.join(widths))
    decam = Camera.load("decam")
    channels = (laboratory(decam, d, seed=seed) for d in (*detectors, *LEAKY))
    tell("decam laboratory", Statistics.join(channels))
    tell("16-amplifier laboratory", laboratory(Camera.load("lsstlike"), 1, seed=seed))
    tell("undisturbed frames", astrometry(sims.profiles()["mini"], seed, UNITS))
    with tempfile.TemporaryDirectory() as folder:
        sims.simulate(Path(folder), "mini", seed=seed)
        tell("mini", campaign(Path(folder)))
    determinism(seed)


def determinism(seed: int) -> None:
    """Files that differ between one process, two processes, and detectors made one by one."""
    with tempfile.TemporaryDirectory() as folder:
        one, two, apart = (Path(folder) / name for name in ("one", "two", "apart"))
        few = [v.number for v in sims.profiles()["mini"].visits[2:4]]
        sims.simulate(one, "mini", seed=seed, visits=few)
        sims.simulate(two, "mini", seed=seed, visits=few, jobs=2)
        for detector in (56, 10):
            sims.simulate(apart, "mini", seed=seed, visits=few, detectors=[detector])
        first = contents(one)
        for name, other in (
            ("two_processes", contents(two)),
            ("single_detectors", contents(apart)),
        ):
            different = {k for k in first.keys() | other.keys() if first.get(k) != other.get(k)}
            report(f"files_that_differ_{name}", len(different), "files", 0, len(first))


def contents(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("speed", "science"), nargs="?", default="speed")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--detectors", type=int, nargs="+", default=[10, 56])
    options = parser.parse_args()
    (speed if options.kind == "speed" else science)(options.seed, options.detectors)


if __name__ == "__main__":
    main()
