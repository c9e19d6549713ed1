"""Blends, and detections of one place: parts that are one source are one source."""

import numpy as np
import pytest

from pipeline.diasource.coincidence import coincident
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

    kept = targets.take(targets.distinct(peaks, 2.0, fitted))

    assert kept.peak.tolist() == [0]
    assert kept.parent.tolist() == [-1]
    assert peaks.rule.tolist() == ["", "coincident", "coincident"]
    assert peaks.belongs_to == {1: 0, 2: 0}


def test_parts_that_stay_apart_remain():
    targets, peaks = blend([(20, 20), (28, 20)], (60.0, 50.0))

    keep = targets.distinct(peaks, 2.0, targets.at)

    assert keep.all()
    assert peaks.rule.tolist() == ["", ""]


def test_a_blend_of_three_keeps_its_two():
    targets, peaks = blend([(20, 20), (28, 20), (27, 20)], (60.0, 50.0, 10.0))

    kept = targets.take(targets.distinct(peaks, 2.0, targets.at))

    assert kept.is_parent.tolist() == [True, False, False]
    assert kept.parent.tolist() == [-1, 0, 0]
    assert peaks.belongs_to == {2: 1}


def test_detections_of_two_footprints_on_one_place_are_one_source():
    targets, peaks = blend([(20, 20), (23, 20), (40, 40)], (-60.0, 50.0, 40.0))
    alone = targets.take(~targets.is_parent)
    fitted = np.array([[21.0, 20.0], [21.3, 20.4], [40.0, 40.0]])

    keep = alone.distinct(peaks, 2.0, fitted)

    assert keep.tolist() == [True, False, True]
    assert peaks.rule.tolist() == ["", "coincident", ""]
    assert peaks.value[1] == pytest.approx(0.5)
    assert peaks.bound[1] == 2.0
    assert peaks.belongs_to == {1: 0}


def test_rows_below_the_threshold_are_left_alone():
    targets, peaks = blend([(20, 20), (21, 20)], (60.0, 4.5))
    alone = targets.take(~targets.is_parent)
    alone.selection[1] = 1

    assert alone.distinct(peaks, 2.0, alone.at).all()


def test_detections_with_one_dipole_are_one_source():
    at = np.array([[10.0, 10.0], [14.0, 10.0], [30.0, 10.0]])
    centre = np.array([[12.0, 14.0], [12.3, 14.4], [np.nan, np.nan]])

    owner, distance = coincident([at, centre], np.array([5.0, 9.0, 7.0]), 2.0)

    assert owner.tolist() == [1, -1, -1]
    assert distance[0] == pytest.approx(0.5)


def test_each_detection_belongs_to_one_that_is_a_source():
    """Of four in a row the second belongs to the first and keeps nothing from the third."""
    at = np.array([[0.0, 0.0], [1.5, 0.0], [3.0, 0.0], [3.5, 0.0]])

    owner, distance = coincident([at], np.array([9.0, 8.0, 7.0, 7.0]), 2.0)

    assert owner.tolist() == [-1, 0, -1, 2]
    np.testing.assert_allclose(distance, [np.nan, 1.5, np.nan, 0.5])


def test_a_part_of_a_part_belongs_to_the_source():
    _, peaks = blend([(20, 20), (23, 20), (26, 20)], (60.0, 50.0, 40.0))
    peaks.belongs_to |= {2: 1, 1: 0}

    assert [peaks.main(k) for k in range(3)] == [0, 0, 0]


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
