"""Transients of known truth on a difference: where, and how bright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy.special import erf

from harness.verify.metric import Sample, metric
from harness.verify.view import View, remember
from pipeline.exposure import FloatArray
from pipeline.masks import bits, flagged
from pipeline.psfphot import flux_noise, fwhm, middle_fwhm
from pipeline.schema import to_numpy
from pipeline.statistics import GAUSS_FWHM

__all__ = ["NEAR", "constant_sources", "true_differences", "uncertain_places"]

NEAR = 2.5
"""Within so many FWHM of something that changed no detection is false for certain."""

_FAINTEST = 3.0
_RADIUS = 1.0
"""Within how many arcsec a detection may be that of a transient; trails reach further."""
_ROUNDING = 1e-9
"""Difference of a constant flux from its weighted mean, over the flux: the last bits."""
_VARIED = 0.1
"""Variation between a template's inputs, over the flux in the difference, that matters."""
_OWN_MOTION = 0.024
"""Motion of a star in arcsec that exceeds the jitter of the air, 8 mas per axis, by three times."""
_DIM = 10.0
"""Signal to noise, for the noise in the middle, below which nobody asks for a better number."""
_DIPOLE = 1.0
"""Score of a dipole over that of its star, per FWHM of separation: 0.43 · 2.355 for a Gaussian."""


@dataclass(frozen=True, slots=True)
class _Before:
    """A source in the inputs of a template: its flux by their weights, place in deg, extremes."""

    mean: float
    ra: float
    dec: float
    low: float
    high: float


_ABSENT = _Before(0.0, float("nan"), float("nan"), 0.0, 0.0)


@metric(
    "transients",
    unit="transients",
    product="difference",
    reads=("difference", "truth", "template"),
    reduce="sum",
)
def transients(view: View) -> Sample:
    """Count true transients above SNR 3, faded and masked ones included.

    What the catalogue made of them is found where the catalogue is: `harness.verify.curves`.
    """
    rows = true_differences(view, faded=True)
    return Sample(float(len(rows)), len(rows), rows=(*rows, *_unclear(view)))


