"""Rows of the product tables, made from what the stages return."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.ledger import Outcome
from pipeline.exposure import NJY_ZERO_POINT, Difference, Exposure, bits
from pipeline.psfphot import fwhm
from pipeline.schema import DIFFERENCE_IMAGE, TEMPLATE, VISIT_IMAGE, Table
from pipeline.statistics import iqr_std
from pipeline.wcs import pixel_scale

if TYPE_CHECKING:
    from harness.execute.orders import DifferenceOrder, Order, TemplateOrder, VisitImageOrder

__all__ = ["difference", "template", "visit_image"]

Row = dict[str, Any]
Rows = dict[str, list[Mapping[str, Any]]]

_NOT_A_METRIC = frozenset(
    f"{corner}{axis}" for corner in ("", "llc", "ulc", "urc", "lrc") for axis in ("ra", "dec")
) | {"visit", "detector", "xSize", "ySize", "midpointMjdTai", "exposureTime", "airmass"}
_UNUSABLE = bits("BAD", "SAT", "NO_DATA", "UNMASKEDNAN", "EDGE", "UNLISTED")


def visit_image(
    order: VisitImageOrder,
    image: Exposure,
    detrending: Mapping[str, Any],
    summary: Mapping[str, Any],
    notes: Sequence[str],
    outcome: Outcome,
) -> Rows:
    """Row of ``visit_image`` and the metrics of both its stages."""
    calib = image.photo_calib
    row: Row = {
        "visitImageId": f"{order.visit}_{order.detector:02d}",
        **_identity(image),
        "midpointMjdTai": image.info.midpoint_mjd_tai,
        "exposureTime": image.info.exptime,
        "airmass": image.info.airmass,
        "unit": image.unit,
        **_file(order, outcome),
        "notes": "; ".join(notes) or None,
    }
    if calib is not None:
        row |= {
            "zeroPoint": calib.zero_point,
            "zeroPointErr": calib.zero_point_err,
            "zeroPointScatter": calib.scatter,
            "nZeroPointStars": calib.n_stars,
        }
    numbers = {**detrending, **{k: v for k, v in summary.items() if k != "notes"}}
    return {
        "visit_image": [_complete(VISIT_IMAGE, row, numbers)],
        "metric": _measured(order, isr=detrending, calibrate=summary),
    }


def template(
    order: TemplateOrder,
    image: Exposure,
    inputs: Sequence[Exposure],
    members: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    outcome: Outcome,
) -> Rows:
    """Row of ``template`` and the rows of the inputs that were used."""
    name = order.template_id or ""
    infos = {(e.info.visit, e.info.detector): e.info for e in inputs}
    hashes = {(i.visit, i.detector): i.sha256 for i in order.inputs}
    units = [(int(m["visit"]), int(m["detector"])) for m in members]
    times = [infos[unit].midpoint_mjd_tai for unit in units]
    row: Row = {
        "templateId": name,
        "field": order.field_name,
        "band": order.band,
        "detector": order.detector,
        "nInputs": len(members),
        "firstMjdTai": min(times),
        "lastMjdTai": max(times),
        "fractionNoData": float(np.mean(image.has("NO_DATA"))),
        "noiseCorrelation": _neighbour_correlation(image),
        **_sky(image),
        **_file(order, outcome),
        "notes": "; ".join(notes) or None,
    }
    used: list[Mapping[str, Any]] = [
        {
            "templateId": name,
            "visit": unit[0],
            "detector": unit[1],
            "visitImageId": f"{unit[0]}_{unit[1]:02d}",
            "weight": member["weight"],
            "psfFwhm": member["fwhm"],
            "midpointMjdTai": mjd,
            "fractionRejected": member["clippedFraction"],
            "sha256": hashes[unit],
        }
        for unit, member, mjd in zip(units, members, times, strict=True)
    ]
    return {"template": [_complete(TEMPLATE, row, {})], "template_input": used}


def _neighbour_correlation(image: Exposure) -> float | None:
    """Mean autocovariance at one pixel along a row over that at none."""
    cubes = image.noise_correlation
    if cubes is None:
        return None
    middle = cubes.shape[-1] // 2
    centre = cubes[..., middle, middle]
    return float(np.nanmean(cubes[..., middle, middle + 1] / np.where(centre > 0, centre, np.nan)))


def difference(
    order: DifferenceOrder,
    result: Difference,
    detection: Mapping[str, Any],
    outcome: Outcome,
) -> Rows:
    """Row of ``difference_image`` and the metrics of subtraction and detection."""
    image, kernel, name = result.exposure, result.kernel, f"{order.visit}_{order.detector:02d}"
    stamps = np.asarray(kernel.stamps, float).reshape(-1, 4)
    used = stamps[:, 3] > 0
    row: Row = {
        "differenceImageId": name,
        **_identity(image),
        "scienceImageId": name,
        "templateId": order.template_name,
        "kernelId": f"{name}:KERNEL",
        "psfId": f"{name}:PSF",
        "scienceSha256": order.science_sha256,
        "templateSha256": order.template_sha256,
        "unit": image.unit,
        "convolved": kernel.convolved,
        "kernelOrder": kernel.order,
        "kernelBasis": len(kernel.basis),
        "kernelCondition": kernel.condition,
        "nKernelStamps": int(used.sum()),
        "nKernelStampsRejected": int((~used).sum()),
        "kernelChi2": float(np.median(stamps[used, 2])) if used.any() else None,
        "fractionMasked": float(np.mean((image.mask & _UNUSABLE) != 0)),
        **_kernel_sum(result),
        **_sky(image),
        **_file(order, outcome),
    }
    numbers = {**result.metrics, **detection}
    row |= {
        "noiseRatio": numbers.get("pixelStd"),
        "lag1X": numbers.get("lag1X", numbers.get("lag1")),
        "lag1Y": numbers.get("lag1Y", numbers.get("lag1")),
        "nDiaSources": numbers.get("nSources"),
    }
    return {
        "difference_image": [_complete(DIFFERENCE_IMAGE, row, numbers)],
        "metric": _measured(order, subtract=result.metrics, diasource=detection),
    }


def _complete(table: Table, row: Row, numbers: Mapping[str, Any]) -> Row:
    """Put numbers that are columns into the row, the others into its column ``metrics``."""
    clean = {k: _number(v) for k, v in numbers.items()}
    row = {k: v for k, v in row.items() if k in table}
    row |= {k: v for k, v in clean.items() if k in table and v is not None}
    further = {k: v for k, v in clean.items() if k not in table}
    return {**row, "metrics": json.dumps(further, sort_keys=True)} if further else row


def _measured(order: Order, **stages: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows of ``metric``: the numbers of each stage, without coordinates and identity."""
    where = {"visit": order.visit, "detector": order.detector, "runId": order.cards.get("RUNID")}
    return [
        {**where, "stage": stage, "name": name, "value": value}
        for stage, numbers in stages.items()
        for name, value in ((k, _number(v)) for k, v in numbers.items())
        if isinstance(value, float | int) and name not in _NOT_A_METRIC
    ]


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _identity(image: Exposure) -> Row:
    info = image.info
    return {
        "visit": info.visit,
        "detector": info.detector,
        "band": info.band,
        "field": info.field,
    }


