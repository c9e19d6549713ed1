"""``nightjar rerun``: make a product again from its provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, emit

__all__ = ["rerun"]


def rerun(
    product: Annotated[
        Path, typer.Argument(help="A visit image, template or difference.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep the new product here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make PRODUCT again from what its header says went in, and compare bit for bit.

    The configuration is the one recorded for its run.  Exit code 0 when every pixel, table and
    card is the same, 1 when not; then it is said what differs and which inputs, configuration or
    software have changed since.
    """
    from harness.rerun import rerun_product

    result = rerun_product(product, output)
    if as_json:
        emit({"product": str(product), "identical": result.identical,
              "differences": result.differences, "changed": result.changed})  # fmt: skip
    else:
        for line in result.changed:
            typer.echo(f"changed since: {line}")
        for line in result.differences:
            typer.echo(f"differs: {line}")
        typer.echo(f"{product}: {'identical' if result.identical else 'not identical'}")
    if not result.identical:
        raise typer.Exit(1)
