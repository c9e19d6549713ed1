"""Where the sources of a study go on one image, and how bright they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import ndimage
from scipy.spatial import cKDTree

from harness.study.design import StudyDesign
from harness.study.events import Events, Window
from pipeline.exposure import Difference, Exposure, FloatArray
from pipeline.masks import MASK_PLANES, bits
from pipeline.psfphot import flux_noise
from pipeline.schema import INJECTION, to_numpy
from pipeline.sphere import turned
from sims import inject
from sims.streams import stream

__all__ = ["Placement", "bright_stars", "place"]

_TRIES = 30
_MARGIN = 1
"""A source whose pixel or any neighbour cannot be detected by rule lies on a mask."""
_LEAST_STAR = 9
"""Saturated pixels of a star."""


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The injections of one image.

    Attributes
    ----------
    injections : pyarrow.Table
        Rows of `pipeline.schema.INJECTION`; ``placed`` is false with a reason for those on a
        mask (``mask:PLANE``), too near to something else (``crowded``) or without a host.
    sigma_null, star_distance, edge_distance, null_score : ndarray, (n,)
        Noise of a flux there (nJy); pixels to the nearest saturated star and edge; score of the
        pixel without the source.
    event, peak_magnitude : ndarray, (n,)
        Number of the event of which a source is an epoch, NaN for others; AB magnitude of its peak.
    """

    injections: pa.Table
    sigma_null: FloatArray
    star_distance: FloatArray
    edge_distance: FloatArray
    null_score: FloatArray
    event: FloatArray
    peak_magnitude: FloatArray


def place(
    design: StudyDesign,
    science: Exposure,
    difference: Difference,
    objects: pa.Table | None,
    known: FloatArray,
    *,
    study: str,
    realisation: int,
    first_id: int,
    veto: np.uint32,
    window: Window | None = None,
    stars: FloatArray | None = None,
) -> Placement:
    """Draw the injections of one image.

    Parameters
    ----------
    design : StudyDesign
        The design.
    science : Exposure
        The visit image.
    difference : Difference
        Its difference without injections.
    objects : pyarrow.Table, optional
        Static objects, the hosts.
    known : ndarray, (m, 2), pixel
        What is detected without injections.
    study : str
        Identifier of the study; the draw does not depend on it.
    realisation, first_id : int
        Which painting, and the number of its first injection.
    veto : numpy.uint32
        Mask planes on which nothing is detected.
    window : Window, optional
        Where and when events happen, for designs that have any.
    stars : ndarray, (k, 2), pixel, optional
        `bright_stars` of the image, where they are known.

    Returns
    -------
    Placement
        The same for the same seed, image and difference.
    """
    seed = design.seed
    drawn = inject.draw(
        design.of_image(), science, objects, seed=seed, study=f"realisation {realisation}"
    )
    rng = stream(seed, science.info.visit, science.info.detector, f"places {realisation}")
    stars = bright_stars(science) if stars is None else stars
    at = np.column_stack([to_numpy(drawn, "x"), to_numpy(drawn, "y")])
    hosted = np.isfinite(to_numpy(drawn, "hostOffset"))
    reason = np.array([r or "" for r in drawn["reason"].to_pylist()], dtype=object)
    plain = ~hosted & (reason == "") & (np.array(drawn["kind"].to_pylist()) == "point")
    epochs = _epochs(design, science, window, realisation, at, plain, reason)
    free = ~hosted & ~np.isfinite(epochs[:, 0]) & (reason == "")
    fixed = _around_stars(rng, design, at, free, stars, science.shape)
    _spread(rng, design, at, ~free | fixed, reason, known, science.shape)
    _masked(at, reason, difference, veto)
    assert difference.exposure.psf is not None
    sigma = flux_noise(difference.exposure.psf, difference.null_variance, *at.T)
    reason[(reason == "") & ~np.isfinite(sigma)] = "mask:NO_DATA"
    snr = to_numpy(drawn, "trueSnr")
    snr = np.sign(snr) * design.concentrated(np.abs(snr))
    snr = np.where(np.isfinite(epochs[:, 0]), epochs[:, 2] / sigma, snr)
    table = _table(drawn, science, at, snr, sigma, reason, study, first_id)
    edge = np.min([at.T[0], at.T[1], science.shape[1] - 1 - at.T[0],
                   science.shape[0] - 1 - at.T[1]], axis=0)  # fmt: skip
    rows, columns = (np.clip(np.rint(at[:, k]), 0, science.shape[1 - k] - 1) for k in (1, 0))
    score = difference.score[rows.astype(int), columns.astype(int)]
    return Placement(table, sigma, _distance(stars, at), edge, score, epochs[:, 0], epochs[:, 1])


def _epochs(
    design: StudyDesign,
    science: Exposure,
    window: Window | None,
    realisation: int,
    at: FloatArray,
    free: npt.NDArray[np.bool_],
    reason: npt.NDArray[Any],
) -> FloatArray:
    """Turn some of the free sources into this visit's epochs of events.

    Returns number, peak magnitude and flux, (n, 3); NaN for the others.
    """
    out = np.full((len(at), 3), np.nan)
    if window is None or not design.n_events or science.wcs is None:
        return out
    events = Events.draw(design, window, science.info.detector, realisation)
    rows = np.flatnonzero(free)[: design.n_events]
    flux = events.flux(science.info.midpoint_mjd_tai, design.light_curve)
    x, y = science.wcs.all_world2pix(events.ra, events.dec, 0)
    out[rows] = np.column_stack([events.number, events.peak, flux])[: len(rows)]
    at[rows] = np.column_stack([x, y])[: len(rows)]
    for k in rows:
        if not _inside(at[k], science.shape, 1.0):
            reason[k] = "off_image"
    return out


