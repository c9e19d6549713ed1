"""Injection–recovery studies: how complete, how pure, how accurate, and where sources are lost.

For notebooks::

    from harness import study

    result = study.run_study(Path("W"), study.StudyDesign(sources=300))
    rows = result.rows()                                    # an Arrow table
    points = study.Sample(rows).points()
    table = study.completeness(points.snr, points.flags("detected"), study.SNR_EDGES)
    curve = study.fit(points.magnitude, points.flags("detected"), falling=True)
    figure = study.plot(table, curve=None, label="detected")  # a matplotlib figure
"""

from typing import TYPE_CHECKING

from harness.study.compare import compare
from harness.study.completeness import CompletenessFit, completeness, fit, interval
from harness.study.ideal import IdealCurve, ideal_curve
from harness.study.sample import Sample
from harness.study.store import Study
from harness.study.summary import SNR_EDGES, efficiency_table, summarise
from pipeline.lazy import lazy

if TYPE_CHECKING:
    from harness.study.design import StudyDesign, load_design
    from harness.study.plotting import plot
    from harness.study.run import run_study

__all__ = [
    "SNR_EDGES",
    "CompletenessFit",
    "IdealCurve",
    "Sample",
    "Study",
    "StudyDesign",
    "compare",
    "completeness",
    "efficiency_table",
    "fit",
    "ideal_curve",
    "interval",
    "load_design",
    "plot",
    "run_study",
    "summarise",
]

__getattr__ = lazy(
    __name__, StudyDesign="design", load_design="design", plot="plotting", run_study="run"
)
