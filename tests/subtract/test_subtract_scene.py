"""The score's noise contains what constant stars leave, and nothing where no star is."""

import numpy as np
import pytest

from pipeline import subtract
from pipeline.subtract.rings import count_rings
from pipeline.subtract.scene import (
    Filter,
    SceneNoise,
    count_scene,
    measure_scene,
    point_sources,
)
from tests.subtract.conftest import draw, exposure

WITHOUT_SCENE = subtract.Config(scene_noise=False)

_SHAPE = (900, 900)
_SKY, _DEEP = 10.0, 4.0
_WIDTHS = 2.0, 1.7
_GRID = np.arange(40, 870, 45)


def _field(seed, jitter, extra=0.0, hosts=0):
    """Stars of 100 to 1000 σ on a grid, moved by `jitter` pixels; the first `hosts` vary."""
    rng = np.random.default_rng(seed)
    x, y = (a.ravel() + rng.uniform(-5, 5, len(_GRID) ** 2) for a in np.meshgrid(_GRID, _GRID))
    sigma = _SKY * np.sqrt(4 * np.pi) * _WIDTHS[0]
    flux = np.exp(rng.uniform(np.log(100), np.log(1000), len(x))) * sigma
    flux[:hosts] = 500.0 * sigma
    now = flux * np.where(np.arange(len(x)) < hosts, 1.0 + extra, 1.0)
    moved = rng.normal(scale=jitter, size=(2, len(x))) if jitter else np.zeros((2, len(x)))
    science = draw(_SHAPE, x + moved[0], y + moved[1], now, _WIDTHS[0])
    template = draw(_SHAPE, x, y, flux, _WIDTHS[1])
    planes = (_SKY**2 + science, _DEEP**2 + 0.1 * template)
    images = [
        image + rng.normal(size=_SHAPE) * np.sqrt(variance)
        for image, variance in zip((science, template), planes, strict=True)
    ]
    pair = [exposure(*p) for p in zip(images, planes, _WIDTHS, strict=True)]
    return pair, np.rint(x).astype(int), np.rint(y).astype(int)


def _width(values):
    low, high = np.percentile(values, [15.865, 84.135])
    return (high - low) / 2.0


def _response(scene):
    """Filter that is one pixel wide: what it leaves of a scene is its gradient."""
    stamp = np.zeros((11, 11), np.float32)
    stamp[5, 5] = 1.0
    ones = np.ones(scene.shape, np.uint8)
    return Filter(scene, np.ones_like(scene), ones, stamp, 1.0, 0.05, 9.0)


def _around(x, y):
    """Pixels one off the core of each star, where the gradient is large."""
    step = np.array([-2, -1, 0, 1, 2])
    dy, dx = np.meshgrid(step, step)
    return (y[:, None] + dy.ravel()), (x[:, None] + dx.ravel())


@pytest.fixture(scope="module")
def jittered():
    (science, template), x, y = _field(3, 0.08, extra=0.2, hosts=6)
    on = subtract.run(science, template, subtract.Config())
    off = subtract.run(science, template, WITHOUT_SCENE)
    return on, off, x, y


def test_jittered_stars_have_a_score_of_width_one(jittered):
    on, off, x, y = jittered
    places = _around(x[6:], y[6:])
    assert _width(off.score[places]) > 2.0
    assert 0.7 < _width(on.score[places]) < 1.15
    assert np.abs(on.score[places]).max() < 6.0


def test_the_registration_is_measured(jittered):
    metrics = jittered[0].metrics
    for name in ("astrometricNoise", "astrometricNoiseX", "astrometricNoiseY"):
        assert metrics[name] == pytest.approx(0.08, abs=0.015)


def test_shifts_are_those_of_the_stars_with_their_sign(jittered):
    on, _, x, y = jittered
    rng = np.random.default_rng(3)  # once more what `_field` drew
    rng.uniform(size=3 * len(x))
    moved = rng.normal(scale=0.08, size=(2, len(x)))
    shifts = on.star_shifts
    star = [np.argmin(np.hypot(x - u, y - v)) for u, v in shifts[:, :2]]
    assert len(shifts) > 200  # those above a score of 100
    assert np.hypot(x[star] - shifts[:, 0], y[star] - shifts[:, 1]).max() < 3.0
    off = shifts[:, 2:4] - moved[:, star].T
    slope = np.sum(shifts[:, 2:4] * moved[:, star].T) / np.sum(moved[:, star] ** 2)
    assert slope == pytest.approx(1.0, abs=0.05)
    # the photons of the stars themselves come on top of the noise of the sky
    assert 0.9 < _width((off / np.sqrt(shifts[:, 4:])).ravel()) < 1.7


