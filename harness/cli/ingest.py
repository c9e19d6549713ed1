"""``nightjar ingest``: register exposures taken by a real telescope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import DryRun, Json, WorkspacePath, emit

if TYPE_CHECKING:
    from harness.ingest import IngestResult

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
        list[Path] | None,
        typer.Argument(
            metavar="FILES...", help="FITS files, or folders of them.", show_default=False
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            help="A name of `nightjar camera list`, or a TOML file.", show_default="the workspace's"
        ),
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
    hits2015: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with HiTS 2015 as it is published: a clone of ap_verify_hits2015 or "
            "ap_verify_ci_hits2015, or files of the NOIRLab archive.",
        ),
    ] = None,
    template: Annotated[
        list[int] | None,
        typer.Option(
            "--template", metavar="VISIT", help="Visit of HiTS to make templates of; repeatable."
        ),
    ] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Take files of HiTS that are no published copies.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Register FILES in WORKSPACE: raw DECam frames, calibrated DECam images, or plain FITS images.

    The files stay where they are.  Of a calibrated DECam exposure give the image (ooi); its
    weight (oow) and quality (ood) files are found beside it.  Nothing is registered unless every
    file is good; what is wrong is said in one line per file.  Of HiTS everything that is promised
    is registered: what needs a file that cannot be used fails when it is run, and the exit code of
    this command is 1.
    """
    from harness.ingest import HitsResult, ingest_files, ingest_hits
    from harness.workspace import Workspace
    from pipeline.io.keywords import parse_keywords

    if refcat is not None and fetch_refcat is not None:
        raise typer.BadParameter("give --refcat or --fetch-refcat, not both")
    if bool(files) == (hits2015 is not None):
        raise typer.BadParameter("give FILES or --hits2015 DIR", param_hint="FILES")
    if hits2015 is None and (template or unverified):
        raise typer.BadParameter("--template and --unverified go with --hits2015")
    if hits2015 is not None and role is not Role.OPEN:
        raise typer.BadParameter("--role goes with FILES")
    space = Workspace.open(workspace)
    result: IngestResult
    with nullcontext() if dry_run else space.changing("ingest"):
        if hits2015 is not None:
            result = ingest_hits(
                space, hits2015, camera=camera, templates=template or (), refcat=refcat,
                unverified=unverified, dry_run=dry_run,
            )  # fmt: skip
        else:
            result = ingest_files(
                space, files or (), camera=camera, refcat=refcat, objects=objects,
                fetch=fetch_refcat, dry_run=dry_run, ext=ext,
                keywords=parse_keywords(keyword or []), mask_bits=mask_bits, role=role.value,
            )  # fmt: skip
    units = result.units if isinstance(result, HitsResult) else []
    for line in (*result.problems, *result.faults):
        typer.echo(f"nightjar: {line}", err=True)
    if as_json:
        emit(_document(result, units))
    elif not result.problems:
        for note in result.notes:
            typer.echo(f"note: {note}")
        _show_units(units, workspace)
        verb = "would register" if dry_run else "registered"
        typer.echo(
            f"{verb} {result.frames} frames of {result.visits} visits"
            f" ({result.known} known already); next: nightjar run {workspace}"
        )
    if result.problems:
        if not as_json:
            typer.echo("nightjar: nothing registered", err=True)
        raise typer.Exit(2)
    if result.faults:
        raise typer.Exit(1)


def _document(result: IngestResult, units: Sequence[Mapping[str, object]]) -> dict[str, object]:
    document: dict[str, object] = {
        "visits": result.visits,
        "frames": result.frames,
        "known": result.known,
        "ignored": result.ignored,
        "problems": result.problems,
        "faults": result.faults,
        "notes": result.notes,
    }
    return document | ({"units": list(units)} if units else {})


def _show_units(units: Sequence[Mapping[str, object]], workspace: Path) -> None:
    """Say which units of LDM-533 are there, field by field."""
    if not units:
        return
    for field in sorted({str(unit["field"]) for unit in units}):
        states = Counter(str(unit["state"]) for unit in units if unit["field"] == field)
        visits = {u["visit"] for u in units if u["field"] == field and u["state"] == "present"}
        words = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        typer.echo(f"{field}: {len(visits)} visits; units: {words}")
    present = sum(unit["state"] == "present" for unit in units)
    typer.echo(
        f"{present} of the {len(units)} units of LDM-533 are there;"
        f" all are listed in {workspace / 'raw' / 'ldm533.csv'}"
    )
