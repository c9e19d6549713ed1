"""Masks against what is known to be wrong, and by statistics where nothing is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.verify.metric import Sample, metric
from harness.verify.metrics.background import row_medians
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
    flagged = view.visit_image.has("CR")
    y, x = np.nonzero(flagged)
    label = _regions(y, x)
    true = view.artefacts.has("CR")[y, x]
    false = ~np.isin(label, label[true])
    return Sample(float(false.sum()) / flagged.size, flagged.size)


def _regions(y: npt.NDArray[np.int_], x: npt.NDArray[np.int_]) -> npt.NDArray[np.int32]:
    """Label connected regions, across corners too, of pixels in the order of an image."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, width = len(y), int(x.max(initial=0)) + 2  # an empty column ends every row
    places = np.append(y * width + x, -1)
    pairs = []
    for step in (1, width - 1, width, width + 1):
        at = np.searchsorted(places[:-1], places[:-1] + step)
        there = np.flatnonzero(places[at] == places[:-1] + step)
        pairs.append((there, at[there]))
    first, second = np.concatenate(pairs, axis=1)
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(n + 1, n + 1))
    return np.asarray(connected_components(links, directed=False)[1][:n])


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
        level[enough] = row_medians(np.ascontiguousarray(quarter[:, enough].T))
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
    good = (image.mask & bits(*NOT_AS_MEASURED)) == 0
    clean = good[:, 1:-1] & good[:, :-2] & good[:, 2:]
    fwhm = view.camera.psf_fwhm_min / view.camera.pixel_scale
    ratio = 0.8 * np.exp(-4.0 * np.log(2.0) / fwhm**2)
    data, limit = image.image, sigma * np.sqrt(image.variance)
    y, x = np.nonzero(clean & (_peaked(data) > limit[:, 1:-1]))
    centre, pair = data[y, x + 1], 0.5 * (data[y, x] + data[y, x + 2])
    return Sample(float((ratio * centre - pair > limit[y, x + 1]).sum()), int(clean.sum()))


def _peaked(data: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Excess of pixels over the mean of their neighbours in the row, (ny, nx - 2)."""
    pair = data[:, :-2] + data[:, 2:]
    pair *= -0.5
    pair += data[:, 1:-1]
    return pair
