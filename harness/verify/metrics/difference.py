"""Difference images: kernel, masks and provenance, recomputed and compared."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy import signal

from harness.system.hashes import file_hash
from harness.verify.metric import Sample, metric
from harness.verify.metrics.stars import off_centre
from harness.verify.star_fits import isolated, star_fits
from harness.verify.view import View, remember
from harness.workspace import Workspace
from pipeline.exposure import Exposure, FloatArray, MatchingKernel, Psf, polynomial_terms
from pipeline.masks import NOT_AS_MEASURED, bits
from pipeline.statistics import mad_std, median_error

__all__: list[str] = []

_CORE = 7


@metric(
    "kernel_mismatch",
    unit="%",
    product="difference",
    reads=("difference", "visit_image", "warped"),
    reduce="worst",
)
def kernel_mismatch(view: View) -> Sample:
    """Measure how far the difference is from that made anew, at stars, in % of their flux.

    Decorrelation rearranges the noise but leaves fluxes alone: at every bright star the flux in the
    stored difference must be that in science − kernel ⊗ template − background, less the structure
    of the sky that was taken off it and kept, each measured with its own PSF.  The number is the
    median of the absolute deviations, every star counted by its flux, for noise tells of the
    faint ones only.
    """
    exposure = view.difference.exposure
    assert exposure.psf is not None
    found = []
    for x, y, remade, matched, _ in _remade_stars(view):
        psf = _remade_psf(view, x, y)
        stored = _psf_flux(_around(exposure.image, int(x), int(y), _CORE), exposure.psf.at(x, y))
        flux, off = _psf_flux(matched, psf), abs(_psf_flux(remade, psf) - stored)
        if flux > 0 and np.isfinite(off):
            found.append((off / flux, flux))
    if len(found) < 8:
        return Sample(float("nan"), 0)
    deviations, fluxes = np.array(sorted(found)).T
    middle = np.searchsorted(np.cumsum(fluxes), 0.5 * fluxes.sum())
    return Sample(100.0 * float(deviations[middle]), len(found))


def _remade_psf(view: View, x: float, y: float) -> FloatArray:
    """PSF of the difference before it was decorrelated, per flux in the visit image."""
    kernel, psf = view.difference.kernel, view.visit_image.psf
    assert psf is not None
    stamp = psf.at(x, y)
    if kernel.convolved == "science":
        return np.asarray(signal.fftconvolve(stamp, kernel.at(x, y), mode="same"))
    if kernel.before is not None:
        return np.asarray(signal.fftconvolve(stamp, kernel.before, mode="same"))
    return np.asarray(stamp)


def _psf_flux(stamp: npt.NDArray[np.floating], psf: FloatArray) -> float:
    """Flux of the least squares in the cores of two stamps of odd sides."""
    data, model = (a[_core(a), _core(a)] for a in (stamp, psf))
    return float((data * model).sum() / (model**2).sum())


def _core(stamp: npt.NDArray[np.floating]) -> slice:
    return slice(len(stamp) // 2 - _CORE, len(stamp) // 2 + _CORE + 1)


@metric(
    "kernel_flux_error",
    unit="%",
    product="difference",
    reads=("difference", "visit_image", "warped"),
    reduce="mean",
)
def kernel_flux_error(view: View, radius: float = 5.0) -> Sample:
    """Flux of stars on the science image over the matched template, minus one, in percent."""
    error = np.array(
        [
            _disc(remade, *middle, radius) / _disc(matched, *middle, radius, 0.0)
            for *_, remade, matched, middle in _remade_stars(view)
        ]
    )
    error = error[np.isfinite(error)]
    error = error[np.abs(error - np.median(error)) < 5 * mad_std(error)] if len(error) else error
    if len(error) < 8:
        return Sample(float("nan"), 0)
    return Sample(100.0 * float(np.median(error)), len(error), 100.0 * float(median_error(error)))


_Star = tuple[float, float, npt.NDArray[Any], npt.NDArray[Any], tuple[float, float]]


def _remade_stars(view: View) -> list[_Star]:
    return remember(view, "remade stars", lambda: _remake_stars(view))


def _remake_stars(view: View, half: int = 14) -> list[_Star]:
    """Return difference and matched template round bright stars, made anew from the stored kernel.

    Each entry is x, y, remade difference, what was subtracted and the place of the star in them.
    """
    kernel, structure = view.difference.kernel, view.difference.exposure.background
    science, template = view.visit_image.image, view.warped.image
    reach = half + kernel.basis.shape[-1] // 2
    ny, nx = science.shape
    stars = []
    for x, y in remember(view, "peaks", lambda: _peaks(view.visit_image, view.warped, 50.0)):
        if not (reach < x < nx - reach - 1 and reach < y < ny - reach - 1):
            continue
        box = (slice(int(y) - reach, int(y) + reach + 1), slice(int(x) - reach, int(x) + reach + 1))
        first, second = science[box].astype(float), template[box].astype(float)
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            continue
        if kernel.before is not None:
            first, second = _filtered_before(kernel, first, second)
        shape = kernel.at(x, y)
        edge = slice(reach - half, reach + half + 1)
        if kernel.convolved == "template":
            second = signal.fftconvolve(second, shape, mode="same")
        else:
            first = signal.fftconvolve(first, shape, mode="same")
        remade = (first - second)[edge, edge] - _background_at(kernel, x, y)
        if structure is not None:  # in units of the visit image
            scale = kernel.sum_at([x], [y])[0] if kernel.convolved == "science" else 1.0
            remade -= scale * structure[box][edge, edge]
        stars.append((x, y, remade, second[edge, edge], (float(half), float(half))))
    return stars


def _filtered_before(
    kernel: MatchingKernel, science: FloatArray, template: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Filter the one of two stamps that was filtered before the other was matched to it."""
    assert kernel.before is not None
    if kernel.convolved == "template":
        return signal.fftconvolve(science, kernel.before, mode="same"), template
    return science, signal.fftconvolve(template, kernel.before, mode="same")


