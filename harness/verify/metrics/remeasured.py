"""Sources measured once more, from the pixels of the difference, by code of our own.

What a table says of a source is compared with its own pixels: no truth is needed, and as both
have the same noise, differences of a per cent show in a few dozen sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy.ndimage import fourier_shift

from harness.alerts.entries import read_alerts
from harness.verify.metric import Sample, metric
from harness.verify.view import View, remember
from pipeline.exposure import Exposure
from pipeline.masks import bits
from pipeline.statistics import median_error

__all__ = ["clean_sources", "median_of"]

FloatArray = npt.NDArray[np.float64]
_RADIUS = 8.0
"""Radius of the pixels in a flux, as in the pipeline: it is part of what a flux is."""
_FLAGS = {
    "saturated": ("SAT",),
    "cr": ("CR",),
    "edge": ("EDGE",),
    "interpolated": ("INTRP",),
    "suspect": ("SUSPECT",),
    "streak": ("STREAK",),
    "saturated_template": ("SAT_TEMPLATE",),
}
_CORE = 2
_ERRORS: dict[str, tuple[tuple[str, int | None], ...]] = {
    "position": (("xErr", 1), ("yErr", 0)),
    "flux": (("psfFluxErr", None),),
}


@dataclass(frozen=True, slots=True)
class _Disc:
    """The pixels of one source: PSF moved to its place, image and source-free variance."""

    index: int
    stamp: FloatArray
    inside: npt.NDArray[np.bool_]
    image: FloatArray
    null: FloatArray

    def profile(self, axis: int | None = None) -> FloatArray:
        """PSF in the pixels of the disc, or its derivative along an axis."""
        plane = self.stamp if axis is None else _slope(self.stamp, axis)
        half, middle = len(self.inside) // 2, len(plane) // 2
        cut = plane[middle - half : middle + half + 1, middle - half : middle + half + 1]
        return np.asarray(cut[self.inside])


def _discs(view: View, x: FloatArray, y: FloatArray) -> Iterator[_Disc]:
    """Cut out the sources all of whose pixels are on the difference and good."""
    difference = view.difference
    bad = np.uint32(view.excluded_bits | bits("INTRP"))
    return _cut_out(difference.exposure, difference.null_variance, bad, x, y)


def _cut_out(
    exposure: Exposure, variance: npt.NDArray[Any], bad: np.uint32, x: FloatArray, y: FloatArray
) -> Iterator[_Disc]:
    """Cut out the sources none of whose pixels carries a plane that is bad."""
    half, psf = int(_RADIUS) + 1, exposure.psf
    assert psf is not None
    image, mask = exposure.image, exposure.mask
    ny, nx = image.shape
    grid = np.arange(-half, half + 1)
    for k, (stamp, u, v) in enumerate(zip(psf.stamps(x, y), x, y, strict=True)):
        i, j = round(float(u)), round(float(v))
        if not (half <= i < nx - half and half <= j < ny - half):
            continue
        box = slice(j - half, j + half + 1), slice(i - half, i + half + 1)
        inside = np.hypot(grid[:, None] - (v - j), grid - (u - i)) <= _RADIUS
        if not (mask[box] & bad)[inside].any():
            moved = _moved(stamp, v - j, u - i)
            yield _Disc(k, moved, inside, image[box][inside], variance[box][inside])


def _psf_flux(view: View, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Optimal flux and its source-free error at fixed positions, NaN where pixels are masked.

    Σ P d / V over Σ P² / V with the PSF P moved to the position by its Fourier transform and the
    source-free variance V (Naylor 1998, MNRAS 296, 339), nJy.
    """
    flux, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for disc in _discs(view, x, y):
        profile = disc.profile()
        weight = profile / disc.null
        flux[disc.index] = weight @ disc.image / (weight @ profile)
        error[disc.index] = (weight @ profile) ** -0.5
    return flux, error


def _moved(stamp: FloatArray, dy: float, dx: float) -> FloatArray:
    """Move a PSF by a part of a pixel, by its Fourier transform."""
    return np.asarray(np.fft.ifft2(fourier_shift(np.fft.fft2(stamp), (dy, dx))).real)


