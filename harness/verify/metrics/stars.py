"""PSF, astrometry and photometry at stars whose place and flux are known from outside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from harness.verify.metric import Sample, metric
from harness.verify.star_fits import isolated, star_fits
from harness.verify.view import View, remember
from pipeline.exposure import Psf
from pipeline.masks import NOT_AS_MEASURED, bits
from pipeline.statistics import mad_std, median_error

__all__ = ["off_centre"]

_MMAG = 2500.0 / np.log(10.0)


@metric("psf_norm", unit="", product="visit_image", reads=("visit_image",), reduce="worst")
def psf_norm(view: View) -> Sample:
    """Largest deviation of the PSF's flux within 12 pixels from one, corners included."""
    image = view.visit_image
    assert image.psf is not None
    stamps, _ = _grid(image.psf, image.shape)
    middle = stamps.shape[1] // 2
    yy, xx = np.indices(stamps.shape[1:]) - middle
    sums = stamps[:, np.hypot(xx, yy) <= image.psf.FLUX_RADIUS].sum(axis=1)
    return Sample(float(np.abs(sums - 1.0).max()), len(sums), nans=int(np.isnan(stamps).sum()))


@metric("psf_offset", unit="pixel", product="visit_image", reads=("visit_image",), reduce="worst")
def psf_offset(view: View) -> Sample:
    """Largest distance of the PSF's middle from that of its stamp, corners included."""
    image = view.visit_image
    assert image.psf is not None
    return off_centre(_grid(image.psf, image.shape)[0])


def off_centre(stamps: np.ndarray) -> Sample:
    """Largest distance of the middle of light from that of the stamps.

    Parameters
    ----------
    stamps : ndarray, (n, side, side)
        PSFs.

    Returns
    -------
    Sample
        In pixels; light is weighted with a Gaussian of 2 pixels, to which wings are nothing.
    """
    yy, xx = np.indices(stamps.shape[1:]) - stamps.shape[1] // 2
    light = np.clip(stamps, 0.0, None) * np.exp(-(xx**2 + yy**2) / 8.0)
    total = light.sum(axis=(1, 2))
    x, y = ((light * axis).sum(axis=(1, 2)) / total for axis in (xx, yy))
    return Sample(float(np.hypot(x, y).max()), len(stamps))


