"""``nightjar study``: synthetic transients, and what becomes of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import Detectors, Jobs, Json, Overrides, Quiet, Visits, emit, show_table

if TYPE_CHECKING:
    from harness.study.store import Study

__all__ = ["study"]

_Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="WORKSPACE",
        help="The campaign; or: compare STUDY STUDY, two folders below studies/.",
        show_default=False,
    ),
]
_Design = Annotated[
    Path | None, typer.Option("--design", metavar="FILE", help="Design, see docs/study.md.")
]
_Sources = Annotated[int | None, typer.Option(help="Sources per image and realisation.")]
_Realisations = Annotated[int | None, typer.Option(help="Paintings of every image.")]
_Snr = Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="True signal-to-noise ratio.")]
_Hosted = Annotated[float | None, typer.Option(help="Fraction on galaxies.")]
_Negative = Annotated[float | None, typer.Option(help="Fraction that fades away.")]
_Trails = Annotated[float | None, typer.Option(help="Fraction that moves.")]
_Seed = Annotated[int | None, typer.Option(help="Seed of the design.")]
_Name = Annotated[
    str | None, typer.Option(help="Folder below studies/; by default a hash of all inputs.")
]
_Engine = Annotated[
    Literal["frame", "local"],
    typer.Option(help="frame fits every kernel anew; local keeps that of the plain image."),
]
_Replace = Annotated[
    bool, typer.Option("--replace", help="Make the study of --name anew if it is another one.")
]
_Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Configuration in place of nightjar.toml.")
]
_Against = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="SETTINGS",
        help="Do the study with these settings too, a TOML file or SECTION.KEY=VALUE, and "
        "compare; may be repeated.",
    ),
]


def study(
    targets: _Targets,
    design: _Design = None,
    sources: _Sources = None,
    realisations: _Realisations = None,
    snr: _Snr = None,
    hosted: _Hosted = None,
    negative: _Negative = None,
    trails: _Trails = None,
    seed: _Seed = None,
    name: _Name = None,
    engine: _Engine = "frame",
    replace: _Replace = False,
    config: _Config = None,
    against: _Against = None,
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

    With --against, or as `compare A B`, the exit code is 1 if the second is significantly worse.
    """
    from harness.plan import Selection
    from harness.study.design import load_design
    from harness.study.run import run_study
    from harness.study.store import Study

    if targets[0] == "compare":
        _compare(*(Study.open(Path(folder)) for folder in _two(targets[1:])), as_json=as_json)
        return
    chosen = load_design(
        design,
        {
            "sources": sources, "realisations": realisations, "snr": _range("--snr", snr),
            "hosted": hosted, "negative": negative, "trails": trails, "seed": seed,
        },
    )  # fmt: skip
    given = tuple(overrides or ())
    do = partial(
        run_study, _one(targets), chosen, jobs=jobs, quiet=quiet or as_json, replace=replace,
        engine=engine, selection=Selection(frozenset(visit or ()), frozenset(detector or ())),
    )  # fmt: skip
    result = do(name=name, overrides=given, config=config)
    if not against:
        _show(result, as_json=as_json)
        return
    values = tuple(word for word in against if "=" in word)
    files = [Path(word) for word in against if "=" not in word]
    second = f"{name}-against" if name else None
    other = do(name=second, overrides=given + values, config=files[-1] if files else config)
    _compare(result, other, as_json=as_json)


def _one(targets: list[str]) -> Path:
    from pipeline.errors import ConfigError

    if len(targets) != 1:
        raise ConfigError("takes one workspace", key=" ".join(targets), expected="WORKSPACE")
    return Path(targets[0])


def _two(folders: list[str]) -> list[str]:
    from pipeline.errors import ConfigError

    if len(folders) != 2:
        raise ConfigError("compares two studies", key="compare", expected="compare STUDY STUDY")
    return folders


def _compare(first: Study, second: Study, *, as_json: bool) -> None:
    """Show every metric with its verdict; exit code 1 if one is worse."""
    from harness.study.compare import compare

    detections = first.table("detection"), second.table("detection")
    found = compare(first.rows(), second.rows(), detections)
    worse = any(c.verdict == "worse" for c in found)
    rows = [c.row() for c in found]
    if as_json:
        names = first.about["studyId"], second.about["studyId"]
        emit({"first": names[0], "second": names[1], "worse": worse, "metrics": rows})
    else:
        show_table(rows)
    if worse:
        raise typer.Exit(1)


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
    numbers = result.summary
    if as_json:
        emit(numbers)
        return
    typer.echo(f"study {numbers['studyId']}: {numbers['n']} injections")
    for outcome, n in numbers["outcomes"].items():
        typer.echo(f"  {outcome:<12} {n}")
    found, half = numbers["ratioToIdeal"][0]["detected"], numbers["snr50"]
    if found["value"] is not None:
        typer.echo(
            f"detected over what the noise allows: {found['value']:.3f} "
            f"({found['lo']:.3f} to {found['hi']:.3f})"
        )
    if half["value"] is not None and half["ideal"] is not None:
        typer.echo(
            f"half are detected at a true SNR of {half['value']:.2f} "
            f"({half['lo']:.2f} to {half['hi']:.2f}); noise limit {half['ideal']:.2f}"
        )
    typer.echo(f"report: {result.folder / 'report.html'}")
