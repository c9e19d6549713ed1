"""What the rows of all products have in common."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.campaign.task import WorkItem
from harness.ledger import Outcome
from pipeline.depth import depth, grid_stamps, sky_variance
from pipeline.exposure import NJY_ZERO_POINT, Exposure, Image
from pipeline.schema import Table

__all__ = ["Row", "complete", "file", "identity", "metrics", "per_electron", "sky"]

Row = dict[str, Any]

_NOT_A_METRIC = frozenset(
    f"{corner}{axis}" for corner in ("", "llc", "ulc", "urc", "lrc") for axis in ("ra", "dec")
) | {"visit", "detector", "xSize", "ySize", "midpointMjdTai", "exposureTime", "airmass"}


def complete(table: Table, row: Row, numbers: Mapping[str, object]) -> Row:
    """Put numbers that are columns into the row, the others into its column ``metrics``.

    Parameters
    ----------
    table : Table
        Where the row goes.
    row : dict
        Its values so far.
    numbers : mapping
        Further numbers by name.

    Returns
    -------
    dict
        The row with all of them.
    """
    clean = {k: _number(v) for k, v in numbers.items()}
    row = {k: v for k, v in row.items() if k in table}
    row |= {k: v for k, v in clean.items() if k in table and v is not None}
    further = {k: v for k, v in clean.items() if k not in table}
    return {**row, "metrics": json.dumps(further, sort_keys=True)} if further else row


def metrics(item: WorkItem, **stages: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Rows of ``metric``: the numbers of each stage, without coordinates and identity.

    Parameters
    ----------
    item : WorkItem
        What they were measured on.
    **stages : mapping
        Numbers by name, for each stage.

    Returns
    -------
    list of mapping
        One row per number.
    """
    where = {**item.target.where, "runId": item.cards.get("RUNID")}
    return [
        {**where, "stage": stage, "name": name, "value": value}
        for stage, numbers in stages.items()
        for name, value in ((k, _number(v)) for k, v in numbers.items())
        if isinstance(value, float | int) and name not in _NOT_A_METRIC
    ]


def _number(value: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def identity(image: Exposure) -> Row:
    """Visit, detector, band and field of an image.

    Parameters
    ----------
    image : Exposure
        Any image.

    Returns
    -------
    dict
        Columns of the row.
    """
    info = image.info
    return {
        "visit": info.visit,
        "detector": info.detector,
        "band": info.band,
        "field": info.field,
    }


def file(item: WorkItem, outcome: Outcome) -> Row:
    """Name the file written last, and what made it.

    Parameters
    ----------
    item : WorkItem
        What is being done.
    outcome : Outcome
        Knows what was written.

    Returns
    -------
    dict
        Path, hash and provenance, by column.
    """
    path, sha256 = list(outcome.files.items())[-1]
    return {
        "file": item.output.relative(Path(path)),
        "sha256": sha256,
        "stageVersion": item.keys[-1].version,
        "configHash": "+".join(key.config_hash for key in item.keys),
        "softwareVersion": item.cards.get("SOFTVER"),
        "runId": item.cards.get("RUNID"),
    }


def per_electron(image: Exposure) -> float:
    """Image units per electron; 0, which leaves photon noise out, where that is unknown.

    Parameters
    ----------
    image : Exposure
        Any image.

    Returns
    -------
    float, image unit / electron
        The inverse of the gain.
    """
    return 0.0 if image.photo_calib is None else image.photo_calib.njy_per_electron


def sky(image: Exposure, source_free: Image, photons: float) -> Row:
    """Corners, scale, PSF width, noise and depth of an image, see `pipeline.depth`.

    Parameters
    ----------
    image : Exposure
        The product.
    source_free : ndarray, (ny, nx)
        Variance of its source-free model.
    photons : float
        Variance of a source's own photons per unit of its flux.

    Returns
    -------
    dict
        Columns of the row; degrees, arcsec, nJy and mag.
    """
    from pipeline.psfphot import middle_fwhm  # who plans needs none of it
    from pipeline.wcs import pixel_scale

    ny, nx = image.shape
    variance = sky_variance(source_free)
    row: Row = {"xSize": nx, "ySize": ny, "unit": image.unit, "skyNoise": math.sqrt(variance)}
    if image.wcs is not None:
        x = [(nx - 1) / 2, 0, 0, nx - 1, nx - 1]
        y = [(ny - 1) / 2, 0, ny - 1, ny - 1, 0]
        ra, dec = image.wcs.all_pix2world(x, y, 0)
        for prefix, a, d in zip(("", "llc", "ulc", "urc", "lrc"), ra, dec, strict=True):
            row |= {f"{prefix}ra": float(a), f"{prefix}dec": float(d)}
        row["pixelScale"] = 3600.0 * pixel_scale(image.wcs)
    if image.psf is not None:
        row["psfFwhm"] = middle_fwhm(image.psf, image.shape) * row.get("pixelScale", math.nan)
        if image.unit == "nJy":
            stamps = grid_stamps(image.psf, image.shape)  # of unit flux, whatever their sums
            area = float(np.median(1.0 / (stamps**2).sum(axis=(-2, -1))))
            row["depth5"] = depth(NJY_ZERO_POINT, area, variance, per_electron=photons)
    return row
