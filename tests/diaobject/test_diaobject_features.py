"""Light-curve statistics against plain formulas, one light curve at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.timeseries import LombScargle
from scipy import integrate, stats

from pipeline.diaobject import Config
from pipeline.diaobject.features import light_curve_features
from pipeline.diaobject.groups import Groups
from pipeline.diaobject.period import log_false_alarm, periods


def curves(seed: int, sizes: list[int]) -> tuple[Groups, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    keys = np.repeat(np.arange(len(sizes)), sizes)
    time = np.concatenate([np.sort(rng.uniform(0, 300, n)) for n in sizes])
    error = rng.uniform(20, 60, len(keys))
    return Groups.of(keys), time, rng.gamma(2.0, 300.0, len(keys)) + rng.normal(0, error), error


def one_by_one(t: Any, f: Any, e: Any) -> dict[str, float]:
    """The same quantities by textbook formulas and other people's code."""
    n, w = len(f), e**-2
    mean = np.average(f, weights=w)
    line = np.polynomial.polynomial.polyfit(t, f, 1, w=1 / e) if n > 1 else [np.nan, np.nan]
    delta = np.sqrt(n / max(n - 1, 1)) * (f - mean) / e
    expected = {
        "Mean": mean,
        "MeanErr": w.sum() ** -0.5,
        "Sigma": np.std(f, ddof=1) if n > 1 else np.nan,
        "Ndata": n,
        "Min": f.min(),
        "Max": f.max(),
        "ErrMean": e.mean(),
        "Chi2": (((f - mean) / e) ** 2).sum(),
        "Skew": stats.skew(f, bias=False) if n > 2 else np.nan,
        "MAD": stats.median_abs_deviation(f),
        "MaxSlope": (np.diff(f) / np.diff(t)).max() if n > 1 else np.nan,
        "LinearSlope": line[1],
        "LinearSlopeErr": (w * (t - np.average(t, weights=w)) ** 2).sum() ** -0.5
        if n > 1
        else np.nan,
        "StetsonK": np.abs(delta).mean() / np.sqrt((delta**2).mean()) if n > 1 else np.nan,
    }
    return expected | {f"Percentile{p:02d}": np.percentile(f, p) for p in (5, 25, 50, 75, 95)}


def test_every_statistic_of_every_length() -> None:
    sizes = [1, 2, 3, 4, 7, 20, 133]
    groups, time, flux, error = curves(1, sizes)
    found = light_curve_features(groups, time, flux, error)
    for k, n in enumerate(sizes):
        s = slice(groups.starts[k], groups.starts[k] + n)
        for name, value in one_by_one(time[s], flux[s], error[s]).items():
            assert found[name][k] == pytest.approx(value, rel=1e-8, nan_ok=True), (name, n)


def test_statistics_are_those_of_light_curve() -> None:
    """The package that brokers compute features with (Malanchev et al. 2021)."""
    lc = pytest.importorskip("light_curve")
    groups, time, flux, error = curves(4, [5, 30, 200])
    found, down = (light_curve_features(groups, time, f, error) for f in (flux, -flux))
    either = np.maximum(found["MaxSlope"], down["MaxSlope"])  # theirs rises or falls
    same = {"WeightedMean": found["Mean"], "StandardDeviation": found["Sigma"],
            "ReducedChi2": found["Chi2"] / (groups.count - 1), "Skew": found["Skew"],
            "MedianAbsoluteDeviation": found["MAD"], "StetsonK": found["StetsonK"],
            "Median": found["Percentile50"], "LinearFit": found["LinearSlope"],
            "MaximumSlope": either}  # fmt: skip
    for name, values in same.items():
        feature = getattr(lc, name)()
        for k, value in enumerate(values):
            of = groups.index == k
            theirs = feature(time[of], flux[of], error[of], sorted=True)[0]
            assert value == pytest.approx(theirs, rel=1e-9), (name, k)


def test_stetson_indices_of_noise_and_of_a_variable() -> None:
    rng = np.random.default_rng(2)
    n, m = 50, 2000
    groups = Groups.of(np.repeat(np.arange(m), n))
    time = np.tile(np.arange(n, dtype=float), m)
    noise = rng.normal(0, 1, n * m)
    quiet = light_curve_features(groups, time, 100 + noise, np.ones(n * m))
    loud = light_curve_features(groups, time, 100 + 5 * np.sin(time) + noise, np.ones(n * m))
    assert np.mean(quiet["StetsonK"]) == pytest.approx(np.sqrt(2 / np.pi), abs=0.005)
    # J of a single noise point is not zero on average: E[sgn(x² - 1) √|x² - 1|]
    expected = integrate.quad(
        lambda x: np.sign(x * x - 1) * np.sqrt(abs(x * x - 1)) * stats.norm.pdf(x),
        -9,
        9,
        points=[-1, 1],
    )[0]
    assert np.mean(quiet["StetsonJ"]) == pytest.approx(expected, abs=0.01)
    assert np.mean(loud["StetsonJ"]) > 2
    assert np.mean(quiet["Chi2"] / (n - 1)) == pytest.approx(1.0, abs=0.02)
    assert np.mean(quiet["Skew"]) == pytest.approx(0.0, abs=0.03)


