"""Detections of an artificial classifier problem whose best answer is known."""

import numpy as np
import pytest

from harness.reliability import training
from harness.reliability.samples import Samples
from pipeline.diasource.reliability import FEATURES


@pytest.fixture(scope="session", autouse=True)
def few_trees():
    """Train with few trees and bins: what is tested is not how well a forest does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training._TREES, "max_iter", 25)
        patch.setitem(training._TREES, "max_bins", 15)
        patch.setitem(training._TREES, "learning_rate", 0.3)
        yield


@pytest.fixture(scope="session")
def draw():
    """Draw samples: one feature tells real from bogus with a known probability."""

    def make(n: int, seed: int, patches: int = 8) -> Samples:
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(n, len(FEATURES)))
        odds = 2.0 * features[:, 1]
        real = rng.random(n) < 1.0 / (1.0 + np.exp(-odds))
        snr = np.where(real, 5.0 + rng.exponential(20.0, n), 5.0 + rng.exponential(2.0, n))
        features[:, 0] = np.log(snr)
        return Samples(
            features=features,
            label=real.astype(int),
            kind=np.where(real, "transient", "noise"),
            snr=snr,
            true_snr=np.where(real, snr, np.nan),
            injected=np.zeros(n, bool),
            width=np.full(n, 4.0),
            patch=rng.integers(0, patches, n).astype(str),
            image=rng.integers(0, 40, n).astype(str),
            campaigns=(f"hash{seed}",),
            seeds=(f"made {seed}",),
            area=1.0,
        )

    return make
