"""Events stand at one place of the sky and follow their light curve from visit to visit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from harness.study.design import StudyDesign
from harness.study.events import LIGHT_CURVES, efficiency_of_events, light_curve
from harness.study.run import run_study
from harness.study.sample import Sample
from harness.workspace import Workspace
from pipeline.schema import to_numpy

DESIGN = StudyDesign(
    sources=40, hosted=0.0, negative=0.0, near_bright=0.0, events=0.5, peak_magnitude=(20.5, 22.5)
)


@pytest.mark.parametrize("law", LIGHT_CURVES)
def test_light_curves_peak_at_one(law: str) -> None:
    rise, fall = LIGHT_CURVES[law]
    age = np.linspace(-fall, 8 * fall, 200_001)
    shape = light_curve(law, age)
    assert shape.max() == pytest.approx(1.0, abs=1e-6)
    assert age[shape.argmax()] == pytest.approx(rise * np.log1p(fall / rise), abs=1e-3 * fall)
    assert (shape[age <= 0] == 0).all()
    late = age > 6 * fall
    np.testing.assert_allclose(np.gradient(np.log(shape[late]), age[late]), -1 / fall, rtol=0.01)


def test_every_visit_sees_the_same_events(space: Workspace) -> None:
    result = run_study(space.root, DESIGN, quiet=True)
    rows = result.rows()
    number, visit = to_numpy(rows, "eventId"), to_numpy(rows, "visit")
    flux, peak, ra = (to_numpy(rows, n) for n in ("flux", "peakMagnitude", "ra"))
    events = np.unique(number[number >= 0])
    assert len(events) == 20
    for event in events:
        one, two = (np.flatnonzero((number == event) & (visit == v)) for v in (1, 2))
        assert len(one) == len(two) == 1
        assert ra[one[0]] == pytest.approx(ra[two[0]], abs=1e-7)
        top = 10 ** (0.4 * (31.4 - peak[one[0]]))
        assert 0 <= flux[one[0]] <= top * (1 + 1e-9)
        assert abs(flux[one[0]] - flux[two[0]]) < 0.02 * top  # a hundredth of a day later
    points = Sample(rows).points()
    bright = points.where(points.snr > 8)
    assert bright.flags("detected").mean() > 0.95
    assert sum(r["n"] for r in result.summary["events"]) <= 20
    assert sum(r["once"] * r["n"] for r in result.summary["events"]) > 3


def test_events_are_counted_once() -> None:
    rows = {
        "eventId": pa.array([1, 1, 1, 2, 2, 3, None], pa.int64()),
        "peakMagnitude": [20.0, 20.0, 20.0, 22.0, 22.0, 24.0, None],
        "detected": [True, True, False, False, True, False, True],
        "outcome": ["alerted", "alerted", "lost", "lost", "alerted", "masked", "alerted"],
    }
    found = efficiency_of_events(Sample(pa.table(rows))).to_pylist()
    full = [r for r in found if r["n"]]
    assert [(r["n"], r["once"], r["twice"]) for r in full] == [(1, 1.0, 1.0), (1, 1.0, 0.0)]
    assert all(r["onceLow"] <= r["once"] <= r["onceHigh"] for r in full)


def test_too_many_fractions() -> None:
    with pytest.raises(ValueError, match="exceed 1 together"):
        StudyDesign(events=0.8, hosted=0.3)
