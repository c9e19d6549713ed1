"""What the classifier looks at: numbers about the pixels of a source and its surroundings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pipeline.compiled import compiled, pixel
from pipeline.diasource.lines import line_scores
from pipeline.diasource.measure import Columns, Scene
from pipeline.diasource.models import cut
from pipeline.diasource.planes import Planes
from pipeline.diasource.reliability import FEATURES
from pipeline.diasource.rows import Targets
from pipeline.diasource.select import Peaks
from pipeline.exposure import Exposure, FloatArray, Image, Mask
from pipeline.masks import DOUBTFUL, SATURATED, bits
from pipeline.psfphot import psf_box

__all__ = ["STAMP_FEATURES", "feature_table", "stamp_features"]

_FAR = 40
_WIDEST = 256.0
_CROWD = 25.0
_NEAR = 2.5  # FWHM
_ALL_ROUND = np.pi * np.arange(128) / 128
_BEYOND = np.arange(8.0, 32.1, 1.5)  # FWHM: farther than anything moves in an exposure
_COLUMN = np.array([np.pi / 2.0])
_BESIDE = np.arange(2.0, 6.6, 1.5)
_PSF_PEAK = 0.8  # brightest pixel of a PSF times the square of its FWHM

STAMP_FEATURES = (
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
    "wingMean",
    "rowMean",
    "columnMean",
)
"""Features measured on the pixels of the difference, in the order of `stamp_features`."""

# Their columns.
_CORRELATION, _CONCENTRATION, _NEIGHBOUR_RATIO, _NEGATIVE_FRACTION, _PEAK_RESIDUAL, _CORE_CHI2 = (
    range(6)
)
_RING_RMS, _RING_MEAN, _VARIANCE_RATIO, _SHARPNESS, _CORE_GOOD, _WORST_MASKED = range(6, 12)
_WING_MEAN, _ROW_MEAN, _COLUMN_MEAN = range(12, len(STAMP_FEATURES))


@compiled
def stamp_features(
    planes: Planes,
    coef: FloatArray,
    order: int,
    own: FloatArray,
    ix: FloatArray,
    iy: FloatArray,
    added: FloatArray,
    width: float,
    out: FloatArray,
) -> None:
    """Compare the pixels of a source with its PSF.

    Parameters
    ----------
    planes : Planes
        Pixels of the difference.
    coef, order : ndarray (n, side, side) and int
        The PSF.
    own : ndarray, (n, 3)
        Fitted PSF flux and position (from the middle pixel).
    ix, iy : ndarray, (n,)
        Middle pixels.
    added : ndarray, (n,)
        PSF flux to add at the fitted position.
    width : float, pixel
        FWHM of the PSF.
    out : ndarray, (n, 15)
        Within 1.5 FWHM: correlation with the PSF; brightest pixel over the model's; brightest
        over the mean of its four neighbours, in units of the model's same ratio; flux of the
        wrong sign over the sum of absolute values; largest |residual|/σ; χ² per pixel.  Between
        2.5 and 4 FWHM: rms and mean of D/σ.  At the centre: V/V_s; Laplacian over flux relative
        to the model's.  Within 1.5 FWHM: usable part of Σ P²; part of the pixels masked as bad.
        Means of D/σ without the model, times the root of the number of pixels, with the sign of the
        source: between 1 and 2.5 FWHM; in the rows and in the columns through the centre (three
        of each), from 1.5 FWHM outwards.
    """
    if not 0.0 < width <= _WIDEST:
        out[:] = np.nan
        return
    r = int(np.ceil(4.0 * width))
    n = 2 * r + 1
    d, w, v = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for s in range(ix.shape[0]):
        out[s] = np.nan
        cut(planes, pixel(ix[s]), pixel(iy[s]), float(r), d, w, v)
        psf_box(coef[s], own[s, 1], own[s, 2], order, p, px, py)
        flux = own[s, 0]
        if not np.isfinite(flux) or flux == 0.0:
            continue
        sign = 1.0 if flux > 0.0 else -1.0
        pd, dd, pp, wrong, both, worst, chi2, core, bad = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0
        all_pp, ring, ring2, count = 0.0, 0.0, 0.0, 0
        wing, wings, row, rows, column, columns = 0.0, 0, 0.0, 0, 0.0, 0
        top, tj, ti, mtop, mj, mi = -1e300, r, r, -1e300, r, r
        for j in range(n):
            for i in range(n):
                across, along = abs(i - r - own[s, 1]), abs(j - r - own[s, 2])
                distance = np.hypot(across, along)
                if w[j, i] > 0.0 and width <= distance:
                    value = (d[j, i] + (added[s] - flux) * p[j, i]) / np.sqrt(v[j, i])
                    if distance <= 2.5 * width:
                        wing, wings = wing + value, wings + 1
                    if along <= 1.5 and across > 1.5 * width:
                        row, rows = row + value, rows + 1
                    if across <= 1.5 and along > 1.5 * width:
                        column, columns = column + value, columns + 1
                if distance <= 1.5 * width:
                    all_pp += p[j, i] ** 2
                    if p[j, i] > mtop:
                        mtop, mj, mi = p[j, i], j, i
                    if w[j, i] == 0.0:
                        bad += 1
                        continue
                    value = d[j, i] + added[s] * p[j, i]
                    d[j, i] = value
                    core += 1
                    pd += p[j, i] * value
                    dd += value * value
                    pp += p[j, i] ** 2
                    both += abs(value)
                    wrong += max(0.0, -sign * value)
                    residual = (value - flux * p[j, i]) / np.sqrt(v[j, i])
                    worst = max(worst, abs(residual))
                    chi2 += residual * residual
                    if sign * value > top:
                        top, tj, ti = sign * value, j, i
                elif 2.5 * width <= distance <= 4.0 * width and w[j, i] > 0.0:
                    value = (d[j, i] + (added[s] - flux) * p[j, i]) / np.sqrt(v[j, i])
                    ring += value
                    ring2 += value * value
                    count += 1
        if core < 5 or pp == 0.0:
            continue
        out[s, _CORRELATION] = sign * pd / np.sqrt(pp * dd)
        out[s, _CONCENTRATION] = top / (abs(flux) * mtop)
        mean, m_mean = sign * _neighbours(d, tj, ti), _neighbours(p, mj, mi)
        out[s, _NEIGHBOUR_RATIO] = np.arctan(mean / top) / np.arctan(m_mean / mtop)
        out[s, _NEGATIVE_FRACTION] = wrong / both
        out[s, _PEAK_RESIDUAL] = worst
        out[s, _CORE_CHI2] = chi2 / core
        if count > 10:
            out[s, _RING_RMS] = np.sqrt(ring2 / count)
            out[s, _RING_MEAN] = sign * ring / np.sqrt(count)
        out[s, _VARIANCE_RATIO] = v[mj, mi] * w[mj, mi] if w[mj, mi] > 0.0 else 1.0
        out[s, _SHARPNESS] = (sign * d[mj, mi] - sign * _neighbours(d, mj, mi)) / (
            abs(flux) * (mtop - m_mean)
        )
        out[s, _CORE_GOOD] = pp / all_pp
        out[s, _WORST_MASKED] = bad / (bad + core)
        if min(wings, rows, columns) > 4:
            out[s, _WING_MEAN] = sign * wing / np.sqrt(wings)
            out[s, _ROW_MEAN] = sign * row / np.sqrt(rows)
            out[s, _COLUMN_MEAN] = sign * column / np.sqrt(columns)


@compiled
def _neighbours(d: FloatArray, j: int, i: int) -> float:
    if not (0 < j < d.shape[0] - 1 and 0 < i < d.shape[1] - 1):
        return np.nan
    return float(0.25 * (d[j - 1, i] + d[j + 1, i] + d[j, i - 1] + d[j, i + 1]))


def feature_table(
    scene: Scene,
    score: Image,
    science: Exposure,
    template: Exposure,
    targets: Targets,
    peaks: Peaks,
    columns: Columns,
) -> FloatArray:
    """Features of all rows, ``(n, len(FEATURES))``, NaN where one is not defined.

    Parameters
    ----------
    scene : Scene
        Pixels of the difference with their noise and PSF.
    score : ndarray, (ny, nx)
        Its matched filter in units of the noise.
    science, template : Exposure
        The images that were subtracted.
    targets : Targets
        n detections.
    peaks : Peaks
        All peaks.
    columns : dict of ndarray
        Columns measured so far, ``(n,)`` each.

    Returns
    -------
    ndarray, (n, len(FEATURES))
        In the order of `FEATURES`.
    """
    values = _from_pixels(scene) | _from_columns(scene, targets, columns)
    values |= _from_surroundings(scene, targets, peaks)
    values |= _from_lines(scene, score, targets)
    values |= _from_scene(scene, science, template, targets, columns)
    return np.column_stack([np.asarray(values[name], float) for name in FEATURES])


def _from_pixels(scene: Scene) -> Columns:
    out = np.full((len(scene.child), len(STAMP_FEATURES)), np.nan)
    for planes, index in scene.groups():
        coef, own, x, y = scene.local(index)
        rows = np.empty((len(index), len(STAMP_FEATURES)))
        stamp_features(
            planes, coef, scene.psf.order, own, x, y, scene.added[index], float(scene.width), rows
        )
        out[index] = rows
    return dict(zip(STAMP_FEATURES, out.T, strict=True))


def _from_columns(scene: Scene, targets: Targets, c: Columns) -> Columns:
    """Combine measurements into numbers of order one that do not grow with the flux's unit."""
    psf_size = c["ixxPSF"] + c["iyyPSF"]
    size = (c["ixx"] + c["iyy"]) / psf_size
    shear = np.hypot(c["ixx"] - c["iyy"] - c["ixxPSF"] + c["iyyPSF"], 2 * (c["ixy"] - c["ixyPSF"]))
    science, template = (c[f"{name}Flux"] / c[f"{name}FluxErr"] for name in ("science", "template"))
    star = np.maximum(np.abs(c["scienceFlux"]), np.abs(c["templateFlux"]))
    snr = np.abs(c["psfFlux"]) / c["psfFluxErr"]
    balance = np.abs(c["dipoleFluxDiff"]) / (2.0 * c["dipoleMeanFlux"])
    return {
        "logSnr": np.log(np.abs(targets.score)),
        "offset": np.hypot(*(scene.points.theta[:, 1:] - targets.at).T) / scene.width,
        "logSize": np.log(np.clip(size, 0.05, 20.0)),
        "ellipticity": np.clip(shear / psf_size, 0.0, 10.0),
        "trailGain": np.arcsinh(np.clip(c["trailGain"], -10.0, None) / snr),
        "trailSize": np.clip(c["trailLength"] / (scene.frame.scale * scene.width), 0.0, 20.0),
        "trailChi2": np.clip(c["trailChi2"] / np.maximum(c["trailNdata"], 1), 0.0, 50.0),
        "dipoleBalance": np.where(c["isDipole"], balance, 1.0),
        "scienceSnr": np.arcsinh(science),
        "templateSnr": np.arcsinh(template),
        "fractionOfStar": np.abs(c["psfFlux"]) / star,
        "apertureRatio": np.clip((c["apFlux"] - c["psfFlux"]) / c["apFluxErr"], -20.0, 20.0),
    }


