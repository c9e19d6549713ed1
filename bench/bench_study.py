"""Whether `nightjar study --against` calls planted regressions, as JSON lines.

``science [WORKSPACE [IMAGES]]``: 500 injections into each of IMAGES (4) CCD-visits of a finished
campaign (``campaigns/mini``), painted by the local engine with the same photons on both sides: a
cut at 5.5, a reliability cut 0.1 higher, a constant kernel, a variance 1.1 times too large; and 40
comparisons of a twentieth of them with nothing changed but the photons of the sources.  The studies
stay in WORKSPACE/studies as ``bench-*``, and are not made twice.  ``speed`` has nothing to measure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from bench.report import reporter
from harness.plan import Selection
from harness.settings import Settings
from harness.study import Study, StudyDesign
from harness.study.compare import Comparison, compare
from harness.study.engine import Painting
from harness.study.run import run_study
from harness.workspace import Workspace
from pipeline.exposure import Difference
from pipeline.subtract.fixed import FixedSubtraction

_SOURCES = 500
_REPEATS = 20
report = reporter("study")
"""Comparisons that one pair of studies is divided into."""


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


def photons(seed: int) -> AbstractContextManager[object]:
    """Draw the photons of the sources anew."""
    return patch.object(Painting, "_noise_seed", property(lambda p: seed + p.realisation))


def units(root: Path, images: int) -> Selection:
    """Return the first visits of one detector, or whole visits from two images on."""
    files = sorted((root / "products" / "difference").glob("*.fits*"))[:images]
    names = [f.name.split(".")[0].split("_") for f in files]
    return Selection(frozenset(int(n[0]) for n in names), frozenset(int(n[1]) for n in names))


def called(first: Study, second: Study) -> dict[str, Comparison]:
    tables = first.table("detection"), second.table("detection")
    return {c.name: c for c in compare(first.rows(), second.rows(), tables)}


def parts(study: Study) -> list[pa.Table]:
    """Divide the injections of a study by their numbers."""
    rows = study.rows()
    part = np.asarray(rows["injectionId"]) % _REPEATS
    return [rows.filter(pa.array(part == k)) for k in range(_REPEATS)]


def science(root: Path, images: int) -> None:
    """Plant, compare, report."""
    design = StudyDesign(
        sources=_SOURCES, seed=1717, near_threshold=0.5, hosted=0, negative=0,
        near_bright=0,
    )  # fmt: skip
    chosen = units(root, images)

    def study(name: str, *changes: str) -> Study:
        return run_study(
            root, design, name=f"bench-{name}", selection=chosen, engine="local", quiet=True,
            overrides=("execution.executor=serial", *changes),
        )  # fmt: skip

    cut = Settings.load(Workspace.open(root).config).diasource.reliability_cut + 0.1
    reference = study("reference")
    planted: list[tuple[str, str, AbstractContextManager[object], tuple[str, ...]]] = [
        ("threshold 5.5", "detected", nullcontext(), ("diasource.threshold=5.5",)),
        ("reliability cut + 0.1", "reliable", nullcontext(), (f"diasource.reliability_cut={cut}",)),
        ("kernel of order 0", "false detections", nullcontext(), ("subtract.order=0",)),
        ("variance x 1.1", "detected", overestimated(), ()),
    ]
    for name, metric, planting, changes in planted:
        with planting:
            other = study(name.replace(" + ", "-plus-").replace(" ", "-"), *changes)
        found = called(reference, other)
        worse = [c.name for c in found.values() if c.verdict == "worse"]
        told = found[metric]
        report(
            f"{name}: {metric}", told.change, "", None, holds=told.verdict == "worse",
            population=f"± {told.error:.2g}, p = {told.p_value:.2g}, n = {told.n}; "
            f"worse: {', '.join(worse)}",
        )  # fmt: skip
        if name.startswith("threshold"):
            m50 = found["m50 detected"]
            report("error of a change of m50", m50.error, "mag", 0.005, holds=m50.error <= 0.005,
                   population=f"{m50.n} injections, change {m50.change:+.4f}")  # fmt: skip
    null(study, reference)


def null(study: Callable[[str], Study], reference: Study) -> None:
    """Count false alarms where only the photons of the sources differ."""
    others = []
    for seed in (91, 92, 93):
        with photons(1000 * seed):
            others.append(study(f"photons-{seed}"))
    alarms, worst = 0, []
    pairs = [(reference, others[0]), (others[1], others[2])]
    for first, second in pairs:
        m50 = called(first, second)["m50 detected"]
        report("the same, only photons differ", m50.error, "mag", 0.005, holds=m50.error <= 0.005,
               population=f"{m50.n} injections, change {m50.change:+.4f}")  # fmt: skip
        for k, tables in enumerate(zip(parts(first), parts(second), strict=True)):
            news = [c.name for c in compare(*tables, seed=k) if c.verdict != "same"]
            alarms += bool(news)
            worst += news
    report("false alarms", alarms, "of 40", 2, holds=alarms <= 2, population=", ".join(worst))


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    if arguments[:1] == ["science"]:
        science(
            Path(arguments[1] if len(arguments) > 1 else "campaigns/mini"),
            int(arguments[2]) if len(arguments) > 2 else 4,
        )
