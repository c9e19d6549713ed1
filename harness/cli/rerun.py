"""``nightjar rerun``: make a product, an alert or a whole campaign again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Jobs, Json, Quiet, emit

if TYPE_CHECKING:
    from harness.rerun import RerunResult

__all__ = ["rerun"]


def rerun(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PRODUCT|ALERT|WORKSPACE",
            help="A visit image, template or difference; the id of an alert; or a campaign.",
            show_default=False,
        ),
    ],
    into: Annotated[
        Path | None, typer.Argument(metavar="[INTO]", help="Where a campaign is made again.")
    ] = None,
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", help="Folder of the campaign of an alert.")
    ] = Path(),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep the new product or alerts here.")
    ] = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a product again from what its header says went in, and compare bit for bit.

    Of an alert, everything from its raw frames on is made again, and its file is compared byte by
    byte; history and object are those of the catalogue.  Of a workspace all is made again INTO
    another one, and products and catalogues are compared.  The configuration is the one recorded.
    Exit code 0 when all is the same, 1 when not; then it is said what differs and which inputs,
    configuration or software have changed since.
    """
    result = _result(what, into, workspace, output, jobs, quiet=quiet or as_json)
    if as_json:
        emit({"product": what, "identical": result.identical,
              "differences": result.differences, "changed": result.changed})  # fmt: skip
    else:
        for line in result.changed:
            typer.echo(f"changed since: {line}")
        for line in result.differences:
            typer.echo(f"differs: {line}")
        typer.echo(f"{what}: {'identical' if result.identical else 'not identical'}")
    if not result.identical:
        raise typer.Exit(1)


def _result(
    what: str,
    into: Path | None,
    workspace: Path,
    output: Path | None,
    jobs: int | None,
    *,
    quiet: bool,
) -> RerunResult:
    from harness import rerun as make
    from harness.system.memory import keep_memory

    keep_memory()
    if what.isdecimal() and not Path(what).exists():
        return make.rerun_alert(workspace, int(what), output)
    if Path(what).is_dir():
        if into is None:
            raise typer.BadParameter("a campaign needs INTO, the folder of the new one")
        return make.rerun_campaign(Path(what), into, jobs=jobs, quiet=quiet)
    return make.rerun_product(Path(what), output)