def _from_surroundings(scene: Scene, targets: Targets, peaks: Peaks) -> Columns:
    """Other peaks nearby, the distance to saturation, and doubtful pixels."""
    seen = np.abs(peaks.score) > scene.config.ledger
    tree = cKDTree(np.column_stack([peaks.x, peaks.y])) if len(peaks.x) else None
    n = len(targets.at)
    opposite, crowd = np.zeros(n), np.zeros(n)
    for k in range(n if tree is not None else 0):
        assert tree is not None
        near = np.array(tree.query_ball_point(targets.at[k], _CROWD), np.int64)
        near = near[seen[near]]
        distance = np.hypot(*(np.column_stack([peaks.x, peaks.y])[near] - targets.at[k]).T)
        crowd[k] = np.count_nonzero(distance > 0.5)
        close = near[(distance < 3.0 * scene.width) & (peaks.score[near] * targets.score[k] < 0)]
        if len(close):
            opposite[k] = np.abs(peaks.score[close]).max() / abs(targets.score[k])
    return {
        "crowding": crowd,
        "oppositeRatio": np.clip(opposite, 0.0, 5.0),
        "saturationDistance": _distances(scene.planes.mask, targets.at, bits(*SATURATED)),
        "warned": _part(scene.planes.mask, targets.at, *DOUBTFUL),
        "rim": _part(scene.planes.mask, targets.at, "INEXACT_PSF"),
        "clipped": _part(scene.planes.mask, targets.at, "CLIPPED", "REJECTED"),
    }


