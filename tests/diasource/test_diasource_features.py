"""Straight lines of light through sources: trails too faint to be found as such."""

import numpy as np
import pytest

from pipeline import diasource
from pipeline.diasource.lines import line_scores

WIDTH = 4.0
SIGMA = WIDTH / 2.355 * 2**0.5  # a star's image in its own matched filter


ALL_ROUND, FAR = np.pi * np.arange(128) / 128, WIDTH * np.arange(8.0, 32.1, 1.5)


def scores(score, at, sign=1.0, angles=ALL_ROUND, radii=FAR):
    out = np.empty((len(at), 2))
    at = np.asarray(at, float).reshape(-1, 2)
    line_scores(score.astype(np.float32), at, np.full(len(at), sign), angles, radii, out)
    return out


def line(height, start=-np.inf, end=np.inf, side=500, slope=0.6):
    """Score of a line through the middle, between places along it, in noise smoothed as it is."""
    y, x = np.mgrid[:side, :side] - side // 2
    norm = np.hypot(1.0, slope)
    across, along = (y - slope * x) / norm, (x + slope * y) / norm
    there = (along > start) & (along < end)
    return np.where(there, height * np.exp(-0.5 * (across / SIGMA) ** 2), 0.0)


@pytest.fixture(scope="module")
def noise():
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(3).normal(size=(500, 500)), SIGMA / 2**0.5)
    return smooth / smooth.std()


def test_noise_has_no_lines(noise):
    places = np.random.default_rng(4).uniform(150, 350, (200, 2))
    found = scores(noise, places)
    assert found[:, 0].max() < 5.5
    assert 1.0 < np.median(found[:, 1]) < np.median(found[:, 0]) < 3.5


def test_a_trail_below_the_threshold_is_seen_from_each_of_its_pieces(noise):
    t = np.linspace(-60, 60, 9)
    places = 250 + np.column_stack([t, 0.6 * t]) / np.hypot(1.0, 0.6)
    found = scores(noise + line(3.0), places)
    assert found[:, 0].min() > 10.0
    assert found[:, 1].min() > 6.0
    negative = scores(-noise - line(3.0), places, sign=-1.0)
    np.testing.assert_array_equal(negative, found)
    assert scores(noise + line(3.0), places, sign=-1.0).max() < 5.5


def test_what_lies_beside_a_trail_is_on_no_line(noise):
    shift = 15.0 * WIDTH * np.array([-0.6, 1.0]) / np.hypot(1.0, 0.6)
    assert scores(noise + line(6.0), [250 + shift])[0, 0] < 7.0
    assert scores(noise + line(6.0), [250 + shift])[0, 1] < 5.0


def test_what_moved_by_fourteen_widths_is_no_trail_and_one_star_is_no_line(noise):
    half = 7.0 * WIDTH
    moved = line(30.0, -half, half)
    assert scores(noise + moved, [(250, 250)])[0, 0] < 5.5
    star = np.zeros((500, 500))
    star[300:304, 300:304] = 1000.0
    assert scores(noise + star, [(250, 250)])[0, 0] < 5.5


def test_a_line_that_ends_at_the_source_is_on_one_side_only(noise):
    both, weaker = scores(noise + line(4.0, start=0.0), [(250, 250)])[0]
    assert both > 8.0
    assert weaker < 5.0


def test_at_the_edge_the_known_side_counts_and_without_any_there_is_nothing(noise):
    score = noise + line(4.0)
    score[:, :248] = np.nan
    both, weaker = scores(score, [(250, 250)])[0]
    assert both > 8.0
    assert weaker > 8.0
    assert np.isnan(scores(np.full((500, 500), np.nan), [(250, 250)])).all()
    assert np.isnan(scores(np.full((20, 20), 3.0), [(10, 10)])).all()


def test_a_short_column_of_light_is_seen_beside_a_source_and_a_row_is_not(noise):
    column, beside = np.array([np.pi / 2.0]), WIDTH * np.arange(2.0, 6.6, 1.5)
    ghost = line(3.0, -30.0, 30.0, slope=0.0)
    both, weaker = scores(noise + ghost.T, [(250, 250)], angles=column, radii=beside)[0]
    assert both > 5.5
    assert weaker > 3.0
    assert scores(noise + ghost, [(250, 250)], angles=column, radii=beside)[0, 0] < 4.0
    assert scores(noise, [(250, 250)], angles=column, radii=beside)[0, 0] < 4.0


def test_the_pieces_of_a_faint_trail_are_flagged_and_a_star_beside_it_is_not(lab):
    rng = np.random.default_rng(8)
    star, lone = lab.Star(), np.array([[150.0, 450.0]])
    image, variance = lab.blank((600, 600), rng)
    t = np.arange(20.0, 580.0)
    trail = np.column_stack([t, 100.0 + 0.6 * t])
    lab.add(image, variance, star, trail, np.full(len(t), 0.9 * star.sigma_flux()), rng)
    lab.add(image, variance, star, lone, np.array([30.0 * star.sigma_flux()]), rng)
    scene = lab.scene(image, variance, star, rng)
    config = diasource.Config(classify=False)
    result = diasource.run(scene.difference, scene.science, scene.template, config)
    rows = result.sources.to_pylist()
    found = [r for r in rows if not r["isSubThreshold"] and not r["isDeblendParent"]]
    away = np.array([abs(r["y"] - 100.0 - 0.6 * r["x"]) / np.hypot(1, 0.6) for r in found])
    pieces = [r for r, d in zip(found, away, strict=True) if d < 4.0]
    assert len(pieces) >= 10
    assert all(r["isStreak"] for r in pieces)
    alone = [r for r in found if np.hypot(r["x"] - 150, r["y"] - 450) < 2]
    assert [r["isStreak"] for r in alone] == [False]
