"""``python -m bench speed`` or ``science``: run the benchmarks and record their numbers.

Every ``bench/bench_*.py`` is a program that takes ``speed`` or ``science`` and prints one JSON
object per measurement with the keys of `bench.report.KEYS`.  They are run one after the other, each
in a fresh process; the list goes to ``campaigns/bench.json`` or ``campaigns/bench-science.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.report import KEYS

HERE = Path(__file__).parent
OUTPUT = {"speed": "bench.json", "science": "bench-science.json"}


def measurements(script: Path, kind: str) -> list[dict[str, Any]]:
    """Run one benchmark; a crash is a measurement that does not hold."""
    result = subprocess.run(
        [sys.executable, "-m", f"bench.{script.stem}", kind],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        check=False,
    )
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    if result.returncode:
        sys.stderr.write(result.stderr)
        rows.append(dict.fromkeys(KEYS) | {"name": f"{script.stem} ran", "holds": False})
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay the measurements out for a person."""
    view = Table("stage", "measurement", "value", "unit", "bound", "goal", "holds", "n")
    for r in rows:
        value = f"{r['value']:.4g}" if isinstance(r["value"], float) else str(r["value"])
        holds = {True: "yes", False: "NO", None: "–"}[r["holds"]]
        view.add_row(
            str(r["stage"]), r["name"], value, str(r["unit"] or ""), str(r["bound"] or ""),
            str(r["goal"] or ""), holds, str(r["population"] or ""),
        )  # fmt: skip
    return view


def main() -> int:
    """Run all benchmarks of a kind; exit 0 if every bound holds."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("kind", choices=sorted(OUTPUT))
    parser.add_argument("--only", default="", help="part of a benchmark's file name")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for script in sorted(HERE.glob(f"bench_*{args.only}*.py")):
        start = time.monotonic()
        rows += measurements(script, args.kind)
        sys.stderr.write(f"{script.stem}: {time.monotonic() - start:.0f} s\n")
    target = HERE.parent / "campaigns" / OUTPUT[args.kind]
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows, indent=1) + "\n")
    Console().print(table(rows))
    return int(any(r["holds"] is False for r in rows))


if __name__ == "__main__":
    sys.exit(main())
