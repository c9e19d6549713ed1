"""Measuring images: every metric of every unit once, each file read once, in a few processes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.system.processes import end_pool, new_pool
from harness.verify.measurement import Evidence, Measurement
from harness.verify.metric import Metric, Reduction, Sample
from harness.verify.metrics import load_metrics
from harness.verify.view import TemplateRecord, View

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context, Unit

__all__ = [
    "Picture",
    "Request",
    "broken_units",
    "combine",
    "combine_groups",
    "draw_pictures",
    "measure_images",
    "requests_of",
    "start_measuring",
    "template_records",
]


@dataclass(frozen=True, slots=True, order=True)
class Request:
    """A metric with its arguments.

    Attributes
    ----------
    metric : str
        Its name.
    arguments : str
        Canonical JSON.
    """

    metric: str
    arguments: str = "{}"

    @classmethod
    def of(cls, metric: str, arguments: Mapping[str, Any]) -> Request:
        """Make a request."""
        return cls(metric, json.dumps(dict(arguments), sort_keys=True))


Outcome = Sample | str
"""A sample, or the sentence that says what went wrong."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing of a unit, made where the unit is measured: its planes are read only once.

    Attributes
    ----------
    visit, detector : int
        The unit.
    draw : callable
        Returns the PNG, from the view; a function of a module, that other processes know.
    arguments : tuple of float
        What else it takes.
    """

    visit: int
    detector: int
    draw: Callable[..., bytes]
    arguments: tuple[float, ...] = ()


def requests_of(context: Context, checks: Iterable[Any]) -> set[Request]:
    """Collect what checks that apply will ask for, so that every image is read once.

    Parameters
    ----------
    context : Context
        The campaign.
    checks : iterable of Check
        The checks.

    Returns
    -------
    set of Request
        One per metric and arguments.
    """
    asked: set[Request] = set()
    for check in checks:
        if check.subject.name in ("image", "curve") and check.applies(context):
            if check.subject.name == "image":
                asked.add(Request.of(check.subject.metric, check.subject.args))
            else:
                asked.add(Request.of("transients", {}))
    return asked


def measure_images(
    context: Context, requests: Iterable[Request]
) -> dict[Request, dict[tuple[int, int], Outcome]]:
    """Measure metrics on all units that have the product.

    Parameters
    ----------
    context : Context
        The campaign; its memory keeps samples by the state of the files behind them, so that a
        second judgement measures only what changed.
    requests : iterable of Request
        What to measure.

    Returns
    -------
    mapping of Request to mapping of (visit, detector) to Sample or str
        Units whose product is absent are left out: that is another check's finding.
    """
    wanted = sorted(set(requests))
    start_measuring(context, wanted)
    _collect(context)
    samples: dict[_Key, Outcome] = context.memory["samples"]
    return {
        request: {
            place: samples[key] for place, key in _keys(context, request).items() if key in samples
        }
        for request in wanted
    }


def draw_pictures(context: Context, pictures: Iterable[Picture]) -> dict[Picture, bytes | str]:
    """Draw pictures, or take those that were drawn beside the measurements.

    Parameters
    ----------
    context : Context
        The campaign; its memory keeps the pictures.
    pictures : iterable of Picture
        What to draw.

    Returns
    -------
    mapping of Picture to bytes or str
        The PNG, or the sentence that says what went wrong.
    """
    wanted = list(pictures)
    start_measuring(context, (), wanted)
    _collect(context)
    return {p: context.memory["pictures"][p] for p in wanted}


def _collect(context: Context) -> None:
    """Wait for what is under way and keep it."""
    for batch in context.memory.pop("flying", []):
        samples, pictures = batch.outcomes()
        for request, outcome in samples.items():
            context.memory["samples"][batch.keys[request]] = outcome
        context.memory["pictures"] |= pictures
    for pool in context.memory.pop("pools", []):
        pool.shutdown()


def start_measuring(
    context: Context, requests: Iterable[Request], pictures: Iterable[Picture] = ()
) -> None:
    """Begin to measure in other processes; `measure_images` collects what has become of it.

    Parameters
    ----------
    context : Context
        The campaign.
    requests : iterable of Request
        What will be asked for; what is known already or under way is left alone.
    pictures : iterable of Picture
        What will be drawn, likewise; see `draw_pictures`.
    """
    flying: list[_Batch] = context.memory.setdefault("flying", [])
    known = set(context.memory.setdefault("samples", {}))
    known |= {key for batch in flying for key in batch.keys.values()}
    drawn = set(context.memory.setdefault("pictures", {}))
    drawn |= {picture for batch in flying for picture in batch.pictures}
    todo: dict[_Place, tuple[dict[Request, _Key], list[Picture]]]
    todo = defaultdict(lambda: ({}, []))
    for request in sorted(set(requests)):
        for place, key in _keys(context, request).items():
            if key not in known:
                todo[place][0][request] = key
    for picture in dict.fromkeys(pictures):
        if picture not in drawn:
            todo[picture.visit, picture.detector][1].append(picture)
    if not todo:
        return
    templates = template_records(context)
    jobs = [(p, templates.get(p, TemplateRecord()), *todo[p]) for p in todo]
    pool = _pool(min(context.jobs, len(jobs)))
    for place, record, keys, drawings in sorted(jobs, key=lambda j: (j[1].file, j[0][::-1])):
        job: _Job = (context.space.root, place, record, sorted(keys), drawings)
        work: Future[_Outcomes] | _Job = pool.submit(_measure_unit, job) if pool else job
        flying.append(_Batch(keys, drawings, work))
    if pool:
        context.memory.setdefault("pools", []).append(pool)
        context.endings.append(partial(end_pool, pool))


_Place = tuple[int, int]
_Key = tuple[Any, ...]
_Job = tuple[Path, _Place, TemplateRecord, list[Request], list[Picture]]
_Outcomes = tuple[dict[Request, Outcome], dict[Picture, bytes | str]]
_DEAD = "a process died that measured images"


@dataclass(frozen=True, slots=True)
class _Batch:
    """All requests of one unit, under way in another process or still to be done here."""

    keys: dict[Request, _Key]
    pictures: list[Picture]
    work: Future[_Outcomes] | _Job

    def outcomes(self) -> _Outcomes:
        if not isinstance(self.work, Future):
            return _measure_unit(self.work)
        try:
            return self.work.result()
        except BrokenProcessPool:  # killed, or out of memory
            return dict.fromkeys(self.keys, _DEAD), dict.fromkeys(self.pictures, _DEAD)


def _pool(processes: int) -> ProcessPoolExecutor | None:
    if processes < 2:
        return None
    return new_pool(processes)


def _keys(context: Context, request: Request) -> dict[_Place, _Key]:
    """Identify the sample of every unit that has the product, by the state of its files."""
    metric = load_metrics()[request.metric]
    templates = context.memory.get("templates")
    if templates is None:
        templates = context.memory["templates"] = template_records(context)
    return {
        (u.visit, u.detector): (
            request,
            u.visit,
            u.detector,
            _state(context, metric, u, templates.get((u.visit, u.detector), TemplateRecord())),
        )
        for u in context.expected(metric.product)
        if context.product(metric.product, u).is_file()
    }


def template_records(context: Context) -> dict[tuple[int, int], TemplateRecord]:
    """Template and its inputs of every difference.

    Parameters
    ----------
    context : Context
        The campaign.

    Returns
    -------
    dict of TemplateRecord
        By visit and detector.
    """
    if "difference_image" not in context.columns:
        return {}
    inputs: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
    for name, visit, detector, weight in context.fetch(
        "select templateId, visit, detector, weight from template_input order by all"
    ):
        inputs[name].append((int(visit), int(detector), float(weight)))
    rows = context.fetch(
        "select d.visit, d.detector, t.file, t.templateId, d.sha256, "
        "'=' || d.stageVersion, d.softwareVersion, d.runId from difference_image d "
        "join template t on d.templateId = t.templateId"
    )
    return {
        (int(v), int(d)): TemplateRecord(str(f), tuple(inputs[t]), tuple(map(str, own)))
        for v, d, f, t, *own in rows
    }


def _state(
    context: Context, metric: Metric, unit: Unit, template: TemplateRecord
) -> tuple[Any, ...]:
    """Identify the content of the files a metric reads without reading them."""
    space, root = context.space, context.space.root
    place = unit.visit, unit.detector
    files: dict[str, Callable[[], list[Path]]] = {
        "visit_image": lambda: [space.visit_image(*place)],
        "difference": lambda: [space.difference(*place)],
        "template": lambda: [root / template.file],
        "warped": lambda: [root / template.file, space.visit_image(*place)],
        "raw": lambda: [context.frames[place].path],
        "artefacts": lambda: [
            root / "truth" / "artefacts" / f"{unit.visit}_{unit.detector:02d}.fits"
        ],
        "truth": lambda: [root / "truth" / "visits.parquet"],
        "refcat": lambda: [space.refcat],
        "sources": lambda: [space.staging("DiaSource", *place)],
        "forced": lambda: [space.staging("DiaForcedSource", *place)],
        "camera": list,
    }
    stamps = tuple(_stamp(p) for word in metric.reads for p in files[word]())
    return (*stamps, template.inputs if "template" in metric.reads else ())


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _measure_unit(job: _Job) -> _Outcomes:
    root, place, template, requests, pictures = job
    metrics = load_metrics()
    view = View(root, *place, template)
    samples: dict[Request, Outcome] = {}
    for request in requests:
        try:
            arguments = json.loads(request.arguments)
            samples[request] = metrics[request.metric].function(view, **arguments)
        except Exception as err:  # told for this unit; the others are measured all the same
            samples[request] = _sentence(err)
    drawn: dict[Picture, bytes | str] = {}
    for picture in pictures:
        try:
            drawn[picture] = picture.draw(view, *picture.arguments)
        except Exception as err:  # whatever a reader says about the product is to be shown
            drawn[picture] = _sentence(err)
    return samples, drawn


def _sentence(err: Exception) -> str:
    return f"{type(err).__name__}: {' '.join(str(err).split())}"


def combine(
    outcomes: Mapping[tuple[int, int], Outcome], reduce: Reduction, bound: Bound
) -> Measurement:
    """Combine the samples of many units into one measurement.

    Parameters
    ----------
    outcomes : mapping
        Samples by unit.
    reduce : str
        See `Metric`.
    bound : Bound
        Decides what is worst, and which units fail.

    Returns
    -------
    Measurement
        With the subjects outside the bound, and those on which the metric broke.
    """
    samples = {k: v for k, v in outcomes.items() if isinstance(v, Sample) and v.n > 0}
    if not samples:
        return Measurement(float("nan"), 0, broken=broken_units(outcomes))
    values = np.array([s.value for s in samples.values()])
    value, stderr = _reduced(list(samples.values()), values, reduce, bound)
    failing = sorted(
        (
            {"visit": v, "detector": d, "value": s.value}
            for (v, d), s in samples.items()
            if not bound.holds(s.value)
        ),
        key=lambda f: -_excess(float(f["value"]), bound),
    )
    return Measurement(
        value,
        sum(s.n for s in samples.values()),
        stderr,
        nans=sum(s.nans for s in samples.values()) + int((~np.isfinite(values)).sum()),
        failing=tuple(failing),
        note="; ".join(sorted({s.note for s in samples.values() if s.note})[:3]),
        broken=broken_units(outcomes),
    )


def combine_groups(outcomes: Mapping[tuple[int, int], Outcome], quantile: float) -> Measurement:
    """Average the rows of all samples by their group; take a quantile of the absolute values.

    Parameters
    ----------
    outcomes : mapping
        Samples by unit, whose rows have ``group``, ``value`` and ``stderr``.
    quantile : float
        From 0 to 1.

    Returns
    -------
    Measurement
        Over the groups; its standard error is that of a typical group.
    """
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for sample in outcomes.values():
        for row in sample.rows if isinstance(sample, Sample) else ():
            groups[str(row["group"])].append((float(row["value"]), float(row["stderr"])))
    broken = broken_units(outcomes)
    if not groups:
        return Measurement(float("nan"), 0, broken=broken)
    means, errors = [], []
    for members in groups.values():
        values, stderr = np.array(members).T
        means.append(float(np.average(values, weights=stderr**-2.0)))
        errors.append(float(np.sum(stderr**-2.0) ** -0.5))
    value = float(np.quantile(np.abs(means), quantile))
    rows = [[*row] for row in zip(groups, means, errors, strict=True)]
    table = {"columns": ["group", "value", "standard error"], "rows": rows}
    typical = float(np.sqrt(np.mean(np.square(errors))))
    evidence = (Evidence("by group", "table", table),)
    return Measurement(value, len(groups), typical, evidence=evidence, broken=broken)


def broken_units(outcomes: Mapping[tuple[int, int], Outcome]) -> str:
    """Name the units on which a metric broke.

    Parameters
    ----------
    outcomes : mapping
        Samples by unit, or the sentence that says what went wrong.

    Returns
    -------
    str
        The first three units, each with its sentence, and how many more; empty if there is none.
    """
    broken = [f"{v}_{d:02d}: {o}" for (v, d), o in sorted(outcomes.items()) if isinstance(o, str)]
    more = [f"{len(broken) - 3} more"] if len(broken) > 3 else []
    return "; ".join(broken[:3] + more)


def _excess(value: float, bound: Bound) -> float:
    """How far a value lies from the middle of its bound: the worst has the largest."""
    if np.isnan(value):
        return float("inf")
    if np.isfinite(bound.lo) and np.isfinite(bound.hi):
        return abs(value - 0.5 * (bound.lo + bound.hi))
    return value if np.isfinite(bound.hi) else -value


def _reduced(
    samples: list[Sample], values: np.ndarray[Any, Any], reduce: Reduction, bound: Bound
) -> tuple[float, float | None]:
    if not np.isfinite(values).all():  # nothing outweighs a frame without a number
        return float("nan"), None
    if reduce == "worst":
        index = int(np.argmax([_excess(v, bound) for v in values]))
        return float(values[index]), samples[index].stderr
    if reduce == "sum":
        return float(values.sum()), None
    if reduce == "median":
        return float(np.median(values)), None
    weights = np.array([s.n if reduce == "pooled" else 1 for s in samples], float)
    mean = float(weights @ values) / float(weights.sum())  # exact where all values are one
    weights /= weights.sum()
    errors = [s.stderr for s in samples]
    known = [e for e in errors if e is not None]
    stderr = (
        float(np.sqrt(np.sum((weights * np.array(known)) ** 2)))
        if len(known) == len(errors)
        else None
    )
    return mean, stderr
