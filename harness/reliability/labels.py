"""Labels of the detections on an image with injected sources: real, bogus or unclear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.spatial import cKDTree

from harness.study.matching import Truth, match
from harness.verify.metrics.transients import (
    NEAR,
    constant_sources,
    true_differences,
    uncertain_places,
)
from harness.verify.view import View
from pipeline.exposure import FloatArray
from pipeline.masks import bits
from pipeline.psfphot import middle_fwhm
from pipeline.schema import INJECTION, to_numpy

__all__ = ["BOGUS", "REAL", "UNCLEAR", "label"]

REAL, BOGUS, UNCLEAR = 1, 0, -1

_RADIUS = 0.6
"""Farthest detection that is a source's own, in FWHM."""
_FAINT = 1.0
"""Signal to noise below which a true change leaves nothing to detect."""
_CLEAR = 3.0
"""Signal to noise from which on a detection at the place of a change is due to it."""
_CAUSE = 3.0
"""Pixels within which an artefact is the cause of a detection."""
_STAR_REACH = 1.5
"""FWHM within which a constant star is the cause, and the noise-free signal it needs for that."""
_STAR_SNR = 30.0
_ARTEFACTS = {
    "cosmic ray": ("CR",),
    "bleed": ("BLEED", "EDGEBLEED"),
    "saturation": ("SATURATED",),
    "satellite": ("SATELLITE",),
    "crosstalk": ("CROSSTALK",),
    "defect": ("HOT", "DEAD", "UNLISTED", "DEFECT"),
}


@dataclass(frozen=True, slots=True)
class _Known:
    """Places of an image with what is there."""

    truth: Truth
    kind: list[str]
    snr: FloatArray
    clear: npt.NDArray[np.bool_]


def label(view: View, detections: pa.Table, injections: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Tell what every detection of a painted image is.

    Parameters
    ----------
    view : View
        The image before it was painted, with its truth.
    detections : pyarrow.Table
        Rows of `harness.study.tables.DETECTION` of one painting.
    injections : pyarrow.Table
        Rows of `pipeline.schema.INJECTION` of the same image.

    Returns
    -------
    dict of ndarray, (n,)
        ``label`` (1 real, 0 bogus, -1 unclear), ``kind`` (class of the source or cause of the
        artefact) and ``trueSnr`` (signed, NaN where nothing is known).
    """
    places = np.column_stack([to_numpy(detections, "x"), to_numpy(detections, "y")])
    n = len(places)
    labels, snr = np.full(n, BOGUS), np.full(n, np.nan)
    kind = np.full(n, "noise", dtype=object)
    exposure = view.difference.exposure
    width = middle_fwhm(exposure.psf, exposure.shape)
    causes = _causes(view, places, width)
    kind[:] = causes
    placed = injections.filter(pa.array(to_numpy(injections, "placed")))
    for known in (_changes(view), _injected(placed, view)):
        _compare(known, detections, places, width, labels, kind, snr)
    _own(placed, detections, labels, kind, snr)
    spots = uncertain_places(view)
    if len(spots) and n:
        near = cKDTree(spots).query(places)[0] < NEAR * width
        labels[near & (labels == BOGUS)] = UNCLEAR
    kind[labels == UNCLEAR] = "unclear"
    return {"label": labels, "kind": kind, "trueSnr": snr}


def _changes(view: View) -> _Known:
    """Everything whose flux differs from that in the template."""
    rows = true_differences(view, faded=True, faintest=_FAINT)
    table = INJECTION.to_arrow(
        {
            "injectionId": np.arange(len(rows)),
            **{k: [r[k] for r in rows] for k in ("x", "y", "ra", "dec", "flux", "kind", "trueSnr")},
            "trailLength": [r["trailLength"] * view.camera.pixel_scale for r in rows],
            "trailAngle": _bearings(view, [r["truthId"] for r in rows]),
            "placed": np.ones(len(rows), bool),
        },
        studyId="truth", visit=view.visit, detector=view.number, seed=0,
    )  # fmt: skip
    clear = np.array([not r["masked"] and abs(r["trueSnr"]) >= _CLEAR for r in rows], bool)
    return _known(table, view, clear)


def _bearings(view: View, ids: list[int]) -> list[float]:
    truth = view.truth
    of = dict(zip(truth["truthId"].tolist(), truth["trailAngle"].tolist(), strict=True))
    return [float(of[i] or 0.0) for i in ids]


def _injected(placed: pa.Table, view: View) -> _Known:
    """Everything that was painted; what is their own is known already, the rest is unclear."""
    return _known(placed, view, np.zeros(placed.num_rows, bool))


def _known(table: pa.Table, view: View, clear: npt.NDArray[np.bool_]) -> _Known:
    truth = Truth.of(table, view.difference.exposure.wcs)
    return _Known(truth, table["kind"].to_pylist(), to_numpy(table, "trueSnr"), clear)


def _compare(
    known: _Known,
    detections: pa.Table,
    places: FloatArray,
    width: float,
    labels: npt.NDArray[Any],
    kind: npt.NDArray[Any],
    snr: FloatArray,
) -> None:
    """Call detections near something known unclear, and its own one real."""
    for k in range(len(known.kind)):
        labels[(known.truth.distance(k, places) < NEAR * width) & (labels == BOGUS)] = UNCLEAR
    sign = np.sign(to_numpy(detections, "snr"))
    index = match(known.truth, places, sign, _RADIUS * width)
    for k in np.flatnonzero(known.clear & (index >= 0)).tolist():
        labels[index[k]], kind[index[k]] = REAL, known.kind[k]
        snr[index[k]] = known.snr[k]


def _own(
    placed: pa.Table,
    detections: pa.Table,
    labels: npt.NDArray[Any],
    kind: npt.NDArray[Any],
    snr: FloatArray,
) -> None:
    """Call the detections real that the study has matched to an injection."""
    owner = to_numpy(detections, "injectionId")
    rows = {int(i): k for k, i in enumerate(to_numpy(placed, "injectionId").tolist())}
    kinds, snrs = placed["kind"].to_pylist(), to_numpy(placed, "trueSnr")
    hosted = np.isfinite(to_numpy(placed, "hostOffset"))
    for k in np.flatnonzero(owner >= 0):
        row = rows[int(owner[k])]
        labels[k], snr[k] = REAL, snrs[row]
        kind[k] = f"injected {kinds[row]}" + (" on a galaxy" if hosted[row] else "")


def _causes(view: View, places: FloatArray, width: float) -> list[str]:
    """Name what else is at the places: an artefact, a constant source, or nothing."""
    mask, artefacts = view.difference.exposure.mask, view.artefacts
    stars, strengths = constant_sources(view)
    near = cKDTree(stars).query_ball_point(places, _STAR_REACH * width) if len(stars) else None
    out = []
    for k, (x, y) in enumerate(np.rint(places).astype(int)):
        r = int(_CAUSE)
        box = np.s_[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1]
        found = np.bitwise_or.reduce(artefacts.bits[box], axis=None)
        names = [n for n, planes in _ARTEFACTS.items() if _any(found, artefacts.planes, planes)]
        if near is not None and near[k] and max(strengths[near[k]]) > _STAR_SNR:
            names.append("star")
        if (mask[box] & bits("INEXACT_PSF")).any():
            names.append("rim")
        out.append((names or ["noise"])[0])
    return out


def _any(found: np.generic, planes: Mapping[str, int], names: tuple[str, ...]) -> bool:
    return any(int(found) & (1 << planes[n]) for n in names)
