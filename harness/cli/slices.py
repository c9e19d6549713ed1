"""``nightjar slices``: a simulated campaign that is larger than the disk, a part at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import Detectors, DryRun, Jobs, Json, Quiet, emit, show_table

__all__ = ["slices"]


def slices(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the slices go.", show_default=False)
    ],
    profile: Annotated[str, typer.Option(help="Profile of the whole campaign.")] = "hits",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 42,
    field: Annotated[
        list[str] | None, typer.Option("--field", help="Only this field; may be repeated.")
    ] = None,
    visits: Annotated[
        int | None,
        typer.Option(
            min=1, help="Science visits of each field, the first in time.", show_default="all"
        ),
    ] = None,
    detector: Detectors = None,
    size: Annotated[int, typer.Option(min=1, help="CCDs in a slice.")] = 2,
    most: Annotated[
        int | None,
        typer.Option(
            min=1, help="Slices to process now; those done before do not count.", show_default="all"
        ),
    ] = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Simulate, run and judge a large campaign slice by slice; remove each when it is judged.

    A slice is some CCDs of a field with their templates: a workspace in FOLDER, of which report,
    logs and catalogue stay.  What is done is not done again.  At the end stands what became of
    every frame, the worst verdict of every case, the cost of a unit and of the whole campaign
    (summary.json, cost.svg).  Exit code 1 if a frame is unaccounted for or a case fails.
    """
    import os

    from harness.slices import plan_slices, process_slice
    from harness.slices.run import RECORD

    parts = plan_slices(
        profile, size=size, fields=field or (), visits=visits, detectors=detector or ()
    )
    left = [part for part in parts if not (folder / part.name / RECORD).is_file()]
    skipped = {part.name for part in (left[most:] if most is not None else [])}
    chosen = [part for part in parts if part.name not in skipped]
    if dry_run:
        for part in chosen:
            typer.echo(f"{part.name}: {len(part.units)} frames" + (" (done)" * (part not in left)))
        return
    options: dict[str, Any] = {"seed": seed, "jobs": jobs or len(os.sched_getaffinity(0))}
    if not (quiet or as_json):
        options["say"] = _say
    records = [process_slice(folder, part, profile, **options) for part in chosen]
    _finish(folder, records, profile, left=len(skipped), as_json=as_json)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _finish(
    folder: Path, records: list[dict[str, Any]], profile: str, *, left: int, as_json: bool
) -> None:
    """Write the summary, show it, and say by the exit code whether all is well."""
    import json

    from harness.slices.summary import cost_figure, summarise
    from harness.workspace import atomic

    found = {**summarise(records, profile), "left": left}
    for name, text in (
        ("summary.json", json.dumps(found, indent=1) + "\n"),
        ("cost.svg", cost_figure(records)),
    ):
        with atomic(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    if as_json:
        emit(found)
    else:
        _show(found)
    lost = found["accounted"] < found["promised"]
    if lost or {"fail", "error"} & set(found["verdicts"].values()):
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    show_table([{"case": c, "worst verdict": v} for c, v in found["verdicts"].items()])
    show_table(
        [
            {
                "stage": row["stage"],
                "done": row["n"],
                "CPU-s": f"{row['cpuS']:.2f}",
                "MiB": f"{row['peakRssMiB']:.0f}",
                "in all": row["whole"],
                "CPU-h in all": f"{row['wholeCpuHours']:.2f}",
            }
            for row in found["stages"]
        ]
    )
    states = ", ".join(f"{n} {state}" for state, n in sorted(found["states"].items()))
    typer.echo(
        f"{found['slices']} slices ({found['left']} left): {found['accounted']} of "
        f"{found['promised']} frames accounted for ({states})"
    )
    typer.echo(
        f"the whole campaign, {found['wholeFrames']} frames of which {found['wholeScience']} are "
        f"searched: {found['cpuHours']:.1f} CPU-hours; at most "
        f"{found['largestBytes'] / 1e9:.2f} GB on disk at a time"
    )
