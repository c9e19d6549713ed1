"""``nightjar ingest``: register exposures taken by a real telescope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import DryRun, Json, Keywords, MaskBits, WorkspacePath, emit

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


_Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILES...", help="FITS files, or folders of them.", show_default=False),
]
_Camera = Annotated[
    str | None,
    typer.Option(
        help="A name of `nightjar camera list`, or a TOML file.", show_default="the workspace's"
    ),
]
_Refcat = Annotated[
    Path | None, typer.Option(help="Reference catalogue of stars: Parquet, FITS or CSV.")
]
_FetchRefcat = Annotated[
    Archive | None,
    typer.Option(help="Fetch reference stars round the images; needs astroquery and a network."),
]
_Objects = Annotated[
    Path | None, typer.Option(help="Deep catalogue of stars and galaxies to match with.")
]
_Ext = Annotated[
    str | None,
    typer.Option(metavar="EXTENSION", help="Extension to take of plain images, by number or name."),
]
_Role = Annotated[Role, typer.Option(help="What new visits are for; open: the campaign chooses.")]
_Hits2015 = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder with HiTS 2015 as it is published: a clone of ap_verify_hits2015 or "
        "ap_verify_ci_hits2015, or files of the NOIRLab archive.",
    ),
]
_Template = Annotated[
    list[int] | None,
    typer.Option(
        "--template", metavar="VISIT", help="Visit of HiTS to make templates of; repeatable."
    ),
]
_Unverified = Annotated[
    bool, typer.Option("--unverified", help="Take files of HiTS that are no published copies.")
]


def ingest(
    workspace: WorkspacePath,
    files: _Files = None,
    camera: _Camera = None,
    refcat: _Refcat = None,
    fetch_refcat: _FetchRefcat = None,
    objects: _Objects = None,
    ext: _Ext = None,
    keyword: Keywords = None,
    mask_bits: MaskBits = None,
    role: _Role = Role.OPEN,
    hits2015: _Hits2015 = None,
    template: _Template = None,
    unverified: _Unverified = False,
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
    _refuse_mixture(bool(files), hits2015 is not None, bool(template or unverified), role)
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
    _report(result, units, workspace, dry_run=dry_run, as_json=as_json)
    if result.problems:
        raise typer.Exit(2)
    if result.faults:
        raise typer.Exit(1)


def _refuse_mixture(files: bool, hits: bool, hits_options: bool, role: Role) -> None:
    """Refuse options of files together with those of HiTS, and neither of the two."""
    if files == hits:
        raise typer.BadParameter("give FILES or --hits2015 DIR", param_hint="FILES")
    if hits_options and not hits:
        raise typer.BadParameter("--template and --unverified go with --hits2015")
    if hits and role is not Role.OPEN:
        raise typer.BadParameter("--role goes with FILES")


def _report(
    result: IngestResult,
    units: Sequence[Mapping[str, object]],
    workspace: Path,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Print problems on standard error, and what was registered on standard output."""
    for line in (*result.problems, *result.faults):
        typer.echo(f"nightjar: {line}", err=True)
    if as_json:
        emit(_document(result, units))
        return
    if result.problems:
        typer.echo("nightjar: nothing registered", err=True)
        return
    for note in result.notes:
        typer.echo(f"note: {note}")
    _show_units(units, workspace)
    verb = "would register" if dry_run else "registered"
    typer.echo(
        f"{verb} {result.frames} frames of {result.visits} visits"
        f" ({result.known} known already); next: nightjar run {workspace}"
    )


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
