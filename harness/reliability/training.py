"""From labelled detections to a forest: weights, folds, boosted trees, calibration."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.reliability.samples import Samples
from harness.system.software import software_version
from pipeline.diasource.reliability import FEATURES, Forest
from pipeline.errors import ConfigError
from pipeline.exposure import FloatArray

__all__ = ["balanced_weights", "folds", "train"]

_SEED = 1
_FOLDS = 4
_TREES = {
    "max_iter": 150, "learning_rate": 0.08, "max_leaf_nodes": 16, "min_samples_leaf": 20,
    "l2_regularization": 1.0, "max_features": 0.5, "early_stopping": False,
}  # fmt: skip
_EDGES = (0.0, 5.25, 5.5, 5.75, 6.0, 6.5, 7.0, 8.0, 10.0, 13.0, 18.0, 30.0, 60.0, 150.0, np.inf)
"""Signal-to-noise ratios between which real and bogus get the same weight."""
_HEAVIEST = 10.0
"""No detection counts more often than this."""
_PAINTED = 0.1
"""Weight of a painted source relative to a simulated one.

Simulated ones are what a survey finds and set the threshold; painted ones teach what those hardly
contain: trails, faint and negative sources.  They are the more numerous.  With equal weight, fewer
artefacts are rejected where 99 % of the simulated ones are kept; with less than a tenth, painted
ones of a signal to noise of 6 to 8 are lost (`docs/numbers.md`).
"""

Say = Callable[[str], None]


def train(samples: Samples, say: Say = lambda line: None) -> Forest:
    """Train a classifier.

    The trees are those of scikit-learn's histogram-based gradient boosting, the mean of the forests
    of four folds and of one on all: that depends less on chance than any of them where artefacts
    are rare.  The logistic curve on
    top is fitted to detections whose piece of sky was left out of the training, and only to those
    that nobody has painted: their mixture is the one that a survey has.

    Parameters
    ----------
    samples : Samples
        Detections of the campaigns to learn from.
    say : callable
        Takes lines about the progress.

    Returns
    -------
    Forest
        The same for the same samples, to the bit.

    Raises
    ------
    ConfigError
        If scikit-learn is not installed, or there is too little to learn from.
    """
    data = samples.clear
    _check(data)
    missing = np.nanmedian(np.where(np.isfinite(data.features), data.features, np.nan), axis=0)
    missing = np.nan_to_num(missing)
    weight = balanced_weights(data)
    fold = folds(data.patch)
    sums, parts = np.zeros(len(data)), []
    for k in range(_FOLDS):
        out = fold == k
        say(f"fold {k + 1} of {_FOLDS}: {np.count_nonzero(~out)} to learn from")
        parts.append(_forest(data.take(~out), weight[~out], missing))
        sums[out] = parts[-1].sum(data.features[out])
    natural = ~data.injected
    curve = _logistic(sums[natural], data.real[natural])
    parts.append(_forest(data, weight, missing))
    return Forest(
        **_mean(parts),
        missing=missing,
        curve=curve,
        domain=np.array([data.width.min(), data.width.max()]),
        provenance=_provenance(data),
    )


def balanced_weights(data: Samples, painted: float = _PAINTED) -> FloatArray:
    """Weights with which the signal to noise alone says nothing about what a detection is.

    Parameters
    ----------
    data : Samples
        n detections, real or bogus.
    painted : float
        Weight of a painted source relative to a simulated one of the same signal to noise.

    Returns
    -------
    ndarray, (n,)
        In each range of signal to noise real and bogus have the same sum, as far as no detection
        has more than ten times its share.
    """
    cell = np.digitize(np.abs(data.snr), _EDGES)
    weight = np.where(data.injected, painted, 1.0)
    for c in np.unique(cell):
        sides = [(cell == c) & (data.real == side) for side in (False, True)]
        sums = [float(weight[s].sum()) for s in sides]
        share = min(sum(sums) / 2.0, _HEAVIEST * min(sums))
        for side, total in zip(sides, sums, strict=True):
            weight[side] *= share / total if total else 0.0
    return weight


def folds(patch: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Deal pieces of sky out to the folds, so that none is in two.

    Parameters
    ----------
    patch : ndarray of str, (n,)
        Piece of sky of every detection.

    Returns
    -------
    ndarray of int, (n,)
        Fold, from 0.
    """
    names, index, counts = np.unique(patch, return_inverse=True, return_counts=True)
    fold_of, total = np.zeros(len(names), np.int64), np.zeros(_FOLDS)
    for k in np.argsort(-counts, kind="stable"):
        fold_of[k] = int(np.argmin(total))
        total[fold_of[k]] += counts[k]
    return np.asarray(fold_of[index])


