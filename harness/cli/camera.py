"""``nightjar camera``: definitions of instruments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, emit

__all__ = ["camera"]

camera = typer.Typer(no_args_is_help=True)


@camera.command("new")
def new(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="Reduced images of the instrument.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the definition goes.")
    ] = Path("camera.toml"),
    name: Annotated[
        str | None, typer.Option(help="Name of the camera.", show_default="the file's")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing file.")] = False,
) -> None:
    """Write the definition of an instrument from FILES, best one of each filter.

    It lists the cards, filters and bits that were found, for you to correct; then
    nightjar init W --camera camera.toml.
    """
    from harness.ingest.cameras import describe_files
    from harness.workspace import atomic, translate_os_errors
    from pipeline.camera import Camera
    from pipeline.errors import ConfigError

    if output.suffix != ".toml":
        raise ConfigError("is no name of a definition", path=output, expected="a name in .toml")
    if output.exists() and not replace:
        raise ConfigError("exists already", path=output, hint="--replace, or another -o")
    text = describe_files(files, name or output.stem)
    with translate_os_errors(output.parent), atomic(output) as partial:
        partial.write_text(text, encoding="utf-8")
    Camera.load(output)
    typer.echo(f"{output} written; next: nightjar init WORKSPACE --camera {output}")


@camera.command("list")
def listed(as_json: Json = False) -> None:
    """List the cameras that come with the program."""
    from pipeline.camera import Camera

    rows = [(name, Camera.load(name)) for name in Camera.names()]
    if as_json:
        emit([{"name": n, "plain": c.plain, "pixelScale": c.pixel_scale} for n, c in rows])
        return
    for name, found in rows:
        what = "reduced images" if found.plain else "raw frames"
        typer.echo(f"{name:12s} {what}" + (", simulated" if found.simulated else ""))
