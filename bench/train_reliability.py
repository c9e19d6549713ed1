"""Train and judge the classifier of difference-image sources.

The bogus are what comes out of simulated raw frames that went through the whole pipeline; the
real ones are the simulated transients and variables and point sources injected into the visit
images before the subtraction.  Training, calibration and test are split by campaign, so that no
image and no template is shared.

    python -m bench.train_reliability collect WORKSPACE FEATURES.npz [--injections 300]
    python -m bench.train_reliability fit MODEL.npz --train A.npz B.npz --test C.npz
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

from pipeline import diasource, io, subtract, template
from pipeline.diasource.reliability import FEATURES, Forest
from pipeline.exposure import Exposure, FloatArray
from pipeline.psfphot import SplinePsf, forced_flux, psf_box

MATCH = 2.5
VARIABLE_FROM = 3.0
UNCLEAR_FROM = 1.0
VERSION = "1.0"


def units(root: Path) -> list[tuple[int, int]]:
    """(visit, detector) of the differences of a workspace."""
    names = sorted(p.stem for p in (root / "products" / "difference").glob("*.fits"))
    return [(int(n.split("_")[0]), int(n.split("_")[1])) for n in names]


def truth(root: Path) -> dict[tuple[int, int], dict[str, FloatArray]]:
    """Position and true difference flux of all that varies, unit by unit."""
    table = pq.read_table(root / "truth" / "visits.parquet")
    t = {
        c: np.array(table[c].to_pylist())
        for c in ("truthId", "visit", "detector", "x", "y", "flux", "saturated")
    }
    objects = pq.read_table(root / "truth" / "objects.parquet")
    kind = dict(zip(objects["truthId"].to_pylist(), objects["kind"].to_pylist(), strict=True))
    exposures = pq.read_table(root / "raw" / "exposures.parquet").to_pylist()
    before = [e["visit"] for e in exposures if e["role"] == "template"]
    flux = dict(zip(zip(t["truthId"], t["visit"], strict=True), t["flux"], strict=True))
    out = {}
    for unit in units(root):
        here = (t["visit"] == unit[0]) & (t["detector"] == unit[1])
        here &= np.array([kind[i] not in ("star", "galaxy") for i in t["truthId"]])
        old = [np.mean([flux.get((i, v), 0.0) for v in before]) for i in t["truthId"][here]]
        moving = [kind[i] in ("asteroid", "neo") for i in t["truthId"][here]]
        out[unit] = {
            "x": t["x"][here], "y": t["y"][here], "saturated": t["saturated"][here],
            "flux": t["flux"][here] - np.where(moving, 0.0, old),
        }  # fmt: skip
    return out


def inject(
    science: Exposure, at: FloatArray, flux: FloatArray, rng: np.random.Generator
) -> Exposure:
    """Add point sources with their own noise to a visit image."""
    assert science.psf is not None
    spline = SplinePsf.of(science.psf)
    image, variance = science.image.copy(), science.variance.copy()
    n = science.psf.side
    p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    unit = science.photo_calib.njy_per_electron if science.photo_calib else 1.0
    for (x, y), f in zip(at, flux, strict=True):
        ix, iy, h = round(x), round(y), n // 2
        psf_box(spline.coefficients([x], [y])[0], x - ix, y - iy, spline.order, p, px, py)
        box = np.s_[iy - h : iy + h + 1, ix - h : ix + h + 1]
        noise = np.maximum(f * p, 0.0) * unit
        image[box] += (f * p + rng.normal(size=p.shape) * np.sqrt(noise)).astype(np.float32)
        variance[box] += noise.astype(np.float32)
    return science.replace(image=image, variance=variance)


def places(
    shape: tuple[int, int], n: int, taken: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Random positions, bad pixels or not, 30 pixels from each other and from what varies."""
    out: list[FloatArray] = []
    for at in rng.uniform((30, 30), (shape[1] - 31, shape[0] - 31), (4 * n, 2)):
        others = np.array([*out, *taken]) if len(out) + len(taken) else np.full((1, 2), -99.0)
        if len(out) < n and np.hypot(*(others - at).T).min() > 30:
            out.append(at)
    return np.array(out)