def _background_at(kernel: MatchingKernel, x: float, y: float) -> float:
    order = int((np.sqrt(8 * len(kernel.background) + 1) - 3) / 2 + 0.5)
    if not len(kernel.background):
        return 0.0
    return float(polynomial_terms(x, y, kernel.shape, order)[0] @ kernel.background)


@metric(
    "star_residual",
    unit="%",
    product="difference",
    reads=("difference", "visit_image", "warped"),
    reduce="worst",
)
def star_residual(view: View, peak_min: float = 50.0, least: int = 8, half: int = 7) -> Sample:
    """Measure the pattern that bright unsaturated stars leave, in % of their peak, worst pixel.

    The median star shows what a kernel leaves of all of them; what single stars leave, because
    they vary or move, is no pattern.  Neighbours do not matter either: they stand elsewhere.
    """
    exposure, science = view.difference.exposure, view.visit_image
    noise = float(np.sqrt(np.nanmedian(science.variance[::8, ::8])))
    level = float(np.nanmedian(science.image[::8, ::8]))
    places = _tops(view, level + peak_min * noise, half)
    stamps = np.array([_around(exposure.image, x, y, half) for x, y in places], float)
    peaks = np.array([science.image[y, x] - level for x, y in places], float)
    if len(places) < least:
        return Sample(float("nan"), 0)
    shares = stamps / peaks[:, None, None]
    pattern = np.median(shares, axis=0)
    row, column = divmod(int(np.argmax(np.abs(pattern))), pattern.shape[1])
    error = 100.0 * float(median_error(shares[:, row, column]))
    return Sample(100.0 * abs(float(pattern[row, column])), len(places), error)


def _tops(view: View, limit: float, half: int) -> list[tuple[int, int]]:
    """Peaks above a limit in the science image that are clean in both images and the difference."""
    image = np.nan_to_num(view.visit_image.image)
    bad = (view.difference.exposure.mask & np.uint32(view.excluded_bits)) != 0
    bad |= ((view.visit_image.mask | view.warped.mask) & bits(*NOT_AS_MEASURED)) != 0
    rows, columns = np.nonzero(~bad & (image > limit))
    y, x = _highest(image, rows, columns)
    return [
        (c, r) for c, r in zip(x.tolist(), y.tolist(), strict=True) if not _touches(bad, c, r, half)
    ]


