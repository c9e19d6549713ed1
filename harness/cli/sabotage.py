"""``nightjar sabotage``: plant known defects and list which check catches them."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from harness.cli.options import Jobs, Json, Quiet, WorkspacePath, emit, show_table

__all__ = ["sabotage"]


_Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="DEFECT", help="Plant only this defect.")
]
_Fast = Annotated[
    bool,
    typer.Option("--quick", help="Ask only the check named for a defect; keeps no matrix."),
]


def sabotage(
    workspace: WorkspacePath,
    only: _Only = None,
    fast: _Fast = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Plant known defects in copies of WORKSPACE, one at a time, and judge each copy.

    Every defect must be caught by the check that is named for it, and an unharmed copy by none.
    The workspace itself is only read; the matrix is kept in reports/sabotage.json and printed in
    the next report.  It shows what every check catches, which defects escape, which checks that
    must hold are never the only one to catch a defect, and which cannot catch any in this
    workspace.  Exit code 1 when a defect escapes.
    """
    import os

    from harness.verify.sabotage import sabotage as run
    from harness.workspace import Workspace, atomic

    shown = not quiet and not as_json and sys.stderr.isatty()
    result = run(
        workspace,
        only=only or (),
        quick=fast,
        jobs=jobs or len(os.sched_getaffinity(0)),
        progress=_show if shown else None,
    )
    if shown:
        sys.stderr.write("\r\x1b[K")
    if not only and not fast:
        path = Workspace.open(workspace).root / "reports" / "sabotage.json"
        with atomic(path) as partial:
            partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    noticed = [d for d in result["defects"] if d["faint_caught"]]
    graded = sum(d["faint_caught"] is not None for d in result["defects"])
    escaped = [d for d in result["defects"] if not d["caught"]]
    if as_json:
        emit(result)
    else:
        show_table(
            [
                {
                    "defect": d["id"],
                    "caught": "yes" if d["caught"] else "NO",
                    "by": d["expected_check"],
                    "and": f"{len(d['caught_by']) - d['caught']} more",
                    "faint": {None: "-", False: "quiet", True: "NOTICED"}[d["faint_caught"]],
                }
                for d in result["defects"]
            ]
        )
        for path in result["unharmed"]["caught_by"]:
            typer.echo(f"the unharmed copy does not pass {path}")
        typer.echo(f"{len(result['defects']) - len(escaped)} of {len(result['defects'])} caught")
        typer.echo(f"{len(noticed)} of {graded} noticed at an amplitude too small to matter")
        for path, catches in result["idle"].items():
            typer.echo(f"{path} is never alone: catches {catches}")
        for path in result["unjudged"]:
            typer.echo(f"{path} cannot catch any here: it does not pass or does not apply")
    if escaped or noticed or result["unharmed"]["caught_by"]:
        raise typer.Exit(1)


def _show(name: str) -> None:
    sys.stderr.write(f"\r\x1b[K{name}")
