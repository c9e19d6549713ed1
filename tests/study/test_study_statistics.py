"""Statistics of studies: coverage, fits, the ideal curve."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pytest
from scipy import special

from harness.study import estimates
from harness.study.completeness import completeness, fit, interval, ratio_to_ideal
from harness.study.ideal import ideal_curve
from harness.study.sample import Sample
from pipeline.diasource.fits import fit_points
from pipeline.diasource.planes import Planes
from pipeline.exposure import GridPsf
from pipeline.psfphot import SplinePsf


def gaussian(sigma: float, side: int = 33) -> np.ndarray:
    v, u = np.mgrid[:side, :side] - side // 2
    stamp = np.exp(-0.5 * (u**2 + v**2) / sigma**2)
    return np.asarray(stamp / stamp.sum())


@pytest.mark.parametrize("method", ["jeffreys", "wilson"])
def test_intervals_cover(method: str) -> None:
    rng = np.random.default_rng(4)
    p = rng.uniform(0.05, 0.95, 1000)
    n = rng.integers(40, 400, 1000)
    low, high = interval(rng.binomial(n, p), n, method=method)
    coverage = np.mean((low <= p) & (p <= high))
    assert coverage == pytest.approx(0.95, abs=0.02)


def test_intervals_at_the_ends() -> None:
    low, high = interval([0, 20, 0], [20, 20, 0])
    assert low[0] == 0.0
    assert 0.05 < high[0] < 0.2
    assert high[1] == 1.0
    assert (low[2], high[2]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="unknown interval"):
        interval(1, 2, method="wald")


def test_bins() -> None:
    table = completeness([1.0, 1.5, 2.0, 9.0], [True, False, True, True], [1, 2, 3, 4])
    assert table["n"].to_pylist() == [2, 1, 0]
    assert table["found"].to_pylist() == [1, 1, 0]
    assert table["fraction"].to_pylist() == [0.5, 1.0, None]
    assert table["middle"].to_pylist() == [1.25, 2.0, None]


def test_fits_recover_a_curve_with_honest_errors() -> None:
    truth = np.array([0.93, 23.4, 0.35])
    pulls, chances = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        m = rng.uniform(21.0, 25.0, 1500)
        found = rng.random(1500) < truth[0] * special.ndtr(-(m - truth[1]) / truth[2])
        result = fit(m, found, falling=True)
        values = np.array([result.plateau, result.m50, result.width])
        pulls.append((values - truth) / np.sqrt(np.diag(result.covariance)))
        chances.append(result.p_value)
    for column in np.array(pulls).T:
        assert abs(column.mean()) < 4 / np.sqrt(60)
        assert column.std() == pytest.approx(1.0, abs=4 / np.sqrt(120))
    assert 0.25 < np.mean(chances) < 0.75


def test_points_on_the_curve() -> None:
    rng = np.random.default_rng(1)
    m = rng.uniform(21.0, 25.0, 4000)
    result = fit(m, rng.random(4000) < special.ndtr(-(m - 23.0) / 0.3), falling=True)
    m80, error = result.at(0.8)
    assert result([m80])[0] == pytest.approx(0.8)
    assert m80 == pytest.approx(23.0 - 0.3 * special.ndtri(0.8), abs=4 * error)
    assert m80 < result.m50 < result.at(0.2)[0]
    assert np.isnan(result.at(1.0)).all() or result.plateau == 1.0


def test_a_bad_curve_has_a_bad_fit() -> None:
    rng = np.random.default_rng(2)
    m = rng.uniform(21.0, 25.0, 4000)
    found = rng.random(4000) < 0.9 * special.ndtr(-(m - 23.4) / 0.3) * (1 - 0.8 * (m < 21.7))
    assert fit(m, found, falling=True).p_value < 1e-3


@pytest.mark.parametrize("width", [0.0, 0.02])
def test_found_and_lost_that_hardly_overlap_are_no_curve(width: float) -> None:
    """A step fits them without any residual, and would have next to no error."""
    x = np.linspace(3.0, 8.0, 40)
    found = x + width * np.random.default_rng(3).normal(size=40) > 5.0
    with pytest.raises(ValueError, match="too few sources"):
        fit(x, found)


def test_nothing_to_fit() -> None:
    with pytest.raises(ValueError, match="all or none"):
        fit([1.0, 2.0], [True, True])


def test_half_are_found_at_4_85() -> None:
    curve = ideal_curve(gaussian(1.8))
    assert curve.snr50 == pytest.approx(4.85, abs=0.10)
    assert (np.diff(curve.fraction) >= 0).all()
    assert curve([0.0])[0] < 1e-3
    assert curve([-20.0])[0] == 1.0


def test_the_ideal_curve_is_that_of_pure_noise() -> None:
    """Sources on white noise, found by a search for the highest pixel of a filtered field."""
    rng = np.random.default_rng(9)
    psf, n, radius = gaussian(1.8), 4000, 2.5
    unit = psf / np.sqrt((psf**2).sum())
    v, u = np.mgrid[-16:17, -16:17]
    snr = rng.uniform(3.0, 7.0, n)
    found = np.zeros(n, bool)
    wide = np.fft.rfft2(unit, (48, 48))
    for k in range(n):
        dx, dy = rng.uniform(-0.5, 0.5, 2)
        image = rng.normal(size=(33, 33))
        shape = np.exp(-0.5 * ((u - dx) ** 2 + (v - dy) ** 2) / 1.8**2)
        image += snr[k] * shape / np.sqrt((shape**2).sum())
        score = np.fft.irfft2(np.fft.rfft2(image, (48, 48)) * np.conj(wide), (48, 48))
        score = np.roll(score, (3, 3), (0, 1))[:7, :7]
        near = np.hypot(*np.mgrid[-3:4, -3:4] - np.array([dy, dx])[:, None, None]) <= radius
        found[k] = score[near].max() >= 5.0
    ideal = ideal_curve(psf, radius=radius)(snr)
    chi2 = 0.0
    for low in np.arange(3.0, 7.0, 0.5):
        part = (snr >= low) & (snr < low + 0.5)
        chi2 += (found[part].sum() - ideal[part].sum()) ** 2 / (ideal * (1 - ideal))[part].sum()
    assert chi2 < 26.1, "eight bins, one in a thousand"
    value, low_end, high_end = ratio_to_ideal(found, ideal)
    assert low_end < 1.0 < high_end
    assert value == pytest.approx(1.0, abs=0.03)


def test_curves_can_be_drawn() -> None:
    from harness import study

    rng = np.random.default_rng(1)
    snr = rng.uniform(3.0, 9.0, 600)
    found = rng.random(600) < special.ndtr(snr - 5.0)
    curve = study.fit(snr, found)
    assert curve.m50 == pytest.approx(5.0, abs=4 * curve.error("m50"))
    figure = study.plot(study.completeness(snr, found, [3, 4, 5, 6, 7, 9]), curve=curve, log=False)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "true signal to noise"
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["detected", "fit"]


def sample(seed: int, n: int, *, threshold: float = 4.85) -> Sample:
    """Sources that are found where true SNR and noise exceed a threshold."""
    rng = np.random.default_rng(seed)
    snr = 3.0 * (50.0 / 3.0) ** rng.random(n)
    table = {
        "trueSnr": snr,
        "idealFraction": special.ndtr(snr - 4.85),
        "detected": snr + rng.normal(size=n) >= threshold,
    }
    return Sample(pa.table(table))


def test_the_gap_from_the_noise_limit_has_an_honest_error() -> None:
    for share in (0.5, 0.8):
        found = [estimates.depth_gap(sample(k, 1000), share) for k in range(40)]
        pulls = np.array([f.value / f.error for f in found])
        assert abs(pulls.mean()) < 4 / np.sqrt(40)
        assert pulls.std() == pytest.approx(1.0, abs=4 / np.sqrt(80))


def test_a_gap_is_seen() -> None:
    gap = estimates.depth_gap(sample(1, 20_000, threshold=5.35))
    assert gap.value == pytest.approx(2.5 * np.log10(5.35 / 4.85), abs=4 * gap.error)
    assert gap.error < 0.01
    half = estimates.half_found(sample(1, 20_000, threshold=5.35))
    assert half.value == pytest.approx(5.35, abs=4 * half.error)


def test_ratios_to_the_ideal_cover() -> None:
    parts = [sample(k, 600).between(5.0, 6.0) for k in range(1000)]
    found = [estimates.found_over_ideal(part) for part in parts]
    covered = [f.low <= 1.0 <= f.high for f in found]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.skipif(not os.environ.get("NIGHTJAR_SOAK"), reason="a thousand fits: make soak")
def test_half_found_covers() -> None:
    found = [estimates.half_found(sample(k, 400)) for k in range(1000)]
    covered = [f.low <= 4.85 <= f.high for f in found]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def fluxes(seed: int, n: int, bias: float = 0.0) -> Sample:
    """Fluxes with a free position: noise, and half of χ² with two degrees of freedom on top."""
    rng = np.random.default_rng(seed)
    snr = 7.0 * (50.0 / 7.0) ** rng.random(n)
    excess = rng.chisquare(2, n) / (2.0 * snr)
    table = {
        "trueSnr": snr,
        "detected": np.ones(n, bool),
        "flux": 30.0 * snr,
        "psfFlux": 30.0 * ((1.0 + bias) * snr + rng.normal(size=n) + excess),
        "psfFluxErr": np.full(n, 30.0),
    }
    return Sample(pa.table(table))


def test_the_bias_of_a_free_position_is_known() -> None:
    """What is left is the photometry's; an interval holds it 95 times of 100."""
    for bias in (0.0, 0.02):
        found = [estimates.flux_bias_beyond_fit(fluxes(k, 400, bias)) for k in range(1000)]
        covered = [f.low <= 100 * bias <= f.high for f in found]
        assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
        assert np.mean([f.value for f in found]) == pytest.approx(100 * bias, abs=0.06)
    everything = estimates.flux_bias(fluxes(1, 400_000))
    assert 0.2 < everything.value < 0.4, "the bias itself, at these SNRs"


