"""The classifier: its arithmetic, and which side the plain cases fall on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline import diasource
from pipeline.diasource.reliability import FEATURES, Forest, model


@pytest.fixture
def stump():
    """One tree: is the first feature above 2?"""
    return Forest(
        np.array([0, 3], np.int32), np.array([0, -1, -1], np.int16), np.array([2.0, 0, 0]),
        np.array([1, 0, 0], np.int32), np.array([2, 0, 0], np.int32), np.array([0, -1.0, 3.0]),
        np.full(len(FEATURES), 5.0), np.array([0.5, 0.1]), np.array([2.0, 4.0]),
        json.dumps({"features": list(FEATURES)}),
    )  # fmt: skip


def test_a_tree_by_hand(stump):
    rows = np.zeros((3, len(FEATURES)))
    rows[:, 0] = [2.0, 2.1, np.nan]
    np.testing.assert_array_equal(stump.sum(rows), [-1.0, 3.0, 3.0])
    np.testing.assert_allclose(stump.predict(rows), 1 / (1 + np.exp(-np.array([-0.4, 1.6, 1.6]))))


def test_the_forest_in_the_package_fits_the_features():
    forest = model()
    assert forest.missing.shape == (len(FEATURES),)
    assert forest.feature.max() < len(FEATURES)
    inner = forest.feature >= 0
    assert np.all(forest.left[inner] > np.flatnonzero(inner))
    assert np.all(forest.right[inner] < len(forest.feature))
    assert len(forest.version) == 7


def test_the_forest_in_the_package_is_no_stump():
    known = json.loads(model().provenance)
    assert len(model().start) > 100
    assert min(known["real"], known["bogus"]) > 500
    assert len(known["simulations"]) >= 4
    assert not any(int(name.split()[1]) >= 8000 for name in known["simulations"])


def test_saved_and_loaded_are_the_same(tmp_path, stump):
    stump.save(tmp_path / "f.npz")
    again = Forest.load(tmp_path / "f.npz")
    rows = np.random.default_rng(1).normal(2, 1, (20, len(FEATURES)))
    np.testing.assert_array_equal(again.predict(rows), stump.predict(rows))
    assert again.version == stump.version


def test_the_sampling_of_the_training_is_the_domain(stump):
    assert [stump.covers(w) for w in (1.79, 1.81, 3.0, 4.39, 4.41, np.nan)] == [
        False, True, True, True, False, False,
    ]  # fmt: skip


def test_outside_of_the_domain_there_is_no_reliability(field, monkeypatch):
    scene, _, _, _ = field
    elsewhere = replace(model(), domain=np.array([20.0, 30.0]))
    monkeypatch.setitem(diasource.run.__globals__, "model", lambda: elsewhere)
    t = diasource.run(scene.difference, scene.science, scene.template).sources
    assert t["reliability"].null_count == len(t)
    for flag, value in (("", True), ("_domain", True), ("_noPixels", False)):
        assert set(t[f"reliability_flag{flag}"].to_pylist()) == {value}


def test_without_a_classifier_there_is_no_reliability(field, monkeypatch):
    scene, _, _, _ = field
    monkeypatch.setitem(diasource.run.__globals__, "model", None)  # not asked for
    config = diasource.Config(classify=False)
    t = diasource.run(scene.difference, scene.science, scene.template, config).sources
    assert t["reliability"].null_count == t["reliabilityVersion"].null_count == len(t)
    assert all(t["reliability_flag"].to_pylist())


def test_stars_are_reliable(field):
    t = field[3].sources
    detected = t["selectionBits"].to_numpy() == 0
    assert np.median(t["reliability"].to_numpy()[detected]) > 0.9
    assert np.isfinite(t["reliability"].to_numpy()).all()


def test_hot_pixels_are_not(lab):
    rng = np.random.default_rng(2)
    image, variance = lab.blank((300, 300), rng)
    at = lab.grid(image.shape, 50, rng)
    for x, y in np.rint(at).astype(int):
        image[y, x] += 12 * lab.Star().sigma_flux() / 3
    scene = lab.scene(image, variance, lab.Star(), rng)
    t = diasource.run(scene.difference, scene.science, scene.template).sources
    _, rows = lab.match(t, at)
    assert len(rows) > 10
    assert np.median(t["reliability"].to_numpy()[rows]) < 0.2


def test_low_reliability_is_recorded_and_nothing_is_deleted(field):
    scene, _, _, _ = field
    config = diasource.Config(reliability_cut=1.0)
    result = diasource.run(scene.difference, scene.science, scene.template, config)
    stopped = [r for r in result.candidates.to_pylist() if r["rule"] == "reliability"]
    detected = np.count_nonzero(result.sources["selectionBits"].to_numpy() == 0)
    assert len(stopped) == detected
    assert all(r["accepted"] and r["diaSourceId"] and r["bound"] == 1.0 for r in stopped)
