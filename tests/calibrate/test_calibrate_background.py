"""The spline of the sky against that of SciPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import make_interp_spline

from pipeline.calibrate import background


@pytest.mark.parametrize(("nodes", "pixels"), [(2, 30), (3, 50), (4, 64), (16, 2048), (33, 4096)])
def test_spline_is_that_of_scipy(nodes: int, pixels: int) -> None:
    centres = (np.arange(nodes) + 0.5) * pixels / nodes - 0.5
    at = np.clip(np.arange(pixels, dtype=float), centres[0], centres[-1])
    known = make_interp_spline(centres, np.eye(nodes), k=3 if nodes > 3 else 1)(at)
    assert_allclose(background._weights(nodes, pixels), known, atol=1e-13)
