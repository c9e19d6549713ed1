"""Training: balanced, split by sky, calibrated, the same every time, and equal to scikit-learn."""

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.reliability import training
from harness.reliability.evaluation import calibration_error
from harness.verify import context
from pipeline.diasource.reliability import FEATURES, Forest, model
from pipeline.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def forest(draw):
    return training.train(draw(2000, 1))


def test_signal_to_noise_says_nothing(draw):
    data = draw(2000, 1)
    weight = training.balanced_weights(data)
    for low, high in [(5.0, 5.25), (6.5, 7.0), (10.0, 13.0)]:
        here = (data.snr >= low) & (data.snr < high)
        real, bogus = (weight[here & side].sum() for side in (data.real, ~data.real))
        assert real == pytest.approx(bogus)
        assert weight[here].max() <= 10.0


def test_no_detection_counts_more_than_ten_times_and_a_lonely_class_not_at_all(draw):
    data = draw(2000, 1)
    snr = np.where(data.real, data.snr, 500.0)
    lonely = data.take(data.real)
    assert not training.balanced_weights(lonely).any()
    mixed = data.take(np.arange(len(data)) < 400)
    assert training.balanced_weights(mixed).max() <= 10.0
    assert snr.max() == 500.0


def test_a_painted_source_counts_as_its_part_of_a_simulated_one(draw):
    data = draw(4000, 1)
    data = replace(data, injected=data.real & (np.arange(len(data)) % 3 > 0))
    weight = training.balanced_weights(data, painted=0.25)
    for low, high in [(5.0, 5.25), (6.5, 7.0), (10.0, 13.0)]:
        here = (data.snr >= low) & (data.snr < high)
        painted, simulated = (
            np.unique(weight[here & data.real & s]) for s in (data.injected, ~data.injected)
        )
        assert painted == pytest.approx(0.25 * simulated)
        assert weight[here & data.real].sum() == pytest.approx(weight[here & ~data.real].sum())
    assert not training.balanced_weights(data, painted=0.0)[data.injected].any()


def test_a_piece_of_sky_is_in_one_fold(draw):
    patch = draw(1000, 3, patches=13).patch
    fold = training.folds(patch)
    assert all(len(set(fold[patch == p])) == 1 for p in set(patch))
    assert set(fold) == {0, 1, 2, 3}
    assert np.bincount(fold).max() < 2 * np.bincount(fold).min()


def test_probabilities_are_those_of_unseen_data(draw, forest):
    test = draw(2000, 2)
    larger = training.train(draw(8000, 1))
    assert larger.version != forest.version
    p = larger.predict(test.features)
    assert calibration_error(p, test.real) < 0.05
    truth = 1.0 / (1.0 + np.exp(-2.0 * test.features[:, 1]))
    both = test.snr < 10.0  # above, there are no bogus ones to learn from
    assert np.corrcoef(p[both], truth[both])[0, 1] > 0.9


def test_the_same_samples_give_the_same_bytes(draw, forest, tmp_path):
    forest.save(tmp_path / "a.npz")
    training.train(draw(2000, 1)).save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_file_says_what_it_was_made_of(forest):
    known = json.loads(forest.provenance)
    assert known["features"] == list(FEATURES)
    assert known["campaigns"] == ["hash1"]
    assert known["simulations"] == ["made 1"]
    assert known["software"]
    assert not any("date" in key or "time" in key for key in known)


def test_a_file_that_was_changed_is_refused(forest, tmp_path):
    path = tmp_path / "m.npz"
    forest.save(path)
    with np.load(path) as f:
        arrays = dict(f)
    arrays["value"] = arrays["value"] * 1.01
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=f"declares version {forest.version} but is"):
        Forest.load(path)


def test_other_features_are_refused(forest, tmp_path):
    path = tmp_path / "m.npz"
    forest.save(path)
    with np.load(path) as f:
        arrays = dict(f)
    known = json.loads(str(arrays["provenance"]))
    arrays["provenance"] = json.dumps(known | {"features": known["features"][1:]})
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="other features"):
        Forest.load(path)


def test_a_file_that_is_no_model_is_one_line(tmp_path):
    path = tmp_path / "m.npz"
    path.write_text("nothing")
    with pytest.raises(InputError, match="no model"):
        Forest.load(path)


def test_the_forest_is_scikit_learns(draw):
    from sklearn.ensemble import HistGradientBoostingClassifier

    data = draw(1500, 5)
    trees = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    trees.fit(data.features, data.real)
    ours = training._as_forest(trees, np.zeros(len(FEATURES)))
    np.testing.assert_allclose(
        ours.predict(data.features), trees.predict_proba(data.features)[:, 1], atol=1e-12
    )


def test_the_mean_of_forests_is_the_mean_of_their_sums(draw):
    data = draw(1500, 5)
    missing, weight = np.zeros(len(FEATURES)), np.ones(len(data))
    halves = [np.arange(len(data)) % 2 == k for k in (0, 1)]
    parts = [training._forest(data.take(half), weight[half], missing) for half in halves]
    both = replace(parts[0], **training._mean(parts))
    expected = np.mean([f.sum(data.features) for f in parts], axis=0)
    np.testing.assert_allclose(both.sum(data.features), expected, atol=1e-12)


def test_the_curve_is_the_likeliest():
    rng = np.random.default_rng(4)
    x = rng.normal(size=20_000)
    real = rng.random(20_000) < 1 / (1 + np.exp(-(1.7 * x - 0.6)))
    np.testing.assert_allclose(training._logistic(x, real), [1.7, -0.6], atol=0.06)


def test_too_little_is_one_line(draw):
    with pytest.raises(ConfigError, match="too little to learn from"):
        training.train(draw(120, 1))
    with pytest.raises(ConfigError, match="on 2 pieces of sky"):
        training.train(draw(2000, 1, patches=2))


def test_a_model_of_other_features_keeps_nobody_from_collecting_examples(monkeypatch):
    def misfit():
        raise InputError("was trained on 38 other features")

    assert context._classifier_version() == model().version
    monkeypatch.setattr(context, "classifier", misfit)
    assert context._classifier_version() is None
