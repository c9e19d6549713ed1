"""Peaks, footprints and persistence against brute force and closed forms."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label, maximum_filter
from scipy.signal import fftconvolve

from pipeline.diasource.detect import expected_peaks, find_peaks, flood


@pytest.fixture(scope="module")
def noise():
    field = gaussian_filter(np.random.default_rng(2).normal(size=(300, 260)), 1.8)
    return (field / field.std()).astype(np.float32)


def bump(shape, x, y, height, sigma=3.0):
    j, i = np.mgrid[: shape[0], : shape[1]]
    return height * np.exp(-((i - x) ** 2 + (j - y) ** 2) / (2 * sigma**2))


def test_peaks_are_the_local_extrema(noise):
    x, y = find_peaks(noise, 2.0)
    inner = np.zeros(noise.shape, bool)
    inner[1:-1, 1:-1] = True
    for sign in (1, -1):
        field = sign * noise
        expected = (maximum_filter(field, 3) == field) & (field > 2) & inner
        mine = {(a, b) for a, b in zip(x, y, strict=True) if field[b, a] > 0}
        assert mine == set(zip(*np.nonzero(expected)[::-1], strict=True))


def test_order_is_by_significance_then_row_then_column():
    score = np.zeros((40, 40), np.float32)
    for at, s in (((5, 30), 7), ((20, 10), -9), ((5, 8), 7), ((30, 30), 7)):
        score[at] = s
    x, y = find_peaks(score, 3.0)
    assert list(zip(y, x, strict=True)) == [(20, 10), (5, 8), (5, 30), (30, 30)]


def test_a_plateau_is_one_peak():
    score = np.zeros((20, 20), np.float32)
    score[8:10, 8:11] = 6
    assert len(find_peaks(score, 3.0)[0]) == 1


def test_missing_pixels_hide_nothing_and_make_no_peak(noise):
    holed = noise.copy()
    holed[100:110, 100:110] = np.nan
    x, y = find_peaks(holed, 2.0)
    assert np.isfinite(holed[y, x]).all()


def test_footprints_are_connected_pixels_of_one_sign(noise):
    x, y = find_peaks(noise, 1.5)
    got = flood(noise, x, y, 1.5)
    mine = np.zeros(noise.size, int)
    for k in range(len(got.start) - 1):
        assert np.all(mine[got.of(k)] == 0)
        mine[got.of(k)] = k + 1
    for sign in (1, -1):
        labels, n = label(sign * noise > 1.5, np.ones((3, 3)))
        for k in range(1, n + 1):
            inside = np.unique(mine.reshape(noise.shape)[labels == k])
            touches_border = np.isin(k, [labels[0], labels[-1]]) or np.isin(
                k, [labels[:, 0], labels[:, -1]]
            )
            # a footprint without a peak of its own can only lie on the border
            assert len(inside) == 1
            assert inside[0] > 0 or touches_border


def test_persistence_is_the_height_above_the_saddle():
    shape = (60, 80)
    score = (bump(shape, 25, 30, 40) + bump(shape, 40, 30, 20)).astype(np.float32)
    x, y = find_peaks(score, 3.0)
    got = flood(score, x, y, 5.0 / 3)
    assert np.isinf(got.persistence[0])
    saddle = score[30, 25:41].min()
    assert got.persistence[1] == pytest.approx(score[y[1], x[1]] - saddle, rel=1e-6)


def test_signs_never_merge():
    shape = (50, 50)
    score = (bump(shape, 20, 25, 30) - bump(shape, 27, 25, 30)).astype(np.float32)
    x, y = find_peaks(score, 3.0)
    got = flood(score, x, y, 3.0)
    assert got.label[0] != got.label[1]
    assert np.isinf(got.persistence).all()


@pytest.mark.parametrize("width", [3.5, 5.0])
def test_noise_has_as_many_peaks_as_its_filter_lets_through(lab, width):
    psf = lab.Star(width).stamp(0, 0)
    rng = np.random.default_rng(8103)
    seen = 0
    for _ in range(2):
        white = rng.normal(size=(1500, 1500))
        score = fftconvolve(white, psf, mode="same") / np.sqrt((psf**2).sum())
        seen += len(find_peaks(score.astype(np.float32), 3.7)[0])

    expected = expected_peaks(psf, 2 * 1500**2, 3.7)

    assert abs(seen - expected) < 3.5 * np.sqrt(expected)
    assert seen > 150
