"""The match: right with few stars, never wrong, from far off."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.calibrate.match import match, pair

Array = npt.NDArray[np.float64]


def _sky(
    rng: np.random.Generator, n: int, *, dense: int = 3, spurious: float = 0.3
) -> tuple[Array, Array, Array, Array]:
    """Detections 60″ and half a degree off, among them spurious ones; a denser catalogue."""
    size = np.array([270.0, 540.0])
    stars = rng.uniform(-size, size, (n, 2))
    others = rng.uniform(-1.2 * size, 1.2 * size, ((dense - 1) * n, 2))
    angle = np.radians(rng.uniform(-0.5, 0.5))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = rng.uniform(-58.0, 58.0, 2)
    seen = (stars + rng.normal(0.0, 0.05, stars.shape) - offset) @ matrix
    false = rng.uniform(-size, size, (int(spurious * n) + 1, 2))
    detections = np.concatenate([seen, false])
    order = rng.permutation(len(detections))
    catalogue = np.concatenate([stars, others])[rng.permutation(dense * n)]
    return detections[order], catalogue, matrix, offset


@pytest.mark.parametrize("n", [5, 10, 50, 500])
def test_right_from_sixty_arcseconds_and_half_a_degree(n: int) -> None:
    wrong, accepted, trials = 0, 0, 20
    for seed in range(trials):
        detections, catalogue, matrix, offset = _sky(np.random.default_rng([n, seed]), n, dense=2)
        found = match(detections, catalogue, n_detections=200, n_references=400)
        if found is None or found.log_chance > np.log(1e-4):
            continue
        accepted += 1
        corners = np.array([[-270.0, -540.0], [270.0, 540.0], [-270.0, 540.0]])
        error = corners @ found.matrix.T + found.offset - (corners @ matrix.T + offset)
        wrong += bool(np.hypot(*error.T).max() > 2.0)

    assert wrong == 0
    assert accepted >= (18 if n == 5 else 20)


def test_unrelated_lists_are_never_accepted() -> None:
    for seed in range(40):
        rng = np.random.default_rng([7, seed])
        a = rng.uniform(-270.0, 270.0, (30, 2))
        b = rng.uniform(-350.0, 350.0, (120, 2))
        found = match(a, b)

        assert found is None or found.log_chance > np.log(1e-4)


def test_pairs_are_mutual_nearest_neighbours() -> None:
    a = np.array([[0.0, 0.0], [0.4, 0.0], [10.0, 0.0]])
    b = np.array([[0.1, 0.0], [10.0, 2.0]])

    i, j = pair(a, b, 1.0)

    assert i.tolist() == [0]
    assert j.tolist() == [0]


def test_nothing_pairs_with_nothing() -> None:
    i, j = pair(np.zeros((0, 2)), np.zeros((3, 2)), 1.0)

    assert len(i) == len(j) == 0
    assert match(np.zeros((1, 2)), np.zeros((3, 2))) is None
