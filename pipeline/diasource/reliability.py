"""The probability that a source is astrophysical, from a few numbers of its own.

A logistic model of the features below; its numbers live in ``reliability.json`` with the version
of the training.  No feature is the detection score, and none knows what is near the source on
the sky.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from pipeline.exposure import FloatArray

__all__ = ["model", "predict"]


@lru_cache(maxsize=1)
def model() -> dict[str, Any]:
    """Return the model: version, feature names, centres, scales, weights, bias."""
    text = files("pipeline.diasource").joinpath("reliability.json").read_text()
    return dict(json.loads(text))


def predict(features: dict[str, FloatArray]) -> FloatArray:
    """Probability that each source is real.

    Parameters
    ----------
    features : dict of str to ndarray, (n,)
        At least those that `model` names; missing values stand at the model's centre.

    Returns
    -------
    ndarray, (n,)
        0 to 1.
    """
    numbers = model()
    columns = np.column_stack([np.asarray(features[name], float) for name in numbers["features"]])
    z = (columns - np.array(numbers["centre"])) / np.array(numbers["scale"])
    z = np.clip(np.where(np.isfinite(z), z, 0.0), -5.0, 5.0)
    score = numbers["bias"] + z @ np.array(numbers["weights"])
    return np.asarray(1.0 / (1.0 + np.exp(-score)))
