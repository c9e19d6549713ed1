"""Visit images to template: the stage ``template``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.campaign.context import Context
from harness.campaign.task import Notes, Phase, Stage, Task, WorkItem
from harness.ledger import Outcome, Target
from harness.plan import TemplatePlan
from harness.system.hashes import combine
from harness.tasks import rows
from harness.workspace import Workspace
from pipeline import io, template
from pipeline.exposure import Exposure
from pipeline.schema import TEMPLATE

__all__ = ["TASK", "make_item", "warped"]

_Members = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item(WorkItem):
    """One template: what it is of, and the SHA-256 of each visit image that goes in."""

    field_name: str
    band: str
    inputs: Mapping[Target, str]


def _phases(context: Context) -> Iterator[Phase]:
    wanted = [plan for plan in context.templates if context.chosen.intersection(plan.serves)]
    yield Phase(TASK.label, len(wanted), (make_item(context, plan) for plan in wanted))


def make_item(context: Context, plan: TemplatePlan) -> _Item:
    """Make the work item of a template.

    Parameters
    ----------
    context : Context
        The campaign.
    plan : TemplatePlan
        The template.

    Returns
    -------
    WorkItem
        What is to be done.
    """
    of, space = context.state.hashes.of, context.space
    inputs = {Target(*unit): of(space.visit_image(*unit)) for unit in plan.inputs}
    return _Item(
        task=TASK,
        target=context.template_target(plan),
        keys=TASK.keys(context.settings, combine(inputs.values())),
        field_name=context.frames[plan.serves[0]].field_name,
        band=plan.band,
        inputs=inputs,
        **context.common(),
    )


def _planned(context: Context) -> set[Target]:
    return {context.template_target(plan) for plan in context.templates}


def _run(item: _Item, outcome: Outcome) -> Iterator[Notes]:
    config = item.settings.template
    paths = [item.space.visit_image(*unit[:2]) for unit in item.inputs]
    inputs = [io.read_exposure(path, background=False) for path in paths]
    wcs, shape = template.patch(inputs, config)
    result = template.run(inputs, wcs, shape, config)
    members = [row for row in result.inputs.to_pylist() if row["used"]]
    names = [Target(row["visit"], row["detector"]).name for row in members]
    numbered: dict[str, str | int] = {f"TMPLIN{i}": name for i, name in enumerate(names, start=1)}
    cards = {"TMPLID": item.target.name, "NTMPLIN": len(names), **numbered, **item.provenance()}
    image = result.template.replace(provenance=cards)
    io.write_exposure(item.products[0], image)
    outcome.wrote(item.products[0])
    used = _input_rows(item, inputs, members)
    photons = _photon_noise(inputs, used)
    outcome.rows["template"] = [_row(item, image, used, photons, result.notes, outcome)]
    outcome.rows["template_input"] = used
    yield result.notes


def warped(path: Path, science: Exposure, config: template.Config) -> Exposure:
    """Template on the pixels of a science image, with the template's own provenance.

    Parameters
    ----------
    path : Path
        File of the template.
    science : Exposure
        Image whose pixels are wanted.
    config : Config
        Of the stage ``template``.

    Returns
    -------
    Exposure
        Template of the shape of the science image.
    """
    coadd = io.read_exposure(path)
    on_science = template.warp(coadd, science.wcs, science.shape, config)
    return on_science.replace(provenance=coadd.provenance)


def _photon_noise(inputs: Sequence[Exposure], used: _Members) -> float:
    """Variance of a source's own photons in the weighted mean, per unit of its flux."""
    scales = {(e.info.visit, e.info.detector): rows.per_electron(e) for e in inputs}
    return sum(scales[m["visit"], m["detector"]] * float(m["weight"]) ** 2 for m in used)


def _row(
    item: _Item,
    image: Exposure,
    used: _Members,
    photons: float,
    notes: Notes,
    outcome: Outcome,
) -> rows.Row:
    """Row of ``template``."""
    from pipeline.smooth import smooth_variance

    times = [row["midpointMjdTai"] for row in used]
    row: rows.Row = {
        "templateId": item.target.name,
        "field": item.field_name,
        "band": item.band,
        "detector": item.target.detector,
        "nInputs": len(used),
        "firstMjdTai": min(times),
        "lastMjdTai": max(times),
        "fractionNoData": float(np.mean(image.has("NO_DATA"))),
        "noiseCorrelation": _neighbour_correlation(image),
        **rows.sky(image, smooth_variance(image.variance, image.mask), photons),
        **rows.file(item, outcome),
        "notes": "; ".join(notes) or None,
    }
    return rows.complete(TEMPLATE, row, {})


def _input_rows(
    item: _Item, inputs: Sequence[Exposure], members: _Members
) -> list[Mapping[str, object]]:
    """Rows of ``template_input``, for the inputs that were used."""
    infos = {(e.info.visit, e.info.detector): e.info for e in inputs}
    return [
        {
            "templateId": item.target.name,
            "visit": unit.visit,
            "detector": unit.detector,
            "visitImageId": unit.name,
            "weight": member["weight"],
            "psfFwhm": member["fwhm"],
            "midpointMjdTai": infos[unit[:2]].midpoint_mjd_tai,
            "fractionRejected": member["clippedFraction"],
            "sha256": item.inputs[unit],
        }
        for member in members
        for unit in [Target(int(member["visit"]), int(member["detector"]))]
    ]


def _neighbour_correlation(image: Exposure) -> float | None:
    """Mean autocovariance at one pixel along a row over that at none."""
    cubes = image.noise_correlation
    if cubes is None:
        return None
    middle = cubes.shape[-1] // 2
    centre = cubes[..., middle, middle]
    return float(np.nanmean(cubes[..., middle, middle + 1] / np.where(centre > 0, centre, np.nan)))


def _products(space: Workspace, target: Target) -> tuple[Path, ...]:
    return (space.template(target.name),)


TASK = Task(
    name="template",
    label="template",
    stages=(Stage("template"),),
    phases=_phases,
    run=_run,
    products=_products,
    owned=("template", "template_input"),
    planned=_planned,
)