def _file(order: Order, outcome: Outcome) -> Row:
    path, sha256 = list(outcome.files.items())[-1]
    return {
        "file": order.space.relative(Path(path)),
        "sha256": sha256,
        "stageVersion": order.keys[-1].version,
        "configHash": "+".join(key.config_hash for key in order.keys),
        "softwareVersion": order.cards.get("SOFTVER"),
        "runId": order.cards.get("RUNID"),
    }


def _sky(image: Exposure) -> Row:
    """Corners, scale, PSF width, noise and depth of an image."""
    ny, nx = image.shape
    row: Row = {"xSize": nx, "ySize": ny, "unit": image.unit, "skyNoise": _noise(image)}
    if image.wcs is not None:
        x = [(nx - 1) / 2, 0, 0, nx - 1, nx - 1]
        y = [(ny - 1) / 2, 0, ny - 1, ny - 1, 0]
        ra, dec = image.wcs.all_pix2world(x, y, 0)
        for prefix, a, d in zip(("", "llc", "ulc", "urc", "lrc"), ra, dec, strict=True):
            row |= {f"{prefix}ra": float(a), f"{prefix}dec": float(d)}
        row["pixelScale"] = 3600.0 * pixel_scale(image.wcs)
    if image.psf is not None:
        stamp = image.psf.at((nx - 1) / 2, (ny - 1) / 2)
        row["psfFwhm"] = float(fwhm(stamp)) * row.get("pixelScale", math.nan)
        limit = 5.0 * row["skyNoise"] / math.sqrt(float(np.sum(stamp**2)))
        if image.unit == "nJy" and limit > 0:
            row["depth5"] = NJY_ZERO_POINT - 2.5 * math.log10(limit)
    return row


def _noise(image: Exposure) -> float:
    """Robust scatter of the usable pixels (normalised interquartile range)."""
    values = image.image[((image.mask & _UNUSABLE) == 0) & np.isfinite(image.image)]
    return iqr_std(values)


def _kernel_sum(result: Difference) -> Row:
    ny, nx = result.exposure.shape
    x, y = np.meshgrid(np.linspace(0, nx - 1, 8), np.linspace(0, ny - 1, 8))
    sums = result.kernel.sum_at(x.ravel(), y.ravel())
    middle = float(result.kernel.sum_at([(nx - 1) / 2], [(ny - 1) / 2])[0])
    return {"kernelSum": middle, "kernelSumRms": float(np.std(sums))}
