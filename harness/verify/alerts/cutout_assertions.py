"""Assertions on the cut-outs of a packet."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from harness.verify.alerts.assertion import Finding, View, assertion, finite
from pipeline.statistics import mad_std

__all__: list[str] = []

_NAMES = ("cutoutDifference", "cutoutScience", "cutoutTemplate")
_BLOCK = 2880
_MIN_SIDE, _MAX_SIDE = 30, 102
_APERTURE = 12.0  # pixels; fluxes are those within


def _files(view: View) -> dict[str, dict[str, fits.ImageHDU]]:
    """HDUs by name of every cut-out that opens; decoded once per packet."""
    if "cutouts" not in view.cache:
        decoded = {n: _decode(view.packet[n]) for n in _NAMES if view.packet.get(n)}
        view.cache["cutouts"] = {name: hdus for name, hdus in decoded.items() if hdus}
    files: dict[str, dict[str, fits.ImageHDU]] = view.cache["cutouts"]
    return files


def _decode(raw: bytes) -> dict[str, fits.ImageHDU]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # nothing that would have to be unpacked: it may unpack to any size
            hdus = fits.open(BytesIO(raw), disable_image_compression=True)
            if not raw.startswith(b"SIMPLE") or any(hdu.size > len(raw) for hdu in hdus):
                return {}
            return {("PRIMARY" if k == 0 else hdu.name): hdu for k, hdu in enumerate(hdus)}
    except Exception:  # a damaged header may fail anywhere in the reader
        return {}


def _primary_header(raw: bytes) -> bytes:
    """Cards of the first header; parsing them again through astropy's own cards is slow."""
    ends = (k for k in range(0, len(raw) - 79, 80) if raw[k : k + 8] == b"END     ")
    return raw[: next(ends, len(raw)) + 80]


def _image(
    hdus: dict[str, fits.ImageHDU], name: str = "PRIMARY"
) -> npt.NDArray[np.floating] | None:
    data = hdus[name].data if name in hdus else None
    return np.asarray(data, float) if data is not None and data.ndim == 2 else None


@assertion("cutouts-present")
def _present(view: View) -> Iterator[Finding]:
    for name in _NAMES:
        yield Finding(bool(view.packet.get(name)), 1.0, f"{name} is absent")


@assertion("cutouts-decode")
def _decodes(view: View) -> Iterator[Finding]:
    """Require FITS files whose primary HDU is a square image of 30 to 102 pixels."""
    for name in _NAMES:
        if view.packet.get(name):
            hdus = _files(view).get(name, {})
            image = _image(hdus) if hdus else None
            shape = None if image is None else image.shape
            square = shape is not None and shape[0] == shape[1]
            fits_in = square and shape is not None and _MIN_SIDE <= shape[0] <= _MAX_SIDE
            yield Finding(bool(fits_in), 1.0, f"{name}: shape {shape}")


@assertion("cutouts-one-block-header")
def _one_block(view: View) -> Iterator[Finding]:
    """One consumer reads exactly 2880 bytes of header and takes the pixels from there on."""
    for name in _files(view):
        raw = view.packet[name]
        ends = [k for k in range(0, _BLOCK, 80) if raw[k : k + 8] == b"END     "]
        bitpix = b"BITPIX  =                  -32" in raw[:_BLOCK]
        yield Finding(bool(ends) and bitpix, 1.0, f"{name}: header longer than one block")


@assertion("cutouts-wcs")
def _wcs(view: View) -> Iterator[Finding]:
    """Require celestial coordinates that put the source within two pixels of the middle."""
    for name, hdus in _files(view).items():
        header = hdus["PRIMARY"].header
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(_primary_header(view.packet[name]))
        if not wcs.has_celestial or not finite(view.source, "ra", "dec"):
            yield Finding(
                False, 99.0, f"{name}: no celestial coordinates (CTYPE {list(wcs.wcs.ctype)})"
            )
            continue
        x, y = wcs.all_world2pix(view.source["ra"], view.source["dec"], 0)
        middle = (np.array([header["NAXIS1"], header["NAXIS2"]]) - 1) / 2
        off = float(np.hypot(x - middle[0], y - middle[1]))
        yield Finding(off < 2.0, off, f"{name}: source {off:.2f} px from the middle")