def _slope(stamp: FloatArray, axis: int) -> FloatArray:
    """Differentiate a well-sampled stamp along an axis, by its Fourier transform."""
    n = stamp.shape[axis]
    k = np.fft.fftfreq(n)
    k = np.where(np.abs(k) == 0.5, 0.0, k)
    k = k[:, None] if axis == 0 else k
    return np.asarray(np.fft.ifft(2j * np.pi * k * np.fft.fft(stamp, axis=axis), axis=axis).real)


def clean_sources(view: View) -> Mapping[str, npt.NDArray[Any]]:
    """Isolated single points with good fits.

    Parameters
    ----------
    view : View
        The unit.

    Returns
    -------
    mapping of ndarray, (n,)
        Columns of ``DiaSource``.
    """
    s = view.sources
    good = ~s["isSubThreshold"] & ~s["isDipole"] & ~s["isTrailed"] & ~s["psfFlux_flag"]
    good &= ~s["centroid_flag"] & ~s["isDeblendParent"] & (s["parentDiaSourceId"] < 0)
    good &= _alone(s["x"], s["y"])
    return {name: column[good] for name, column in s.items()}


def _alone(x: FloatArray, y: FloatArray, radius: float = 3.0 * _RADIUS) -> npt.NDArray[np.bool_]:
    near = np.hypot(x[:, None] - x, y[:, None] - y) < radius
    return np.asarray(near.sum(axis=1) == 1)