def collect_unit(
    root: Path, unit: tuple[int, int], known: dict[str, FloatArray], n: int
) -> dict[str, Any]:
    """Inject, subtract, detect; return features and labels of the detections."""
    rng = np.random.default_rng([*unit, 5])
    name = f"{unit[0]}_{unit[1]:02d}.fits"
    science = io.read_exposure(root / "products" / "visit_image" / name)
    (coadd,) = (root / "products" / "template").glob(f"*_{unit[1]:02d}.fits")
    warped = template.warp(io.read_exposure(coadd), science.wcs, science.shape)
    old = io.read_difference(root / "products" / "difference" / name)
    at = places(science.shape, n, np.column_stack([known["x"], known["y"]]), rng)
    sigma = np.nan_to_num(noise(old, *at.T), nan=1e9)
    strength = np.exp(rng.uniform(np.log(4.5), np.log(40), len(at)))
    strength[::2] = rng.uniform(4.5, 7.5, len(strength[::2]))
    at, strength, sigma = (a[sigma < 1e8] for a in (at, strength, sigma))
    difference = subtract.run(inject(science, at, strength * sigma, rng), warped)
    config = diasource.Config(sub_random=0, sky_sources=0)
    result = diasource.run(
        difference,
        inject(science, at, strength * sigma, np.random.default_rng([*unit, 5])),
        warped,
        config,
    )
    return label(result, known, at, strength, noise(difference, known["x"], known["y"]))


def noise(difference: Any, x: FloatArray, y: FloatArray) -> FloatArray:
    """Error of the flux of a faint source."""
    e, null = difference.exposure, difference.null_variance
    return forced_flux(e.image, null, null, e.mask, e.psf, x, y).flux_err


def label(
    result: Any,
    known: dict[str, FloatArray],
    at: FloatArray,
    strength: FloatArray,
    sigma: FloatArray,
) -> dict[str, Any]:
    """1 real, 0 bogus, -1 unclear (too faint a variable, or a saturated one)."""
    t = result.sources
    xy = np.column_stack([t["x"].to_numpy(), t["y"].to_numpy()])
    keep = ~np.array(t["isDeblendParent"].to_pylist(), bool)
    significance = np.abs(known["flux"]) / sigma
    real = (significance > VARIABLE_FROM) & ~known["saturated"]
    unclear = (significance > UNCLEAR_FROM) & ~real
    places_ = np.column_stack([known["x"], known["y"]])
    reach = {
        "real": np.vstack([at, places_[real]]),
        "unclear": places_[unclear | known["saturated"]],
    }
    true_snr = np.concatenate([strength, significance[real]])
    distance = {
        k: cKDTree(v).query(xy) if len(v) else (np.full(len(xy), 99.0), np.zeros(len(xy), int))
        for k, v in reach.items()
    }
    labels = np.where(distance["unclear"][0] < 6.0, -1, 0)
    hit = distance["real"][0] < MATCH
    labels[hit] = 1
    labels[(labels == 0) & (distance["real"][0] < 8.0)] = -1
    found = np.zeros(len(at), bool)
    found[distance["real"][1][hit][distance["real"][1][hit] < len(at)]] = True
    return {
        "features": result.features[keep], "label": labels[keep],
        "snr": t["snr"].to_numpy()[keep],
        "trueSnr": np.where(hit, true_snr[distance["real"][1]], np.nan)[keep],
        "injected": strength, "found": found,
    }  # fmt: skip


def collect(root: Path, out: Path, n: int) -> None:
    """Gather all units of a workspace."""
    known = truth(root)
    rows = []
    for k, unit in enumerate(units(root)):
        row = collect_unit(root, unit, known[unit], n)
        row["group"] = np.full(len(row["label"]), k)
        rows.append(row)
        print(unit, {v: int((row["label"] == v).sum()) for v in (0, 1, -1)}, flush=True)
        np.savez(out, names=FEATURES, **{k: np.concatenate([r[k] for r in rows]) for k in rows[0]})


def matched_weights(snr: FloatArray, label: FloatArray) -> FloatArray:
    """Weights that give both classes the same distribution of significance, and the same sum."""
    edges = np.array([0, 5.5, 6, 6.5, 7, 8, 10, 13, 18, 30, 60, np.inf])
    cell = np.digitize(snr, edges)
    weight = np.zeros(len(snr))
    for c in np.unique(cell):
        counts = [np.count_nonzero((cell == c) & (label == v)) for v in (0, 1)]
        if min(counts) == 0:
            continue
        for v in (0, 1):
            # no source counts more than ten times
            weight[(cell == c) & (label == v)] = min(sum(counts) / counts[v] / 2, 10.0)
    return weight


def load(paths: list[Path]) -> dict[str, Any]:
    """Join files of `collect`; unclear rows are left out."""
    parts = [dict(np.load(p)) for p in paths]
    data = {
        k: np.concatenate([p[k] for p in parts]) for k in ("features", "label", "snr", "trueSnr")
    }
    data["group"] = np.concatenate([p["group"] + 1000 * k for k, p in enumerate(parts)])
    keep = data["label"] >= 0
    data = {k: v[keep] for k, v in data.items()}
    return data | {k: np.concatenate([p[k] for p in parts]) for k in ("injected", "found")}


def train(x: FloatArray, y: FloatArray, w: FloatArray, seed: int) -> Any:
    """Boosted trees of scikit-learn."""
    from sklearn.ensemble import GradientBoostingClassifier

    trees = GradientBoostingClassifier(
        n_estimators=150, max_depth=4, learning_rate=0.08, subsample=0.6, min_samples_leaf=15,
        max_features=8, random_state=seed,
    )  # fmt: skip
    return trees.fit(x, y, sample_weight=w)


