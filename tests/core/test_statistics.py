from __future__ import annotations

import re
from pathlib import Path

import astropy.stats
import numpy as np
import pytest
from scipy.stats import norm

from pipeline.statistics import (
    GAUSS_MEDIAN,
    MAD_TO_SIGMA,
    MEDIAN_ERROR,
    clipped,
    iqr_std,
    mad_std,
    median_error,
)

ROOT = Path(__file__).parents[2]
QUANTILES = norm.ppf((np.arange(1_000_000) + 0.5) / 1_000_000)


@pytest.mark.parametrize("width", [mad_std, iqr_std])
def test_widths_of_a_gaussian_do_not_care_about_outliers(width) -> None:
    values = 7.0 + 3.0 * QUANTILES

    assert width(values) == pytest.approx(3.0, rel=1e-5)
    assert width(np.r_[values, np.full(10_000, 1e9)]) == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_definition_is_that_of_astropy(dtype) -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, (30, 40)).astype(dtype)

    assert mad_std(values) == pytest.approx(astropy.stats.mad_std(values), rel=2e-6)


def test_deviations_from_a_given_value() -> None:
    assert mad_std(np.array([1.0, 2.0, 3.0]), 0.0) == pytest.approx(2.0 * mad_std(np.r_[0.0, 1, 2]))


def test_error_of_a_median_is_that_of_many_medians() -> None:
    samples = np.random.default_rng(3).normal(5.0, 2.0, (2000, 200))

    errors = [median_error(s) for s in samples]

    assert np.mean(errors) == pytest.approx(np.median(samples, axis=1).std(), rel=0.06)


@pytest.mark.parametrize("function", [mad_std, iqr_std, median_error])
def test_nothing_is_not_a_number(function) -> None:
    assert np.isnan(function(np.zeros(0)))


def test_constants_are_those_of_a_gaussian() -> None:
    rng = np.random.default_rng(2)
    medians = np.median(rng.normal(size=(20_000, 101)), axis=1)

    assert norm.ppf(0.75) == pytest.approx(GAUSS_MEDIAN, rel=1e-6)
    assert 1.0 / norm.ppf(0.75) == pytest.approx(MAD_TO_SIGMA, rel=2e-6)
    assert np.sqrt(np.pi / 2.0) == pytest.approx(MEDIAN_ERROR, rel=2e-5)
    assert medians.std() * np.sqrt(101) == pytest.approx(MEDIAN_ERROR, rel=0.02)


def test_no_other_module_has_its_own_constant() -> None:
    constant = re.compile(r"1\.4826|0\.6744|0\.6745|1\.34897|0\.7413|1\.2533|2\.3548")
    wrong = [
        str(path.relative_to(ROOT))
        for room in ("pipeline", "sims", "harness")
        for path in (ROOT / room).rglob("*.py")
        if constant.search(path.read_text(encoding="utf-8"))
    ]

    assert wrong == ["pipeline/statistics.py"]


def test_clipped_values_are_those_near_the_median() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 1e9])
    np.testing.assert_array_equal(clipped(values, 2.5), values[:-1])
