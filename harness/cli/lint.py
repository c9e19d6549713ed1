"""``nightjar lint``: check case files, settings and designs, and list every mistake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["lint"]


def lint(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Folders of case files, workspaces, nightjar.toml files and designs of studies.",
            show_default="the case files of Nightjar",
        ),
    ] = None,
) -> None:
    """Read case files, requirements, waivers and settings; one line for each mistake.

    A line is FILE:LINE:COLUMN: what is wrong (what to do).  Exit code 2 when there is one.
    """
    from harness.verify.lint import read_all
    from harness.verify.paths import TESTCASES

    found, mistakes = read_all(paths or [TESTCASES])
    for line in found:
        typer.echo(line)
    for line in mistakes:
        sys.stderr.write(f"{line}\n")
    if mistakes:
        raise typer.Exit(2)
