"""Numbers of the evaluation by hand, and the model card."""

import numpy as np
import pytest

from harness.reliability import evaluation, training
from harness.reliability.card import card, judge
from pipeline.errors import ConfigError


def test_calibration_error_by_hand():
    p = np.array([0.05, 0.05, 0.95, 0.95])
    assert evaluation.calibration_error(p, np.array([0, 0, 1, 1], bool)) == pytest.approx(0.05)
    assert evaluation.calibration_error(p, np.array([1, 0, 1, 1], bool)) == pytest.approx(0.25)
    assert evaluation.calibration_error(np.array([1.0]), np.array([True])) == 0.0


def test_operating_point_by_hand():
    real = np.array([0.2, 0.6, 0.7, 0.8, 0.9])
    bogus = np.array([0.1] * 50 + [0.3] * 48 + [0.65, 0.85])
    # at 0.6: 0.8 / (0.8 + 4 · 0.02) = 0.909; at 0.7: 0.6 / (0.6 + 4 · 0.01) = 0.938; at 0.9: 1
    assert evaluation.operating_point(real, bogus, 4.0) == pytest.approx((0.2, 0.9))
    # at 0.2: 1 / (1 + 0.5) = 0.667; at 0.6: 0.8 / (0.8 + 0.02) = 0.976
    assert evaluation.operating_point(real, bogus, 1.0) == pytest.approx((0.8, 0.6))
    assert evaluation.operating_point(real, np.full(10, 0.95), 9.0) == (0.0, np.inf)
    assert np.isnan(evaluation.operating_point(real, bogus[:0], 4.0)[0])


def test_rejected_at_by_hand():
    real = np.linspace(0.5, 1.0, 1000)
    bogus = np.array([0.1, 0.2, 0.3, 0.9])
    assert evaluation.rejected_at(real, bogus) == 0.75
    assert evaluation.rejected_at(real, bogus, kept=0.1) == 1.0
    assert evaluation.rejected_at(np.array([0.95] * 100), bogus) == 1.0


def test_shares_by_class(draw):
    data = draw(200, 1)
    p = np.where(data.real, 0.9, 0.1)
    found = {s.name: s for s in evaluation.shares(data, p, 0.5)}
    assert found["transient"].value == 1.0
    assert found["noise"].value == 0.0
    strong = {s.name: s for s in evaluation.shares(data, p, 0.5, least_true_snr=10.0)}
    assert strong["transient"].n == np.count_nonzero(data.true_snr >= 10.0)
    low, high = found["noise"].interval
    assert low == 0.0 < high < 0.05


def test_the_range_of_a_mean_is_that_of_its_groups():
    groups = np.repeat([f"g{k}" for k in range(50)], 20)
    shift = np.random.default_rng(1).normal(size=50)
    values = np.repeat(shift, 20)  # all spread is between groups: 1 / √50, not 1 / √1000
    low, high = evaluation.bootstrap(groups, lambda rows: np.array([values[rows].mean(), np.nan]))
    assert (high[0] - low[0]) / 2.0 == pytest.approx(shift.std() / 50**0.5, rel=0.15)
    assert low[0] < values.mean() < high[0]
    assert np.isnan(low[1])
    assert np.isnan(high[1])


@pytest.fixture(scope="module")
def forest(draw):
    return training.train(draw(1500, 1))


def test_the_card_states_what_was_measured(draw, forest):
    found = judge(forest, {"made": [draw(2000, 2)], "other": [draw(1000, 3)]})
    assert [j.name for j in found] == ["made", "other", "all"]
    text = card(forest, found, 0.4)
    numbers = found[0].numbers(0.4)
    assert f"Version `{forest.version}`" in text
    assert f"| made | {numbers['real']} | {numbers['bogus']} |" in text
    low, high = found[0].ranges(0.4)["rejectedAt99"]
    assert low <= numbers["rejectedAt99"] <= high
    assert f"{numbers['rejectedAt99']:.3f} ({low:.3f}–{high:.3f})" in text
    assert "cut of `[alerts]` is 0.4" in text


def test_what_was_trained_on_proves_nothing(draw, forest):
    with pytest.raises(ConfigError, match="was trained on"):
        judge(forest, {"made": [draw(1500, 1)]})