def test_variables_keep_their_score(jittered):
    on, off, x, y = jittered
    cores = y[:6], x[:6]
    assert np.all(off.score[cores] > 25.0)
    np.testing.assert_array_equal(on.score[cores], off.score[cores])


def test_the_score_is_the_same_to_the_bit_where_the_template_is_empty(jittered):
    on, off, *_ = jittered
    empty = on.noise_scale == 1.0
    assert empty.mean() > 0.8
    np.testing.assert_array_equal(on.score[empty], off.score[empty])
    np.testing.assert_array_equal(on.exposure.image, off.exposure.image)
    np.testing.assert_allclose(on.score * on.noise_scale, off.score, rtol=1e-5, atol=1e-5)


def test_photon_noise_of_constant_stars_is_all_there_is():
    (science, template), x, y = _field(5, 0.0)
    made = subtract.run(science, template, subtract.Config())
    assert made.metrics["astrometricNoise"] < 0.02
    assert 0.8 < _width(made.score[y, x]) < 1.15


def test_without_a_scene_nothing_is_counted():
    score = np.random.default_rng(1).normal(size=(200, 200)).astype(np.float32)
    mask = np.zeros(score.shape, np.uint32)
    before, scene = score.copy(), np.zeros_like(score)
    response = _response(scene)
    stars = point_sources(scene, response)
    assert len(stars) == 0
    noise = measure_scene(score, scene, response, mask, stars)
    assert noise == SceneNoise()
    scale = count_scene(score, scene, response, stars, SceneNoise((0.1, 0.1, 0.0)))
    _rings(score, scale, scene)
    assert np.all(scale == 1.0)
    np.testing.assert_array_equal(score, before)


def test_shifts_are_bounded():
    score = np.random.default_rng(1).normal(size=(500, 500)).astype(np.float32)
    y, x = (a.ravel() for a in np.meshgrid(np.arange(20, 480, 30), np.arange(20, 480, 30)))
    scene = draw(score.shape, x, y, np.full(len(x), 500 * 2 * np.pi * 9.0), 3.0).astype(np.float32)
    score += 3.0 * np.gradient(scene, axis=1)
    response = _response(scene)
    stars = point_sources(scene, response)
    noise = measure_scene(score, scene, response, np.zeros(score.shape, np.uint32), stars)
    assert noise.stars == len(x)
    assert noise.covariance[0] == pytest.approx(0.1**2, rel=1e-6)


def test_galaxies_leave_no_noise():
    """Half of the sources are 1.5 times as wide as the others, which are stars."""
    y, x = (a.ravel() for a in np.meshgrid(np.arange(40, 480, 60), np.arange(20, 480, 30)))
    stars = draw((500, 500), x, y, np.full(len(x), 500 * 2 * np.pi * 9.0), 3.0)
    galaxies = draw((500, 500), x, y + 30, np.full(len(x), 500 * 2 * np.pi * 20.25), 4.5)
    scene = (stars + galaxies).astype(np.float32)
    response = _response(scene)._replace(sharpness=0.9 / 9.0)
    found = point_sources(scene, response)
    assert set(map(tuple, found.tolist())) == set(zip(y.tolist(), x.tolist(), strict=True))
    score = np.ones_like(scene)
    scale = count_scene(score, scene, response, found, SceneNoise((0.01, 0.01, 0.0)))
    assert np.all(scale[y + 30, x + 2] == 1.0)
    assert np.all(scale[y, x + 2] > 5.0)
    assert np.all(scale[y, x] < 1.2)


