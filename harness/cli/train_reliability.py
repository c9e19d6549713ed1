"""``nightjar train-reliability``: make the classifier of sources, and judge it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Jobs, Json, Overrides, Quiet, emit, show_table

if TYPE_CHECKING:
    from harness.reliability.samples import Samples

__all__ = ["train_reliability"]


def train_reliability(
    workspaces: Annotated[
        list[Path],
        typer.Argument(
            metavar="WORKSPACE...", help="Simulated campaigns that were run.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="MODEL", help="Model file to write.")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Judge a model on the campaigns; train nothing.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Model to judge. [default: that of the package]"),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the model card, as Markdown.")
    ] = None,
    overrides: Overrides = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train the classifier of sources on simulated campaigns, or judge it on others.

    Synthetic transients are painted into the images as by `nightjar study`, below
    WORKSPACE/studies/; what is there already is not done again.  The same campaigns and the same
    software give the same model, byte for byte.  It takes effect in the place of
    pipeline/diasource/reliability.npz.
    """
    from pipeline.errors import ConfigError

    if evaluate == (out is not None):
        raise ConfigError("writes a model or judges one", expected="either --out or --evaluate")
    samples = _collect(workspaces, overrides, jobs, quiet=quiet or as_json)
    if out is not None:
        _train(samples, out, as_json=as_json)
    else:
        _evaluate(samples, model, card, as_json=as_json)


def _collect(
    workspaces: list[Path], overrides: list[str] | None, jobs: int | None, *, quiet: bool
) -> list[Samples]:
    from harness.reliability.samples import collect

    given = tuple(overrides or ())
    return [collect(root, given, jobs=jobs, quiet=quiet) for root in workspaces]


def _train(samples: list[Samples], out: Path, *, as_json: bool) -> None:
    import json

    from harness.reliability.samples import Samples
    from harness.reliability.training import train
    from harness.workspace import atomic

    forest = train(Samples.join(samples), say=lambda line: typer.echo(line, err=True))
    with atomic(out) as partial:
        forest.save(partial)
    about = json.loads(forest.provenance)
    if as_json:
        emit({"model": str(out), "version": forest.version, **about})
    else:
        typer.echo(
            f"{out}: version {forest.version}, {about['real']} real and {about['bogus']} bogus"
        )


def _evaluate(
    samples: list[Samples], model: Path | None, card: Path | None, *, as_json: bool
) -> None:
    from harness.reliability.card import card as page
    from harness.reliability.card import judge
    from harness.workspace import atomic
    from pipeline import alerts
    from pipeline.diasource.reliability import Forest
    from pipeline.diasource.reliability import model as packaged

    forest = Forest.load(model) if model else packaged()
    groups: dict[str, list[Samples]] = {}
    for part in samples:
        groups.setdefault(part.seeds[0].split()[0], []).append(part)
    cut = alerts.Config().reliability_min
    found = judge(forest, groups)
    if card is not None:
        with atomic(card) as partial:
            partial.write_text(page(forest, found, cut), encoding="utf-8")
    rows = [j.numbers(cut) for j in found]
    if as_json:
        emit({"version": forest.version, "cut": cut, "samples": rows})
    else:
        show_table(rows)
