"""From a difference image to its sources."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from pipeline import ids
from pipeline.camera import Camera, Passbands
from pipeline.diasource.causes import Colours, expected_shifts
from pipeline.diasource.config import Config
from pipeline.diasource.detect import Footprints, Ints, expected_peaks, find_peaks, flood
from pipeline.diasource.dipoles import find_partners, fit_pairs, spread, weaker_lobes
from pipeline.diasource.doubles import split_doubles
from pipeline.diasource.features import feature_table
from pipeline.diasource.fits import Fits
from pipeline.diasource.flags import square_sides
from pipeline.diasource.frame import Frame
from pipeline.diasource.leftover import flux_share
from pipeline.diasource.lines import along_streaks, find_glints, find_streaks
from pipeline.diasource.measure import (
    Columns,
    Scene,
    fit_all_trails,
    forced_columns,
    moment_columns,
    point_columns,
    science_columns,
    start_points,
    trail_columns,
)
from pipeline.diasource.planes import Planes
from pipeline.diasource.positions import forced_errors, sky_errors, trail_positions
from pipeline.diasource.reliability import FEATURES, model
from pipeline.diasource.rows import (
    Targets,
    footprint_columns,
    footprint_pixels,
    identity_columns,
    ledger,
)
from pipeline.diasource.select import Peaks, judge, sky_places
from pipeline.diasource.trails import Trails, find_trails
from pipeline.errors import MeasurementError
from pipeline.exposure import Difference, Exposure, FloatArray, Image, Mask, Psf
from pipeline.masks import bits
from pipeline.psfphot import ForcedFlux, SplinePsf, fwhm
from pipeline.schema import DIA_SOURCE

__all__ = ["Result", "run"]

_LOGGER = logging.getLogger(__name__)

_SAME = 2.0
"""Distance, in pixels, up to which peaks of two scores are the same."""

_SHAPE = list(FEATURES).index("correlation")  # undefined where too few pixels are usable
_LINE = list(FEATURES).index("lineBoth")

_STREAK = 8.0
"""Light on a straight line through a source, in σ, from which on it belongs to a trail: chance and
the stars of a rich field stay below."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Sources of one difference image.

    Attributes
    ----------
    sources : pyarrow.Table
        Rows of `pipeline.schema.DIA_SOURCE`: detections by falling |score| (parents before their
        children), then sub-threshold peaks, then sky sources.
    candidates : pyarrow.Table
        Rows of `pipeline.schema.CANDIDATE`: every peak and the rule that stopped it.
    mask : ndarray, (ny, nx)
        Mask of the difference with DETECTED and DETECTED_NEGATIVE set.
    excluded : numpy.uint32
        Bits of the planes that kept pixels from detection, see `Difference.excluded`.
    metrics : mapping
        Numbers by name.
    features : ndarray, (n, len(FEATURES))
        What the classifier saw of each row, in the order of `reliability.FEATURES`.
    """

    sources: pa.Table
    candidates: pa.Table
    mask: Mask
    excluded: np.uint32
    metrics: Mapping[str, float]
    features: FloatArray


def run(
    difference: Difference,
    science: Exposure,
    template: Exposure,
    config: Config | None = None,
    *,
    near: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] | None = None,
    now_mjd_tai: float = 0.0,
    passbands: Passbands | None = None,
    colours: Colours | None = None,
) -> Result:
    """Detect, measure and classify the sources of a difference image.

    Parameters
    ----------
    difference : Difference
        Difference, score and source-free variance.
    science : Exposure
        The visit image.
    template : Exposure
        The template on the pixels of the visit image.
    config : Config, optional
        Configuration.
    near : mapping of str to (ra, dec), deg, optional
        Places near which sub-threshold peaks are kept, by the name of their list: ``object``,
        ``ephemeris``, ``user``.
    now_mjd_tai : float, d
        Written as the time of processing.
    passbands : Passbands, optional
        Of the camera, for the refraction; by default those of the generic one.
    colours : Colours, optional
        Stars of known colour, for what refraction leaves of them.

    Returns
    -------
    Result
        Sources, ledger of candidates, mask and metrics.

    Raises
    ------
    MeasurementError
        If the difference has no finite PSF, no WCS, or no usable score anywhere.
    """
    config = config or Config()
    exposure = difference.exposure
    stars, wcs, middle = _required(difference)
    score = np.ascontiguousarray(difference.score, np.float32)
    x, y = _peaks(difference, score, config)
    footprints = flood(score, x, y, config.threshold)
    peaks = Peaks.of(score, x, y)
    judge(peaks, footprints, exposure.mask, config)
    psf = SplinePsf.of(stars)
    width = float(fwhm(middle))
    planes = Planes.of(
        exposure.image, exposure.variance, difference.null_variance, exposure.mask,
        bits(*config.unusable),
    )  # fmt: skip
    trails = find_trails(planes, psf, peaks, footprints, width, config.fit_radius)
    streaks = find_streaks(footprints, score.shape[1])
    streaks[trails.footprint] = False
    streaks = along_streaks(footprints, streaks, score.shape[1])
    empty = _empty_places(difference, config)
    targets = Targets.choose(difference, peaks, footprints, near or {}, empty, config)
    columns, targets, features = _measure(
        difference, science, template, planes, targets, peaks, footprints, trails, config
    )
    columns |= _causes(difference, columns, colours, config)
    passbands = passbands or Camera.load("generic").passbands
    scale = Frame.at(wcs, columns["x"], columns["y"]).scale
    columns |= sky_errors(columns, exposure.info, scale, config, passbands)
    on_line = features[:, _LINE] > _STREAK
    columns |= _satellites(targets, streaks, on_line, columns, score.shape)
    streaks[targets.footprint[columns["isStreak"]]] = True
    mask = _detected(exposure.mask, score, footprints, streaks)
    columns |= footprint_columns(mask, targets, footprints, columns)
    columns |= identity_columns(difference, template, targets, peaks, now_mjd_tai)
    _stop_unreliable(peaks, targets, columns["reliability"], config.reliability_cut)
    metrics = _metrics(peaks, columns, targets)
    metrics |= _sky_pulls(planes, psf, empty) | _noise_peaks(difference, peaks, config)
    _log(metrics)
    return Result(
        sources=DIA_SOURCE.to_arrow(columns) if len(targets.at) else DIA_SOURCE.empty(),
        candidates=ledger(peaks, exposure.info.visit, exposure.info.detector),
        mask=mask,
        excluded=_excluded(difference, config),
        metrics=metrics,
        features=features,
    )


def _required(difference: Difference) -> tuple[Psf, WCS, FloatArray]:
    """PSF, WCS and the PSF in the middle of a difference that can be measured."""
    exposure = difference.exposure
    if exposure.psf is None or exposure.wcs is None:
        raise MeasurementError("difference without PSF or WCS", visit=exposure.info.visit)
    middle = exposure.psf.at(exposure.shape[1] / 2, exposure.shape[0] / 2)
    if not np.isfinite(middle).all():
        raise MeasurementError("PSF that is not finite", visit=exposure.info.visit)
    if not np.isfinite(difference.score).any():
        raise MeasurementError("score image without a usable pixel", visit=exposure.info.visit)
    return exposure.psf, exposure.wcs, middle


def _stop_unreliable(
    peaks: Peaks, targets: Targets, reliability: npt.NDArray[Any], cut: float
) -> None:
    """Note in the ledger which sources the reliability keeps from alerts."""
    low = np.flatnonzero((targets.peak >= 0) & (reliability < cut))
    peaks.stop(targets.peak[low], "reliability", reliability[low], cut)


def _log(metrics: Mapping[str, Any]) -> None:
    _LOGGER.info(
        "%d candidates: %d sources (%d negative), %d dipoles, %d trailed, %d on streaks,"
        " %d below the reliability cut",
        *(metrics[n] for n in ("nCandidates", "nSources", "nNegative", "nDipoles", "nTrailed",
                               "nStreaks", "nUnreliable")),
    )  # fmt: skip


def _peaks(difference: Difference, score: Image, config: Config) -> tuple[Ints, Ints]:
    """Peaks of the ledger; at the end those above the threshold but for what stars leave."""
    x, y = find_peaks(score, config.ledger)
    if difference.noise_scale is None:
        return x, y
    u, v = find_peaks(score * difference.noise_scale, config.threshold)
    distance, _ = cKDTree(np.column_stack([x, y])).query(np.column_stack([u, v]))
    hidden = np.asarray(distance) > _SAME
    return np.append(x, u[hidden]), np.append(y, v[hidden])


def _excluded(difference: Difference, config: Config) -> np.uint32:
    """Planes left out of the score or vetoed.

    STREAK only if an image brought it along: detection sets it on the trails that it found.
    """
    planes = difference.excluded | bits(*config.veto)
    found_here = not difference.exposure.has("STREAK").any()
    return np.uint32(planes & ~bits("STREAK") if found_here else planes)


def _detected(
    mask: Mask, score: Image, footprints: Footprints, streaks: npt.NDArray[np.bool_]
) -> Mask:
    """Set the detection planes afresh, and STREAK where a footprint is one."""
    out: Mask = mask & ~bits("DETECTED", "DETECTED_NEGATIVE")
    values = score.ravel()[footprints.pixels]
    flat = out.reshape(-1)
    flat[footprints.pixels[values > 0]] |= bits("DETECTED")
    flat[footprints.pixels[values < 0]] |= bits("DETECTED_NEGATIVE")
    for k in np.flatnonzero(streaks):
        flat[footprints.of(int(k))] |= bits("STREAK")
    return out


def _measure(
    difference: Difference,
    science: Exposure,
    template: Exposure,
    planes: Planes,
    targets: Targets,
    peaks: Peaks,
    footprints: Footprints,
    trails: Trails,
    config: Config,
) -> tuple[Columns, Targets, FloatArray]:
    """Measure the targets; those that turn out not to be sources are dropped on the way."""
    exposure = difference.exposure
    assert exposure.psf is not None
    assert exposure.wcs is not None
    psf = SplinePsf.of(exposure.psf)
    width = float(fwhm(exposure.psf.at(exposure.shape[1] / 2, exposure.shape[0] / 2)))
    points, apart, forced = _start(planes, psf, targets, width, config)
    score = np.ascontiguousarray(difference.score, np.float32)
    whole = targets
    targets = split_doubles(planes, psf, score, whole, points, peaks, width, config.threshold)
    if targets is not whole:
        points, apart, forced = _start(planes, psf, targets, width, config)
    apart_by = config.distinct * width
    while not (keep := targets.distinct(peaks, apart_by, points.theta[:, 1:])).all():
        targets = targets.take(keep)  # those that stay move, and may run together in their turn
        points, apart, forced = _start(planes, psf, targets, width, config)
    keep = targets.usable(points.good, peaks, config)
    targets, points, forced = targets.take(keep), points.take(keep), forced.take(keep)
    partner = find_partners(targets, peaks, width, config)
    frame = Frame.at(exposure.wcs, points.theta[:, 1], points.theta[:, 2])
    room = square_sides(exposure.shape, footprint_pixels(exposure.shape, targets, footprints))
    scene = Scene(
        planes, apart, psf, width, points, targets.parent >= 0, room.astype(float), frame, config
    )
    dipoles = fit_pairs(scene, targets, peaks, partner, science, template)
    lobes = weaker_lobes(dipoles, targets, peaks, partner)
    keep = ~lobes
    scene, targets, forced = scene.take(keep), targets.take(keep), forced.take(keep)
    moments = moment_columns(scene)
    columns = point_columns(scene, forced) | moments
    columns |= forced_columns(scene, science, template) | science_columns(scene, science)
    fits = fit_all_trails(scene, moments, targets.selection == 0, trails, targets.peak)
    columns |= trail_columns(scene, fits, targets.selection == 0)
    columns |= {name: values[keep] for name, values in dipoles.items()}
    columns["shape_flag_parent_source"] = targets.is_parent
    features = feature_table(scene, score, science, template, targets, peaks, columns)
    del columns["trailGain"]
    share = flux_share(
        planes, psf, template, difference.kernel.fitted_stamps[:, :2], config.residual
    )
    columns |= forced_errors(columns, width)
    left = share * np.nan_to_num(columns["templateFlux"])
    for name in ("psfFluxErr", "trailFluxErr"):
        columns[name] = np.hypot(columns[name], left)
    columns |= trail_positions(columns, exposure.wcs, fits, width)
    columns |= _reliability(features, width, config)
    keep = targets.distinct(peaks, apart_by, *_places(columns, exposure.wcs))
    return {k: v[keep] for k, v in columns.items()}, targets.take(keep), features[keep]


def _places(columns: Columns, wcs: WCS) -> tuple[FloatArray, FloatArray]:
    """Centroids and, where there are any, centres of dipoles, ``(n, 2)`` each, pixel."""
    at = np.column_stack([columns["x"], columns["y"]]).astype(float)
    centre = np.full(at.shape, np.nan)
    rows = np.flatnonzero(columns["isDipole"])
    sky = columns["dipoleRa"][rows], columns["dipoleDec"][rows]
    centre[rows] = np.column_stack(wcs.all_world2pix(*sky, 0, quiet=True))
    return at, centre


def _causes(
    difference: Difference, columns: Columns, colours: Colours | None, config: Config
) -> Columns:
    """Shifts expected of what a dipole was fitted to; missing elsewhere."""
    wcs, rows = difference.exposure.wcs, np.flatnonzero(columns["dipoleFitAttempted"])
    assert wcs is not None
    place = {k: columns[f"dipole{k.capitalize()}"][rows] for k in ("ra", "dec")}
    place = {k: np.where(np.isfinite(v), v, columns[k][rows]) for k, v in place.items()}
    at = np.column_stack(wcs.all_world2pix(place["ra"], place["dec"], 0, quiet=True))
    shifts = expected_shifts(at, wcs, difference.star_shifts, colours, config.registration)
    return {name: spread(values, rows, len(columns["x"])) for name, values in shifts.items()}


def _reliability(features: FloatArray, width: float, config: Config) -> Columns:
    """Reliability with its flags; none where the classifier has nothing to go by."""
    n = len(features)
    if not config.classify:
        return {"reliability": np.full(n, np.nan), "reliability_flag": np.ones(n, bool)}
    blind = ~np.isfinite(features[:, _SHAPE])
    outside = np.full(n, not model().covers(width))
    unknown = blind | outside
    return {
        "reliability": np.where(unknown, np.nan, model().predict(features)),
        "reliability_flag": unknown,
        "reliability_flag_domain": outside,
        "reliability_flag_noPixels": blind,
        "reliabilityVersion": np.full(n, model().version),
    }


def _start(
    planes: Planes, psf: SplinePsf, targets: Targets, width: float, config: Config
) -> tuple[Fits, Planes, ForcedFlux]:
    """Fit point sources at the targets; those split from a blend around each other."""
    children = np.flatnonzero(targets.parent >= 0)
    return start_points(planes, psf, targets.at, children, targets.is_sky, width, config)


def _satellites(
    targets: Targets,
    streaks: npt.NDArray[np.bool_],
    on_line: npt.NDArray[np.bool_],
    columns: Columns,
    shape: tuple[int, ...],
) -> Columns:
    """Flag fragments of trails and glints: on a line, those that are long themselves and others."""
    on_streak = np.append(streaks, False)[targets.footprint] | (on_line & (targets.selection == 0))
    single = (targets.selection == 0) & ~targets.is_parent & ~columns["isDipole"] & ~on_streak
    index = np.flatnonzero(single)
    in_row = np.zeros(len(targets.at), bool)
    in_row[index] = find_glints(targets.at[index], (shape[0], shape[1]))
    on_streak |= in_row & columns["isTrailed"]
    glint = in_row & ~on_streak
    return {"isStreak": on_streak, "isGlint": glint, "glint_trail": glint}


def _metrics(peaks: Peaks, columns: Columns, targets: Targets) -> dict[str, float]:
    detected = targets.selection == 0
    numbers: dict[str, Any] = {
        "nCandidates": len(peaks.x),
        "nSources": np.count_nonzero(detected & ~targets.is_parent),
        "nNegative": np.count_nonzero(detected & ~targets.is_parent & (targets.score < 0)),
        "nParents": np.count_nonzero(targets.is_parent),
        "nDipoles": np.count_nonzero(columns["isDipole"]),
        "nTrailed": np.count_nonzero(columns["isTrailed"] & detected),
        "nStreaks": np.count_nonzero(columns["isStreak"]),
        "nGlints": np.count_nonzero(columns["isGlint"]),
        "nSubThreshold": np.count_nonzero(~detected),
        "nUnreliable": np.count_nonzero(peaks.rule == "reliability"),
    }
    return {name: float(value) for name, value in numbers.items()}


def _empty_places(difference: Difference, config: Config) -> FloatArray:
    exposure = difference.exposure
    unusable = bits(*config.unusable) | bits(*config.veto)
    seed = ids.pack(exposure.info.visit, exposure.info.detector)
    return sky_places(difference.score, exposure.mask, unusable, config.sky_sources, seed)


def _sky_pulls(planes: Planes, psf: SplinePsf, at: FloatArray) -> dict[str, float]:
    """Mean and scatter of the fluxes of empty places over their errors."""
    if not len(at):
        return {"skyPullMean": np.nan, "skyPullStd": np.nan}
    got = planes.forced_flux(psf, at)
    pull = got.flux / got.flux_err
    return {"skyPullMean": float(np.nanmean(pull)), "skyPullStd": float(np.nanstd(pull))}


def _noise_peaks(difference: Difference, peaks: Peaks, config: Config) -> dict[str, float]:
    """Peaks that noise alone leaves above the threshold, and those just below it, also seen."""
    psf, (ny, nx) = difference.exposure.psf, difference.exposure.shape
    assert psf is not None
    usable = np.isfinite(difference.score) & ((difference.exposure.mask & bits(*config.veto)) == 0)
    above, faint = (
        expected_peaks(psf.at(nx / 2, ny / 2), float(np.count_nonzero(usable)), bound)
        for bound in (config.threshold, config.sub_threshold)
    )
    seen = (np.abs(peaks.score) > config.sub_threshold) & (peaks.rule == "threshold")
    return {
        "nNoiseExpected": above,
        "nFaintPeaksExpected": faint - above,
        "nFaintPeaks": float(np.count_nonzero(seen)),
    }
