"""Difference images: kernel, masks and provenance, recomputed and compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy import ndimage, signal

from harness.hashes import file_hash
from harness.verify.metrics import Sample, metric
from harness.verify.robust import mad_std, median_error
from harness.verify.stamps import isolated, star_fits
from harness.verify.view import View
from pipeline.exposure import Exposure, MatchingKernel, bits

__all__: list[str] = []

_SMOOTH = 8.0  # pixel; above the scale on which decorrelation changes anything
_UNUSABLE = ("BAD", "SAT", "CR", "EDGE", "NO_DATA", "BLEED", "EDGEBLEED", "SAT_TEMPLATE", "INTRP")


@metric(
    "kernel_mismatch",
    unit="",
    product="difference",
    reads=("difference", "visit_image", "warped"),
    reduce="worst",
)
def kernel_mismatch(view: View) -> Sample:
    """Rms of difference − (science − kernel ⊗ template − background) after smoothing, over its own.

    Decorrelation multiplies every spatial frequency by a factor that tends to one at the lowest,
    so that the two must agree once both are smoothed.
    """
    difference = view.difference
    model, _ = _plain_difference(view)
    exposure = difference.exposure
    masks = exposure.mask | view.visit_image.mask | view.warped.mask
    used = (masks & bits(*_UNUSABLE)) == 0
    used &= np.isfinite(model) & np.isfinite(exposure.image)
    stored = _smoothed(exposure.image, used)
    again = _smoothed(model, used)
    inside = ndimage.binary_erosion(used[::4, ::4], iterations=2)
    a, b = stored[::4, ::4][inside], again[::4, ::4][inside]
    if len(a) < 500:
        return Sample(float("nan"), 0)
    return Sample(float(np.std(a - b) / np.std(a)), len(a))


def _plain_difference(view: View) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Difference made anew from the stored kernel, not decorrelated, and what was subtracted."""
    science, template, kernel = view.visit_image, view.warped, view.difference.kernel
    if kernel.convolved == "template":
        first, second = science.image.astype(float), _convolve(template, kernel)
    else:
        first, second = _convolve(science, kernel), template.image.astype(float)
    return first - second - _background(kernel, science.shape), second


def _convolve(exposure: Exposure, kernel: MatchingKernel) -> npt.NDArray[np.float64]:
    """Convolve with the spatially varying kernel, one basis function at a time."""
    image = np.nan_to_num(exposure.image).astype(np.float32)
    ny, nx = image.shape
    total = np.zeros(image.shape)
    grids = _terms(kernel.order, image.shape)
    # Σ_t T_t(x, y) (image ⊗ Σ_i c_it B_i): one convolution per spatial term.
    for term, grid in enumerate(grids):
        shape = np.tensordot(kernel.coefficients[:, term], kernel.basis, axes=1).astype(np.float32)
        total += grid * signal.oaconvolve(image, shape, mode="same")[:ny, :nx]
    return total


def _terms(order: int, shape: tuple[int, int]) -> list[npt.NDArray[np.float64]]:
    v, u = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return [u ** (d - k) * v**k for d in range(order + 1) for k in range(d + 1)]


