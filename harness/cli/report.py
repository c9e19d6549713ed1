"""``nightjar report``: render a report again, judge again from it, compare two, or sum up many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, emit

__all__ = ["report"]

report = typer.Typer(no_args_is_help=True, help="Render or check a report again, or compare two.")


@report.command("render")
def render(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="WORKSPACE|FOLDER",
            help="A workspace (its newest report) or the folder of a report.",
        ),
    ],
) -> None:
    """Make every rendering anew from report.json; the same bytes each time.

    A report whose data were changed after the judgement is refused.
    """
    from harness.report.bundle import require_untouched
    from harness.report.write import render_all

    folder = _folder(source)
    require_untouched(folder)
    render_all(folder)
    typer.echo(f"report: {folder / 'report.html'}")


@report.command("check")
def check(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="WORKSPACE|BUNDLE",
            help="The folder of a report, wherever it was taken; or a workspace (its newest).",
        ),
    ],
    signers: Annotated[
        Path | None,
        typer.Option(
            "--signers",
            metavar="FILE",
            help="Ask for a signature by one of these (ALLOWED SIGNERS of ssh-keygen).",
        ),
    ] = None,
) -> None:
    """Judge again from a report's folder alone and name every byte that is not as it was written.

    Files are compared with SHA256SUMS, and that with its signature, where there is one; every
    verdict is drawn again from the measurements in report.json and the specification in cases/.
    Exit code 1 when something differs.
    """
    from harness.report.bundle import check_bundle
    from harness.report.signature import signer
    from harness.report.write import load_report

    folder = _folder(source)
    faults = check_bundle(folder, signers)
    for fault in faults:
        typer.echo(fault)
    if faults:
        raise typer.Exit(1)
    report = load_report(folder)
    count = sum(len(i["checks"]) for c in report["cases"] for i in c["items"])
    typer.echo(f"{len(report['cases'])} cases, {count} checks: every verdict follows")
    typer.echo(f"hash chain {report['chain'][-1]['link']}")
    typer.echo(f"signed by {signer(folder, signers) or 'nobody'}")


@report.command("sign")
def sign(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="WORKSPACE|BUNDLE", help="A workspace (its newest report) or a report's folder."
        ),
    ],
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="SSH key: private, or held by ssh-agent.")
    ],
) -> None:
    """Sign a report with an SSH key, after its verdicts were drawn again from the folder alone.

    The signature is over SHA256SUMS and so over every file; it is kept as SHA256SUMS.sig.
    """
    from harness.report.bundle import require_untouched
    from harness.report.signature import sign as sign_bundle
    from harness.report.signature import signer

    folder = _folder(source)
    require_untouched(folder, renderings=True)
    sign_bundle(folder, key)
    typer.echo(f"signed by {signer(folder)}: {folder / 'SHA256SUMS.sig'}")


@report.command("diff")
def diff(
    before: Annotated[
        Path, typer.Argument(metavar="A", help="Workspace, report folder or report.json.")
    ],
    after: Annotated[Path, typer.Argument(metavar="B", help="The same, later.")],
    as_json: Json = False,
) -> None:
    """Say which verdicts flipped, which values moved and which criteria changed from A to B."""
    from harness.report.diff import diff_reports, render_diff
    from harness.report.write import load_report

    a, b = (load_report(p if p.suffix == ".json" else _folder(p)) for p in (before, after))
    found = diff_reports(a, b)
    if as_json:
        emit(found)
    else:
        sys.stdout.write(render_diff(found))


@report.command("vcd")
def vcd(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="WORKSPACE|FOLDER...",
            help="Workspaces with all their reports, or folders of single reports.",
        ),
    ],
    form: Annotated[
        str, typer.Option("--format", help="html, csv, docsteady (its columns, CSV) or reqif.")
    ] = "html",
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where it goes.", show_default="the screen"),
    ] = None,
    register: Annotated[
        Path | None,
        typer.Option(
            "--register", metavar="FILE", help="Keep the numbers of nonconformances in this file."
        ),
    ] = None,
) -> None:
    """Draw up the verification control document over one or several campaigns.

    Each requirement with its method, level, test case, the last result of every campaign,
    deviations, nonconformances and close-out.  A nonconformance is a check that failed in some
    report; it has a number and the first and last commit that showed it.  Without --register the
    numbers follow the order in which they were first seen.
    """
    from harness.report.vcd import control, histories, read_register, write_register
    from harness.report.vcd_formats import FORMATS
    from harness.workspace import atomic

    if form not in FORMATS:
        raise typer.BadParameter(f"one of {', '.join(FORMATS)}", param_hint="--format")
    numbers = read_register(register) if register is not None else {}
    document = control(histories(sources), numbers)
    text = FORMATS[form](document)
    if output is None:
        sys.stdout.write(text)
    else:
        with atomic(output) as partial:
            partial.write_text(text, encoding="utf-8")
    if register is not None:
        write_register(register, numbers, document.nonconformances)


def _folder(path: Path) -> Path:
    latest = path / "reports" / "latest"
    return latest if latest.is_dir() else path