def _peaks(science: Exposure, template: Exposure, snr_min: float) -> npt.NDArray[np.float64]:
    """Bright isolated peaks that are clean in both images."""
    noise = float(np.sqrt(np.median(science.variance[::8, ::8])))
    image = np.nan_to_num(science.image)
    clean = (science.mask & bits(*NOT_AS_MEASURED)) == 0
    rows, columns = np.nonzero(clean & (image > 0.12 * snr_min * noise))
    y, x = _highest(image, rows, columns)
    everything = np.stack([x, y], axis=1).astype(float)
    if not len(everything):
        return everything
    bad = ((science.mask | template.mask) & bits(*NOT_AS_MEASURED)) != 0
    alone = isolated(everything, everything, 30.0)
    order = np.argsort(-image[y, x], kind="stable")
    kept = [i for i in order if alone[i] and not _touches(bad, int(x[i]), int(y[i]))]
    return everything[kept[:200]]


def _highest(
    image: npt.NDArray[np.floating], y: npt.NDArray[np.int_], x: npt.NDArray[np.int_], half: int = 4
) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Those pixels that none within a square exceeds; the nearest neighbours rule most out."""
    ny, nx = image.shape
    steps = range(-half, half + 1)
    for dy, dx in sorted(itertools.product(steps, steps), key=lambda s: s[0] ** 2 + s[1] ** 2):
        near = image[(y + dy).clip(0, ny - 1), (x + dx).clip(0, nx - 1)]
        high = image[y, x] >= near
        y, x = y[high], x[high]
    return y, x


def _around(
    image: npt.NDArray[np.floating], x: int, y: int, half: int = 4
) -> npt.NDArray[np.floating]:
    return image[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1]


def _touches(bad: npt.NDArray[np.bool_], x: int, y: int, half: int = 12) -> bool:
    ny, nx = bad.shape
    if not (half <= x < nx - half and half <= y < ny - half):
        return True
    return bool(bad[y - half : y + half + 1, x - half : x + half + 1].any())


def _disc(
    image: npt.NDArray[np.floating], x: float, y: float, radius: float, level: float | None = None
) -> float:
    """Sum within a radius above a level, by default the median of a ring round it."""
    half = int(radius) + 6
    row, column = int(y), int(x)
    stamp = image[row - half : row + half + 1, column - half : column + half + 1].astype(float)
    if stamp.shape != (2 * half + 1, 2 * half + 1):
        return float("nan")
    yy, xx = np.indices(stamp.shape) - half
    distance = np.hypot(xx, yy)
    if level is None:
        level = float(np.median(stamp[(distance > radius + 1) & (distance <= half)]))
    return float((stamp[distance <= radius] - level).sum())


@metric(
    "mask_kept",
    unit="",
    product="difference",
    reads=("difference", "visit_image", "warped"),
    reduce="worst",
)
def mask_kept(view: View, planes: list[str], source: str = "science") -> Sample:
    """Fraction of the input's masked pixels that carry the plane in the difference, worst plane."""
    origin = view.visit_image if source == "science" else view.warped
    target = view.difference.exposure
    found: list[tuple[float, int, str]] = []
    for plane in planes:
        name = f"{plane}_TEMPLATE" if source == "template" and plane == "SAT" else plane
        there = origin.has(plane)
        n = int(there.sum())
        if n:
            found.append((float(target.has(name)[there].mean()), n, name))
    if not found:
        return Sample(float("nan"), 0)
    worst = min(found)
    note = "" if worst[0] == 1.0 else f"worst plane {worst[2]}"
    return Sample(worst[0], sum(n for _, n, _ in found), note=note)


@metric("difference_psf_norm", unit="", product="difference", reads=("difference",), reduce="worst")
def difference_psf_norm(view: View) -> Sample:
    """Largest deviation of the flux of the difference's PSF within 12 pixels from one."""
    stamps = _psf_stamps(view)
    yy, xx = np.indices(stamps.shape[1:]) - stamps.shape[1] // 2
    sums = stamps[:, np.hypot(xx, yy) <= Psf.FLUX_RADIUS].sum(axis=1)
    return Sample(float(np.abs(sums - 1.0).max()), len(sums), nans=int(np.isnan(stamps).sum()))


@metric(
    "difference_psf_offset",
    unit="pixel",
    product="difference",
    reads=("difference",),
    reduce="worst",
)
def difference_psf_offset(view: View) -> Sample:
    """Largest distance of the middle of the difference's PSF from that of its stamp."""
    return off_centre(_psf_stamps(view))


