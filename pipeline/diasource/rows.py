"""What becomes a row: the list of targets, their identities, and the ledger of candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from pipeline import ids
from pipeline.diasource.coincidence import coincident
from pipeline.diasource.config import Config
from pipeline.diasource.detect import Footprints, Ints
from pipeline.diasource.flags import box_pixels, source_flags, square_sides
from pipeline.diasource.frame import Frame
from pipeline.diasource.select import SELECTION_BITS, Peaks, sample
from pipeline.exposure import Difference, Exposure, FloatArray, Mask
from pipeline.schema import CANDIDATE

__all__ = ["Targets", "footprint_columns", "footprint_pixels", "identity_columns", "ledger"]

Columns = dict[str, npt.NDArray[Any]]

_SMALL_BOX = 2


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is measured, in the order of the rows.

    Attributes
    ----------
    at : ndarray, (n, 2), pixel
        Where measuring starts.
    score : ndarray, (n,)
        Score there, with its sign.
    peak, footprint, parent : ndarray, (n,), int64
        Index of the peak, of the footprint and of the parent's row; -1 for none.
    is_parent : ndarray, (n,), bool
        Blends that were split.
    selection : ndarray, (n,), int32
        `SELECTION_BITS`, 0 for detections.
    weight : ndarray, (n,)
        Peaks that a row stands for.
    """

    at: FloatArray
    score: FloatArray
    peak: npt.NDArray[np.int64]
    footprint: npt.NDArray[np.int64]
    parent: npt.NDArray[np.int64]
    is_parent: npt.NDArray[np.bool_]
    selection: npt.NDArray[np.int32]
    weight: FloatArray

    @classmethod
    def choose(
        cls,
        difference: Difference,
        peaks: Peaks,
        footprints: Footprints,
        near: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
        empty: FloatArray,
        config: Config,
    ) -> Targets:
        """List detections with their parents, sub-threshold peaks and some `empty` places."""
        exposure = difference.exposure
        assert exposure.wcs is not None
        seed = ids.pack(exposure.info.visit, exposure.info.detector)
        places = {
            name: _pixels_of(exposure.wcs, np.atleast_1d(ra), np.atleast_1d(dec))
            for name, (ra, dec) in near.items()
        }
        middle = np.array([[exposure.shape[1] / 2.0], [exposure.shape[0] / 2.0]])
        scale = float(Frame.at(exposure.wcs, *middle).scale[0])
        found = _detections(peaks, footprints)
        room = max(1, int(config.sub_share * len(found)))
        sky = _sky(difference, empty[: room // 2])
        faint = sample(peaks, places, config.sub_radius / scale, room - len(sky), config, seed)
        return _join(found, _below(peaks, *faint), sky)

    @property
    def is_sky(self) -> npt.NDArray[np.bool_]:
        """Rows that stand for nothing but the sky."""
        return np.asarray((self.selection & SELECTION_BITS["sky"]) != 0)

    def usable(self, good: FloatArray, peaks: Peaks, config: Config) -> npt.NDArray[np.bool_]:
        """Rows with enough usable pixels; the others are recorded as ``goodFraction``.

        Parents stay as long as two of their children do.
        """
        keep = (good >= config.min_good) | self.is_sky | self.is_parent
        lost = np.flatnonzero(~keep)
        peaks.stop(self.peak[lost], "goodFraction", np.nan_to_num(good[lost]), config.min_good)
        children = np.bincount(self.parent[keep & (self.parent >= 0)], minlength=len(keep))
        return np.asarray(keep & (~self.is_parent | (children >= 2)))

    def distinct(
        self, peaks: Peaks, separation: float, *places: FloatArray
    ) -> npt.NDArray[np.bool_]:
        """Rows that did not end on the place of a brighter detection.

        Peaks of one source that noise has split run together when they are fitted, as do pieces
        of one trail, and the lobes of one dipole if there are more than two; they are recorded as
        ``coincident`` (value: distance in pixels) and belong to the brighter one.  A blend of
        which one part is left is none.

        Parameters
        ----------
        peaks : Peaks
            The ledger.
        separation : float, pixel
            Least distance of two sources.
        *places : ndarray, (n, 2), pixel
            Measured places, see `coincident`.
        """
        rows = np.flatnonzero((self.selection == 0) & ~self.is_parent)
        owner, distance = coincident(
            [at[rows] for at in places], np.abs(self.score[rows]), separation
        )
        keep = np.ones(len(self.at), bool)
        for k in np.flatnonzero(owner >= 0).tolist():
            lost, main = rows[k], rows[owner[k]]
            keep[lost] = False
            peaks.stop(np.array([self.peak[lost]]), "coincident", float(distance[k]), separation)
            peaks.belongs_to[int(self.peak[lost])] = int(self.peak[main])
        left = np.bincount(self.parent[keep & (self.parent >= 0)], minlength=len(keep))
        return np.asarray(keep & (~self.is_parent | (left >= 2)))

    def split(
        self,
        rows: npt.NDArray[np.intp],
        first: FloatArray,
        second: FloatArray,
        peaks: Peaks,
        added: Ints,
    ) -> Targets:
        """Make a parent and two children of rows.

        Parameters
        ----------
        rows : ndarray of int, (m,)
            Single detections.
        first, second : ndarray, (m, 2), pixel
            Places of the children.
        peaks : Peaks
            The ledger.
        added : ndarray of int, (m,)
            Its entries for the second children.
        """
        n, m = len(self.at), len(rows)
        times = np.ones(n, np.int64)
        times[rows] = 3
        origin = np.repeat(np.arange(n), times)
        start = np.cumsum(times) - times  # where each row, or the parent of its parts, comes to lie
        values = {name: getattr(self, name)[origin] for name in self.__slots__}
        values["parent"] = np.where(values["parent"] >= 0, start[values["parent"]], -1)
        head = start[rows]
        values["is_parent"][head] = True
        values["peak"][head] = -1
        children: tuple[tuple[FloatArray, npt.NDArray[np.integer]], ...] = (
            (first, self.peak[rows]),
            (second, added),
        )
        for k, (at, peak) in enumerate(children, start=1):
            values["at"][head + k], values["peak"][head + k] = at, peak
            values["score"][head + k] = peaks.score[peak]
            values["parent"][head + k] = head
        assert len(origin) == n + 2 * m
        return Targets(**values)

    def take(self, keep: npt.NDArray[np.bool_]) -> Targets:
        """Return the rows to keep; a child whose parent goes becomes a source of its own."""
        order = np.where(keep, np.cumsum(keep) - 1, -1)
        parent = np.where(self.parent >= 0, order[self.parent], -1)[keep]
        values = {name: getattr(self, name)[keep] for name in self.__slots__}
        return Targets(**(values | {"parent": parent}))


def _pixels_of(wcs: WCS, ra: FloatArray, dec: FloatArray) -> FloatArray:
    return np.column_stack(wcs.all_world2pix(ra, dec, 0, quiet=True))


def _join(*parts: list[tuple[npt.NDArray[np.generic], ...]]) -> Targets:
    rows = [row for part in parts for row in part]
    columns = list(zip(*rows, strict=True)) or [()] * 8
    at, score, peak, footprint, parent, is_parent, selection, weight = columns
    return Targets(
        np.array(at, float).reshape(-1, 2),
        np.array(score, float),
        np.array(peak, np.int64),
        np.array(footprint, np.int64),
        np.array(parent, np.int64),
        np.array(is_parent, bool),
        np.array(selection, np.int32),
        np.array(weight, float),
    )


def _detections(peaks: Peaks, footprints: Footprints) -> list[tuple[Any, ...]]:
    accepted = np.flatnonzero(peaks.rule == "")
    label = footprints.label[accepted]
    crowd = np.bincount(label, minlength=len(footprints.start))
    rows: list[tuple[Any, ...]] = []
    parents: dict[int, int] = {}
    for k, owner in zip(accepted.tolist(), label.tolist(), strict=True):
        at, score = peaks.middle.get(k, (peaks.x[k], peaks.y[k])), peaks.score[k]
        if crowd[owner] > 1 and owner not in parents:
            parents[owner] = len(rows)
            rows.append((at, score, -1, owner, -1, True, 0, 1.0))
        rows.append((at, score, k, owner, parents.get(owner, -1), False, 0, 1.0))
    return rows


def _below(
    peaks: Peaks, index: npt.NDArray[np.intp], selection: Ints, weight: FloatArray
) -> list[tuple[Any, ...]]:
    return [
        ((peaks.x[k], peaks.y[k]), peaks.score[k], k, -1, -1, False, s, w)
        for k, s, w in zip(index, selection, weight, strict=True)
    ]


def _sky(difference: Difference, places: FloatArray) -> list[tuple[Any, ...]]:
    return [
        ((x, y), difference.score[int(y + 0.5), int(x + 0.5)], -1, -1, -1, False, 16, 1.0)
        for x, y in places
    ]


def footprint_columns(
    mask: Mask, targets: Targets, footprints: Footprints, columns: Columns
) -> Columns:
    """Pixel flags and the size of the footprint.

    The footprint of a child is the part of the blend nearer to it than to its siblings; that of
    a row without one is a box of 5×5 pixels.

    Parameters
    ----------
    mask : ndarray, (ny, nx), uint32
        Mask of the difference.
    targets : Targets
        n rows.
    footprints : Footprints
        Connected pixels above the threshold.
    columns : dict of ndarray
        With the centroids, ``(n,)`` each.

    Returns
    -------
    dict of ndarray, (n,)
        Columns by name.
    """
    pixels = footprint_pixels(mask.shape, targets, footprints)
    return source_flags(mask, pixels, columns["x"], columns["y"]) | {
        "bboxSize": square_sides(mask.shape, pixels)
    }


def footprint_pixels(
    shape: tuple[int, int], targets: Targets, footprints: Footprints
) -> list[Ints]:
    """Flat indices of the pixels of every row.

    Parameters
    ----------
    shape : tuple of int, (ny, nx)
        Size of the image.
    targets : Targets
        n rows.
    footprints : Footprints
        Connected pixels above the threshold.

    Returns
    -------
    list of ndarray of int
        ``y nx + x`` of the pixels, for each of n rows: those of its footprint that are nearest to
        it, or a box round it if there are none.
    """
    parts = [_whole(shape, targets, footprints, k) for k in range(len(targets.at))]
    for parent in np.unique(targets.parent[targets.parent >= 0]):
        siblings = np.flatnonzero(targets.parent == parent)
        pixels = footprints.of(int(targets.footprint[siblings[0]]))
        shares = _nearest(pixels, shape[1], targets.at[siblings])
        for k, share in zip(siblings.tolist(), shares, strict=True):
            parts[k] = share if len(share) else _box(shape, targets, k)
    return parts


def _whole(shape: tuple[int, int], targets: Targets, footprints: Footprints, k: int) -> Ints:
    """Pixels of the footprint of a row, or of a box round it if it has none."""
    if targets.footprint[k] >= 0:
        return footprints.of(int(targets.footprint[k]))
    return _box(shape, targets, k)


def _box(shape: tuple[int, int], targets: Targets, k: int) -> Ints:
    x, y = targets.at[k]
    return box_pixels(shape, round(x), round(y), _SMALL_BOX)


def _nearest(pixels: Ints, width: int, at: FloatArray) -> list[Ints]:
    """Divide the pixels of a blend among its children, ``(n, 2)``, by distance."""
    row, column = np.divmod(pixels, width)
    _, owner = cKDTree(at).query(np.column_stack([column, row]))
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(at)))
    return np.split(pixels[order], ends[:-1])