def _background(kernel: MatchingKernel, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    order = int((np.sqrt(8 * len(kernel.background) + 1) - 3) / 2 + 0.5)
    if not len(kernel.background):
        return np.zeros(shape)
    grids = _terms(order, shape)
    return np.asarray(sum(c * g for c, g in zip(kernel.background, grids, strict=True)))


def _smoothed(
    image: npt.NDArray[np.float64] | npt.NDArray[np.float32], used: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    filled = np.where(used, image, 0.0).astype(np.float64)
    weight = ndimage.gaussian_filter(used.astype(np.float32), _SMOOTH)
    return np.asarray(ndimage.gaussian_filter(filled, _SMOOTH) / np.maximum(weight, 0.05))


@metric(
    "kernel_flux_error",
    unit="%",
    product="difference",
    reads=("difference", "visit_image", "warped"),
    reduce="mean",
)
def kernel_flux_error(view: View, snr_min: float = 50.0, radius: float = 5.0) -> Sample:
    """Flux of stars on the science image over the matched template, minus one, in percent."""
    stars = _peaks(view.visit_image, view.warped, snr_min)
    left, subtracted = _plain_difference(view)
    pairs = [(_disc(left, x, y, radius), _disc(subtracted, x, y, radius, 0.0)) for x, y in stars]
    error = np.array([a / b for a, b in pairs if b > 0])
    error = error[np.isfinite(error)]
    error = error[np.abs(error - np.median(error)) < 5 * mad_std(error)] if len(error) else error
    if len(error) < 8:
        return Sample(float("nan"), 0)
    return Sample(100.0 * float(np.median(error)), len(error), 100.0 * float(median_error(error)))


def _peaks(science: Exposure, template: Exposure, snr_min: float) -> npt.NDArray[np.float64]:
    """Bright isolated peaks that are clean in both images."""
    noise = np.sqrt(np.median(science.variance[science.mask == 0]))
    image = np.nan_to_num(science.image)
    local = (image == ndimage.maximum_filter(image, 9)) & (image > 0.12 * snr_min * noise)
    local &= (science.mask & bits(*_UNUSABLE)) == 0
    y, x = np.nonzero(local)
    everything = np.stack([x, y], axis=1).astype(float)
    if not len(everything):
        return everything
    bad = ((science.mask | template.mask) & bits(*_UNUSABLE)) != 0
    alone = isolated(everything, everything, 30.0)
    order = np.argsort(-image[y, x], kind="stable")
    kept = [i for i in order if alone[i] and not _touches(bad, int(x[i]), int(y[i]))]
    return everything[kept[:200]]


def _touches(bad: npt.NDArray[np.bool_], x: int, y: int, half: int = 12) -> bool:
    ny, nx = bad.shape
    if not (half <= x < nx - half and half <= y < ny - half):
        return True
    return bool(bad[y - half : y + half + 1, x - half : x + half + 1].any())


def _disc(
    image: npt.NDArray[Any], x: float, y: float, radius: float, level: float | None = None
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
    exposure = view.difference.exposure
    assert exposure.psf is not None
    ny, nx = exposure.shape
    x, y = np.meshgrid(np.linspace(0, nx - 1, 5), np.linspace(0, ny - 1, 5))
    stamps = exposure.psf.stamps(x.ravel(), y.ravel())
    yy, xx = np.indices(stamps.shape[1:]) - stamps.shape[1] // 2
    sums = stamps[:, np.hypot(xx, yy) <= exposure.psf.FLUX_RADIUS].sum(axis=1)
    return Sample(float(np.abs(sums - 1.0).max()), len(sums), nans=int(np.isnan(stamps).sum()))


@metric(
    "unresolved_inputs",
    unit="files",
    product="difference",
    reads=("difference", "visit_image", "template"),
    reduce="sum",
)
def unresolved_inputs(view: View) -> Sample:
    """Count inputs named in the cards, the template's too, that are not found as they were."""
    space = view.space
    cards = fits.getheader(space.difference(view.visit, view.number))
    science = space.visit_image(view.visit, view.number)
    template = space.template(str(cards.get("TMPLID", "")))
    missed = int(not _is(science, cards.get("SCIHASH"))) + int(
        not _is(template, cards.get("TMPLHASH"))
    )
    missed += int(f"{view.visit}_{view.number:02d}" not in str(cards.get("SCIID", "")))
    named = [str(cards.get(f"TMPLIN{i + 1}", "")) for i in range(int(cards.get("NTMPLIN", 0)))]
    for name in named:
        match = re.search(r"(\d+)_(\d+)", name)
        missed += int(
            match is None or not space.visit_image(int(match[1]), int(match[2])).is_file()
        )
    return Sample(float(missed), 3 + len(named))


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
    """Share of the difference excluded from detection though neither input is, in percent."""
    bad = np.uint32(view.excluded_bits)
    inputs = ((view.visit_image.mask | view.warped.mask) & bad) != 0
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
    bad = (exposure.mask & bits(*_UNUSABLE)) != 0
    found = star_fits(exposure.image, exposure.variance, bad, exposure.psf, positions, half)
    values = [f.chi2 for f in found if f is not None]
    if not values:
        return Sample(float("nan"), 0)
    n = len(values)
    scatter = float(np.std(values, ddof=1)) if n > 1 else float(np.sqrt(2.0) / (2 * half + 1))
    return Sample(float(np.mean(values)), n, scatter / np.sqrt(n))