def _psf_stamps(view: View) -> FloatArray:
    """PSFs of a difference on five by five places, the corners among them."""
    exposure = view.difference.exposure
    assert exposure.psf is not None
    ny, nx = exposure.shape
    x, y = np.meshgrid(np.linspace(0, nx - 1, 5), np.linspace(0, ny - 1, 5))
    return exposure.psf.stamps(x.ravel(), y.ravel())


@metric(
    "unresolved_inputs",
    unit="files",
    product="difference",
    reads=("difference", "visit_image", "template"),
    reduce="sum",
)
def unresolved_inputs(view: View) -> Sample:
    """Count identities in the cards, the template's inputs too, that lead to nothing or elsewhere.

    The inputs are those that the template's own header and the catalogue name; the difference is,
    to the last bit, the file that the catalogue recorded.
    """
    space = view.space
    path = space.difference(view.visit, view.number)
    cards = fits.getheader(path)
    science = space.visit_image(view.visit, view.number)
    template = space.template(str(cards.get("TMPLID", "")))
    named = _inputs(cards)
    catalogued = sorted(f"{visit}_{number:02d}" for visit, number, _ in view.template_inputs)
    digest, *contents = view.recorded or ("",)
    found = [
        _is(science, cards.get("SCIHASH")),
        _is(template, cards.get("TMPLHASH")),
        f"{view.visit}_{view.number:02d}" in str(cards.get("SCIID", "")),
        template.is_file() and named == _inputs(fits.getheader(template)),
        sorted(named) == catalogued,
        _is(path, digest),
        *(
            text in str(cards.get(name, ""))
            for name, text in zip(("STAGEVER", "SOFTVER", "RUNID"), contents, strict=False)
        ),
        *(_visit_image(space, name).is_file() for name in named),
    ]
    return Sample(float(found.count(False)), len(found))


def _inputs(cards: fits.Header) -> list[str]:
    """Visit and detector of the inputs of a template that a header names."""
    return [str(cards.get(f"TMPLIN{i + 1}", "")) for i in range(int(cards.get("NTMPLIN", 0)))]


def _visit_image(space: Workspace, name: str) -> Path:
    match = re.search(r"(\d+)_(\d+)", name)
    return space.visit_image(int(match[1]), int(match[2])) if match else Path()


def _is(path: Path, digest: object) -> bool:
    return path.is_file() and file_hash(path) == digest


@metric(
    "mask_overgrowth",
    unit="%",
    product="difference",
    reads=("difference", "visit_image", "warped"),
    reduce="worst",
)
def mask_overgrowth(view: View) -> Sample:
    """Share of the difference excluded from detection though neither input is, in percent.

    Trails that were found on the difference itself are no dilation of anything.
    """
    bad = np.uint32(view.excluded_bits)
    mask = view.visit_image.mask | view.warped.mask
    inputs = (mask & bad) != 0
    excluded = (view.difference.exposure.mask & bad) != 0
    excluded &= ~view.difference.exposure.has("EDGE", "NO_DATA")
    return Sample(100.0 * float((excluded & ~inputs).mean()), excluded.size)


@metric(
    "difference_psf",
    unit="",
    product="difference",
    reads=("difference", "truth", "template"),
    reduce="pooled",
)
def difference_psf(
    view: View, snr_min: float = 20.0, snr_max: float = 200.0, half: int = 5
) -> Sample:
    """Mean χ² per pixel of the difference's own PSF at bright transients of known position."""
    from harness.verify.metrics.transients import true_differences

    exposure = view.difference.exposure
    assert exposure.psf is not None
    rows = [
        r
        for r in true_differences(view)
        if not r["masked"] and not r["trailLength"] and snr_min < r["trueSnr"] < snr_max
    ]
    positions = np.array([[r["x"], r["y"]] for r in rows]).reshape(-1, 2)
    bad = (exposure.mask & bits(*NOT_AS_MEASURED)) != 0
    found = star_fits(exposure.image, exposure.variance, bad, exposure.psf, positions, half)
    values = [f.chi2 for f in found if f is not None]
    if not values:
        return Sample(float("nan"), 0)
    n = len(values)
    scatter = float(np.std(values, ddof=1)) if n > 1 else float(np.sqrt(2.0) / (2 * half + 1))
    return Sample(float(np.mean(values)), n, scatter / np.sqrt(n))