def test_a_free_position_makes_fluxes_brighter() -> None:
    """The fit itself on white noise: 1/SNR² above the flux at the true place."""
    rng = np.random.default_rng(5)
    snr, step, n = 10.0, 48, 20
    psf = GridPsf(gaussian(1.8, 41)[None, None], np.array([0.0]), np.array([0.0]))
    image = rng.normal(size=(n * step, n * step))
    at = step * (np.stack(np.mgrid[:n, :n], axis=-1).reshape(-1, 2) + 0.5)
    at += rng.uniform(-0.5, 0.5, at.shape)
    v, u = np.mgrid[-20:21, -20:21]
    flux = snr / np.sqrt((psf.cube**2).sum())
    for x, y in at:
        i, j = int(x), int(y)
        shape = np.exp(-0.5 * ((u + i - x) ** 2 + (v + j - y) ** 2) / 1.8**2)
        image[j - 20 : j + 21, i - 20 : i + 21] += flux * shape / shape.sum()
    planes = Planes.of(
        image.astype(np.float32), np.ones(image.shape, np.float32),
        np.ones(image.shape, np.float32), np.zeros(image.shape, np.uint32), np.uint32(0),
    )  # fmt: skip
    spline = SplinePsf.of(psf)
    forced = planes.forced_flux(spline, at, 12.0).flux
    free, _ = fit_points(planes, spline, at, forced, 12.0, 3.0, np.empty(0, np.intp))
    gain = (free.theta[:, 0] - forced) / flux
    assert free.converged.all()
    assert gain.mean() == pytest.approx(snr**-2, abs=4 * gain.std() / n)
    assert gain.std() / n < 0.1 * snr**-2
    assert forced.mean() / flux - 1 == pytest.approx(0.0, abs=4 / (snr * n))


def test_nothing_can_be_told_of_nothing() -> None:
    empty = sample(1, 0)
    for estimate in (
        estimates.depth_gap(empty),
        estimates.half_found(empty),
        estimates.found_over_ideal(empty),
    ):
        assert estimate.n == 0
        assert np.isnan(estimate.value)
