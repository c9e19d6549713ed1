"""``nightjar verify``: judge a campaign and write its report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Jobs, Json, Overrides, Quiet, emit, show_table

if TYPE_CHECKING:
    from harness.verify.nodes import SpecError

__all__ = ["verify"]


_Workspace = Annotated[
    Path | None,
    typer.Argument(metavar="WORKSPACE", help="Folder of the campaign.", show_default=False),
]
_Check = Annotated[
    list[str] | None,
    typer.Option(
        "--check",
        metavar="PATH",
        help="Judge only this case, case/item or case/item/check; writes no report.",
    ),
]
_Testcases = Annotated[
    Path | None,
    typer.Option("--testcases", help="Folder of case files.", show_default="those of Nightjar"),
]
_Evidence = Annotated[
    Path, typer.Option("--evidence", help="Folder with the records of tests and containers.")
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FOLDER",
        help="Where the report goes, for a workspace that may only be read.",
        show_default="WORKSPACE/reports",
    ),
]
_Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="LAYOUT",
        help="WORKSPACE is a folder of products that were made elsewhere: rubin (tables of the "
        "APDB as Parquet, alert packets of LSST). What they do not hold is not applicable.",
    ),
]
_Replay = Annotated[
    str | None,
    typer.Option(
        "--replay", metavar="NAME", help="Derive the verdicts of a published report: dmtr-53."
    ),
]
_Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Make again what --set touches in a copy by links, judge the copy and show its "
        "verdicts beside those of the newest report; WORKSPACE is only read.",
    ),
]
_StrictWaivers = Annotated[
    bool, typer.Option("--strict-waivers", help="Exit 5 when a waiver is stale or expired.")
]


def verify(
    workspace: _Workspace = None,
    check: _Check = None,
    testcases: _Testcases = None,
    evidence: _Evidence = Path("campaigns/evidence"),
    output: _Output = None,
    adapter: _Adapter = None,
    replay: _Replay = None,
    overrides: Overrides = None,
    compare: _Compare = False,
    strict_waivers: _StrictWaivers = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Judge the campaign in WORKSPACE against the test cases and write the report.

    Exit codes: 0 all pass or waived, 1 some fail, 2 malformed case file, 3 partial only,
    4 incomplete, 5 stale or expired waiver under --strict-waivers.  Absent evidence (unit tests,
    container) reads "not run" and does not change the exit code.
    """
    from harness.verify.nodes import SpecError
    from harness.verify.paths import TESTCASES

    folder = testcases or TESTCASES
    try:
        if replay is not None:
            _replay(replay, folder, as_json)
        elif workspace is None:
            raise typer.BadParameter("a WORKSPACE is needed", param_hint="WORKSPACE")
        elif compare != bool(overrides):
            raise typer.BadParameter("--set and --compare go together", param_hint="--compare")
        elif overrides:
            where = {"testcases": folder, "evidence": evidence, "jobs": jobs}
            _compare(workspace, overrides, where, as_json)
        else:
            chosen: dict[str, Any] = {"testcases": folder, "evidence": evidence, "jobs": jobs}
            chosen |= {"only": check or (), "output": output, "adapter": _layout(adapter)}
            _judge(workspace, chosen, quiet, as_json, strict_waivers)
    except SpecError as err:
        _refuse(err)


def _layout(name: str | None) -> str:
    from harness.verify.adapters import ADAPTERS

    if name is not None and name not in ADAPTERS:
        raise typer.BadParameter(
            f"{name!r} is none; there is {', '.join(ADAPTERS)}", param_hint="--adapter"
        )
    return name or ""


def _refuse(err: SpecError) -> None:
    for problem in err.problems:
        sys.stderr.write(f"{problem}\n")
    raise typer.Exit(2)


def _judge(
    workspace: Path, chosen: dict[str, Any], quiet: bool, as_json: bool, strict: bool
) -> None:
    import os

    from rich.console import Console

    from harness.report.console import print_summary
    from harness.report.judge import judge_workspace
    from harness.system.processes import heeded_termination

    shown = not quiet and not as_json and sys.stderr.isatty()
    chosen["jobs"] = chosen["jobs"] or len(os.sched_getaffinity(0))
    with heeded_termination():
        done = judge_workspace(workspace, **chosen, progress=_show_progress if shown else None)
    if shown:
        sys.stderr.write("\r\x1b[K")
    if as_json:
        emit(done.report)
    else:
        width = None if sys.stdout.isatty() else 160
        print_summary(done.report, Console(width=width, soft_wrap=False))
        if done.path is not None:
            latest = done.path.parent.parent / "latest" / done.path.name
            typer.echo(f"report: {latest}")
    states = {
        c.waiver["state"] for r in done.results for i in r.items for c in i.checks if c.waiver
    }
    code = int(done.report["exit_code"])
    if strict and states & {"stale", "expired"} and code in (0, 3):
        code = 5
    if code:
        raise typer.Exit(code)


def _compare(workspace: Path, overrides: list[str], where: dict[str, Any], as_json: bool) -> None:
    import os

    from harness.report.diff import render_diff
    from harness.report.whatif import what_if
    from harness.system.processes import heeded_termination

    where["jobs"] = where["jobs"] or len(os.sched_getaffinity(0))
    with heeded_termination():
        found = what_if(workspace, overrides, **where)
    if as_json:
        emit(found)
    else:
        show_table(found["verdicts"])
        for label, counts in found["made"].items():
            typer.echo(f"{label}: {', '.join(f'{n} {status}' for status, n in counts.items())}")
        sys.stdout.write(render_diff(found))
    if found["exit_code"]:
        raise typer.Exit(int(found["exit_code"]))


def _show_progress(path: str) -> None:
    sys.stderr.write(f"\r\x1b[K{path}")


def _replay(name: str, folder: Path, as_json: bool) -> None:
    from harness.verify.replay import replay

    result = replay(name, folder)
    if as_json:
        emit(result)
        return
    editions = [("release", result["cases"]), *((d["name"], d["cases"]) for d in result["drafts"])]
    for title, cases in editions:
        typer.echo(f"{result['document']}: {title}")
        show_table(
            [
                {
                    "case": c["id"],
                    "published": c["published"],
                    "derived": c["derived"],
                    "": "" if c["published"] == c["derived"] else "differs",
                    "accepted": "; ".join(c["deviations"]),
                }
                for c in cases
            ]
        )
    if any(c["published"] != c["derived"] for _, cases in editions for c in cases):
        raise typer.Exit(1)
