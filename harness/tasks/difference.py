"""Visit image minus template, and the sources on it: the stages ``subtract`` and ``diasource``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.campaign.context import Context
from harness.campaign.task import Blocked, Notes, Phase, Stage, Task, WorkItem
from harness.ledger import Outcome, Target, now_mjd_tai
from harness.plan import Frame, TemplatePlan
from harness.settings import Settings
from harness.system.hashes import combine
from harness.tasks import rows
from harness.tasks.template import warped
from harness.workspace import Workspace
from pipeline import alerts, diasource, io, subtract
from pipeline.camera import Camera
from pipeline.exposure import Difference, Exposure
from pipeline.masks import flagged
from pipeline.schema import DIFFERENCE_IMAGE

__all__ = ["TASK", "make_item"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item(WorkItem):
    """One science unit and the name of its template."""

    template_name: str


def _phases(context: Context) -> Iterator[Phase]:
    science = context.science
    yield Phase(TASK.label, len(science), (_planned_item(context, frame) for frame in science))


def _planned_item(context: Context, frame: Frame) -> _Item | Blocked:
    target, plan = Target(*frame.unit), context.template_of.get(frame.unit)
    trouble = _trouble(context, frame, plan)
    if trouble or plan is None:
        return Blocked(target, trouble, TASK.stage_names)
    return make_item(context, target, plan)


def _trouble(context: Context, frame: Frame, plan: TemplatePlan | None) -> str:
    if not context.done(Target(*frame.unit), "calibrate"):
        return "its visit image failed"
    if plan is None:
        return f"no template: no other visit image of {frame.field_name} in {frame.band} here"
    if not context.done(context.template_target(plan), "template"):
        return f"template {plan.name} failed"
    return ""


def make_item(context: Context, target: Target, plan: TemplatePlan) -> _Item:
    """Make the work item of a science unit.

    Parameters
    ----------
    context : Context
        The campaign.
    target : Target
        The unit.
    plan : TemplatePlan
        Its template.

    Returns
    -------
    WorkItem
        What is to be done.
    """
    of, space, settings = context.state.hashes.of, context.space, context.settings
    science, template = of(space.visit_image(*target[:2])), of(space.template(plan.name))
    subtracted = combine([science, template, settings.section_hash("template")])
    model = _classifier_version() if settings.diasource.classify else ""
    detected = combine([subtracted, settings.section_hash("subtract"), model, _sizes(settings)])
    return _Item(
        task=TASK,
        target=target,
        keys=TASK.keys(settings, subtracted, detected),
        input_cards={"SCIHASH": science, "TMPLHASH": template, "TMPLID": plan.name},
        template_name=plan.name,
        **context.common(),
    )


@cache
def _classifier_version() -> str:
    """Version of the classifier, which is a hash of all its trees."""
    from pipeline.diasource.reliability import model as classifier  # with a compiled loop

    return classifier().version


def _sizes(settings: Settings) -> str:
    """Name what cut-outs depend on beside the images."""
    config = settings.alerts
    return f"cutouts {config.cutout_min} {config.cutout_max} {config.psf_side}"


def _run(item: _Item, outcome: Outcome) -> Iterator[Notes]:
    from harness.tasks.colours import star_colours
    from pipeline.quantise import quantised  # with compiled loops

    settings = item.settings
    camera = Camera.load(item.space.camera(settings.campaign.camera))
    science = io.read_exposure(item.space.visit_image(*item.unit), background=False)
    template = warped(item.space.template(item.template_name), science, settings.template)
    inputs = {k: v for k, v in template.provenance.items() if k.startswith(("TMPLI", "NTMPL"))}
    difference = subtract.run(science, template, settings.subtract)
    yield ()
    try:
        result = diasource.run(
            difference,
            science,
            template,
            settings.diasource,
            now_mjd_tai=now_mjd_tai(),
            passbands=camera.passbands,
            colours=star_colours(item.space.refcat, science),
        )
    except Exception:  # the difference is a product even if nothing could be measured on it
        _write(item, difference, outcome, {}, inputs)
        raise
    exposure = quantised(difference.exposure.replace(mask=result.mask))  # as the file will hold it
    # Under the same name: of the planes of before nothing is needed any more.
    difference = replace(difference, exposure=exposure, excluded=result.excluded)
    written = _write(item, difference, outcome, result.metrics, inputs)
    cutouts = alerts.cut_out(result.sources, written, science, template, settings.alerts)
    io.write_parquet(item.products[-1], cutouts)
    io.write_parquet(item.output.staging("DiaSource", *item.unit), result.sources)
    io.write_parquet(item.output.staging("candidate", *item.unit), result.candidates)
    yield ()


def _write(
    item: _Item,
    difference: Difference,
    outcome: Outcome,
    metrics: Mapping[str, float],
    inputs: Mapping[str, Any],
) -> Exposure:
    """Write the difference with its provenance, and return the exposure with it."""
    cards = {
        "SCIID": item.target.name,
        **item.input_cards,
        **inputs,
        "KRNLHDU": "KERNEL",
        **item.provenance(),
    }
    exposure = difference.exposure.replace(provenance=cards)
    path = item.products[0]
    io.write_difference(path, replace(difference, exposure=exposure))
    outcome.wrote(path)
    outcome.rows["difference_image"] = [_row(item, difference, metrics, outcome)]
    outcome.rows["metric"] = rows.metrics(item, subtract=difference.metrics, diasource=metrics)
    return exposure


def _row(
    item: _Item, result: Difference, detection: Mapping[str, object], outcome: Outcome
) -> rows.Row:
    """Row of ``difference_image``."""
    image, kernel, name = result.exposure, result.kernel, item.target.name
    numbers = {**result.metrics, **detection}
    row: rows.Row = {
        "differenceImageId": name,
        **rows.identity(image),
        "scienceImageId": name,
        "templateId": item.template_name,
        "kernelId": f"{name}:KERNEL",
        "psfId": f"{name}:PSF",
        "scienceSha256": item.input_cards["SCIHASH"],
        "templateSha256": item.input_cards["TMPLHASH"],
        "unit": image.unit,
        "convolved": kernel.convolved,
        "kernelOrder": kernel.order,
        "kernelBasis": len(kernel.basis),
        "kernelCondition": kernel.condition,
        "fractionMasked": float(flagged(image.mask, result.excluded).mean()),
        **_stamps(result),
        **_kernel_sum(result),
        **rows.sky(image, result.null_variance, rows.per_electron(image)),
        **rows.file(item, outcome),
        "noiseRatio": numbers.get("pixelStd"),
        "lag1X": numbers.get("lag1X"),
        "lag1Y": numbers.get("lag1Y"),
        "nDiaSources": numbers.get("nSources"),
    }
    return rows.complete(DIFFERENCE_IMAGE, row, numbers)


def _stamps(result: Difference) -> rows.Row:
    """Numbers of the stamps that the kernel was fitted to."""
    fitted = result.kernel.fitted_stamps
    return {
        "nKernelStamps": len(fitted),
        "nKernelStampsRejected": len(result.kernel.stamps) - len(fitted),
        "kernelChi2": float(np.median(fitted[:, 2])) if len(fitted) else None,
    }


def _kernel_sum(result: Difference) -> rows.Row:
    ny, nx = result.exposure.shape
    x, y = np.meshgrid(np.linspace(0, nx - 1, 8), np.linspace(0, ny - 1, 8))
    sums = result.kernel.sum_at(x.ravel(), y.ravel())
    middle = float(result.kernel.sum_at([(nx - 1) / 2], [(ny - 1) / 2])[0])
    return {"kernelSum": middle, "kernelSumRms": float(np.std(sums))}


def _products(space: Workspace, target: Target) -> tuple[Path, ...]:
    unit = target[:2]
    tables = (space.staging(name, *unit) for name in ("DiaSource", "cutout"))
    return (space.difference(*unit), *tables)


TASK = Task(
    name="difference",
    label="difference",
    stages=(Stage("subtract"), Stage("diasource")),
    phases=_phases,
    run=_run,
    products=_products,
    staged=("candidate",),
    owned=("difference_image",),
    planned=Context.science_units,
)