def forest(trees: Any, missing: FloatArray, slope: float, bias: float) -> Forest:
    """The trees as plain arrays."""
    parts = [e[0].tree_ for e in trees.estimators_]
    start = np.concatenate([[0], np.cumsum([t.node_count for t in parts])]).astype(np.int32)

    def join(get: Any, kind: Any) -> Any:
        return np.concatenate([get(t, s) for t, s in zip(parts, start, strict=False)]).astype(kind)

    return Forest(
        version=VERSION, start=start,
        feature=join(lambda t, _: np.maximum(t.feature, -1), np.int16),
        threshold=join(lambda t, _: t.threshold, float),
        left=join(lambda t, s: t.children_left + s, np.int32),
        right=join(lambda t, s: t.children_right + s, np.int32),
        value=join(lambda t, _: trees.learning_rate * t.value[:, 0, 0], float),
        missing=missing, slope=slope, bias=bias,
    )  # fmt: skip


def fit(out: Path, train_paths: list[Path], test_path: Path | None) -> None:
    """Train with the images in five folds for the calibration, save, judge."""
    from sklearn.linear_model import LogisticRegression

    data = load(train_paths)
    missing = np.nanmedian(data["features"], axis=0)
    # single precision, as the trees see it
    x = (
        np.where(np.isfinite(data["features"]), data["features"], missing)
        .astype(np.float32)
        .astype(float)
    )
    y, w = data["label"], matched_weights(data["snr"], data["label"])
    held_out = np.zeros(len(y))
    fold = data["group"] % 4
    for k in np.unique(fold):
        rest = fold != k
        part = forest(train(x[rest], y[rest], w[rest], 1), missing, 1.0, 0.0)
        held_out[~rest] = part.sum(x[~rest])
    platt = LogisticRegression().fit(held_out[:, None], y, sample_weight=w)
    slope, bias = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    final = forest(train(x, y, w, 1), missing, slope, bias)
    np.savez_compressed(out, **{k: getattr(final, k) for k in Forest.__slots__})
    report("held-out images", 1 / (1 + np.exp(-(slope * held_out + bias))), data)
    if test_path:
        test = load([test_path])
        report("test", final.predict(test["features"]), test)
    importance = train(x, y, w, 1).feature_importances_
    print({FEATURES[k]: round(float(importance[k]), 3) for k in np.argsort(-importance)})


def report(name: str, p: FloatArray, data: dict[str, Any]) -> None:
    """Completeness and purity at SNR 5.5 to 6.5 for stated ratios of bogus to real."""
    real = (data["label"] == 1) & (data["trueSnr"] > 5.5) & (data["trueSnr"] < 6.5)
    near = (data["snr"] > 5.5) & (data["snr"] < 6.5)
    measured, bogus = near & (data["label"] == 1), near & (data["label"] == 0)
    row: dict[str, Any] = {
        "set": name, "rows": len(p), "bogus": int((data["label"] == 0).sum()),
        "real 5.5-6.5": int(real.sum()), "bogus 5.5-6.5": int(bogus.sum()),
    }  # fmt: skip
    cuts = np.linspace(0, 1, 1001)[:-1]
    kept = np.array([np.mean(p[real] > c) for c in cuts])
    true_rate = np.array([np.mean(p[measured] > c) for c in cuts])
    false_rate = np.array([np.mean(p[bogus] > c) for c in cuts])
    for ratio in (9, 4, 1):
        purity = true_rate / np.maximum(true_rate + ratio * false_rate, 1e-9)
        good = np.flatnonzero(purity >= 0.95)
        row[f"completeness at 95 % purity, {ratio}:1"] = (
            round(float(kept[good[0]]), 3) if len(good) else None
        )
        row[f"cut {ratio}:1"] = float(cuts[good[0]]) if len(good) else None
    for cut in (0.3, 0.5, 0.7):
        row[f"real kept, bogus kept at {cut}"] = (
            round(float(np.mean(p[data["label"] == 1] > cut)), 3),
            round(float(np.mean(p[data["label"] == 0] > cut)), 3),
        )
    print(json.dumps(row))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    c = verbs.add_parser("collect")
    c.add_argument("workspace", type=Path)
    c.add_argument("out", type=Path)
    c.add_argument("--injections", type=int, default=300)
    f = verbs.add_parser("fit")
    f.add_argument("out", type=Path)
    f.add_argument("--train", type=Path, nargs="+", required=True)
    f.add_argument("--test", type=Path)
    a = parser.parse_args()
    if a.verb == "collect":
        collect(a.workspace, a.out, a.injections)
    else:
        fit(a.out, a.train, a.test)


if __name__ == "__main__":
    main()