@assertion("cutouts-variance")
def _variance(view: View) -> Iterator[Finding]:
    for name, hdus in _files(view).items():
        image, plane = _image(hdus), _image(hdus, "UNCERT")
        holds = image is not None and plane is not None and plane.shape == image.shape
        holds = holds and plane is not None and bool(np.nanmedian(plane) > 0)
        yield Finding(holds, 1.0, f"{name}: no variance plane")


@assertion("cutouts-mask")
def _mask(view: View) -> Iterator[Finding]:
    for name, hdus in _files(view).items():
        mask = hdus.get("MASK")
        holds = mask is not None and mask.data is not None and mask.data.dtype.kind in "iu"
        yield Finding(holds, 1.0, f"{name}: no mask plane")


@assertion("cutouts-psf")
def _psf(view: View) -> Iterator[Finding]:
    """Require a point spread function of unit sum, all of it or that of our fluxes' aperture."""
    for name, hdus in _files(view).items():
        stamp = _image(hdus, "PSFIMAGE")
        total, within = (np.nan, np.nan) if stamp is None else (stamp.sum(), _within(stamp))
        off = float(min(abs(total - 1), abs(within - 1)))
        detail = f"{name}: PSF sums to {total:.4f}, {within:.4f} within {_APERTURE:g} pixels"
        yield Finding(off < 0.01, off, detail)


def _within(stamp: npt.NDArray[np.floating]) -> float:
    """Sum of the pixels round the middle."""
    v, u = np.indices(stamp.shape)
    ny, nx = stamp.shape
    return float(stamp[np.hypot(u - nx // 2, v - ny // 2) <= _APERTURE].sum())


@assertion("cutouts-same-sky")
def _orientation(view: View) -> Iterator[Finding]:
    """Compare science and difference, which share their noise, as they are, turned and mirrored."""
    files = _files(view)
    science = _image(files.get("cutoutScience", {}))
    difference = _image(files.get("cutoutDifference", {}))
    if science is None or difference is None or science.shape != difference.shape:
        return
    scores = {turn: _correlation(science, turned) for turn, turned in _turns(difference).items()}
    own = scores.pop("as it is")
    best = max(scores, key=lambda turn: scores[turn])
    significant = 5.0 / np.sqrt(difference.size)
    # a featureless or noiseless cut-out cannot be told apart from its mirror image
    if max(own, scores[best]) > significant:
        detail = f"correlation {own:.3f} as it is, {scores[best]:.3f} {best}"
        yield Finding(own >= scores[best] - significant, scores[best] - own, detail)


def _turns(image: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.floating]]:
    named = {"as it is": image, "turned by 180°": image[::-1, ::-1]}
    named |= {"mirrored in x": image[:, ::-1], "mirrored in y": image[::-1]}
    named |= {"transposed": image.T, "turned by 90°": np.rot90(image)}
    return named | {"turned by 270°": np.rot90(image, 3), "anti-transposed": image[::-1, ::-1].T}


def _correlation(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """Correlation of the pixel-to-pixel noise outside of the core."""
    ny, nx = a.shape
    v, u = np.mgrid[:ny, :nx]
    x, y = _noise(a), _noise(b)
    good = (np.hypot(u - (nx - 1) / 2, v - (ny - 1) / 2) > 6) & np.isfinite(x) & np.isfinite(y)
    if good.sum() < 100:
        return 0.0
    x, y = _clipped(x[good]), _clipped(y[good])
    spread = float(np.std(x) * np.std(y))
    return float(np.mean(x * y) / spread) if spread > 0 else 0.0


def _noise(image: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Each pixel minus the mean of its four neighbours: neither sky nor galaxies remain."""
    rest = np.full(image.shape, np.nan)
    ring = image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]
    rest[1:-1, 1:-1] = image[1:-1, 1:-1] - 0.25 * ring
    return rest


def _clipped(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    middle = np.median(values)
    sigma = mad_std(values) or 1.0
    clipped = np.clip(values - middle, -3 * sigma, 3 * sigma)
    return np.asarray(clipped - clipped.mean())
