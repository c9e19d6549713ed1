"""Blends: parts that are one source are one source."""

import numpy as np

from pipeline.diasource.rows import Targets
from pipeline.diasource.select import Peaks


def blend(at, scores):
    n = len(at) + 1
    rows = np.arange(-1, n - 1)
    score = np.array([scores[0], *scores], float)
    targets = Targets(
        np.array([at[0], *at], float),
        score,
        rows,
        np.zeros(n, np.int64),
        np.where(np.arange(n) == 0, -1, 0),
        np.arange(n) == 0,
        np.zeros(n, np.int32),
        np.ones(n),
    )
    x, y = np.array(at, np.int32).T
    image = np.zeros((64, 64), np.float32)
    image[y, x] = scores
    return targets, Peaks.of(image, x, y)


def test_parts_that_run_together_are_one_source():
    targets, peaks = blend([(20, 20), (23, 20), (20, 24)], (60.0, 50.0, 40.0))
    fitted = np.array([[20.1, 20.0], [20.1, 20.0], [20.2, 20.1], [20.0, 20.3]])

    kept = targets.take(targets.distinct(fitted, peaks, 2.0))

    assert kept.peak.tolist() == [0]
    assert kept.parent.tolist() == [-1]
    assert peaks.rule.tolist() == ["", "coincident", "coincident"]
    assert peaks.belongs_to == {1: 0, 2: 0}


def test_parts_that_stay_apart_remain():
    targets, peaks = blend([(20, 20), (28, 20)], (60.0, 50.0))

    keep = targets.distinct(targets.at, peaks, 2.0)

    assert keep.all()
    assert peaks.rule.tolist() == ["", ""]


def test_a_blend_of_three_keeps_its_two():
    targets, peaks = blend([(20, 20), (28, 20), (27, 20)], (60.0, 50.0, 10.0))

    kept = targets.take(targets.distinct(targets.at, peaks, 2.0))

    assert kept.is_parent.tolist() == [True, False, False]
    assert kept.parent.tolist() == [-1, 0, 0]
    assert peaks.belongs_to == {2: 1}
