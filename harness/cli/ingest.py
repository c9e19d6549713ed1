"""``nightjar ingest``: register exposures taken by a real telescope."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import DryRun, Json, WorkspacePath, emit

__all__ = ["ingest"]


class Archive(StrEnum):
    """Catalogues that can be fetched."""

    GAIA = "gaia"
    PS1 = "ps1"


class Role(StrEnum):
    """What visits are for."""

    TEMPLATE = "template"
    SCIENCE = "science"
    OPEN = "open"


def ingest(
    workspace: WorkspacePath,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...", help="FITS files, or folders of them.", show_default=False
        ),
    ],
    camera: Annotated[
        str | None,
        typer.Option(help="decam, generic or a TOML file.", show_default="the workspace's"),
    ] = None,
    refcat: Annotated[
        Path | None, typer.Option(help="Reference catalogue of stars: Parquet, FITS or CSV.")
    ] = None,
    fetch_refcat: Annotated[
        Archive | None,
        typer.Option(
            help="Fetch reference stars round the images; needs astroquery and a network."
        ),
    ] = None,
    objects: Annotated[
        Path | None, typer.Option(help="Deep catalogue of stars and galaxies to match with.")
    ] = None,
    ext: Annotated[
        str | None,
        typer.Option(
            metavar="EXTENSION", help="Extension to take of plain images, by number or name."
        ),
    ] = None,
    keyword: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=CARD", help="Header card to use, such as gain=EGAIN."),
    ] = None,
    mask_bits: Annotated[
        str | None,
        typer.Option(
            metavar="BITS",
            help="Bits of the masks that count: ztf, jwst, hst, lsst, noirlab, lco, or 0,8=SAT.",
        ),
    ] = None,
    role: Annotated[
        Role, typer.Option(help="What new visits are for; open: the campaign chooses.")
    ] = Role.OPEN,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Register FILES in WORKSPACE: raw DECam frames, calibrated DECam images, or plain FITS images.

    The files stay where they are.  Of a calibrated DECam exposure give the image (ooi); its
    weight (oow) and quality (ood) files are found beside it.  Nothing is registered unless every
    file is good; what is wrong is said in one line per file.
    """
    from harness.ingest import ingest_files
    from harness.workspace import Workspace
    from pipeline.io.keywords import parse_keywords

    if refcat is not None and fetch_refcat is not None:
        raise typer.BadParameter("give --refcat or --fetch-refcat, not both")
    space = Workspace.open(workspace)
    with nullcontext() if dry_run else space.changing("ingest"):
        result = ingest_files(
            space, files, camera=camera, refcat=refcat, objects=objects, fetch=fetch_refcat,
            dry_run=dry_run, ext=ext, keywords=parse_keywords(keyword or []), mask_bits=mask_bits,
            role=role.value,
        )  # fmt: skip
    for line in result.problems:
        typer.echo(f"nightjar: {line}", err=True)
    if as_json:
        emit(
            {
                "visits": result.visits,
                "frames": result.frames,
                "known": result.known,
                "ignored": result.ignored,
                "problems": result.problems,
                "notes": result.notes,
            }
        )
    elif not result.problems:
        for note in result.notes:
            typer.echo(f"note: {note}")
        verb = "would register" if dry_run else "registered"
        typer.echo(
            f"{verb} {result.frames} frames of {result.visits} visits"
            f" ({result.known} known already); next: nightjar run {workspace}"
        )
    if result.problems:
        if not as_json:
            typer.echo("nightjar: nothing registered", err=True)
        raise typer.Exit(2)
