"""Which detection belongs to which injection, and which would by chance."""

from __future__ import annotations

import numpy as np

from harness.study.matching import Truth, chance_matches, match

SHAPE = (101, 101)


def points(*at: tuple[float, float]) -> Truth:
    return Truth(np.array(at), np.zeros((len(at), 2)), np.ones(len(at)))


def test_only_what_belongs_to_no_injection_is_found_by_chance() -> None:
    """Two injections lie opposite each other; a third lies opposite something else."""
    truth = points((20.0, 30.0), (80.0, 70.0), (10.0, 10.0))
    places = np.array([[20.1, 30.0], [80.0, 70.2], [90.5, 90.0], [50.0, 50.0]])
    sign = np.ones(4)
    index = match(truth, places, sign, 2.0)
    assert index.tolist() == [0, 1, -1]
    chance = chance_matches(truth, places, sign, index, 2.0, SHAPE)
    assert chance.tolist() == [False, False, True, False]
    sign[2] = -1.0
    assert not chance_matches(truth, places, sign, index, 2.0, SHAPE).any()


def test_nothing_is_found_by_chance_where_there_is_nothing() -> None:
    nothing = np.empty((0, 2)), np.empty(0), np.empty(0, int)
    assert chance_matches(points((20.0, 30.0)), *nothing, 2.0, SHAPE).shape == (0,)
