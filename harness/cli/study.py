"""``nightjar study``: synthetic transients, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Detectors, Jobs, Json, Overrides, Quiet, Visits, emit

if TYPE_CHECKING:
    from harness.study.run import Study

__all__ = ["study"]

_Range = str | None


def study(
    workspace: Annotated[
        Path, typer.Argument(metavar="WORKSPACE", help="The campaign.", show_default=False)
    ],
    design: Annotated[
        Path | None, typer.Option("--design", metavar="FILE", help="Design, see docs/study.md.")
    ] = None,
    sources: Annotated[int | None, typer.Option(help="Sources per image and realisation.")] = None,
    realisations: Annotated[int | None, typer.Option(help="Paintings of every image.")] = None,
    snr: Annotated[
        _Range, typer.Option(metavar="LOW:HIGH", help="True signal-to-noise ratio.")
    ] = None,
    hosted: Annotated[float | None, typer.Option(help="Fraction on galaxies.")] = None,
    negative: Annotated[float | None, typer.Option(help="Fraction that fades away.")] = None,
    trails: Annotated[float | None, typer.Option(help="Fraction that moves.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the design.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Folder below studies/; by default a hash of all inputs.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration in place of nightjar.toml.")
    ] = None,
    overrides: Overrides = None,
    visit: Visits = None,
    detector: Detectors = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Paint synthetic transients into the visit images of WORKSPACE and try to find them again.

    Products, tables and alerts of the campaign are only read; everything is written to
    WORKSPACE/studies/.  An interrupted study goes on where it stood.
    """
    from harness.plan import Selection
    from harness.study.design import load_design
    from harness.study.run import run_study

    chosen = load_design(
        design,
        {
            "sources": sources, "realisations": realisations, "snr": _range("--snr", snr),
            "hosted": hosted, "negative": negative, "trails": trails, "seed": seed,
        },
    )  # fmt: skip
    result = run_study(
        workspace,
        chosen,
        name=name,
        overrides=overrides or (),
        config=config,
        selection=Selection(frozenset(visit or ()), frozenset(detector or ())),
        jobs=jobs,
        quiet=quiet or as_json,
    )
    _show(result, as_json=as_json)


def _range(option: str, text: str | None) -> tuple[float, float] | None:
    from pipeline.errors import ConfigError

    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise ConfigError(f"not a range: {text!r}", key=option, expected="LOW:HIGH") from None
    return low, high


def _show(result: Study, *, as_json: bool) -> None:
    from collections import Counter

    outcomes = Counter(result.table("injection_outcome")["outcome"].to_pylist())
    document: dict[str, Any] = {
        "studyId": result.about["studyId"],
        "n": sum(outcomes.values()),
        "outcomes": dict(sorted(outcomes.items())),
    }
    if as_json:
        emit(document)
        return
    typer.echo(f"study {document['studyId']}: {document['n']} injections")
    for outcome, n in document["outcomes"].items():
        typer.echo(f"  {outcome:<12} {n}")
    typer.echo(f"tables: {result.folder}")
