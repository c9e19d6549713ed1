"""How cost grows with the number of visits: a unit's, and that of the process that keeps the books.

    python -m bench.bench_growth speed [--visits 16]

A campaign of the profile `tiny` is made longer: its science frames come again, under other numbers
and on later nights, so that objects and histories grow as in a survey.  One run takes two science
visits, another all of them; each unit's cost is compared with how many visits came before it.
Prints one JSON object per measurement.
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

import pyarrow as pa  # noqa: E402
from astropy.io import fits  # noqa: E402
from astropy.time import Time  # noqa: E402

from bench.report import reporter  # noqa: E402
from bench.timing import timed  # noqa: E402
from harness.catalog import Catalog  # noqa: E402
from harness.execute.compilation import compile_loops  # noqa: E402
from harness.system.hashes import file_hash  # noqa: E402
from pipeline import io  # noqa: E402

NIGHTJAR = (sys.executable, "-m", "harness.cli.main")
report = reporter("harness")
FLAT, SHARE, MANY = 1.10, 0.02, 500


def lengthen(root: Path, visits: int) -> None:
    """Repeat the science frames of a campaign, a day later each time round."""
    path = root / "raw" / "exposures.parquet"
    table = io.read_parquet(path)
    rows = [row for row in table.to_pylist() if row["role"] == "science"]
    span = 1.0 + max(r["startMjdUtc"] for r in rows) - min(r["startMjdUtc"] for r in rows)
    added = []
    for k in range(len(rows), visits):
        row, days = dict(rows[k % len(rows)]), (k // len(rows)) * span
        source = root / row["file"]
        row["visit"] += 10_000 * (k // len(rows))
        row["startMjdUtc"] += days
        row["midpointMjdTai"] += days
        row["file"] = f"raw/{row['visit']}.fits.fz"
        restamp(source, root / row["file"], row["visit"], row["startMjdUtc"])
        added.append(row | {"sha256": file_hash(root / row["file"])})
    io.write_parquet(path, pa.concat_tables([table, pa.Table.from_pylist(added, table.schema)]))


def restamp(source: Path, target: Path, visit: int, mjd: float) -> None:
    """Copy a raw frame under another number and time."""
    with fits.open(source, disable_image_compression=True) as hdus:
        header = hdus[0].header
        header["EXPNUM"], header["MJD-OBS"] = visit, mjd
        header["DATE-OBS"] = Time(mjd, format="mjd", scale="utc").isot
        hdus.writeto(target, checksum=True)


def run(root: Path, visits: list[int], label: str) -> tuple[list[dict[str, float]], float]:
    """Run some visits in a copy; return cost per unit in the order of time, and of the books."""
    work = root.with_name(label)
    shutil.copytree(root, work)
    chosen = [f"--visit={v}" for v in visits]
    timed([*NIGHTJAR, "run", str(work), "-q", "-j", "1", *chosen], work, 1)
    with Catalog(work / "catalog.duckdb", read_only=True) as catalog:
        units = catalog.rows(
            """SELECT visit, detector, sum(cpuS) AS cpu, sum(cpuS) FILTER (stage IN
              ('diaobject', 'forced', 'alerts')) AS later, min(midpointMjdTai) AS mjd
            FROM unit JOIN exposure USING (visit) WHERE status = 'done'
            GROUP BY ALL HAVING bool_or(stage = 'alerts') ORDER BY mjd, detector"""
        )
        books = float(catalog.value("SELECT sum(coordinatorCpuS) FROM run"))
        total = float(catalog.value("SELECT sum(cpuS) FROM unit")) + books
    report(f"share of the coordinator, {len(units)} units", books / total, "", None, len(units))
    return units, books


def grown(units: list[dict[str, float]]) -> None:
    """Compare the cost of units by how many visits came before; the first one loads the loops."""
    visits = list(dict.fromkeys(u["visit"] for u in units))
    for key, what in (("cpu", "raw to alert"), ("later", "association to alert")):
        first = None
        for low in (1, 2, 4, 8):
            inside = [u[key] for u in units if low <= visits.index(u["visit"]) < 2 * low]
            if not inside:
                continue
            mean = sum(inside) / len(inside)
            first = first or mean
            bound = FLAT if key == "cpu" and low > 1 else None
            report(f"{what}, unit after {low} to {2 * low - 1} visits over the first", mean / first,
                   "", bound, len(inside))  # fmt: skip
            report(f"{what}, unit after {low} to {2 * low - 1} visits", mean, "CPU s", None,
                   len(inside))  # fmt: skip


def main() -> int:
    """Measure both runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("speed", "science"))
    parser.add_argument("--visits", type=int, default=16)
    args = parser.parse_args()
    if args.kind == "science":
        return 0
    compile_loops()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "raw"
        timed([*NIGHTJAR, "init", str(root), "--profile", "tiny"], Path(folder), 1)
        timed([*NIGHTJAR, "sim", str(root), "-q", "-j", "1"], Path(folder), 1)
        lengthen(root, args.visits)
        table = io.read_parquet(root / "raw" / "exposures.parquet").to_pylist()
        science = [r["visit"] for r in table if r["role"] == "science"]
        few, fixed = run(root, science[:2], "few")
        many, books = run(root, science, "many")
    grown(many)
    each = (books - fixed) / (len(many) - len(few))
    cost = sum(u["cpu"] for u in many) / len(many)
    start = fixed - each * len(few)
    share = (start + MANY * each) / (start + MANY * (each + cost))
    report(f"share of the coordinator at {MANY} units, from both runs", share, "", SHARE, len(many))
    return 0


if __name__ == "__main__":
    sys.exit(main())