def _from_scene(
    scene: Scene, science: Exposure, template: Exposure, targets: Targets, columns: Columns
) -> Columns:
    """Brightest pixel near the source in the image where the source is not.

    That is the template for positive sources and the visit image for negative ones.
    """
    radius = int(np.ceil(_NEAR * scene.width))
    found = np.full((len(targets.at), 2), np.nan)
    for image, chosen in ((template, targets.score > 0), (science, targets.score <= 0)):
        at = np.ascontiguousarray(targets.at[chosen])
        rows = np.empty((len(at), 2))
        _brightest(np.ascontiguousarray(image.image, np.float32), at, radius, rows)
        found[chosen] = rows
    peak, distance = found.T
    top = _PSF_PEAK / scene.width**2
    noise, own = columns["psfFluxErr"] * top, np.abs(columns["psfFlux"]) * top
    return {
        "sceneSnr": np.arcsinh(peak / noise),
        "sceneDistance": distance / scene.width,
        "sceneShare": np.clip(own / np.maximum(peak, noise), 0.0, 20.0),
    }


def _from_lines(scene: Scene, score: Image, targets: Targets) -> Columns:
    """Light on straight lines through the sources; beside them in their columns, where charge runs.

    A bleed leaves a column of light in whatever else is read with its amplifier, also where the
    detector that it comes from is not at hand to be subtracted.
    """
    found = np.full((2, len(targets.at), 2), np.nan)
    if 0.0 < scene.width <= _WIDEST:
        at, sign = np.ascontiguousarray(targets.at, float), np.sign(targets.score).astype(float)
        for out, angles, radii in zip(
            found, (_ALL_ROUND, _COLUMN), (_BEYOND, _BESIDE), strict=True
        ):
            line_scores(score, at, sign, angles, radii * float(scene.width), out)
    names = ("lineBoth", "lineWeaker", "columnBoth", "columnWeaker")
    return dict(zip(names, np.hstack((found[0], found[1])).T, strict=True))


