"""Masks against what is known to be wrong, and by statistics where nothing is known."""

from __future__ import annotations

import numpy as np

from harness.verify.metric import Sample, metric
from harness.verify.view import View
from pipeline.masks import NOT_AS_MEASURED, bits
from pipeline.statistics import mad_std

__all__: list[str] = []


@metric(
    "masked_artefacts",
    unit="",
    product="visit_image",
    reads=("visit_image", "artefacts"),
    reduce="pooled",
)
def masked_artefacts(view: View, artefacts: list[str], planes: list[str]) -> Sample:
    """Fraction of the true pixels of an artefact that carry one of the mask planes."""
    true = view.artefacts.has(*artefacts)
    n = int(true.sum())
    if n == 0:
        return Sample(float("nan"), 0)
    return Sample(float(view.visit_image.has(*planes)[true].mean()), n)


@metric(
    "good_pixels_masked",
    unit="",
    product="visit_image",
    reads=("visit_image", "artefacts"),
    reduce="pooled",
)
def good_pixels_masked(view: View, planes: list[str], artefacts: list[str]) -> Sample:
    """Fraction of the pixels free of the named artefacts that carry one of the planes."""
    good = ~view.artefacts.has(*artefacts)
    return Sample(float(view.visit_image.has(*planes)[good].mean()), int(good.sum()))


@metric(
    "false_cosmic_rays",
    unit="",
    product="visit_image",
    reads=("visit_image", "artefacts"),
    reduce="pooled",
)
def false_cosmic_rays(view: View) -> Sample:
    """Fraction of pixels in regions of CR, widened as they are, without any true ray in them."""
    from scipy import ndimage

    flagged = view.visit_image.has("CR")
    labels, count = ndimage.label(flagged, np.ones((3, 3)))
    true = np.zeros(count + 1, bool)
    true[labels[view.artefacts.has("CR")]] = True
    area = np.bincount(labels[flagged], minlength=count + 1)
    return Sample(float(area[1:][~true[1:]].sum()) / flagged.size, flagged.size)


@metric(
    "star_cores_struck",
    unit="star",
    product="visit_image",
    reads=("visit_image", "truth", "artefacts"),
    reduce="sum",
)
def star_cores_struck(view: View, snr_min: float = 1000.0) -> Sample:
    """Bright unsaturated stars with CR on the 3 × 3 pixels of their core and no true ray near."""
    image, truth = view.visit_image, view.truth
    assert image.photo_calib is not None
    sky = float(np.median(image.variance[::8, ::8])) / image.photo_calib.njy_per_electron**2
    electrons = truth["fluxElectrons"].astype(float)
    snr = electrons / np.sqrt(np.maximum(electrons, 0.0) + 50.0 * sky)
    ny, nx = image.shape
    x, y = (np.rint(truth[n].astype(float)).astype(int) for n in ("x", "y"))
    inside = (x >= 4) & (x < nx - 4) & (y >= 4) & (y < ny - 4)
    bright = (truth["kind"] == "star") & (snr > snr_min) & ~truth["saturated"].astype(bool)
    rays, flagged = view.artefacts.has("CR"), image.has("CR")
    struck = tested = 0
    for column, row in zip(x[bright & inside], y[bright & inside], strict=True):
        if rays[row - 4 : row + 5, column - 4 : column + 5].any():
            continue
        struck += bool(flagged[row - 1 : row + 2, column - 1 : column + 2].any())
        tested += 1
    return Sample(float(struck), tested)


@metric(
    "masked_defects",
    unit="",
    product="visit_image",
    reads=("visit_image",),
    reduce="pooled",
)
def masked_defects(view: View) -> Sample:
    """Fraction of the pixels of listed defects that carry BAD."""
    image = view.visit_image
    listed = np.zeros(image.shape, bool)
    for box in view.detector.defects:
        listed[box.y0 : box.y0 + box.height, box.x0 : box.x0 + box.width] = True
    n = int(listed.sum())
    return Sample(float(image.has("BAD")[listed].mean()) if n else float("nan"), n)


@metric(
    "untrimmed_pixels",
    unit="pixel",
    product="visit_image",
    reads=("visit_image",),
    reduce="worst",
)
def untrimmed_pixels(view: View) -> Sample:
    """Rows and columns by which the image differs from the detector's light-sensitive area."""
    ny, nx = view.visit_image.shape
    height, width = view.detector.shape
    return Sample(float(abs(ny - height) + abs(nx - width)), ny * nx)


@metric(
    "saturated_unmasked",
    unit="pixel",
    product="visit_image",
    reads=("visit_image", "raw"),
    reduce="sum",
)
def saturated_unmasked(view: View) -> Sample:
    """Raw pixels above their amplifier's saturation level that lack SAT."""
    masked = view.visit_image.has("SAT")
    missed = total = 0
    for amp in view.detector.amplifiers:
        counts = view.raw.data[amp.data.slices].astype(float)
        counts -= np.median(view.raw.data[amp.overscan.slices])
        saturated = counts > amp.saturation + 30.0  # clear of the overscan's own uncertainty
        missed += int((saturated & ~masked[amp.trimmed.slices]).sum())
        total += int(saturated.sum())
    return Sample(float(missed), total)


@metric(
    "bad_columns_unmasked",
    unit="column",
    product="visit_image",
    reads=("visit_image",),
    reduce="sum",
)
def bad_columns_unmasked(view: View, sigma: float = 8.0) -> Sample:
    """Unmasked columns, in quarters of their length, that stand out from their neighbours."""
    image = view.visit_image
    pixels = np.where(image.mask[::3] != 0, np.nan, image.image[::3])  # a third of the rows will do
    found = tested = 0
    for quarter in np.array_split(pixels, 4, axis=0):
        enough = np.isfinite(quarter).sum(axis=0) > quarter.shape[0] // 2
        if enough.sum() < 50:
            continue
        level = np.full(quarter.shape[1], np.nan)
        level[enough] = np.nanmedian(quarter[:, enough], axis=0)
        excess = level - _running_median(level, 15)
        scatter = mad_std(excess[np.isfinite(excess)])
        found += int((np.abs(excess) > sigma * scatter).sum())
        tested += int(enough.sum())
    return Sample(float(found), tested)


def _running_median(values: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(values, width // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    known = np.isfinite(windows).any(axis=1)
    medians = np.full(len(values), np.nan)
    medians[known] = np.nanmedian(windows[known], axis=1)
    return medians


@metric(
    "sharp_pixels_unmasked",
    unit="pixel",
    product="visit_image",
    reads=("visit_image",),
    reduce="sum",
)
def sharp_pixels_unmasked(view: View, sigma: float = 8.0) -> Sample:
    """Unmasked pixels sharper than the camera's sharpest star: cosmic rays that were overlooked."""
    image = view.visit_image
    if not (view.camera.psf_fwhm_min and view.camera.pixel_scale):
        return Sample(float("nan"), 0)
    data = image.image
    good = (image.mask & bits(*NOT_AS_MEASURED)) == 0
    fwhm = view.camera.psf_fwhm_min / view.camera.pixel_scale
    ratio = 0.8 * np.exp(-4.0 * np.log(2.0) / fwhm**2)
    centre, left, right = data[:, 1:-1], data[:, :-2], data[:, 2:]
    clean = good[:, 1:-1] & good[:, :-2] & good[:, 2:]
    noise = np.sqrt(image.variance[:, 1:-1])
    pair = 0.5 * (left + right)
    sharp = (ratio * centre - pair > sigma * noise) & (centre - pair > sigma * noise) & clean
    return Sample(float(sharp.sum()), int(clean.sum()))
