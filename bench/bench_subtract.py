"""Speed and accuracy of the subtraction on pairs with known truth.

    python -m bench.bench_subtract speed|science|peers|algorithms [--seeds 6]
        [--algorithm zogy] [--peer-python sfft=PATH]

Prints one JSON object per measurement.  `speed` ends with `peers`: Nightjar's program and those of
others that are installed (see `bench.peers`), timed and judged on the files of the same pair.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from bench import peers  # noqa: E402
from bench.oracle import proper  # noqa: E402
from bench.pairs import Pair, make_pair  # noqa: E402
from bench.quality import Planes, compare, judge  # noqa: E402
from bench.report import reporter  # noqa: E402
from pipeline import subtract  # noqa: E402
from pipeline.exposure import Difference  # noqa: E402
from pipeline.masks import NOT_IN_SCORE, bits  # noqa: E402
from pipeline.subtract.metrics import robust_std  # noqa: E402

SIZES = ((512, 512), (1024, 1024), (2048, 2048), (4096, 2048), (4096, 4096))
REFERENCE = (4096, 2048)
report = reporter("subtract")
PEER_SIZES = [(2048, 2048), REFERENCE]
"""SFFT on the CPU needs 24 GB for the larger one."""

OURS = ("nightjar subtract", "nightjar subtract --no-detect")
BOUNDS = {
    "pixel std": (0.99, 1.01),
    "score std": (0.99, 1.01),
    "lag-1, largest of 32 regions": (0.0, 0.005),
    "lag-1, mean": (-0.005, 0.005),
    "star chi2 mean": (0.0, 1.02),
    "star chi2 p90": (0.0, 1.22),
    "flux over the oracle's": (0.997, 1.003),
    "pull std over the oracle's": (0.97, 1.03),
    "snr50 over the oracle's": (0.0, 1.02),
    "false near saturated cores": (0.0, 4.0),
    "false elsewhere, beyond the oracle's": (-np.inf, 2.0),
    "masked": (0.0, 0.005),
}


def mean_within(name: str, values: list[float], low: float | None, high: float | None) -> None:
    """Judge a mean by its bounds, if it has any; three standard errors must fit into them."""
    mean, error = float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))
    if low is None or high is None:
        report(name, mean, "", None, len(values))
        return
    holds = low <= mean <= high if 3 * error < (high - low) else None
    report(name, mean, "", f"{low:g} to {high:g}", len(values), holds=holds)


def science(seeds: int, algorithm: str = "alard_lupton") -> None:
    """Accuracy beside the best possible difference of the same pairs."""
    for kind, options, declared in (
        ("plain", {"coadd": False}, True),
        ("misregistered by 0.1 px", {"coadd": False, "misreg": 0.1}, True),
        ("coadded template", {"coadd": True}, True),
        ("coadded template, noise not declared", {"coadd": True}, False),
    ):
        found: dict[str, list[float]] = {}
        for seed in range(9000, 9000 + seeds):
            pair = make_pair(seed, **options)
            for name, value in accuracy(pair, declared, algorithm).items():
                found.setdefault(name, []).append(value)
        for name, values in found.items():
            mean_within(f"{name}, {kind}", values, *BOUNDS.get(name, (None, None)))


def accuracy(pair: Pair, declared: bool, algorithm: str) -> dict[str, float]:
    """Subtract a pair and judge it, the template's noise declared or not."""
    deep = pair.template if declared else pair.template.replace(noise_correlation=None)
    ours = planes(subtract.run(pair.science, deep, subtract.Config(algorithm=algorithm)))
    return compare(judge(pair, ours), judge(pair, proper(pair)))


def planes(made: Difference) -> Planes:
    """Planes of a difference as they are judged."""
    e = made.exposure
    usable = (e.mask & bits(*NOT_IN_SCORE)) == 0
    return Planes(e.image, e.variance, e.psf, usable, made.null_variance, made.score)


