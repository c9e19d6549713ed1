"""Pixels and positions that no healthy exposure has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.exposure import PolynomialPsf

Array = npt.NDArray[np.float64]

SHAPES = [(0, 0), (0, 5), (1, 1), (1, 40), (40, 1), (2, 3), (33, 47)]
PIXELS = ["noise", "nan", "inf", "huge", "negative", "zero", "mixed"]
PLACES = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**31, -(2.0**63), -1.0, -0.6, 0.0, 1e6])


def pixels(kind: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """An image of one kind."""
    rng = np.random.default_rng(7)
    noise = rng.normal(0.0, 20.0, shape).astype(np.float32)
    constant = {"nan": np.nan, "inf": np.inf, "huge": 1e30, "negative": -1e30, "zero": 0.0}
    if kind in constant:
        return np.full(shape, constant[kind], np.float32)
    if kind == "mixed":
        values = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, 0.0], np.float32)
        wrong = rng.random(shape) < 0.2
        noise[wrong] = rng.choice(values, int(wrong.sum()))
    return noise


def gaussian(sigma: float = 1.8, side: int = 41, wing: float = 0.0) -> PolynomialPsf:
    """A round PSF of unit flux; `wing` is taken from every pixel beyond nine."""
    k = np.arange(side) - side // 2
    r = np.hypot(k[:, None], k)
    stamp = np.exp(-0.5 * (r / sigma) ** 2)
    return PolynomialPsf((stamp / stamp.sum() - wing * (r > 9))[None], 0, (64, 64))


def places(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Positions outside, on the rim and nowhere, each with every other."""
    ny, nx = shape
    x, y = np.meshgrid(np.append(PLACES, [nx - 0.5, nx / 2]), np.append(PLACES, [ny - 0.5, ny / 2]))
    return x.ravel(), y.ravel()


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Every shape."""
    return request.param


@pytest.fixture(params=PIXELS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of pixels."""
    return request.param