def test_equal_fluxes_and_equal_times_give_no_infinities() -> None:
    groups = Groups.of([0, 0, 0, 1, 1])
    found = light_curve_features(
        groups, np.array([1.0, 1, 1, 2, 3]), np.full(5, 7.0), np.full(5, 1.0)
    )
    assert np.isnan(found["MaxSlope"][0])
    assert found["MaxSlope"][1] == 0
    assert np.isnan(found["LinearSlope"][0])
    assert np.isnan(found["Skew"]).all()
    assert not any(np.isinf(values).any() for values in found.values())


def test_power_and_period_are_those_of_astropy() -> None:
    groups, time, flux, error = curves(3, [12, 40, 80])
    flux += 800 * np.sin(2 * np.pi * time / 3.7)
    config = Config()
    found = periods(groups, time, flux, error, config)
    for k in range(3):
        s = slice(groups.starts[k], groups.starts[k] + groups.count[k])
        span = time[s][-1] - time[s][0]
        step = 1 / (config.period_oversampling * span)
        grid = step * np.arange(int(config.period_oversampling), int(10.0 / step) + 1)
        theirs = LombScargle(time[s], flux[s], error[s])
        power = theirs.power(grid, method="cython")
        assert found["periodPower"][k] == pytest.approx(power.max(), abs=1e-8)
        assert found["period"][k] == pytest.approx(1 / grid[np.argmax(power)], rel=1e-9)
        fast = theirs.power(grid, method="fast", assume_regular_frequency=True)
        assert np.argmax(fast) == np.argmax(power)
        # equal weights, as the variance of the epochs has here; the last frequency of their grid is
        # up to a step off the limit
        equal = LombScargle(time[s], flux[s])
        fap = equal.false_alarm_probability(
            found["periodPower"][k], method="baluev", maximum_frequency=10.0
        )
        assert found["periodLogFap"][k] == pytest.approx(np.log10(fap), abs=5e-5)


@pytest.mark.parametrize("oversampling", [3.0, 5.0])
def test_highest_of_all_frequencies_is_found_in_noise_and_signal(oversampling: float) -> None:
    """Sixty light curves of ten to forty points, against a direct periodogram."""
    rng = np.random.default_rng(8)
    sizes = rng.integers(10, 40, 60)
    groups = Groups.of(np.repeat(np.arange(60), sizes))
    time = np.concatenate([np.sort(rng.uniform(0, 100, n)) for n in sizes])
    signal = np.repeat(rng.integers(0, 2, 60) * 2.0, sizes)
    flux = rng.normal(0, 1, len(time)) + signal * np.sin(2 * np.pi * time / 0.37)
    error = rng.uniform(0.5, 2.0, len(time))
    config = Config(period_oversampling=oversampling)
    found = periods(groups, time, flux, error, config)
    for k in range(60):
        s = slice(groups.starts[k], groups.starts[k] + groups.count[k])
        step = 1 / (oversampling * (time[s][-1] - time[s][0]))
        grid = step * np.arange(int(oversampling), int(10.0 / step) + 1)
        power = LombScargle(time[s], flux[s], error[s]).power(grid, method="cython")
        assert found["period"][k] == pytest.approx(1 / grid[np.argmax(power)], rel=1e-9)
        assert found["periodPower"][k] == pytest.approx(power.max(), abs=1e-8)


def test_false_alarms_of_noise_come_as_often_as_stated() -> None:
    """Baluev's bound is an upper limit that is nearly reached."""
    rng = np.random.default_rng(4)
    n, m = 20, 3000
    groups = Groups.of(np.repeat(np.arange(m), n))
    time = np.sort(rng.uniform(0, 26, (m, n)), axis=1).ravel()
    found = periods(groups, time, rng.normal(0, 1, n * m), np.ones(n * m), Config())
    power = found["periodPower"]
    assert np.percentile(power, 99) > 0.7  # so no fixed cut on the power can work
    for bound in (0.1, 0.01):
        rate = np.mean(found["periodLogFap"] < np.log10(bound))
        assert 0.3 * bound < rate < 1.2 * bound + 3 * np.sqrt(bound / m)


def test_periods_are_null_where_they_cannot_be_measured() -> None:
    few = Groups.of(np.zeros(9, int))
    time = np.arange(9.0)
    assert np.isnan(periods(few, time, np.sin(time), np.ones(9), Config())["period"])
    short = Groups.of(np.zeros(20, int))
    time = np.linspace(0, 2.9, 20)
    assert np.isnan(periods(short, time, np.sin(time), np.ones(20), Config())["period"])
    flat = periods(short, time * 10, np.ones(20), np.ones(20), Config())
    assert np.isnan(flat["periodPower"]).all()


def test_significance_of_perfect_sinusoids_stays_finite() -> None:
    value = log_false_alarm(np.array([1.0]), np.array([200]), np.array([100.0]), 10.0)
    assert -1000 < value[0] < -100


def test_quantiles_are_those_of_numpy() -> None:
    rng = np.random.default_rng(5)
    sizes = [1, 2, 5, 30, 64, 65, 300]
    groups = Groups.of(np.repeat(np.arange(len(sizes)), sizes))
    values = rng.normal(size=sum(sizes))
    found = groups.quantiles(values, [0.05, 0.5, 0.95])
    for k in range(len(sizes)):
        own = values[groups.index == k]
        assert found[:, k] == pytest.approx(np.quantile(own, [0.05, 0.5, 0.95]))