def median_of(values: FloatArray) -> Sample:
    """Median with its error, of what is finite.

    Parameters
    ----------
    values : ndarray, (n,)
        One value per source.

    Returns
    -------
    Sample
        NaN of nothing.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return Sample(float("nan"), 0)
    return Sample(float(np.median(values)), len(values), median_error(values))


@metric(
    "flux_remeasured", unit="%", product="difference", reads=("difference", "sources"),
    reduce="pooled",
)  # fmt: skip
def flux_remeasured(view: View, snr_min: float = 10.0) -> Sample:
    """Fluxes of clean sources in the table over those of their pixels, less one, median."""
    s = clean_sources(view)
    own, error = _psf_flux(view, s["x"], s["y"])
    bright = np.abs(own) > snr_min * error
    return median_of(100.0 * (s["psfFlux"][bright] / own[bright] - 1.0))


@metric(
    "flux_error_remeasured", unit="%", product="difference", reads=("difference", "forced"),
    reduce="pooled",
)  # fmt: skip
def flux_error_remeasured(view: View, snr_max: float = 3.0) -> Sample:
    """Errors of faint forced fluxes over those from the source-free variance, less one, median."""
    f, own, error = _forced(view)
    faint = np.abs(own) < snr_max * error
    return median_of(100.0 * (f["psfFluxErr"][faint] / error[faint] - 1.0))


@metric(
    "forced_remeasured", unit="", product="difference", reads=("difference", "forced"),
    reduce="pooled",
)  # fmt: skip
def forced_remeasured(view: View, sigmas: float = 0.5) -> Sample:
    """Fraction of forced fluxes that are not those of the pixels of their own visit."""
    f, own, error = _forced(view)
    known = np.isfinite(own) & np.isfinite(f["psfFlux"])
    wrong = np.abs(f["psfFlux"] - own) > sigmas * error + 0.05 * np.abs(own)
    n = int(known.sum())
    return Sample(float(wrong[known].mean()) if n else float("nan"), n)


def _forced(view: View) -> tuple[Mapping[str, npt.NDArray[Any]], FloatArray, FloatArray]:
    """Return forced rows with flux and error of their own pixels at their positions."""

    def measure() -> Any:
        wcs, rows = view.difference.exposure.wcs, view.forced
        assert wcs is not None
        x, y = wcs.all_world2pix(rows["ra"], rows["dec"], 0) if len(rows["ra"]) else ([], [])
        return rows, *_psf_flux(view, np.asarray(x, float), np.asarray(y, float))

    found: tuple[Mapping[str, npt.NDArray[Any]], FloatArray, FloatArray] = remember(
        view, "forced fluxes", measure
    )
    return found


@metric(
    "pixel_error_remeasured", unit="%", product="difference", reads=("difference", "sources"),
    reduce="pooled",
)  # fmt: skip
def pixel_error_remeasured(
    view: View, of: Literal["position", "flux"] = "position", snr_max: float = 12.0
) -> Sample:
    """Errors of faint clean sources over the Cramér-Rao bound, less one, median.

    With the PSF P, its derivatives P' and the source-free variance V the bound of a flux f is
    1 / √(Σ P² / V), of a position 1 / (f √(Σ P'² / V)).  Sources on something brighter than
    themselves are left out: their errors contain the pull of its residual.
    """
    s = clean_sources(view)
    alone = np.abs(s["templateFlux"]) < np.abs(s["psfFlux"])
    usable = alone & np.isfinite(s["xErr"] + s["yErr"])
    faint = np.flatnonzero(usable & (np.abs(s["snr"]) < snr_max))
    ratios = []
    for disc in _discs(view, s["x"][faint], s["y"][faint]):
        k = faint[disc.index]
        for name, axis in _ERRORS[of]:
            information = float((disc.profile(axis) ** 2 / disc.null).sum()) ** 0.5
            scale = 1.0 if axis is None else abs(float(s["psfFlux"][k]))
            ratios.append(100.0 * (s[name][k] * scale * information - 1.0))
    return median_of(np.array(ratios))


@metric(
    "aperture_remeasured", unit="%", product="difference", reads=("difference", "sources"),
    reduce="pooled",
)  # fmt: skip
def aperture_remeasured(view: View, snr_min: float = 20.0) -> Sample:
    """Aperture fluxes of clean bright sources over the sums of their pixels, less one, median."""
    import sep

    s = clean_sources(view)
    radius = float(view.settings.diasource.aperture_radius)
    bad = (view.difference.exposure.mask & np.uint32(view.excluded_bits)) != 0
    image = np.ascontiguousarray(view.difference.exposure.image, np.float32)
    sums, _, flags = sep.sum_circle(image, s["x"], s["y"], radius, subpix=0)
    lost, _, _ = sep.sum_circle(bad.astype(np.float32), s["x"], s["y"], radius, subpix=0)
    good = (lost == 0) & (flags == 0) & (np.abs(s["snr"]) > snr_min) & ~s["apFlux_flag"]
    return median_of(100.0 * (s["apFlux"][good] / sums[good] - 1.0))


@metric(
    "significance_remeasured", unit="%", product="difference", reads=("difference", "sources"),
    reduce="pooled",
)  # fmt: skip
def significance_remeasured(view: View) -> Sample:
    """Significance of clean sources over the highest score within two pixels, less one, median."""
    s, score = clean_sources(view), np.abs(view.difference.score)
    peaks = _near(score, s["x"], s["y"], np.fmax)
    return median_of(100.0 * (s["snr"] / peaks - 1.0))


@metric(
    "science_flux_remeasured", unit="%", product="difference",
    reads=("difference", "visit_image", "sources", "forced"), reduce="pooled",
)  # fmt: skip
def science_flux_remeasured(
    view: View, of: Literal["sources", "forced"] = "forced", snr_min: float = 20.0
) -> Sample:
    """Compare fluxes on the visit image with those of its unmasked pixels: median ratio, less one.

    Σ P d / Σ P² with the PSF P at the place: bright sources of the sky need no weights.
    """
    f, exposure = view.forced if of == "forced" else view.sources, view.visit_image
    assert exposure.wcs is not None
    bright = f["scienceFlux"] > snr_min * f["scienceFluxErr"]
    if not bright.any():
        return Sample(float("nan"), 0)
    x, y = exposure.wcs.all_world2pix(f["ra"][bright], f["dec"][bright], 0)
    bad = ~np.uint32(bits("DETECTED", "DETECTED_NEGATIVE"))
    even = np.broadcast_to(np.float32(1.0), exposure.shape)
    ratios = []
    for disc in _cut_out(exposure, even, bad, x, y):
        profile = disc.profile()
        own = (profile @ disc.image) / (profile @ profile)
        ratios.append(100.0 * (f["scienceFlux"][bright][disc.index] / own - 1.0))
    return median_of(np.array(ratios))


@metric(
    "dipoles_remeasured", unit="deg", product="difference", reads=("difference", "sources"),
    reduce="pooled",
)  # fmt: skip
def dipoles_remeasured(view: View) -> Sample:
    """Angle between the bearing of a dipole and that from its negative to its positive light.

    The median of the absolute values: what lies beside a dipole turns some by much.
    """
    s = {n: c[view.sources["isDipole"]] for n, c in view.sources.items()}
    if not len(s["x"]):
        return Sample(float("nan"), 0)
    east, north = _jacobian(view, s["x"], s["y"])
    turns = []
    for disc in _discs(view, s["x"], s["y"]):
        k, rows_columns = disc.index, np.nonzero(disc.inside)
        dy, dx = _middle(disc.image, rows_columns) - _middle(-disc.image, rows_columns)
        right = east[0][k] * dx + east[1][k] * dy
        up = north[0][k] * dx + north[1][k] * dy
        turn = s["dipoleAngle"][k] - np.degrees(np.arctan2(right, up))
        turns.append(abs((turn + 180.0) % 360.0 - 180.0))
    return median_of(np.array(turns))


def _middle(image: FloatArray, places: tuple[npt.NDArray[np.int_], ...]) -> FloatArray:
    """Row and column of the middle of what is above zero."""
    light = np.clip(image, 0.0, None).astype(float)
    total = light.sum()
    return np.array([light @ p / total if total > 0 else np.nan for p in places])


@metric(
    "cutouts_remeasured", unit="cut-outs", product="difference",
    reads=("difference", "visit_image", "alerts"), reduce="sum",
)  # fmt: skip
def cutouts_remeasured(view: View, every: int = 5) -> Sample:
    """Count cut-outs whose pixels are not those of the images round their source."""
    path = view.space.alerts(view.visit, view.number)
    packets = list(read_alerts([path]))[::every] if path.is_file() else []
    images = {
        "cutoutDifference": view.difference.exposure.image,
        "cutoutScience": view.visit_image.image,
    }
    off = [
        not _is_cut_out(packet[name], image, packet["diaSource"]["x"], packet["diaSource"]["y"])
        for packet in packets
        for name, image in images.items()
    ]
    return Sample(float(sum(off)), len(off))


def _is_cut_out(data: bytes, image: npt.NDArray[np.floating], x: float, y: float) -> bool:
    with fits.open(BytesIO(data)) as hdus:
        pixels = np.asarray(hdus[0].data, np.float32)
    rows, columns = (round(c) + np.arange(len(pixels)) - len(pixels) // 2 for c in (y, x))
    ny, nx = image.shape
    down, right = (rows >= 0) & (rows < ny), (columns >= 0) & (columns < nx)
    here = image[np.ix_(rows[down], columns[right])]
    return bool(np.array_equal(pixels[np.ix_(down, right)], here, equal_nan=True))


@metric(
    "position_remeasured", unit="mas", product="difference", reads=("difference", "sources"),
)  # fmt: skip
def position_remeasured(view: View) -> Sample:
    """Largest distance of a source's coordinates from its pixel by the difference's WCS."""
    s, wcs = view.sources, view.difference.exposure.wcs
    assert wcs is not None
    if not len(s["x"]):
        return Sample(float("nan"), 0)
    ra, dec = wcs.all_pix2world(s["x"], s["y"], 0)
    east = (s["ra"] - ra) * np.cos(np.radians(dec))
    distance = 3.6e6 * np.hypot(east, s["dec"] - dec)
    return Sample(float(np.nanmax(distance)), len(distance), nans=int(np.isnan(distance).sum()))


@metric(
    "position_error_remeasured", unit="%", product="difference", reads=("difference", "sources"),
)  # fmt: skip
def position_error_remeasured(view: View) -> Sample:
    """Measure what raErr² and decErr² lack of the pixel errors through the WCS, or differ, worst.

    What widens the errors on the sky, the astrometric floor at least, widens both alike: the
    difference of the squares is that of the errors in pixels, and so is their covariance.  In per
    cent of their sum.
    """
    s = {n: c[np.isfinite(view.sources["xErr"])] for n, c in view.sources.items()}
    if not len(s["x"]):
        return Sample(float("nan"), 0)
    east, north = _jacobian(view, s["x"], s["y"])
    cov = s["x_y_Cov"]
    squares = [
        a[0] ** 2 * s["xErr"] ** 2 + a[1] ** 2 * s["yErr"] ** 2 + 2 * a[0] * a[1] * cov
        for a in (east, north)
    ]
    floor = 2.0 * (view.settings.diasource.sky_floor / 3600.0) ** 2
    total = s["raErr"] ** 2 + s["decErr"] ** 2
    apart = np.abs(s["raErr"] ** 2 - s["decErr"] ** 2 - (squares[0] - squares[1]))
    lacking = squares[0] + squares[1] + floor - total
    both = [a * b for a, b in zip(east, north, strict=True)]
    across = both[0] * s["xErr"] ** 2 + both[1] * s["yErr"] ** 2
    across += (east[0] * north[1] + east[1] * north[0]) * cov
    off = np.abs(s["ra_dec_Cov"] - across)
    excess = 100.0 * np.maximum.reduce([apart, lacking, off]) / total
    known = excess[np.isfinite(excess)]
    return Sample(float(known.max()) if len(known) else float("nan"), len(known))


def _jacobian(view: View, x: FloatArray, y: FloatArray) -> tuple[Any, Any]:
    """Degrees east and north per pixel along x and y."""
    wcs = view.difference.exposure.wcs
    assert wcs is not None
    at = [wcs.all_pix2world(x + dx, y + dy, 0) for dx, dy in ((0, 0), (1, 0), (0, 1))]
    cosine = np.cos(np.radians(at[0][1]))
    east = [(p[0] - at[0][0]) * cosine for p in at[1:]]
    north = [p[1] - at[0][1] for p in at[1:]]
    return east, north


@metric(
    "flags_remeasured", unit="flags", product="difference", reads=("difference", "forced"),
    reduce="sum",
)  # fmt: skip
def flags_remeasured(view: View) -> Sample:
    """Count flags of forced sources that are not those of the mask within two pixels."""
    f, wcs = view.forced, view.difference.exposure.wcs
    assert wcs is not None
    if not len(f["ra"]):
        return Sample(0.0, 0)
    x, y = wcs.all_world2pix(f["ra"], f["dec"], 0)
    found = _near(view.difference.exposure.mask, x, y, np.bitwise_or)
    wrong = sum(
        int((f[f"pixelFlags_{name}"] != ((found & np.uint32(bits(*planes))) != 0)).sum())
        for name, planes in _FLAGS.items()
    )
    return Sample(float(wrong), len(_FLAGS) * len(x))


def _near(
    plane: npt.NDArray[Any], x: npt.ArrayLike, y: npt.ArrayLike, how: np.ufunc
) -> npt.NDArray[Any]:
    """Reduce the pixels within two of positions."""
    step = np.arange(-_CORE, _CORE + 1)
    ny, nx = plane.shape
    rows = np.clip(np.rint(y).astype(int)[:, None, None] + step[:, None], 0, ny - 1)
    columns = np.clip(np.rint(x).astype(int)[:, None, None] + step, 0, nx - 1)
    return np.asarray(how.reduce(plane[rows, columns], axis=(1, 2)))


@metric(
    "epoch_remeasured", unit="s", product="difference", reads=("difference", "sources", "raw"),
)  # fmt: skip
def epoch_remeasured(view: View) -> Sample:
    """Largest distance of an epoch in the table from the middle of the raw exposure."""
    s = view.sources
    if not len(s["x"]):
        return Sample(float("nan"), 0)
    late = 86400.0 * np.abs(s["midpointMjdTai"] - view.raw.info.midpoint_mjd_tai)
    return Sample(float(late.max()), len(late))


@metric("lost_area", unit="%", product="visit_image", reads=("visit_image",))
def lost_area(view: View) -> Sample:
    """Pixels of a visit image without data or that are bad."""
    lost = view.visit_image.has("BAD", "NO_DATA", "UNMASKEDNAN")
    return Sample(100.0 * float(lost.mean()), lost.size)