def true_differences(
    view: View, *, faded: bool = False, faintest: float = _FAINTEST
) -> list[dict[str, Any]]:
    """Every source whose true flux in the visit exceeds that in the template.

    The true difference flux is the flux in the visit minus the weighted flux in the template's
    inputs, by the recorded weights; a source counted only where it is within two pixels of the
    same place.  Where inputs were lost and the source varied between them, nobody knows its flux
    in the template: it counts as masked.  ``trueSnr`` is the difference flux over the noise that
    the source-free difference has there, see `pipeline.psfphot.flux_noise`, with the loss of a
    trail to a point filter included.  Noise that a constant scene leaves is not in it: a source
    that the score loses for it counts as lost.

    Parameters
    ----------
    view : View
        A unit with a difference and truth.
    faded : bool
        Whether to list those that became fainter too; their flux and ``trueSnr`` are negative.
    faintest : float
        Least absolute ``trueSnr`` of a source; of a masked one, the largest that it can have.

    Returns
    -------
    list of dict
        One per source, with the columns of the truth.
    """
    truth = view.truth
    reference = _template_flux(view)
    ny, nx = view.difference.exposure.shape
    rows = []
    for i, truth_id in enumerate(truth["truthId"]):
        x, y = float(truth["x"][i]), float(truth["y"][i])
        if not (-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
            continue
        before = reference.get(int(truth_id), _ABSENT)
        moved = np.hypot(
            (before.ra - truth["ra"][i]) * np.cos(np.radians(truth["dec"][i])),
            before.dec - truth["dec"][i],
        )
        if not moved * 3600.0 < 2.0 * view.camera.pixel_scale:
            before = _ABSENT
        now = float(truth["flux"][i])
        flux = now - before.mean
        if abs(flux) <= _ROUNDING * now or (flux < 0 and not faded):
            continue
        unknown = before.high - before.low > _VARIED * abs(flux) and _lost_inputs(view, x, y)
        most = max(abs(now - before.low), abs(now - before.high)) if unknown else abs(flux)
        rows.append({"index": i, "x": x, "y": y, "flux": flux, "most": most, "masked": unknown})
    return _describe(view, rows, faintest)


def _lost_inputs(view: View, x: float, y: float) -> bool:
    """Whether the template lacks some of its inputs near a pixel."""
    rows, columns = (slice(max(round(c) - 2, 0), round(c) + 3) for c in (y, x))
    near = view.difference.exposure.mask[rows, columns]
    return bool(flagged(near, bits("CLIPPED", "REJECTED", "INEXACT_PSF")).any())


def _template_flux(view: View) -> dict[int, _Before]:
    """Fluxes and mean positions of sources in the template's inputs."""
    inputs = view.template_inputs
    total = sum(weight for *_, weight in inputs)
    table = pq.read_table(
        view.space.root / "truth" / "visits.parquet",
        columns=["truthId", "visit", "detector", "flux", "ra", "dec"],
        filters=[("visit", "in", [v for v, *_ in inputs])],
    )
    names, place = np.unique(to_numpy(table, "truthId"), return_inverse=True)
    weight = np.zeros(table.num_rows)
    for visit, detector, w in inputs:
        here = (to_numpy(table, "visit") == visit) & (to_numpy(table, "detector") == detector)
        weight[here] = w / total
    used, place, weight = weight > 0, place[weight > 0], weight[weight > 0]
    flux, ra, dec = (to_numpy(table, n)[used].astype(float) for n in ("flux", "ra", "dec"))
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    np.minimum.at(low, place, flux)
    np.maximum.at(high, place, flux)
    sums = [np.bincount(place, weight * c, len(names)) for c in (flux, ra, dec, 1.0)]
    found = np.flatnonzero(sums[3] > 0)
    mean = np.array(sums[:3])[:, found] / sums[3][found]
    columns = names[found], *mean, low[found], high[found]
    return {k: _Before(*rest) for k, *rest in zip(*(c.tolist() for c in columns), strict=True)}


def _describe(view: View, rows: list[dict[str, Any]], faintest: float) -> list[dict[str, Any]]:
    difference, truth = view.difference, view.truth
    mask = difference.exposure.mask
    psf = difference.exposure.psf
    assert psf is not None
    if not rows:
        return []
    at = [r["x"] for r in rows], [r["y"] for r in rows]
    noises = flux_noise(psf, difference.null_variance, *at)
    ny, nx = difference.null_variance.shape
    usual = flux_noise(psf, difference.null_variance, nx / 2, ny / 2)[0]
    widths = fwhm(psf.stamps(*at)) / GAUSS_FWHM
    excluded = np.uint32(view.excluded_bits)
    kept = []
    for row, noise, width in zip(rows, noises, widths, strict=True):
        i = row.pop("index")
        column, line = round(row["x"]), round(row["y"])
        box = (slice(max(line - 1, 0), line + 2), slice(max(column - 1, 0), column + 2))
        length = float(truth["trailLength"][i] or 0.0) if "trailLength" in truth else 0.0
        length = 0.0 if np.isnan(length) else length / view.camera.pixel_scale
        loss, most = _trail_loss(length, width), row.pop("most")
        snr = row["flux"] * loss / noise if noise > 0 else float("nan")
        hidden = bool((mask[box] & excluded).any())
        masked = row.pop("masked") or hidden or not np.isfinite(snr)
        if most * loss < faintest * (np.fmin(noise, usual) if hidden else noise):
            continue
        trail = length if length > 0.5 * width else 0.0
        row |= {
            "truthId": int(truth["truthId"][i]),
            "kind": str(truth["kind"][i]),
            "ra": float(truth["ra"][i]),
            "dec": float(truth["dec"][i]),
            "trueSnr": snr,
            "trailLength": trail,
            "near": (NEAR * GAUSS_FWHM * width + 0.6 * trail) * view.camera.pixel_scale,
            "reach": max(_RADIUS, 0.6 * trail * view.camera.pixel_scale),
            "masked": masked,
            "visit": view.visit,
            "detector": view.number,
        }
        kept.append(row)
    return kept


def _trail_loss(length: float, sigma: float) -> float:
    """Response of a point filter to a trail, relative to a point of the same flux."""
    if length <= 0:
        return 1.0
    return float(2.0 * sigma * np.sqrt(np.pi) / length * erf(length / (4.0 * sigma)))


def constant_sources(view: View) -> tuple[FloatArray, FloatArray]:
    """Places and signals to noise of everything that shines in the visit image.

    Parameters
    ----------
    view : View
        A unit with a difference and truth.

    Returns
    -------
    places : ndarray, (n, 2), pixel
        Those on the image.
    snr : ndarray, (n,)
        Flux over the noise of the difference.
    """
    return remember(view, "constant sources", lambda: _constant_sources(view))


def _constant_sources(view: View) -> tuple[FloatArray, FloatArray]:
    """Compute the noise of one source where it is far below what any use of it asks for."""
    inside = _inside(view)
    at = np.column_stack([view.truth["x"], view.truth["y"]])[inside].astype(float)
    flux = np.asarray(view.truth["flux"][inside], float)
    difference = view.difference
    psf, variance = difference.exposure.psf, difference.null_variance
    assert psf is not None
    ny, nx = variance.shape
    noise = np.full(len(at), flux_noise(psf, variance, nx / 2, ny / 2)[0])
    bright = ~(flux < _DIM * noise)
    noise[bright] = flux_noise(psf, variance, *at[bright].T)
    return at, np.asarray(flux / np.where(noise > 0, noise, np.inf))


def _width(view: View) -> float:
    exposure = view.difference.exposure
    return middle_fwhm(exposure.psf, exposure.shape)


def _inside(view: View) -> npt.NDArray[np.bool_]:
    ny, nx = view.difference.exposure.shape
    x, y = (np.asarray(view.truth[n], float) for n in ("x", "y"))
    return np.asarray((x > 0) & (y > 0) & (x < nx - 1) & (y < ny - 1))


def uncertain_places(view: View) -> FloatArray:
    """Places where a detection is due to light that moved, and is no transient.

    Parameters
    ----------
    view : View
        A unit with a difference and truth.

    Returns
    -------
    ndarray, (n, 2), pixel
        Where moving bodies were in the inputs of the template, and stars whose own motion since
        then makes a dipole that can be detected.
    """
    return np.vstack([_moved_away(view), _moving_stars(view)])


def _unclear(view: View) -> list[dict[str, Any]]:
    """Rows of the uncertain places: masked, so that nobody expects them to be found."""
    at = uncertain_places(view)
    wcs = view.difference.exposure.wcs
    if not len(at) or wcs is None:
        return []
    ra, dec = wcs.all_pix2world(at[:, 0], at[:, 1], 0)
    common = {
        "truthId": -1, "kind": "moved", "flux": np.nan, "trueSnr": np.nan, "trailLength": 0.0,
        "reach": 0.0, "near": NEAR * _width(view) * view.camera.pixel_scale, "masked": True,
        "visit": view.visit, "detector": view.number,
    }  # fmt: skip
    return [
        common | {"x": float(p[0]), "y": float(p[1]), "ra": float(a), "dec": float(d)}
        for p, a, d in zip(at, ra, dec, strict=True)
    ]


def _moved_away(view: View) -> FloatArray:
    """Where moving bodies were in the inputs of the template, (n, 2) pixel."""
    folder = view.space.root / "truth"
    objects = pq.read_table(folder / "objects.parquet", columns=["truthId", "kind"])
    kinds = np.array(objects["kind"].to_pylist())
    moving = set(to_numpy(objects, "truthId")[np.isin(kinds, ["asteroid", "neo"])].tolist())
    then = pq.read_table(
        folder / "visits.parquet",
        columns=["truthId", "ra", "dec"],
        filters=[
            ("visit", "in", [v for v, *_ in view.template_inputs]),
            ("detector", "in", [d for _, d, _ in view.template_inputs]),
        ],
    )
    here = np.isin(to_numpy(then, "truthId"), list(moving))
    wcs = view.difference.exposure.wcs
    assert wcs is not None
    sky = to_numpy(then, "ra")[here], to_numpy(then, "dec")[here]
    at = np.column_stack(wcs.all_world2pix(*sky, 0, quiet=True)).reshape(-1, 2)
    return np.asarray(at[np.isfinite(at).all(axis=1)])


def _moving_stars(view: View) -> FloatArray:
    """Stars whose own motion since the template makes a dipole that can be detected, (n, 2)."""
    folder = view.space.root / "truth"
    names = ["truthId", "pmRa", "pmDec"]
    stars = pq.read_table(folder / "objects.parquet", columns=names)
    speed = np.nan_to_num(np.hypot(to_numpy(stars, "pmRa"), to_numpy(stars, "pmDec")))
    of = dict(zip(to_numpy(stars, "truthId").tolist(), speed.tolist(), strict=True))
    times = pq.read_table(
        folder / "visits.parquet", columns=["visit", "midpointMjdTai"],
        filters=[("visit", "in", [view.visit, *(v for v, *_ in view.template_inputs)])],
    )  # fmt: skip
    epoch = to_numpy(times, "midpointMjdTai")
    now = to_numpy(times, "visit") == view.visit
    years = abs(float(np.mean(epoch[now]) - np.mean(epoch[~now]))) / 365.25
    at, snr = constant_sources(view)
    here = view.truth["truthId"][_inside(view)].tolist()
    moved = np.array([of.get(i, 0.0) for i in here]) * years / 1000.0
    dipole = _DIPOLE * snr * moved / view.camera.pixel_scale / _width(view)
    return at[(moved > _OWN_MOTION) & (dipole > _FAINTEST)]