def _check(data: Samples) -> None:
    n_real, n_bogus = int(data.real.sum()), int((~data.real).sum())
    if min(n_real, n_bogus) < 100 or len(set(data.patch.tolist())) < _FOLDS:
        raise ConfigError(
            f"too little to learn from: {n_real} real and {n_bogus} bogus detections on "
            f"{len(set(data.patch.tolist()))} pieces of sky",
            expected=f"100 of each on {_FOLDS} pieces of sky",
            hint="simulate and run more campaigns",
        )


def _forest(data: Samples, weight: FloatArray, missing: FloatArray) -> Forest:
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError as err:
        raise ConfigError(
            "needs scikit-learn", expected="the extra 'train'", hint="pip install nightjar[train]"
        ) from err
    known = np.where(np.isfinite(data.features), data.features, missing)
    used = weight > 0
    trees = HistGradientBoostingClassifier(**_TREES, random_state=_SEED)
    trees.fit(known[used], data.real[used], sample_weight=weight[used])
    return _as_forest(trees, missing)


def _as_forest(trees: Any, missing: FloatArray) -> Forest:
    """Take the nodes out; the prior of the boosting is one more tree, of a single leaf."""
    nodes = [stage[0].nodes for stage in trees._predictors]
    prior = np.zeros(1, nodes[0].dtype)
    prior["is_leaf"], prior["value"] = 1, float(np.ravel(trees._baseline_prediction)[0])
    nodes.append(prior)
    start = np.concatenate([[0], np.cumsum([len(n) for n in nodes])]).astype(np.int32)
    offset = np.repeat(start[:-1], np.diff(start))
    joined = np.concatenate(nodes)
    leaf = joined["is_leaf"] != 0
    return Forest(
        start=start,
        feature=np.where(leaf, -1, joined["feature_idx"]).astype(np.int16),
        threshold=np.where(leaf, 0.0, joined["num_threshold"]),
        left=np.where(leaf, 0, joined["left"] + offset).astype(np.int32),
        right=np.where(leaf, 0, joined["right"] + offset).astype(np.int32),
        value=np.where(leaf, joined["value"], 0.0),
        missing=missing,
        curve=np.array([1.0, 0.0]),
        domain=np.array([0.0, np.inf]),
        provenance="{}",
    )


def _mean(parts: list[Forest]) -> dict[str, Any]:
    """Nodes of all forests, with their mean as sum."""
    names = ("start", "feature", "threshold", "left", "right", "value")
    out = {name: np.concatenate([getattr(f, name) for f in parts]) for name in names}
    sizes = [len(f.value) for f in parts]
    before = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    for name in ("left", "right"):
        out[name] = np.where(out["feature"] < 0, 0, out[name] + before).astype(np.int32)
    starts = [f.start[:-1] + b for f, b in zip(parts, np.cumsum([0, *sizes]), strict=False)]
    out["start"] = np.concatenate([*starts, [sum(sizes)]]).astype(np.int32)
    return out | {"value": out["value"] / len(parts)}


def _logistic(sums: FloatArray, real: npt.NDArray[np.bool_]) -> FloatArray:
    """Slope and bias of the likeliest logistic curve (Platt 1999), by Newton's method."""
    x = np.column_stack([sums, np.ones(len(sums))])
    y = (real + 0.0) * (1 - 2 / (len(real) + 2)) + 1 / (len(real) + 2)
    curve = np.array([1.0, 0.0])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(x @ curve)))
        slope = x.T @ (y - p)
        bend = (x * (p * (1.0 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(bend, slope)
        curve = curve + step / max(1.0, float(np.abs(step).max()))
    return curve


def _provenance(data: Samples) -> str:
    """Where the model comes from: no date, so that the same training gives the same bytes."""
    return json.dumps(
        {
            "campaigns": sorted(data.campaigns),
            "simulations": sorted(data.seeds),
            "software": software_version(),
            "features": list(FEATURES),
            "trees": _TREES,
            "seed": _SEED,
            "real": int(data.real.sum()),
            "bogus": int((~data.real).sum()),
        },
        sort_keys=True,
    )
