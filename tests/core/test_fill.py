"""Bridges over narrow gaps."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.fill import bridge, fill_holes


def stars(fwhm: float, seed: int, n: int = 600, size: int = 400) -> np.ndarray:
    """Gaussian stars on a sloping sky, strewn over bad columns."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size].astype(float)
    image = 50.0 + 0.1 * x - 0.05 * y
    for u, v in rng.uniform(20, size - 20, (n, 2)):
        image += 1000.0 * np.exp(-4 * np.log(2) * ((x - u) ** 2 + (y - v) ** 2) / fwhm**2)
    return image


def columns(size: int, width: int) -> np.ndarray:
    bad = np.zeros((size, size), bool)
    for first in range(10, size - 10, 13):
        bad[:, first : first + width] = True
    return bad


@pytest.mark.parametrize("fwhm", [3.0, 3.5, 5.0])
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("along", ["rows", "columns"])
def test_errors_are_those_declared(fwhm: float, width: int, along: str) -> None:
    truth, bad = stars(fwhm, seed=width), columns(400, width)
    if along == "columns":
        bad = np.ascontiguousarray(bad.T)
    image = np.where(bad, np.nan, truth).astype(np.float32)
    y, x = np.nonzero(bad)
    error = bridge(image, y, x, bad, fwhm)
    rows, cols = np.mgrid[:400, :400]
    sky = 50.0 + 0.1 * cols - 0.05 * rows
    wrong, star = (image - truth)[bad], (truth - sky)[bad]
    assert (error < 1).all()
    assert np.ptp(error) == 0
    assert np.sqrt((wrong**2).sum() / (star**2).sum()) < 1.15 * error[0]
    if width > 1 or fwhm < 3.2:  # otherwise the declared error is the least there is
        assert np.sqrt((wrong**2).sum() / (star**2).sum()) > 0.3 * error[0]


def test_sharper_stars_are_known_less() -> None:
    bad = columns(400, 2)
    y, x = np.nonzero(bad)
    image = np.ones((400, 400), np.float32)
    errors = [float(bridge(image, y, x, bad, fwhm)[0]) for fwhm in (2.0, 2.5, 3.3, 5.0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.4


def test_gaps_without_banks_stay() -> None:
    bad = np.zeros((40, 40), bool)
    bad[:, 10:14] = True  # too wide
    bad[20, 1] = bad[20, 3] = True  # no three pixels to the edge, but bridged along the column
    bad[:, 30] = bad[:, 32] = True  # banks of one pixel between them
    image = np.where(bad, np.nan, 1.0).astype(np.float32)
    y, x = np.nonzero(bad)
    done = bridge(image, y, x, bad) < 1
    assert set(zip(y[done].tolist(), x[done].tolist(), strict=True)) == {(20, 1), (20, 3)}
    assert np.isnan(image[:, 11]).all()


def test_filling_prefers_bridges_and_leaves_nothing_narrow() -> None:
    truth = stars(3.5, seed=9)
    bad = columns(400, 1)
    bad[200:206, 100:112] = True
    image = np.where(bad, np.nan, truth).astype(np.float32)
    variance = np.where(bad, np.nan, 4.0).astype(np.float32)
    filled = fill_holes(image, variance, bad, np.zeros_like(bad), 8)
    assert filled[bad].all()
    assert np.isfinite(image).all()
    np.testing.assert_allclose(variance, 4.0, rtol=1e-6)
    narrow = bad.copy()
    narrow[195:211, 95:117] = False
    assert np.abs(image - truth)[narrow].max() < 40.0  # lines would be wrong by 150
