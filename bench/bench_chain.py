"""Raw frames to alerts, beside the chain of other programs that a user would assemble.

    python -m bench.bench_chain speed [--workspace FOLDER] [--visit V ...] [--detector D ...]
        [--peer-python photutils=PATH]

Nightjar runs once over the raw frames of a simulated campaign (`mini`, made first unless there is
one), everything written, in one process; then the programs of `bench.chain` do on the same frames
what they can.  CPU seconds of one thread, all frames together, start-up and reading and writing
included on both sides.  Prints one JSON object per measurement, the last of them the ratio.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from bench.chain import STEPS, Chain, missing  # noqa: E402
from bench.peers import interpreters  # noqa: E402
from bench.report import reporter  # noqa: E402
from bench.timing import timed  # noqa: E402
from harness.catalog import Catalog  # noqa: E402
from harness.execute.compilation import compile_loops  # noqa: E402

NIGHTJAR = (sys.executable, "-m", "harness.cli.main")
report = reporter("chain")
RAW = ("nightjar.toml", "raw", "calib", "refcat", "ephemerides")
BOUND = 6.0
BESIDE = {
    "isr": ("signature",),
    "calibrate": ("cosmic rays", "catalogue and PSF", "astrometry"),
    "template": ("template",),
    "subtract": ("warp", "subtraction"),
    "diasource": ("detection", "photometry"),
    "diaobject": (),
    "forced": (),
    "alerts": (),
}
DELIVERS = {
    "isr": "crosstalk, overscan, linearity, bias, flat; bleeds, unlisted columns",
    "calibrate": "cosmic rays, sky, sources, PSF, WCS, zero point",
    "template": "clipped coadd with PSF and noise autocovariance",
    "subtract": "warp, whitened difference with its score",
    "diasource": "sources with all attributes, reliability, cut-outs",
    "diaobject": "objects, solar-system bodies, histories",
    "forced": "forced fluxes of every object",
    "alerts": "packets",
}


def simulated(folder: Path) -> Path:
    """Make the raw frames of `mini`."""
    timed([*NIGHTJAR, "init", str(folder), "--profile", "mini"], folder.parent, 1)
    timed([*NIGHTJAR, "sim", str(folder), "-j", "1"], folder.parent, 1)
    return folder


def copied(campaign: Path, target: Path) -> Path:
    """Copy what a campaign begins with."""
    target.mkdir()
    for name in RAW:
        source = campaign / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / name)
    return target


def ours(work: Path, options: list[str]) -> dict[str, float]:
    """Run the campaign and return CPU seconds by stage; the rest of the program is one of them."""
    run = [*NIGHTJAR, "run", str(work), "--quiet", "--set", 'execution.executor="serial"']
    whole = timed([*run, *options], work, 1).cpu
    with Catalog(work / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.rows("SELECT stage, sum(cpuS) AS cpu FROM unit GROUP BY stage")
    spent = {str(row["stage"]): float(row["cpu"]) for row in rows}
    return spent | {"start, plan, catalogue": whole - sum(spent.values())}


def theirs(chain: Chain, work: Path) -> None:
    """Take every frame that Nightjar made something of through the chain of the others."""
    with Catalog(work / "catalog.duckdb", read_only=True) as catalog:
        frames = catalog.rows("SELECT visit, detector, band FROM visit_image ORDER BY ALL")
        inputs = catalog.rows("SELECT templateId, visit, detector FROM template_input ORDER BY ALL")
        science = catalog.rows("SELECT visit, detector, templateId FROM difference_image")
    for row in frames:
        chain.frame(row["visit"], row["detector"], row["band"])
    coadds: dict[str, list[str]] = {}
    for row in inputs:
        name = f"{row['visit']}_{row['detector']:02d}"
        coadds.setdefault(str(row["templateId"]), []).append(name)
    for name, files in coadds.items():
        chain.template(name, files)
    for row in science:
        name = str(row["templateId"])
        chain.difference(row["visit"], row["detector"], name, len(coadds[name]))


def count(work: Path) -> dict[str, int]:
    """Count what each stage worked on, and the sources and alerts."""
    counts = {}
    with Catalog(work / "catalog.duckdb", read_only=True) as catalog:
        for row in catalog.rows("SELECT stage, count(*) AS n FROM unit GROUP BY stage"):
            counts[str(row["stage"])] = int(row["n"])
        for name, table in (("sources", "DiaSource"), ("packets", "alert WHERE emitted")):
            counts[name] = int(catalog.value(f"SELECT count(*) FROM {table}"))
    return counts


def beside(mine: dict[str, float], chain: Chain | None, counts: dict[str, int]) -> None:
    """Print stage by stage what both took and what came of it."""
    for stage, spent in mine.items():
        words = f": {DELIVERS[stage]}" if stage in DELIVERS else ""
        report(f"nightjar {stage}{words}", spent, "CPU s", None, counts.get(stage, 1))
        for step in BESIDE.get(stage, ()) if chain else ():
            report(f"peers {step}: {STEPS[step]}", chain.spent[step], "CPU s", None, counts[stage])
    for what in ("sources", "packets"):
        report(f"nightjar {what}", counts[what], "", None, counts[what])
    if chain:
        report("peers sources", sum(chain.sources), "", None, len(chain.sources))


def main() -> int:
    """Run both chains on the same frames."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("speed", "science"))
    parser.add_argument("--workspace", type=Path, help="a simulated campaign with its raw frames")
    parser.add_argument("--visit", type=int, action="append", default=[], help="science frames")
    parser.add_argument("--detector", type=int, action="append", default=[])
    parser.add_argument("--peer-python", action="append", default=[], metavar="photutils=PATH")
    args = parser.parse_args()
    if args.kind == "science":
        return 0
    python = interpreters(args.peer_python).get("photutils", sys.executable)
    options = [f"--{name}={n}" for name in ("visit", "detector") for n in getattr(args, name)]
    compile_loops()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        campaign = args.workspace or simulated(root / "mini")
        work = copied(campaign, root / "ours")
        mine, chain, lost = ours(work, options), None, missing(python)
        if lost:
            sys.stderr.write(f"no ratio: not installed here: {', '.join(lost)}\n")
        else:
            (root / "theirs").mkdir()
            chain = Chain(root / "theirs", campaign, python)
            theirs(chain, work)
        beside(mine, chain, counts := count(work))
        if chain:
            ratio = sum(chain.spent.values()) / sum(mine.values())
            report("CPU time of the peers' chain over ours", ratio, "", BOUND, counts["isr"],
                   least=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
