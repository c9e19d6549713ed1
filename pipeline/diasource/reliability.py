"""The probability that a source is astrophysical, from some thirty numbers of its own.

Gradient-boosted decision trees on `FEATURES`, stored as plain arrays in ``reliability.npz`` and
evaluated by one compiled loop; a logistic curve turns their sum into a probability.  They are made
by ``nightjar train-reliability``, which writes what they were trained on into the same file and
how well they do into docs/reliability.md.

The significance enters the trees, since what noise does to the other features depends on it; in
training both classes have the same distribution of it, so that it tells nothing by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.errors import InputError
from pipeline.exposure import FloatArray

__all__ = ["FEATURES", "Forest", "model"]

FEATURES: Mapping[str, str] = {
    "logSnr": "ln of the absolute score",
    "correlation": "correlation of the pixels within 1.5 FWHM with the PSF",
    "concentration": "brightest pixel over that of the PSF model",
    "neighbourRatio": "mean of the four neighbours over the brightest pixel, relative to the PSF",
    "negativeFraction": "flux of the wrong sign over the sum of absolute values",
    "peakResidual": "largest residual of the PSF model in its noise",
    "coreChi2": "χ² of the PSF model per pixel within 1.5 FWHM",
    "ringRms": "rms of D/σ between 2.5 and 4 FWHM",
    "ringMean": "mean of D/σ there times the root of the number of pixels",
    "varianceRatio": "variance over source-free variance at the centre",
    "sharpness": "Laplacian at the centre relative to the PSF model",
    "coreGood": "usable part of Σ P² within 1.5 FWHM",
    "worstMasked": "part of these pixels that is masked as bad",
    "wingMean": "as ringMean, between 1 and 2.5 FWHM without the model",
    "rowMean": "as wingMean, in the three rows through the centre from 1.5 FWHM on",
    "columnMean": "the same in the three columns",
    "offset": "distance from the peak to the fitted position, FWHM",
    "logSize": "ln of the size over that of the PSF",
    "ellipticity": "ellipticity beyond that of the PSF",
    "trailGain": "asinh of Δχ² of a trail over the signal to noise",
    "trailSize": "length of the trail, FWHM",
    "trailChi2": "χ² of the trail model per pixel",
    "dipoleBalance": "flux difference of the lobes over their sum; 1 where no dipole was found",
    "oppositeRatio": "highest peak of the other sign within 3 FWHM over the own one",
    "crowding": "peaks within 25 pixels",
    "scienceSnr": "asinh of the signal to noise on the visit image",
    "templateSnr": "the same on the template",
    "fractionOfStar": "flux over the larger of those on visit image and template",
    "apertureRatio": "aperture flux minus PSF flux over the aperture's error",
    "saturationDistance": "distance to saturation or bleeds, at most 40 pixels",
    "warned": "part of the central 5 × 5 pixels with a doubtful plane",
    "rim": "part of them where inputs of the template are missing",
    "clipped": "part of them where inputs of the template were rejected",
    "sceneSnr": "asinh of the brightest pixel within 2.5 FWHM of the image without the source, σ",
    "sceneDistance": "distance to it, FWHM",
    "sceneShare": "peak of the source over that pixel",
    "lineBoth": "light on a straight line through the source, 8 to 32 FWHM away, σ",
    "lineWeaker": "the same on the side where there is less of it",
    "columnBoth": "light in the column of the source, 2 to 6.5 FWHM away, σ",
    "columnWeaker": "the same on the side where there is less of it",
}
"""What the trees look at, in their order, and what it is."""


_MARGIN = 0.1
"""How far the sampling may be from that of any training image, as a part of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """A sum of decision trees with what is known of their training.

    Attributes
    ----------
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
    curve : ndarray, (2,)
        Slope and bias: the probability is 1 / (1 + exp(−(slope · sum + bias))).
    domain : ndarray, (2,), pixel
        Least and largest FWHM of the PSF on the images of the training.
    provenance : str
        JSON: campaigns, seeds, software, and what the training reached.
    """

    start: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int16]
    threshold: FloatArray
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    value: FloatArray
    missing: FloatArray
    curve: FloatArray
    domain: FloatArray
    provenance: str

    @classmethod
    def load(cls, path: Path) -> Forest:
        """Read a file of `save`.

        Raises
        ------
        InputError
            If it is none, was made for other features, or its version is not that of its content.
        """
        hint = "make one with nightjar train-reliability"
        try:
            with np.load(path, allow_pickle=False) as f:
                arrays = {field.name: f[field.name] for field in fields(cls)}
                version = str(f["version"])
        except (OSError, ValueError, KeyError) as err:
            raise InputError(f"is no model of the classifier: {err}", path=path, hint=hint) from err
        arrays["provenance"] = str(arrays["provenance"])
        forest = cls(**arrays)
        if (known := json.loads(forest.provenance)["features"]) != list(FEATURES):
            raise InputError(f"was trained on {len(known)} other features", path=path, hint=hint)
        if forest.version != version:
            raise InputError(f"declares version {version} but is {forest.version}", path=path)
        return forest

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file; the same forest gives the same bytes."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        with path.open("wb") as f:
            np.savez_compressed(f, version=self.version, **arrays)

    @property
    def version(self) -> str:
        """Seven hexadecimal digits that follow from the content: another model, another version."""
        digest = hashlib.sha256(self.provenance.encode())
        for field in fields(self):
            if field.name != "provenance":
                digest.update(np.ascontiguousarray(getattr(self, field.name)).tobytes())
        return digest.hexdigest()[:7]

    def covers(self, width: float) -> bool:
        """Whether a PSF of a FWHM in pixels is of the kind that it was trained on."""
        low, high = self.domain
        return bool(low * (1.0 - _MARGIN) <= width <= high * (1.0 + _MARGIN))

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
        slope, bias = self.curve
        return np.asarray(1.0 / (1.0 + np.exp(-(slope * self.sum(features) + bias))))


@lru_cache(maxsize=1)
def model() -> Forest:
    """Return the forest that comes with the package.

    Returns
    -------
    Forest
        That of ``pipeline/diasource/reliability.npz``.
    """
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