def identity_columns(
    difference: Difference,
    template: Exposure,
    targets: Targets,
    peaks: Peaks,
    now_mjd_tai: float,
) -> dict[str, Any]:
    """Return identifiers, epoch, selection and what is the same for a whole image.

    Parameters
    ----------
    difference : Difference
        Knows visit, detector, band and epoch.
    template : Exposure
        The template.
    targets : Targets
        n rows.
    peaks : Peaks
        The peaks they come from; they learn the identifiers.
    now_mjd_tai : float, d
        Time of processing, MJD TAI.

    Returns
    -------
    dict
        Columns by name, n values each.
    """
    info = difference.exposure.info
    n = len(targets.at)
    number = np.array([ids.pack(info.visit, info.detector, k + 1) for k in range(n)], np.int64)
    with_peak = targets.peak >= 0
    peaks.source[targets.peak[with_peak]] = number[with_peak]
    for part in peaks.belongs_to:
        peaks.source[part] = peaks.source[peaks.main(part)]
    unit = f"{info.visit}_{info.detector:02d}"
    parent = [int(number[p]) if p >= 0 else None for p in targets.parent]
    return {
        "diaSourceId": number, "parentDiaSourceId": parent,
        "visit": np.full(n, info.visit), "detector": np.full(n, info.detector),
        "differenceImageId": [unit] * n,
        "scienceImageId": [unit] * n,
        "templateId": [template.provenance.get("TMPLID")] * n,
        "midpointMjdTai": np.full(n, info.midpoint_mjd_tai),
        "exposureTime": np.full(n, info.exptime), "band": [info.band] * n,
        "timeProcessedMjdTai": np.full(n, now_mjd_tai),
        "snr": np.abs(targets.score), "isNegative": targets.score < 0,
        "isDeblendParent": targets.is_parent, "isSubThreshold": targets.selection != 0,
        "selectionBits": targets.selection, "selectionWeight": targets.weight,
    }  # fmt: skip


def ledger(peaks: Peaks, visit: int, detector: int) -> pa.Table:
    """Return the ledger as rows of `pipeline.schema.CANDIDATE`.

    Parameters
    ----------
    peaks : Peaks
        All peaks, with the rule that stopped them.
    visit, detector : int
        Where they are.

    Returns
    -------
    pyarrow.Table
        One row per peak.
    """
    n = len(peaks.x)
    if n == 0:
        return CANDIDATE.empty()
    above = (peaks.rule == "") | (peaks.rule == "reliability")
    return CANDIDATE.to_arrow(
        {
            "candidateId": [ids.pack(visit, detector, k + 1) for k in range(n)],
            "visit": np.full(n, visit),
            "detector": np.full(n, detector),
            "x": peaks.x,
            "y": peaks.y,
            "snr": peaks.score,
            "rule": [rule or None for rule in peaks.rule.tolist()],
            "value": peaks.value,
            "bound": peaks.bound,
            "accepted": above,
            "diaSourceId": [s if s >= 0 else None for s in peaks.source.tolist()],
        }
    )
