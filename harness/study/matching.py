"""Which detection belongs to which injection, and why the others were lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from pipeline.exposure import FloatArray
from pipeline.schema import to_numpy

__all__ = ["Truth", "chance_matches", "match", "reasons"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """True places of the injections of an image.

    Attributes
    ----------
    at : ndarray, (n, 2), pixel
        Middle of the source.
    trail : ndarray, (n, 2), pixel
        The way it moves during the exposure; zero for points.
    sign : ndarray, (n,)
        1 or -1 on the difference.
    """

    at: FloatArray
    trail: FloatArray
    sign: FloatArray

    @classmethod
    def of(cls, table: pa.Table, wcs: WCS | None) -> Truth:
        """Take ``x``, ``y``, ``ra``, ``dec``, ``flux``, ``trailLength`` and ``trailAngle``."""
        at = np.column_stack([to_numpy(table, "x"), to_numpy(table, "y")]).astype(float)
        trail = np.zeros_like(at)
        length = np.nan_to_num(to_numpy(table, "trailLength")) / 3600.0
        angle = np.radians(np.nan_to_num(to_numpy(table, "trailAngle")))
        moving = np.flatnonzero(length)
        if len(moving) and wcs is not None:
            ra, dec = (to_numpy(table, n)[moving] for n in ("ra", "dec"))
            east = length[moving] * np.sin(angle[moving]) / np.cos(np.radians(dec))
            north = length[moving] * np.cos(angle[moving])
            trail[moving] = np.column_stack(wcs.all_world2pix(ra + east, dec + north, 0))
            trail[moving] -= at[moving]
        return cls(at, trail, np.where(to_numpy(table, "flux") < 0, -1.0, 1.0))

    def distance(self, k: int, places: FloatArray) -> FloatArray:
        """Distance of places, (m, 2), from the line of source k, pixel."""
        offset, way = places - self.at[k], self.trail[k]
        length = float(way @ way)
        along = np.clip(offset @ way / length, -0.5, 0.5) if length > 0 else np.zeros(len(places))
        return np.asarray(np.hypot(*(offset - along[:, None] * way).T))

    def turned(self, shape: tuple[int, int]) -> Truth:
        """Turn the catalogue by half a turn about the middle of the image."""
        middle = np.array([shape[1] - 1.0, shape[0] - 1.0])
        return Truth(middle - self.at, self.trail, self.sign)


def match(truth: Truth, places: FloatArray, sign: FloatArray, radius: float) -> Ints:
    """Match detections to injections, the nearest pairs first, each to one at most.

    Parameters
    ----------
    truth : Truth
        The injections.
    places : ndarray, (m, 2), pixel
        Detections.
    sign : ndarray, (m,)
        Their signs; only those of the injection's own count.
    radius : float, pixel
        Farthest distance.

    Returns
    -------
    ndarray of int, (n,)
        Detection of every injection; -1 for none.
    """
    pairs = sorted(_pairs(truth, places, sign, radius))
    found, used = np.full(len(truth.at), -1, np.int64), set()
    for _, k, m in pairs:
        if found[k] < 0 and m not in used:
            found[k] = m
            used.add(m)
    return found


def chance_matches(
    truth: Truth,
    places: FloatArray,
    sign: FloatArray,
    owned: Ints,
    radius: float,
    shape: tuple[int, int],
) -> npt.NDArray[np.bool_]:
    """Match the injections turned by half a turn: whatever is found is found by chance.

    Detections that belong to an injection are left out: no other lies near enough to take them.

    Parameters
    ----------
    truth : Truth
        n injections.
    places : ndarray, (m, 2), pixel
        Positions of the detections.
    sign : ndarray, (m,)
        Signs of their fluxes.
    owned : ndarray of int
        Detections that belong to an injection; negative numbers are none.
    radius : float, pixel
        Largest distance of a match.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    ndarray of bool, (m,)
        Which detections are matched.
    """
    chance = np.zeros(len(places), bool)
    others = np.setdiff1d(np.arange(len(places)), owned)
    found = match(truth.turned(shape), places[others], sign[others], radius)
    chance[others[found[found >= 0]]] = True
    return chance


def _pairs(
    truth: Truth, places: FloatArray, sign: FloatArray, radius: float
) -> list[tuple[float, int, int]]:
    if not len(places) or not len(truth.at):
        return []
    reach = radius + 0.5 * np.hypot(*truth.trail.T)
    near = cKDTree(places).query_ball_point(truth.at, reach)
    out = []
    for k, index in enumerate(near):
        rows = np.array([m for m in sorted(index) if sign[m] == truth.sign[k]], int)
        distance = truth.distance(k, places[rows])
        out += [(float(d), k, int(m)) for d, m in zip(distance, rows, strict=True) if d <= radius]
    return out


def reasons(
    truth: Truth, candidates: pa.Table, lost: npt.NDArray[np.intp], radius: float, ledger: float
) -> list[Mapping[str, Any]]:
    """Say for lost injections which rule stopped their highest peak.

    Parameters
    ----------
    truth : Truth
        The injections.
    candidates : pyarrow.Table
        Rows of `pipeline.schema.CANDIDATE`.
    lost : ndarray of int, (k,)
        Injections without a detection of their own.
    radius : float, pixel
        How far from the injection its peak may be.
    ledger : float
        Least |score| of a peak in the ledger.

    Returns
    -------
    list of mapping
        ``rule``, ``value``, ``bound``, ``candidateId``.  A source without a peak is lost by the
        rule ``ledger``; one whose peak became a source that lies elsewhere by ``position``.
    """
    score = to_numpy(candidates, "snr")
    places = np.column_stack([to_numpy(candidates, "x"), to_numpy(candidates, "y")]).astype(float)
    rows = candidates.to_pylist()
    out: list[Mapping[str, Any]] = []
    near = _pairs(truth, places, np.sign(score), radius)
    best: dict[int, int] = {}
    for _, k, m in near:
        if k not in best or abs(score[m]) > abs(score[best[k]]):
            best[k] = m
    for k in lost.tolist():
        if k not in best:
            out.append({"rule": "ledger", "value": None, "bound": ledger, "candidateId": None})
            continue
        row = rows[best[k]]
        elsewhere = row["rule"] is None or row["rule"] == "reliability"
        distance = float(truth.distance(k, places[[best[k]]])[0])
        out.append(
            {
                "rule": "position" if elsewhere else row["rule"],
                "value": distance if elsewhere else row["value"],
                "bound": radius if elsewhere else row["bound"],
                "candidateId": row["candidateId"],
            }
        )
    return out
