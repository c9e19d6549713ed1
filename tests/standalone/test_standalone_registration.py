"""Whether the stars of two images lie at the same places."""

from __future__ import annotations

import numpy as np
import pytest

from harness.standalone.registration import measured_shift


@pytest.mark.parametrize("shift", [(0.0, 0.0), (6.0, -2.5), (-31.0, 44.0)])
def test_shift_of_most_stars_is_found(shift):
    rng = np.random.default_rng(1)
    first = rng.uniform(0, 500, (100, 2))
    second = first[20:] + shift + rng.normal(0, 0.1, (80, 2))
    second = np.concatenate([second, rng.uniform(0, 500, (20, 2))])
    assert measured_shift(first, second) == pytest.approx(np.array(shift), abs=0.1)


def test_another_sky_has_no_shift():
    rng = np.random.default_rng(2)
    assert measured_shift(rng.uniform(0, 500, (100, 2)), rng.uniform(0, 500, (100, 2))) is None
    assert measured_shift(np.zeros((0, 2)), rng.uniform(0, 500, (9, 2))) is None
