"""Frames that share sky: known areas, another way to measure them, and every pair tried."""

from __future__ import annotations

import resource
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from harness.footprints import connected, shared_fractions, shared_sky
from pipeline.exposure import FloatArray
from pipeline.sphere import project, radec, unit_vectors

SIDE = 0.1


def square(ra: float, dec: float, side: float = SIDE) -> tuple[float, ...]:
    h = 0.5 * side
    return (ra - h, dec - h, ra + h, dec - h, ra + h, dec + h, ra - h, dec + h)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return float(shared_fractions(np.array([a, b]), np.array([[0, 1]]))[0])


@pytest.mark.parametrize(
    ("shift", "expected"), [(0.0, 1.0), (0.05, 0.5), (0.09, 0.1), (0.1, 0.0), (5.0, 0.0)]
)
def test_overlap_of_shifted_squares_is_known(shift: float, expected: float) -> None:
    assert overlap(square(10.0, 0.0), square(10.0 + shift, 0.0)) == pytest.approx(
        expected, abs=1e-4
    )


def test_overlap_does_not_depend_on_sense_or_order_and_crosses_the_meridian() -> None:
    a, b = square(0.01, 0.0), square(-0.02, 0.01)
    turned = (*b[6:8], *b[4:6], *b[2:4], *b[0:2])
    assert overlap(a, b) == pytest.approx(0.63, abs=1e-3)
    assert overlap(a, turned) == pytest.approx(overlap(a, b))
    assert overlap(b, a) == pytest.approx(overlap(a, b), abs=1e-6)
    east = tuple(v % 360.0 if i % 2 == 0 else v for i, v in enumerate(b))
    assert overlap(a, east) == pytest.approx(0.63, abs=1e-3)


def test_small_frame_inside_a_large_one_overlaps_wholly() -> None:
    assert overlap(square(10.0, 20.0, 0.5), square(10.05, 20.05, 0.1)) == pytest.approx(1.0)


def turned_rectangle(
    ra: float, dec: float, width: float, height: float, angle: float
) -> tuple[float, ...]:
    """Corners of a rectangle on the plane tangent at its centre, near enough to a detector."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = (corners @ np.array([[cos, sin], [-sin, cos]])).T
    return tuple(np.column_stack([ra + x / np.cos(np.radians(dec)), dec + y]).ravel().tolist())


def clipped(a: Sequence[float], b: Sequence[float]) -> float:
    """The same by clipping one polygon, another way to do it (Sutherland & Hodgman 1974)."""
    if len(a) != 8 or len(b) != 8:
        return 0.0
    ra, dec = np.asarray([*a, *b], float).reshape(-1, 2).T
    centre = radec(unit_vectors(ra[:4], dec[:4]).mean(axis=0))
    plane = project(ra, dec, centre)
    if not np.isfinite(plane).all():
        return 0.0
    first, second = plane[:4], plane[4:]
    smaller = min(abs(_area(first)), abs(_area(second)))
    shared = _clip(first, second if _area(second) > 0 else second[::-1])
    return abs(_area(shared)) / smaller if smaller > 0 and len(shared) > 2 else 0.0


def _area(polygon: FloatArray) -> float:
    x, y = polygon.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def _clip(polygon: FloatArray, window: FloatArray) -> FloatArray:
    points = list(polygon)
    for start, end in zip(window, np.roll(window, -1, axis=0), strict=True):
        edge = end - start
        kept: list[FloatArray] = []
        for p, q in zip(points, points[1:] + points[:1], strict=True):
            side_p = edge[0] * (p[1] - start[1]) - edge[1] * (p[0] - start[0])
            side_q = edge[0] * (q[1] - start[1]) - edge[1] * (q[0] - start[0])
            if side_p >= 0:
                kept.append(p)
            if (side_p >= 0) != (side_q >= 0):
                kept.append(p + (q - p) * side_p / (side_p - side_q))
        points = kept
        if not points:
            break
    return np.array(points).reshape(-1, 2)


RECTANGLES = st.builds(
    turned_rectangle,
    st.floats(-0.3, 0.3),
    st.floats(59.8, 60.2),
    st.floats(0.05, 0.3),
    st.floats(0.05, 0.3),
    st.sampled_from([0.0, 0.3, 1.0, np.pi / 2, 3.0]),
)


@given(RECTANGLES, RECTANGLES)
def test_area_is_that_of_the_clipped_polygon(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    assert overlap(a, b) == pytest.approx(clipped(a, b), abs=1e-8)
    assert overlap(a, a) == pytest.approx(1.0, abs=1e-8)
    assert 0.0 <= overlap(a, b) <= 1.0


def _corners(frames: list[tuple[float, ...]]) -> FloatArray:
    return np.array(frames).reshape(-1, 8)


@given(
    st.lists(RECTANGLES, max_size=8),
    st.lists(RECTANGLES, max_size=8),
    st.sampled_from([1e-6, 0.2, 0.9]),
)
def test_pairs_are_those_found_by_trying_all(
    first: list[tuple[float, ...]], second: list[tuple[float, ...]], least: float
) -> None:
    n, m = len(first), len(second)
    every = np.array([(i, j + n) for i in range(n) for j in range(m)], np.int64).reshape(-1, 2)
    shares = shared_fractions(_corners(first + second), every)

    found, fractions = shared_sky(_corners(first), _corners(second), least)

    assert (found + np.array([0, n])).tolist() == every[shares >= least].tolist()
    assert fractions.tolist() == shares[shares >= least].tolist()


SPREAD = st.builds(  # over several cells, across the pole
    turned_rectangle,
    st.floats(0.0, 360.0),
    st.floats(89.0, 89.9),
    st.floats(0.05, 0.3),
    st.floats(0.05, 0.3),
    st.sampled_from([0.0, 0.3, 1.0]),
)


@given(st.lists(RECTANGLES | SPREAD, max_size=14), st.sampled_from([1e-6, 0.2, 0.9]))
@example(  # what the last two share is above the limit on the plane of one of them only
    [
        *5 * [turned_rectangle(0.0, 60.0, 0.25, 0.25, 0.0)],
        turned_rectangle(0.0, 89.890625, 0.25, 0.25, 0.0),
        turned_rectangle(0.0, 89.75, 0.25, 0.25, 0.3),
    ],
    1e-6,
)
def test_groups_are_those_of_all_pairs(frames: list[tuple[float, ...]], least: float) -> None:
    corners, n = _corners(frames), len(frames)
    pairs = np.array([(i, j) for i in range(n) for j in range(i + 1, n)], np.int64).reshape(-1, 2)
    joined = pairs[shared_fractions(corners, pairs) >= least]
    graph = coo_matrix((np.ones(len(joined)), joined.T), shape=(n, n))
    labels = connected_components(graph, directed=False)[1] if n else []

    assert connected(corners, least).tolist() == [list(labels).index(label) for label in labels]


def test_groups_of_many_overlapping_frames_take_no_memory_of_pairs() -> None:
    rng = np.random.default_rng(5)
    places = rng.normal((10.0, 0.0), 0.01, (20_000, 2))  # 2e8 pairs
    corners = np.array([square(*place) for place in places])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not connected(corners, 0.2).any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_opposite_sides_of_the_sky_share_nothing() -> None:
    assert overlap(square(10.0, 0.0), square(190.0, 0.0)) == 0.0
    assert overlap(square(0.0, 89.99, 0.01), square(180.0, 89.99, 0.01)) == 0.0
