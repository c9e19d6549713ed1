"""Blends: parts that are one source are one source."""

import numpy as np

from pipeline.diasource.detect import Footprints
from pipeline.diasource.flags import square_sides
from pipeline.diasource.rows import Targets, footprint_pixels
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


def test_every_pixel_of_a_blend_goes_to_its_nearest_part():
    rng = np.random.default_rng(7)
    at = rng.choice(60 * 60, 40, replace=False)
    x, y = at % 60, at // 60
    targets, _ = blend(list(zip(x, y, strict=True)), np.linspace(90.0, 50.0, 40))
    rows, columns = np.mgrid[:60, :60]
    whole = (rows * 64 + columns).ravel().astype(np.int32)
    footprints = Footprints(np.zeros(40, np.int32), np.ones(40), np.array([0, 3600]), whole)

    parent, *parts = footprint_pixels((64, 64), targets, footprints)

    np.testing.assert_array_equal(parent, whole)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), whole)
    for k, part in enumerate(parts):
        v, u = np.divmod(part, 64)
        distance = np.hypot(u[:, None] - x, v[:, None] - y)
        np.testing.assert_allclose(distance[:, k], distance.min(axis=1))


def test_a_part_beside_its_footprint_has_a_box_of_its_own():
    targets, _ = blend([(20, 20), (20, 20), (2, 50)], (60.0, 50.0, 40.0))
    rows, columns = np.mgrid[17:24, 17:24]
    whole = (rows * 64 + columns).ravel().astype(np.int32)
    footprints = Footprints(np.zeros(3, np.int32), np.ones(3), np.array([0, 49]), whole)

    parts = footprint_pixels((64, 64), targets, footprints)

    assert all(len(part) for part in parts)
    v, u = np.divmod(parts[-1], 64)
    assert np.hypot(u - 2, v - 50).max() < 5
    assert (square_sides((64, 64), parts) >= 1).all()