def algorithms(shape: tuple[int, int]) -> None:
    """Time and judge every algorithm on one pair whose PSFs are known, beside the oracle's ZOGY.

    `bench.oracle` subtracts the noise properly by code of its own, without the scene.  Where
    nothing else is, the difference of zogy is that; stdpipe's ZOGY is among the peers.
    """
    pair = make_pair(3, shape, coadd=False)
    best = proper(pair)
    judged = judge(pair, best)
    for name in subtract.ALGORITHMS:
        config = subtract.Config(algorithm=name)
        subtract.run(pair.science, pair.template, config)  # loads what is compiled
        start = time.process_time()
        ours = planes(subtract.run(pair.science, pair.template, config))
        used = time.process_time() - start
        size = f"{shape[1]} x {shape[0]}"
        report(f"{name}, {size}", used, "CPU s", None, 1)
        for quantity, value in compare(judge(pair, ours), judged).items():
            report(f"{name}, {size}, {quantity}", value, "", None, 1)
        good = ours.usable & best.usable
        off = (ours.image - best.image)[good] / np.sqrt(best.variance[good])
        report(f"{name}, {size}, beside the oracle", robust_std(off), "sigma", None, 1)


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
        reference = shape == REFERENCE
        bound, goal = (2.2, 1.6) if reference else (None, None)
        report(f"subtract {shape[1]} x {shape[0]}", used, "CPU s", bound, 1, goal=goal)
    pixels, used = np.array(times).T
    slope = float(np.polyfit(np.log(pixels), np.log(used), 1)[0])
    report("growth of time with pixels", slope, "exponent", 1.1, len(SIZES), low=0.8)


def beside_peers(pythons: dict[str, str], shape: tuple[int, int]) -> None:
    """Time and judge every program that is here on the files of one pair."""
    pair = make_pair(3, shape, coadd=False)
    best = judge(pair, proper(pair))
    size = f"{shape[1]} x {shape[0]}"
    walls = {}
    with tempfile.TemporaryDirectory() as folder:
        peers.write(pair, Path(folder))
        for name, made, cost in peers.run_all(pair, Path(folder), pythons):
            if isinstance(cost, str) or made is None:
                sys.stderr.write(f"{size}: {cost}\n")
                continue
            walls[name] = cost.wall
            bound = 700 if name in OURS and shape == REFERENCE else None
            report(f"{name}, {size}, wall", cost.wall, "s", None, 1)
            report(f"{name}, {size}, CPU", cost.cpu, "CPU s", None, 1)
            report(f"{name}, {size}, peak memory", cost.peak, "MiB", bound, 1)
            for quantity, value in compare(judge(pair, made), best).items():
                report(f"{name}, {size}, {quantity}", value, "", None, 1)
    for peer, bound, goal in (("hotpants", 1 / 2, 1 / 3), ("sfft, 1 thread", 1 / 20, None)):
        for ours in OURS if peer in walls else ():
            share = walls[ours] / walls[peer]
            report(f"wall time of {ours} over that of {peer}, {size}", share, "", bound, 1,
                   goal=goal)  # fmt: skip


def main() -> None:
    """Run one kind of benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("speed", "science", "peers", "algorithms"))
    parser.add_argument("--algorithm", default="alard_lupton", choices=tuple(subtract.ALGORITHMS))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--shape", type=int, nargs=2, metavar=("NY", "NX"), help="of peers' pair")
    parser.add_argument("--peer-python", action="append", default=[], metavar="NAME=PATH",
                        help="interpreter that has sfft or stdpipe")  # fmt: skip
    args = parser.parse_args()
    if args.kind == "science":
        science(args.seeds, args.algorithm)
        return
    if args.kind == "algorithms":
        algorithms(tuple(args.shape or REFERENCE))
        return
    if args.kind == "speed":
        speed()
    shapes = [tuple(args.shape)] if args.shape else PEER_SIZES
    for shape in shapes:
        beside_peers(peers.interpreters(args.peer_python), shape)


if __name__ == "__main__":
    main()