@metric("psf_variation", unit="%", product="visit_image", reads=("visit_image",), reduce="worst")
def psf_variation(view: View) -> Sample:
    """Peak-to-peak variation of the PSF's central pixel over the detector, in percent."""
    image = view.visit_image
    assert image.psf is not None
    if getattr(image.psf, "order", 1) == 0:
        return Sample(0.0, 0)  # too few stars to fit a variation
    stamps, _ = _grid(image.psf, image.shape)
    peaks = stamps[:, stamps.shape[1] // 2, stamps.shape[2] // 2]
    return Sample(float(100.0 * np.ptp(peaks) / peaks.mean()), len(peaks))


def _grid(psf: Psf, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(0, shape[1] - 1, 5), np.linspace(0, shape[0] - 1, 5))
    positions = np.stack([x.ravel(), y.ravel()], axis=1)
    return psf.stamps(positions[:, 0], positions[:, 1]), positions


@metric(
    "wcs_error", unit="mas", product="visit_image", reads=("visit_image", "truth"), reduce="worst"
)
def wcs_error(view: View) -> Sample:
    """Distance of true sky positions from those the WCS gives to the true pixels, rms per axis."""
    east, north, _ = _offsets(view)
    if len(east) < 5:
        return Sample(float("nan"), 0)
    rms = float(np.sqrt(max((east**2).mean(), (north**2).mean())))
    return Sample(rms, len(east))


@metric(
    "wcs_regions", unit="mas", product="visit_image", reads=("visit_image", "truth"), reduce="worst"
)
def wcs_regions(view: View) -> Sample:
    """Largest mean offset of the WCS in nine regions of the detector."""
    east, north, positions = _offsets(view)
    ny, nx = view.visit_image.shape
    cell = (positions[:, 0] * 3 // nx).astype(int) + 3 * (positions[:, 1] * 3 // ny).astype(int)
    means = [
        np.hypot(east[cell == c].mean(), north[cell == c].mean())
        for c in range(9)
        if (cell == c).sum() >= 3
    ]
    return Sample(float(max(means)) if means else float("nan"), len(east) if means else 0)


def _offsets(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """East and north errors of the WCS in mas at true positions on the detector."""
    return remember(view, "offsets", lambda: _all_offsets(view))


def _still(view: View) -> np.ndarray:
    """Which true sources keep their place, and that on the detector."""
    ny, nx = view.visit_image.shape
    x, y = view.truth["x"].astype(float), view.truth["y"].astype(float)
    still = np.isin(view.truth["kind"], ("star", "galaxy"))
    return np.asarray(still & (x >= 0) & (x < nx) & (y >= 0) & (y < ny))


def _all_offsets(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, truth, use = view.visit_image, view.truth, _still(view)
    assert image.wcs is not None
    x, y = truth["x"].astype(float), truth["y"].astype(float)
    ra, dec = image.wcs.all_pix2world(x[use], y[use], 0)
    east = (ra - truth["ra"][use]) * np.cos(np.radians(dec)) * 3.6e6
    north = (dec - truth["dec"][use]) * 3.6e6
    return east, north, np.stack([x[use], y[use]], axis=1)


@metric(
    "wcs_precision",
    unit="mas",
    product="visit_image",
    reads=("visit_image", "truth", "refcat"),
    reduce="worst",
)
def wcs_precision(view: View, least: int = 50) -> Sample:
    """Rms per axis about the WCS of true positions, the atmosphere's share by colour taken out."""
    east, north = _achromatic(view, least)
    if len(east) < 5:
        return Sample(float("nan"), 0)
    return Sample(float(np.sqrt(max((east**2).mean(), (north**2).mean()))), len(east))


@metric(
    "wcs_offset",
    unit="mas",
    product="visit_image",
    reads=("visit_image", "truth", "refcat"),
    reduce="worst",
)
def wcs_offset(view: View, least: int = 50) -> Sample:
    """Median offset of the WCS for an object of the median colour of the standards."""
    east, north = _achromatic(view, least)
    if len(east) < 5:
        return Sample(float("nan"), 0)
    error = float(np.hypot(median_error(east), median_error(north)))
    return Sample(float(np.hypot(np.median(east), np.median(north))), len(east), error)


def _achromatic(view: View, least: int) -> tuple[np.ndarray, np.ndarray]:
    """East and north errors in mas without what is linear in colour; nothing with few standards.

    Refraction shifts every source by its colour.  One WCS for all colours cannot follow, and is
    fitted to stars of the colours of the standards.
    """
    image = view.visit_image
    x, y, colour = _standards_in(view)
    ny, nx = image.shape
    inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & np.isfinite(colour)
    if inside.sum() < least:
        return np.array([]), np.array([])
    east, north, _ = _offsets(view)
    excess = _colour(view.truth)[_still(view)] - np.median(colour[inside])
    use = np.isfinite(excess) & (np.abs(excess) < 3.0)
    design = np.stack([np.ones(use.sum()), excess[use]], axis=1)
    errors = np.stack([east[use], north[use]], axis=1)
    slope = np.linalg.lstsq(design, errors, rcond=None)[0][1]
    left = errors - excess[use][:, None] * slope
    return left[:, 0], left[:, 1]


def _colour(table: Mapping[str, npt.ArrayLike]) -> np.ndarray:
    """Colour g − r of the rows of a catalogue, NaN where a flux is missing."""
    g, r = (np.asarray(table[n], float) for n in ("gFlux", "rFlux"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-2.5 * np.log10(np.where((g > 0) & (r > 0), g / r, np.nan)))


@metric(
    "wcs_standards",
    unit="mas",
    product="visit_image",
    reads=("visit_image", "refcat"),
    reduce="worst",
)
def wcs_standards(view: View, snr_min: float = 100.0) -> Sample:
    """Rms per axis of bright centroids about the reference catalogue, measured independently."""
    stars = _standards(view, snr_min)
    if len(stars["east"]) < 5:
        return Sample(float("nan"), 0)
    rms = max(mad_std(stars["east"]), mad_std(stars["north"]))
    bias = max(abs(np.median(stars["east"])), abs(np.median(stars["north"])))
    return Sample(float(np.hypot(rms, bias)), len(stars["east"]))


def _standards(view: View, snr_min: float) -> dict[str, np.ndarray]:
    image = view.visit_image
    assert image.wcs is not None
    x, y, _ = _catalogue(view)
    east, north = [], []
    for cx, cy in zip(x, y, strict=True):
        column, row = round(cx), round(cy)
        if not (8 <= column < image.shape[1] - 8 and 8 <= row < image.shape[0] - 8):
            continue
        box = (slice(row - 6, row + 7), slice(column - 6, column + 7))
        if (image.mask[box] & bits(*NOT_AS_MEASURED)).any():
            continue
        noise = float(np.sqrt(np.median(image.variance[box])))
        if image.image[box].max() < 0.1 * snr_min * noise * 3.0:
            continue
        dy, dx = _windowed(image.image[box].astype(float))
        ra, dec = image.wcs.all_pix2world([column - 6 + dx], [row - 6 + dy], 0)
        ra0, dec0 = image.wcs.all_pix2world([cx], [cy], 0)
        east.append(float((ra[0] - ra0[0]) * np.cos(np.radians(dec0[0])) * 3.6e6))
        north.append(float((dec[0] - dec0[0]) * 3.6e6))
    return {"east": np.array(east), "north": np.array(north)}


def _windowed(stamp: np.ndarray, sigma: float = 2.0) -> tuple[float, float]:
    """Gaussian-windowed centroid, iterated to convergence."""
    yy, xx = np.indices(stamp.shape, dtype=float)
    cy = cx = (stamp.shape[0] - 1) / 2.0
    for _ in range(20):
        weight = np.exp(-0.5 * ((xx - cx) ** 2 + (yy - cy) ** 2) / sigma**2) * stamp
        total = weight.sum()
        step = 2.0 * (weight * (yy - cy)).sum() / total, 2.0 * (weight * (xx - cx)).sum() / total
        cy, cx = cy + float(step[0]), cx + float(step[1])
        if max(abs(step[0]), abs(step[1])) < 1e-4:
            break
    return cy, cx


def _catalogue(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Isolated reference stars at the epoch of the image: x, y in pixels and flux in nJy."""
    image = view.visit_image
    x, y, near = _projected(view)
    flux = view.refcat[f"{image.info.band}Flux"].astype(float)[near]
    positions = np.stack([x, y], axis=1)
    inside = (x > 15) & (x < image.shape[1] - 16) & (y > 15) & (y < image.shape[0] - 16)
    use = inside & isolated(positions, positions, 16.0) & (flux > 0)
    return x[use], y[use], flux[use]


def _standards_in(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel positions and colours of the reference stars round the image."""
    x, y, near = _projected(view)
    return x, y, _colour(view.refcat)[near]


def _projected(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return remember(view, "reference stars", lambda: _all_projected(view))


def _all_projected(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of the reference stars at the epoch of the image, and which of the catalogue."""
    image, stars = view.visit_image, view.refcat
    assert image.wcs is not None
    epoch = stars["epochMjdTai"].astype(float)
    years = np.nan_to_num(image.info.midpoint_mjd_tai - epoch) / 365.25  # none: of date
    dec = stars["dec"] + np.nan_to_num(stars["pmDec"].astype(float)) * years / 3.6e6
    shift = np.nan_to_num(stars["pmRa"].astype(float)) * years / 3.6e6
    ra = stars["ra"] + shift / np.cos(np.radians(dec))
    ra_c, dec_c = image.wcs.all_pix2world([image.shape[1] / 2], [image.shape[0] / 2], 0)
    near = np.hypot((ra - ra_c) * np.cos(np.radians(dec_c)), dec - dec_c) < 0.25
    x, y = image.wcs.all_world2pix(ra[near], dec[near], 0, quiet=True)
    return x, y, near


def _fits(view: View, snr_min: float, snr_max: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fitted over true flux, χ² and positions of stars in a range of signal to noise."""
    table = remember(view, "star fits", lambda: _all_fits(view))
    chosen = table[(table[:, 0] > snr_min) & (table[:, 0] < snr_max)]
    return chosen[:, 1], chosen[:, 2], chosen[:, 3:5]


def _all_fits(view: View) -> np.ndarray:
    """Fit every isolated star above SNR 20.

    Columns are SNR, flux ratio, χ², x, y, excess of T, e1 and e2, its error, electrons per nJy.
    """
    image = view.visit_image
    x, y, flux, through = _true_stars(view)
    bad = (image.mask & bits(*NOT_AS_MEASURED)) != 0
    noise = float(np.sqrt(np.median(image.variance[::8, ::8])))
    some = np.flatnonzero(flux / (noise * 8.0) > 15.0)
    some = some[np.argsort(-flux[some], kind="stable")][:400]
    positions = np.stack([x[some], y[some]], axis=1)
    assert image.psf is not None
    found = star_fits(image.image, image.variance, bad, image.psf, positions)
    rows = [
        (f.flux / f.flux_err, f.flux / t, f.chi2, *p, *f.shape, f.shape_err, e)
        for f, t, e, p in zip(found, flux[some], through[some], positions, strict=True)
        if f is not None
    ]
    return np.array(rows).reshape(-1, 10)


def _true_stars(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Isolated simulated stars in this frame; reference stars where there is no truth.

    Pixel positions, fluxes in nJy, and electrons that arrived per nJy (1 where unknown).
    """
    if not (view.space.root / "truth" / "visits.parquet").is_file():
        x, y, flux = _catalogue(view)
        return x, y, flux, np.ones(len(x))
    truth = view.truth
    x, y, flux = (truth[n].astype(float) for n in ("x", "y", "flux"))
    ny, nx = view.visit_image.shape
    rivals = flux > 0.02 * np.quantile(flux[flux > 0], 0.9)
    everything = np.stack([x, y], axis=1)
    inside = (x > 15) & (x < nx - 16) & (y > 15) & (y < ny - 16)
    stars = (truth["kind"] == "star") & inside & (flux > 0)
    stars &= isolated(everything, everything[rivals], 14.0)
    electrons = truth["fluxElectrons"][stars].astype(float)
    return x[stars], y[stars], flux[stars], electrons / flux[stars]


@metric(
    "star_chi2",
    unit="",
    product="visit_image",
    reads=("visit_image", "truth", "refcat"),
    reduce="median",
)
def star_chi2(view: View, snr_min: float = 50.0, snr_max: float = 500.0) -> Sample:
    """Median χ² per pixel of the PSF model at isolated stars, fitted anew."""
    _, chi2, _ = _fits(view, snr_min, snr_max)
    return Sample(float(np.median(chi2)), len(chi2)) if len(chi2) else Sample(float("nan"), 0)


@metric(
    "flux_error",
    unit="mmag",
    product="visit_image",
    reads=("visit_image", "truth", "refcat"),
    reduce="worst",
)
def flux_error(view: View, snr_min: float = 50.0, snr_max: float = 1000.0) -> Sample:
    """Median error of the calibrated flux of stars against the truth: that of the zero point."""
    ratio, _, _ = _fits(view, snr_min, snr_max)
    if len(ratio) < 5:
        return Sample(float("nan"), 0)
    return Sample(
        float(_MMAG * np.log(np.median(ratio))), len(ratio), float(_MMAG * median_error(ratio))
    )


@metric(
    "zero_point_pull",
    unit="σ",
    product="visit_image",
    reads=("visit_image", "truth", "refcat"),
    reduce="worst",
)
def zero_point_pull(view: View, snr_min: float = 50.0, snr_max: float = 1000.0) -> Sample:
    """Error of the zero point against the truth over the quoted error and that of the median."""
    calib = view.visit_image.photo_calib
    ratio, _, _ = _fits(view, snr_min, snr_max)
    if len(ratio) < 20 or calib is None or not calib.zero_point_err > 0:
        return Sample(float("nan"), 0)
    error = _MMAG / 1000.0 * float(np.log(np.median(ratio)))
    yardstick = _MMAG / 1000.0 * median_error(ratio)
    return Sample(error / float(np.hypot(calib.zero_point_err, yardstick)), len(ratio))


@metric(
    "psf_size_error",
    unit="%",
    product="visit_image",
    reads=("visit_image", "truth", "refcat"),
    reduce="mean",
)
def psf_size_error(view: View, snr_min: float = 200.0) -> Sample:
    """Mean relative excess of the size T of bright isolated stars over that of the PSF model."""
    (size, _, _), errors = _shapes(view, snr_min)
    return Sample(100.0 * size, len(errors), 100.0 * _mean_error(errors))


@metric(
    "psf_ellipticity_error",
    unit="",
    product="visit_image",
    reads=("visit_image", "truth", "refcat"),
    reduce="mean",
)
def psf_ellipticity_error(view: View, component: int = 1, snr_min: float = 200.0) -> Sample:
    """Mean excess of an ellipticity of bright isolated stars over that of the PSF model."""
    shape, errors = _shapes(view, snr_min)
    return Sample(shape[component], len(errors), _mean_error(errors))


def _shapes(view: View, snr_min: float) -> tuple[tuple[float, float, float], np.ndarray]:
    """Mean excess of T, e1 and e2 over the model's, weighted, without outliers."""
    table = remember(view, "star fits", lambda: _all_fits(view))
    bright = table[table[:, 0] > snr_min]
    if len(bright) < 10:
        return (float("nan"),) * 3, np.array([])
    errors = np.hypot(bright[:, 8], 0.002)  # the brightest star alone decides nothing
    means = []
    for values in bright[:, 5:8].T:
        near = np.abs(values - np.median(values)) < 4 * np.maximum(mad_std(values), errors)
        means.append(float(np.average(values[near], weights=errors[near] ** -2.0)))
    return (means[0], means[1], means[2]), errors


def _mean_error(errors: np.ndarray) -> float:
    return float(np.sum(errors**-2.0) ** -0.5) if len(errors) else float("nan")


@metric(
    "flux_flatness",
    unit="%",
    product="visit_image",
    reads=("visit_image", "truth"),
    reduce="worst",
)
def flux_flatness(view: View, snr_min: float = 200.0) -> Sample:
    """Rms over the detector of a quadratic trend of PSF flux over the electrons that arrived.

    The electrons of the truth contain thin clouds and what the flat does not know, so that the
    trend is that of the PSF model and of the reduction alone.
    """
    table = remember(view, "star fits", lambda: _all_fits(view))
    bright = table[table[:, 0] > snr_min]
    if len(bright) < 20:
        return Sample(float("nan"), 0)
    ratio = bright[:, 1] / bright[:, 9]
    ny, nx = view.visit_image.shape
    design = _quadratic(2 * bright[:, 3] / nx - 1, 2 * bright[:, 4] / ny - 1)
    weight = 1.0 / np.hypot(1.0 / bright[:, 0], 0.002)
    keep = np.abs(ratio / np.median(ratio) - 1.0) < 5.0 * np.maximum(1.0 / weight, 0.002)
    normal, data = design[keep] * weight[keep, None], ratio[keep] * weight[keep]
    fit = np.linalg.lstsq(normal, data, rcond=None)[0]
    grid = _quadratic(*(a.ravel() for a in np.mgrid[-1:1:11j, -1:1:11j]))
    shape = (grid - grid.mean(axis=0)) / fit[0]
    noise = np.mean(np.sum((shape @ np.linalg.inv(normal.T @ normal)) * shape, axis=1))
    rms, error = float((shape @ fit).std()), float(np.sqrt(noise / design.shape[1]))
    return Sample(100.0 * rms, int(keep.sum()), 100.0 * error)


def _quadratic(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)
