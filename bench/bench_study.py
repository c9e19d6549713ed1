"""Whether `nightjar study --against` calls planted regressions, as JSON lines.

``science [WORKSPACE [IMAGES]]``: 2,000 injections into IMAGES (8) CCD-visits of a finished campaign
(``campaigns/mini``), painted by the local engine with the same photons on both sides: a cut at 5.5,
a reliability cut 0.1 higher, a constant kernel, a variance 1.1 times too large.  Then 40 null
comparisons: one image each, painted five times, every kernel fitted anew, where both sides are
exposures of their own, with noise in every pixel that the other has not.  The studies stay in
WORKSPACE/studies as ``bench-*``, and are not made twice.  ``speed`` has nothing to measure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from bench.report import reporter
from harness.plan import Selection
from harness.settings import Settings
from harness.study import Study, StudyDesign, engine
from harness.study.compare import Comparison, compare
from harness.study.engine import Engine
from harness.study.run import run_study
from harness.workspace import Workspace
from pipeline.exposure import Difference, Exposure, FloatArray
from pipeline.schema import to_numpy
from pipeline.subtract.fixed import FixedSubtraction

report = reporter("study")
_SOURCES = 2000
_REPEATS = 40
_OTHER_NOISE = 0.5
"""Noise that an exposure has for itself, over that of the image."""


def overestimated() -> AbstractContextManager[object]:
    """Take the variance of every difference for 1.1 times what it is."""
    right, factor = FixedSubtraction.run, np.float32(1.1)

    def run(*args: object) -> Difference:
        difference = right(*args)  # type: ignore[arg-type]
        image = difference.exposure
        return replace(
            difference, exposure=image.replace(variance=factor * image.variance),
            null_variance=factor * difference.null_variance,
            score=difference.score / np.sqrt(factor),
        )  # fmt: skip

    return patch.object(FixedSubtraction, "run", run)


def another_exposure(seed: int) -> AbstractContextManager[object]:
    """Give every pixel of the painted science images noise that no other exposure has."""
    right = engine._paint

    def paint(
        science: Exposure, template: Exposure, ratio: FloatArray, rows: pa.Table, photons: int
    ) -> tuple[Exposure, Exposure]:
        painted, other = right(science, template, ratio, rows, seed + photons)
        info = painted.info
        rng = np.random.default_rng([seed, photons, info.visit, info.detector])
        noise = _OTHER_NOISE * np.sqrt(painted.variance)
        image = painted.image + noise * rng.standard_normal(painted.shape, dtype=np.float32)
        return painted.replace(image=image, variance=painted.variance + noise**2), other

    return patch.object(engine, "_paint", paint)


def units(root: Path, images: int) -> Selection:
    """Return the first visits of one detector, or whole visits from two images on."""
    files = sorted((root / "products" / "difference").glob("*.fits*"))[:images]
    names = [f.name.split(".")[0].split("_") for f in files]
    return Selection(frozenset(int(n[0]) for n in names), frozenset(int(n[1]) for n in names))


def called(first: Study, second: Study) -> dict[str, Comparison]:
    tables = first.table("detection"), second.table("detection")
    return {c.name: c for c in compare(first.rows(), second.rows(), tables)}


def parts(study: Study, sources: int) -> list[tuple[pa.Table, pa.Table]]:
    """Divide the injections and detections of a study by its paintings."""
    rows, detections = study.rows(), study.table("detection")
    painting = to_numpy(rows, "injectionId") // sources
    where = ("visit", "detector", "realisation")
    out = []
    for k in np.unique(painting):
        mine = rows.filter(pa.array(painting == k))
        keep = np.ones(detections.num_rows, bool)
        for name in where:
            keep &= to_numpy(detections, name) == to_numpy(mine, name)[0]
        out.append((mine, detections.filter(pa.array(keep))))
    return out


def science(root: Path, images: int) -> None:
    """Plant, compare, report."""
    chosen = units(root, images)
    design = StudyDesign(
        sources=_SOURCES // images, seed=1718, near_threshold=0.7, hosted=0, negative=0,
        near_bright=0,
    )  # fmt: skip

    def study(
        name: str, *changes: str, design: StudyDesign = design, how: Engine = "local"
    ) -> Study:
        return run_study(
            root, design, name=f"bench-{name}", selection=chosen, engine=how, quiet=True,
            overrides=("execution.executor=serial", *changes),
        )  # fmt: skip

    planted(root, study)
    repeated = design.model_copy(update={"realisations": _REPEATS // images, "seed": 1719})
    null(
        [study(f"exposure-{k}", design=repeated, how="frame") for k in exposures()],
        repeated.sources,
    )


def exposures() -> Iterator[int]:
    """Count two sides; while one is current, its images are exposures of their own."""
    for side in (1, 2):
        with another_exposure(7000 * side):
            yield side


def planted(root: Path, study: Callable[..., Study]) -> None:
    """Report what is called of each change that makes things worse."""
    cut = Settings.load(Workspace.open(root).config).diasource.reliability_cut + 0.1
    reference = study("reference")
    changes: list[tuple[str, str, AbstractContextManager[object], tuple[str, ...]]] = [
        ("threshold 5.5", "detected", nullcontext(), ("diasource.threshold=5.5",)),
        ("reliability cut + 0.1", "reliable", nullcontext(), (f"diasource.reliability_cut={cut}",)),
        ("kernel of order 0", "false detections", nullcontext(), ("subtract.order=0",)),
        ("variance x 1.1", "detected", overestimated(), ()),
    ]
    for name, metric, planting, overrides in changes:
        with planting:
            other = study(name.replace(" + ", "-plus-").replace(" ", "-"), *overrides)
        found = called(reference, other)
        worse = [c.name for c in found.values() if c.verdict == "worse"]
        told = found[metric]
        report(
            f"{name}: {metric}", told.change, "", None, holds=told.verdict == "worse",
            population=f"± {told.error:.2g}, p = {told.p_value:.2g}, n = {told.n}; "
            f"worse: {', '.join(worse)}",
        )  # fmt: skip
        m50 = found.get(f"m50 {metric}", found.get("m50 detected"))
        if m50 is not None:
            report(f"{name}: error of a change of m50", m50.error, "mag", 0.005,
                   holds=m50.error <= 0.005,
                   population=f"{m50.n} injections, change {m50.change:+.4f}")  # fmt: skip


def null(sides: Sequence[Study], sources: int) -> None:
    """Count false alarms where the two sides are exposures of the same sky."""
    alarms, metrics, flips = 0, [], []
    pairs = zip(*(parts(side, sources) for side in sides), strict=True)
    for k, ((a, found_a), (b, found_b)) in enumerate(pairs):
        comparisons = compare(a, b, (found_a, found_b), seed=k)
        news = [f"{c.name} p={c.p_value:.1g}" for c in comparisons if c.verdict != "same"]
        alarms += bool(news)
        metrics += news
        flips.append(comparisons[0].error * comparisons[0].n)
    report(
        "false alarms", alarms, f"of {k + 1}", 0.05 * (k + 1), holds=alarms <= 0.05 * (k + 1),
        population=f"{np.median(flips) ** 2:.0f} sources found on one side only; "
        + ", ".join(metrics),
    )  # fmt: skip


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    if arguments[:1] == ["science"]:
        science(
            Path(arguments[1] if len(arguments) > 1 else "campaigns/mini"),
            int(arguments[2]) if len(arguments) > 2 else 8,
        )