def bright_stars(science: Exposure) -> FloatArray:
    """Find the saturated stars of an image.

    Parameters
    ----------
    science : Exposure
        The visit image.

    Returns
    -------
    ndarray, (k, 2), pixel
        x and y of their centres.
    """
    labels, n = ndimage.label(science.has("SAT"))
    sizes = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    index = np.flatnonzero(sizes >= _LEAST_STAR) + 1
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, index)).reshape(-1, 2)
    return centres[:, ::-1]


def _around_stars(
    rng: np.random.Generator,
    design: StudyDesign,
    at: FloatArray,
    free: npt.NDArray[np.bool_],
    stars: FloatArray,
    shape: tuple[int, int],
) -> npt.NDArray[np.bool_]:
    """Move a part of the free sources to the surroundings of stars, log-uniform in distance."""
    moved = np.zeros(len(at), bool)
    wanted = np.flatnonzero(free)[: round(design.near_bright * len(at))]
    if not len(stars):
        return moved
    low, high = design.bright_distance
    for k in wanted:
        for _ in range(_TRIES):
            star = stars[rng.integers(len(stars))]
            radius, angle = low * (high / low) ** rng.random(), rng.uniform(0, 2 * np.pi)
            spot = star + radius * np.array([np.cos(angle), np.sin(angle)])
            if _inside(spot, shape, design.edge):
                at[k], moved[k] = spot, True
                break
    return moved


def _inside(spot: FloatArray, shape: tuple[int, int], edge: float) -> bool:
    return bool(edge <= spot[0] <= shape[1] - 1 - edge and edge <= spot[1] <= shape[0] - 1 - edge)


def _spread(
    rng: np.random.Generator,
    design: StudyDesign,
    at: FloatArray,
    fixed: npt.NDArray[np.bool_],
    reason: npt.NDArray[Any],
    known: FloatArray,
    shape: tuple[int, int],
) -> None:
    """Keep the least distance: free sources move, those with a place of their own give way."""
    cells: dict[tuple[int, int], list[FloatArray]] = {}
    for spot in known.reshape(-1, 2):
        cells.setdefault(_cell(spot, design.separation), []).append(spot)
    for k in [*np.flatnonzero(fixed), *np.flatnonzero(~fixed)]:
        if reason[k]:
            continue
        tries = 0
        while _crowded(cells, at[k], design.separation) and tries < _TRIES and not fixed[k]:
            at[k] = rng.uniform(design.edge, np.array(shape[::-1]) - 1 - design.edge)
            tries += 1
        if _crowded(cells, at[k], design.separation):
            reason[k] = "crowded"
        else:
            cells.setdefault(_cell(at[k], design.separation), []).append(at[k].copy())


def _cell(spot: FloatArray, size: float) -> tuple[int, int]:
    return int(spot[0] // size), int(spot[1] // size)


def _crowded(cells: dict[tuple[int, int], list[FloatArray]], spot: FloatArray, size: float) -> bool:
    i, j = _cell(spot, size)
    near = [s for u in (-1, 0, 1) for v in (-1, 0, 1) for s in cells.get((i + u, j + v), ())]
    return any(np.hypot(*(spot - other)) < size for other in near)


def _masked(
    at: FloatArray, reason: npt.NDArray[Any], difference: Difference, veto: np.uint32
) -> None:
    """Give the reason of sources on pixels where nothing is detected by rule."""
    mask, score = difference.exposure.mask, difference.score
    for k in np.flatnonzero(reason == ""):
        x, y = (round(float(v)) for v in at[k])
        box = np.s_[max(y - _MARGIN, 0) : y + _MARGIN + 1, max(x - _MARGIN, 0) : x + _MARGIN + 1]
        found = int(np.bitwise_or.reduce(mask[box], axis=None)) & int(veto)
        if found:
            reason[k] = "mask:" + next(p for p in MASK_PLANES if found & int(bits(p)))
        elif not np.isfinite(score[box]).all():
            reason[k] = "mask:NO_SCORE"


def _table(
    drawn: pa.Table,
    science: Exposure,
    at: FloatArray,
    snr: FloatArray,
    sigma: FloatArray,
    reason: npt.NDArray[Any],
    study: str,
    first_id: int,
) -> pa.Table:
    columns: dict[str, Any] = {name: drawn[name] for name in drawn.column_names}
    columns |= {
        "trueSnr": snr,
        "injectionId": first_id + np.arange(len(at)),
        "x": at[:, 0],
        "y": at[:, 1],
        "flux": snr * sigma,
        "placed": reason == "",
        "reason": [r or None for r in reason],
    }
    if science.wcs is not None:
        ra, dec = science.wcs.all_pix2world(at[:, 0], at[:, 1], 0)
        columns |= {"ra": turned(ra), "dec": dec}
    columns.pop("studyId")
    return INJECTION.to_arrow(columns, studyId=study)


def _distance(stars: FloatArray, at: FloatArray) -> FloatArray:
    if not len(stars):
        return np.full(len(at), np.nan)
    return np.asarray(cKDTree(stars).query(at)[0])
