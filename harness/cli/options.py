"""Options and output that the verbs share."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.system.text import one_line

__all__ = [
    "Detectors",
    "DryRun",
    "From",
    "Jobs",
    "Json",
    "Keywords",
    "MaskBits",
    "Overrides",
    "Quiet",
    "TimeLimit",
    "Until",
    "Visits",
    "WorkspacePath",
    "emit",
    "show_table",
]

WorkspacePath = Annotated[
    Path, typer.Argument(metavar="WORKSPACE", help="Folder of the campaign.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Say what would be done and do nothing.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        help="Worker processes.",
        show_default="as many as fit",
    ),
]
Keywords = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=CARD", help="Header card to use, such as gain=EGAIN."),
]
MaskBits = Annotated[
    str | None,
    typer.Option(
        metavar="BITS",
        help="Bits of the masks that count: ztf, jwst, hst, lsst, noirlab, lco, or 0,8=SAT.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Visits = Annotated[
    list[int] | None, typer.Option("--visit", help="Only this visit; may be repeated.")
]
Detectors = Annotated[
    list[int] | None, typer.Option("--detector", help="Only this detector; may be repeated.")
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        metavar="DURATION",
        help="Begin nothing that would not end within this time, such as 55m or 12:00:00.",
    ),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="DATE", help="Only visits from this UTC date or MJD on."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="DATE", help="Only visits up to this UTC date or MJD."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Use another value than nightjar.toml says; may be repeated.",
    ),
]


def emit(document: object) -> None:
    """Print a JSON document on standard output.

    Parameters
    ----------
    document : object
        What JSON can express; other values are written as their text.
    """
    sys.stdout.write(json.dumps(document, indent=2, default=_plain, allow_nan=False) + "\n")


def show_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """Print rows as aligned text, one line each; nothing is cut off.

    Parameters
    ----------
    rows : sequence of mapping
        The rows; nothing is printed without any.
    columns : sequence of str, optional
        Columns to print, by default those of the first row.
    """
    if not rows:
        return
    names = list(columns or rows[0])
    lines = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write(text.rstrip() + "\n")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return one_line(value)


def _plain(value: object) -> object:
    return value.item() if hasattr(value, "item") else str(value)
