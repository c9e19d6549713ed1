from __future__ import annotations

import numpy as np
import pytest

from pipeline.exposure import (
    Exposure,
    GridPsf,
    MatchingKernel,
    PolynomialPsf,
    VisitInfo,
    polynomial_terms,
)
from pipeline.masks import MASK_PLANES, bits, plane_names

INFO = VisitInfo(1, 2, "g", 86.0, 57070.0)


def test_planes_fit_the_mask_and_are_distinct() -> None:
    values = [int(bits(name)) for name in MASK_PLANES]

    assert len(MASK_PLANES) <= 32
    assert len(set(values)) == len(values)
    assert all(plane_names(v) == [n] for n, v in zip(MASK_PLANES, values, strict=True))


def test_unknown_plane() -> None:
    with pytest.raises(KeyError, match="SATURATED"):
        bits("SATURATED")


def test_planes_of_different_shape_are_refused() -> None:
    image = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="of one shape"):
        Exposure(image, image[:2], np.zeros((3, 4), np.uint32), INFO)


def test_polynomial_psf_is_its_polynomial() -> None:
    rng = np.random.default_rng(1)
    psf = PolynomialPsf(rng.normal(size=(6, 5, 5)), 2, (100, 201))
    u, v = 2 * 50 / 200 - 1, 2 * 66 / 99 - 1

    expected = np.tensordot([1, u, v, u * u, u * v, v * v], psf.coefficients, 1)

    np.testing.assert_allclose(psf.at(50, 66), expected, rtol=1e-12)


def test_grid_psf_is_bilinear_inside_and_constant_outside() -> None:
    x, y = np.array([0.0, 10.0]), np.array([0.0, 20.0])
    cube = (x[None, :] + 3 * y[:, None])[..., None, None] * np.ones((3, 3))
    psf = GridPsf(cube, x, y)

    assert psf.at(2.5, 5.0)[1, 1] == pytest.approx(2.5 + 15)
    assert psf.at(-40.0, 99.0)[1, 1] == pytest.approx(60)
    assert psf.stamps([1, 2], [3, 4]).shape == (2, 3, 3)


def test_kernel_sum_agrees_with_its_stamps() -> None:
    rng = np.random.default_rng(2)
    kernel = MatchingKernel(
        rng.normal(size=(4, 7, 7)),
        rng.normal(size=(4, 3)),
        1,
        (64, 64),
        np.zeros(1),
        1.0,
        np.zeros((0, 4)),
    )

    assert kernel.sum_at(11.0, 50.0)[0] == pytest.approx(kernel.at(11, 50).sum())


def test_terms_span_the_image() -> None:
    terms = polynomial_terms([0, 99], [0, 49], (50, 100), 1)

    np.testing.assert_allclose(terms, [[1, -1, -1], [1, 1, 1]])