@compiled
def _brightest(image: Image, at: FloatArray, radius: int, out: FloatArray) -> None:
    """Value and distance of the brightest pixel within a radius of each place."""
    ny, nx = image.shape
    for k in range(len(at)):
        out[k] = np.nan
        ix, iy = pixel(at[k, 0]), pixel(at[k, 1])
        for y in range(max(0, iy - radius), min(ny, iy + radius + 1)):
            for x in range(max(0, ix - radius), min(nx, ix + radius + 1)):
                distance = np.hypot(x - at[k, 0], y - at[k, 1])
                value = image[y, x]
                if distance <= radius and (value > out[k, 0] or np.isnan(out[k, 0])):
                    out[k, 0] = value
                    out[k, 1] = distance


def _distances(mask: Mask, at: FloatArray, planes: np.uint32) -> FloatArray:
    """Distance to the nearest pixel with one of the planes, at most 40 pixels."""
    out = np.full(len(at), float(_FAR))
    for k, (x, y) in enumerate(np.rint(at).astype(int)):
        y0, x0 = max(0, y - _FAR), max(0, x - _FAR)
        rows, columns = np.nonzero(mask[y0 : y + _FAR + 1, x0 : x + _FAR + 1] & planes)
        if len(rows):
            out[k] = min(float(_FAR), np.hypot(columns + x0 - x, rows + y0 - y).min())
    return out


def _part(mask: Mask, at: FloatArray, *planes: str) -> npt.NDArray[np.float64]:
    """Part of the central 5×5 pixels with one of some planes."""
    wanted = bits(*planes)
    return np.array(
        [
            np.mean((mask[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] & wanted) != 0)
            for x, y in np.rint(at).astype(int)
        ],
        float,
    )