@pytest.mark.parametrize("apart", [0, 3, 5])
@pytest.mark.parametrize("height", [8.0, -40.0])
def test_a_transient_beside_a_star_keeps_its_score(apart, height):
    at = np.array([50]), np.array([50])
    scene = draw((101, 101), *at, np.array([800 * 2 * np.pi * 9.0]), 3.0).astype(np.float32)
    other = draw((101, 101), at[0] + apart, at[1], np.array([height * 2 * np.pi * 9.0]), 3.0)
    shifted = 0.05 * np.gradient(scene, axis=0)
    response = _response(scene)
    found = point_sources(scene, response)
    noise = SceneNoise((0.005, 0.005, 0.0))
    quiet = shifted.astype(np.float32)
    assert np.abs(quiet).max() > 6.0
    assert count_scene(quiet, scene, response, found, noise).max() > 5.0
    assert np.abs(quiet).max() < 2.0
    score = (other + (shifted if abs(height) > 20.0 else 0.0)).astype(np.float32)
    assert np.all(count_scene(score, scene, response, found, noise) == 1.0)


def _rings(score, scale, light, saturated=True):
    usable = np.ones(score.shape, np.uint8)
    count_rings(score, scale, light, usable, np.array([[100.0, 100.0]]), np.array([saturated]))


def _ringed(left, saturated=True):
    """White score with a halo of which `left` is left, and a variable 12 pixels away."""
    rng = np.random.default_rng(4)
    shape = (201, 201)
    r = np.hypot(*np.meshgrid(np.arange(201) - 100.0, np.arange(201) - 100.0))
    light = (1500.0 / np.maximum(r, 3.0) ** 2).astype(np.float32)
    score = rng.normal(size=shape) + left * light * np.sign(np.sin(0.3 * np.arange(201)))
    score[100, 112] += 40.0
    score += 200.0 * np.exp(-0.5 * (r / 2.5) ** 2)
    score, scale = score.astype(np.float32), np.ones(shape, np.float32)
    before = score.copy()
    _rings(score, scale, light, saturated)
    return before, score, scale, r


def test_rings_have_a_score_of_width_one_and_variables_in_them_survive():
    before, score, scale, r = _ringed(0.25)
    ring = (r > 9) & (r < 18)
    assert _width(before[ring]) > 1.5
    assert 0.8 < _width(score[ring]) < 1.1
    assert score[100, 112] > 10.0
    assert np.all(score[r < 2] > 100.0)  # the star itself has changed
    assert np.all(scale[r > 49] == 1.0)
    np.testing.assert_allclose(score * scale, before, rtol=1e-5, atol=1e-5)


def test_rings_without_residuals_are_left_alone():
    _, _, scale, r = _ringed(0.0)
    assert np.all(scale[r > 12] == 1.0)


def test_rings_go_on_as_long_as_each_leaves_something():
    rng = np.random.default_rng(6)
    r = np.hypot(*np.meshgrid(np.arange(201) - 100.0, np.arange(201) - 100.0))
    light, scale = np.full((201, 201), 50.0, np.float32), np.ones((201, 201), np.float32)
    noisy = np.where((r < 57) | ((r > 63) & (r < 69)), 2.0, 1.0)
    _rings((rng.normal(size=r.shape) * noisy).astype(np.float32), scale, light)
    assert np.all(scale[(r > 12) & (r < 57)] > 1.3)
    assert np.all(scale[r > 61] == 1.0)


def test_no_more_of_a_ring_is_noise_than_three_tenths_of_its_light():
    _, _, scale, r = _ringed(2.0)
    edges = np.floor(r / 3.0)
    for n in range(2, 10):
        light = np.median(1500.0 / r[edges == n] ** 2)
        np.testing.assert_allclose(scale[edges == n] ** 2, 1.0 + (0.3 * light) ** 2, rtol=1e-4)


def test_wings_of_unsaturated_stars_count_from_six_to_24_pixels():
    before, score, _, r = _ringed(0.25, saturated=False)
    ring = (r > 9) & (r < 18)
    assert _width(before[ring]) > 1.5
    assert 0.8 < _width(score[ring]) < 1.1
    assert score[100, 112] > 10.0  # a variable in its wings
    np.testing.assert_array_equal(score[r < 6], before[r < 6])
    np.testing.assert_array_equal(score[r >= 24], before[r >= 24])
