"""The probability that a source is astrophysical, from a few numbers of its own.

Decision trees on the features of `FEATURES`, stored as plain arrays in ``reliability.npz`` and
evaluated by one compiled loop; a logistic curve on top turns their sum into a probability.  The
model that comes with the package is a single tree of five nodes with three values: it sorts
poorly, and no model card describes it yet.

The significance enters the trees, since what noise does to the other features depends on it; in
training both classes have the same distribution of it, so that it tells nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray

__all__ = ["FEATURES", "Forest", "model"]

FEATURES = (
    "logSnr",
    "correlation",
    "concentration",
    "neighbourRatio",
    "negativeFraction",
    "peakResidual",
    "coreChi2",
    "ringRms",
    "ringMean",
    "varianceRatio",
    "sharpness",
    "coreGood",
    "worstMasked",
    "offset",
    "logSize",
    "ellipticity",
    "trailGain",
    "oppositeRatio",
    "crowding",
    "scienceSnr",
    "templateSnr",
    "fractionOfStar",
    "apertureRatio",
    "saturationDistance",
    "warned",
)
"""What the trees look at, in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """A sum of decision trees.

    Attributes
    ----------
    version : str
        Of the training.
    start : ndarray, (n_trees + 1,), int32
        First node of each tree; the arrays below hold all nodes.
    feature : ndarray, int16
        Feature that a node asks for, -1 in leaves.
    threshold : ndarray, float64
        Values up to it go left.
    left, right : ndarray, int32
        Nodes to go to.
    value : ndarray, float64
        What a leaf adds.
    missing : ndarray, (n_features,)
        Stands in for a missing feature.
    slope, bias : float
        The probability is 1 / (1 + exp(−(slope · sum + bias))).
    """

    version: str
    start: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int16]
    threshold: FloatArray
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    value: FloatArray
    missing: FloatArray
    slope: float
    bias: float

    @classmethod
    def load(cls, path: Path) -> Forest:
        """Read the arrays of an ``.npz`` file."""
        with np.load(path, allow_pickle=False) as f:
            arrays = {name: f[name] for name in cls.__slots__}
        version, slope, bias = (arrays.pop(name) for name in ("version", "slope", "bias"))
        return cls(**arrays, version=str(version), slope=float(slope), bias=float(bias))

    def sum(self, features: FloatArray) -> FloatArray:
        """Sum of the trees, ``(n,)``, for features ``(n, len(FEATURES))``."""
        known = np.where(np.isfinite(features), features, self.missing)
        out = np.zeros(len(known))
        _walk(
            np.ascontiguousarray(known), self.start, self.feature, self.threshold,
            self.left, self.right, self.value, out,
        )  # fmt: skip
        return out

    def predict(self, features: FloatArray) -> FloatArray:
        """Probability that each source is real, ``(n,)``."""
        return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * self.sum(features) + self.bias))))


@lru_cache(maxsize=1)
def model() -> Forest:
    """Return the forest that comes with the package."""
    with as_file(files("pipeline.diasource").joinpath("reliability.npz")) as path:
        return Forest.load(path)


@compiled
def _walk(
    features: FloatArray,
    start: npt.NDArray[np.int32],
    feature: npt.NDArray[np.int16],
    threshold: FloatArray,
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    value: FloatArray,
    out: FloatArray,
) -> None:
    for k in range(features.shape[0]):
        for tree in range(start.shape[0] - 1):
            node = start[tree]
            while feature[node] >= 0:
                go_left = features[k, feature[node]] <= threshold[node]
                node = left[node] if go_left else right[node]
            out[k] += value[node]
