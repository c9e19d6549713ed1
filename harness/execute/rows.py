"""Rows of the product tables, made from what the stages return."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from harness.ledger import Outcome
from pipeline.exposure import NJY_ZERO_POINT, Difference, Exposure, bits
from pipeline.schema import DIFFERENCE_IMAGE, TEMPLATE, VISIT_IMAGE, Table

if TYPE_CHECKING:
    from harness.execute.orders import DifferenceOrder, Order, TemplateOrder, VisitImageOrder

__all__ = ["difference", "template", "visit_image"]

Row = dict[str, Any]
Rows = dict[str, list[Mapping[str, Any]]]

_UNUSABLE = bits("BAD", "SAT", "NO_DATA", "UNMASKEDNAN", "EDGE", "UNLISTED")


def visit_image(
    order: VisitImageOrder,
    image: Exposure,
    summary: Mapping[str, Any],
    notes: Sequence[str],
    outcome: Outcome,
) -> Rows:
    """Row of ``visit_image`` and its metrics."""
    calib = image.photo_calib
    row: Row = {
        "visitImageId": f"{order.visit}_{order.detector:02d}",
        **_identity(image),
        "midpointMjdTai": image.info.midpoint_mjd_tai,
        "exposureTime": image.info.exptime,
        "airmass": image.info.airmass,
        **_sky(image),
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
    return _split(VISIT_IMAGE, row, summary, order, "calibrate")


def template(
    order: TemplateOrder,
    image: Exposure,
    inputs: pa.Table,
    notes: Sequence[str],
    outcome: Outcome,
) -> Rows:
    """Row of ``template``, the rows of its inputs and its metrics."""
    name = order.template_id or ""
    times = [t for t in inputs.to_pydict().get("midpointMjdTai", []) if t is not None]
    row: Row = {
        "templateId": name,
        "field": order.field_name,
        "band": order.band,
        "detector": order.detector,
        "nInputs": inputs.num_rows,
        "firstMjdTai": min(times, default=None),
        "lastMjdTai": max(times, default=None),
        "fractionNoData": float(np.mean(image.has("NO_DATA"))),
        **_sky(image),
        **_file(order, outcome),
        "notes": "; ".join(notes) or None,
    }
    hashes = {(i.visit, i.detector): i.sha256 for i in order.inputs}
    members: list[Mapping[str, Any]] = [
        {
            **member,
            "templateId": name,
            "visitImageId": f"{member['visit']}_{member['detector']:02d}",
            "sha256": hashes[member["visit"], member["detector"]],
        }
        for member in inputs.to_pylist()
    ]
    return {**_split(TEMPLATE, row, {}, order, "template"), "template_input": members}


def difference(
    order: DifferenceOrder,
    result: Difference,
    metrics: Mapping[str, Any],
    outcome: Outcome,
) -> Rows:
    """Row of ``difference_image`` and its metrics."""
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
        "skyNoise": _noise(image),
        "fractionMasked": float(np.mean((image.mask & _UNUSABLE) != 0)),
        **_kernel_sum(result),
        **{k: v for k, v in _sky(image).items() if k in ("psfFwhm", "depth5")},
        **_file(order, outcome),
    }
    return _split(DIFFERENCE_IMAGE, row, {**result.metrics, **metrics}, order, "subtract")


def _split(
    table: Table, row: Row, numbers: Mapping[str, Any], order: Order, stage: str
) -> Rows:
    """Put numbers that are columns into the row, and all of them among the metrics."""
    clean = {k: _number(v) for k, v in numbers.items()}
    row = {**row, **{k: v for k, v in clean.items() if k in table and v is not None}}
    further = {k: v for k, v in clean.items() if k not in table}
    if further:
        row["metrics"] = json.dumps(further, sort_keys=True)
    measured: list[Mapping[str, Any]] = [
        {
            "visit": order.visit,
            "detector": order.detector,
            "stage": stage,
            "name": name,
            "value": value,
            "runId": order.cards.get("RUNID"),
        }
        for name, value in clean.items()
        if isinstance(value, float | int)
    ]
    return {table.name: [row], "metric": measured}


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
        "file": order.space.relative(order.space.root / path),
        "sha256": sha256,
        "stageVersion": order.keys[-1].version,
        "configHash": "+".join(key.config_hash for key in order.keys),
        "softwareVersion": order.cards.get("SOFTVER"),
        "runId": order.cards.get("RUNID"),
    }


def _sky(image: Exposure) -> Row:
    """Corners, scale, PSF width and depth."""
    ny, nx = image.shape
    row: Row = {"xSize": nx, "ySize": ny, "unit": image.unit}
    scale = math.nan
    if image.wcs is not None:
        x = [(nx - 1) / 2, 0, 0, nx - 1, nx - 1]
        y = [(ny - 1) / 2, 0, ny - 1, ny - 1, 0]
        ra, dec = image.wcs.all_pix2world(x, y, 0)
        for prefix, a, d in zip(("", "llc", "ulc", "urc", "lrc"), ra, dec, strict=True):
            row |= {f"{prefix}ra": float(a), f"{prefix}dec": float(d)}
        scale = _pixel_scale(image, x[0], y[0])
        row["pixelScale"] = scale
    if image.psf is not None:
        stamp = image.psf.at((nx - 1) / 2, (ny - 1) / 2)
        row["psfFwhm"] = _fwhm(stamp) * scale
        noise = _noise(image)
        row["skyNoise"] = noise
        limit = 5.0 * noise / math.sqrt(float(np.sum(stamp**2)))
        if image.unit == "nJy" and limit > 0:
            row["depth5"] = NJY_ZERO_POINT - 2.5 * math.log10(limit)
    return {k: v for k, v in row.items() if k in VISIT_IMAGE}


def _pixel_scale(image: Exposure, x: float, y: float) -> float:
    from astropy.wcs.utils import proj_plane_pixel_scales

    del x, y
    return float(np.sqrt(np.prod(proj_plane_pixel_scales(image.wcs)))) * 3600.0


def _fwhm(stamp: Any) -> float:
    """Width at half maximum in pixels of a circle with the area above half of the peak."""
    return 2.0 * math.sqrt(float(np.sum(stamp >= 0.5 * stamp.max())) / math.pi)


def _noise(image: Exposure) -> float:
    """Robust scatter of the usable pixels (normalised interquartile range)."""
    values = image.image[((image.mask & _UNUSABLE) == 0) & np.isfinite(image.image)]
    if not values.size:
        return math.nan
    low, high = np.percentile(values, [25.0, 75.0])
    return float((high - low) / 1.3489795)


def _kernel_sum(result: Difference) -> Row:
    ny, nx = result.exposure.shape
    x, y = np.meshgrid(np.linspace(0, nx - 1, 8), np.linspace(0, ny - 1, 8))
    sums = result.kernel.sum_at(x.ravel(), y.ravel())
    middle = float(result.kernel.sum_at([(nx - 1) / 2], [(ny - 1) / 2])[0])
    return {"kernelSum": middle, "kernelSumRms": float(np.std(sums))}


def _join(words: Iterable[str]) -> str | None:
    return "; ".join(words) or None
