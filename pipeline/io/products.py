"""Exposures and differences as FITS files.

A product has a primary HDU without data that says what it is and where it came from, then
``IMAGE``, ``VARIANCE`` and ``MASK`` and, where they exist, ``BACKGROUND``, ``PSF``,
``NOISE_CORRELATION`` and for differences ``SCORE``, ``NULL_VARIANCE``, ``KERNEL`` and
``METRICS``.

Pixels are multiples of a power of two (`pipeline.quantise`), stored as compressed integers
with BSCALE: what was on such a grid when it was written is read back bitwise.  ``MP_<NAME>`` is
the number of the bit of a mask plane.  A polynomial PSF is a cube with one plane per term of
`pipeline.exposure.polynomial_terms`, of which PSFORDER is the degree and PSFNX, PSFNY the size
of the image over which positions are scaled; a gridded PSF is a cube of stamps with the positions
of the grid in PSF_X and PSF_Y.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from pipeline import wcs as world
from pipeline.atomic import atomic_path
from pipeline.errors import FileFormatError
from pipeline.exposure import (
    Difference,
    Exposure,
    GridPsf,
    Image,
    Mask,
    MatchingKernel,
    PhotoCalib,
    PolynomialPsf,
    Psf,
    VisitInfo,
)
from pipeline.io.files import open_fits
from pipeline.io.hdus import (
    Card,
    Places,
    array_hdu,
    cards,
    compressed_hdu,
    primary_hdu,
    read_pixels,
)
from pipeline.masks import MASK_PLANES, bits
from pipeline.quantise import grid_step, quantised, shared_step, to_grid

__all__ = [
    "read_difference",
    "read_exposure",
    "read_plane",
    "write_difference",
    "write_exposure",
]

Sky = tuple[npt.ArrayLike, npt.ArrayLike]
"""Right ascensions and declinations, ICRS, deg."""

_Info = TypeVar("_Info", VisitInfo, PhotoCalib)
_SCORE_STEP = 2.0**-6

# Cards of VisitInfo and PhotoCalib: attribute, keyword, comment.
_INFO = (
    ("visit", "VISIT", "exposure number"),
    ("detector", "DETECTOR", "CCD number"),
    ("band", "BAND", "filter"),
    ("exptime", "EXPTIME", "[s] open-shutter time"),
    ("midpoint_mjd_tai", "MJDMIDT", "[d] middle of the exposure, TAI"),
    ("ra", "PNTRA", "[deg] pointing"),
    ("dec", "PNTDEC", "[deg] pointing"),
    ("airmass", "AIRMASS", "at the middle of the exposure"),
    ("camera", "CAMERA", "camera definition"),
    ("field", "FIELD", "name of the field"),
    ("reason", "PROGRAM", "observing programme"),
    ("gain", "GAIN", "electrons per image unit before calibration"),
    ("read_noise", "RDNOISE", "[electron] mean read noise"),
    ("saturation", "SATURATE", "[image unit] saturation level"),
)
_CALIB = (
    ("zero_point", "ZEROPNT", "[mag] AB of one electron in the exposure"),
    ("zero_point_err", "ZPERR", "[mag] standard error"),
    ("scatter", "ZPSCATTR", "[mag] scatter of the standards"),
    ("n_stars", "ZPNSTAR", "standards used"),
    ("njy_per_electron", "NJYPERE", "[nJy] image was multiplied by this"),
)
_OWN = {key for _, key, _ in (*_INFO, *_CALIB)} | {
    "DETBAD",
    "LONGSTRN",
    "PRODUCT",
    "ORIGIN",
    "NEXTEND",
}
_STRUCTURE = {
    "SIMPLE",
    "BITPIX",
    "NAXIS",
    "EXTEND",
    "DATASUM",
    "CHECKSUM",
    "COMMENT",
    "HISTORY",
    "",
}


def write_exposure(path: str | Path, exposure: Exposure) -> None:
    """Write an exposure: visit image or template.

    Parameters
    ----------
    path : path-like
        The file; nothing half-written is ever seen under this name.
    exposure : Exposure
        Planes that lie on no grid of a power of two are rounded to one as
        `pipeline.quantise.quantised` does it; call that first where the pixels in memory and in
        the file must be the same.

    Raises
    ------
    FileFormatError
        If the file cannot be written.
    """
    _write(path, _exposure_hdus(exposure), exposure, "exposure")


def write_difference(path: str | Path, difference: Difference, *, compress: bool = True) -> None:
    """Write a difference image with its score, null variance and matching kernel.

    Parameters
    ----------
    path : path-like
        The file.
    difference : Difference
        Pixels are rounded as `write_exposure` does it, the score to 1/64.
    compress : bool
        False writes plain float32 images: nothing is rounded, four times the size.

    Raises
    ------
    FileFormatError
        If the file cannot be written.
    """
    excluded = ("DETBAD", int(difference.excluded), "mask bits excluded from detection")
    hdus = _difference_hdus(difference, compress)
    _write(path, hdus, difference.exposure, "difference", excluded)


def _write(
    path: str | Path,
    hdus: Iterable[Iterable[bytes]],
    exposure: Exposure,
    product: str,
    *more: Card,
) -> None:
    with atomic_path(path) as partial, partial.open("wb") as f:
        extensions = 0
        f.write(_primary(exposure, product, extensions, more))
        for extensions, hdu in enumerate(hdus, start=1):  # noqa: B007
            f.writelines(hdu)
        f.seek(0)
        f.write(_primary(exposure, product, extensions, more))


def _primary(exposure: Exposure, product: str, extensions: int, more: Iterable[Card]) -> bytes:
    """Primary HDU; it is as long for any number of extensions."""
    kind: list[Card] = [
        ("ORIGIN", "Nightjar", "software"),
        ("PRODUCT", product, "kind of product"),
        ("NEXTEND", extensions, "extensions of this file"),
    ]
    return primary_hdu(cards([*kind, *_primary_cards(exposure, more)]))


def _exposure_hdus(exposure: Exposure, compress: bool = True) -> Iterator[Iterable[bytes]]:
    exposure = quantised(exposure) if compress else exposure
    pixel_cards = fits.Header() if exposure.wcs is None else world.to_header(exposure.wcs)
    yield _plane("IMAGE", exposure.image, exposure.unit, pixel_cards, compress=compress)
    squared = f"{exposure.unit}**2"
    yield _plane("VARIANCE", exposure.variance, squared, pixel_cards, compress=compress)
    planes = cards(
        (f"MP_{name}", bit, meaning) for bit, (name, meaning) in enumerate(MASK_PLANES.items())
    )
    if compress:
        yield (compressed_hdu("MASK", exposure.mask, _joined(pixel_cards, planes)),)
    else:
        yield array_hdu("MASK", exposure.mask.view(np.int32), _joined(pixel_cards, planes))
    if exposure.background is not None:
        yield _plane(
            "BACKGROUND", exposure.background, exposure.unit, pixel_cards, compress=compress
        )
    if exposure.psf is not None:
        yield from _psf_hdus(exposure.psf)
    if exposure.noise_correlation is not None:
        yield array_hdu("NOISE_CORRELATION", exposure.noise_correlation)


def _difference_hdus(difference: Difference, compress: bool) -> Iterator[Iterable[bytes]]:
    exposure = difference.exposure
    yield from _exposure_hdus(exposure, compress)
    score, null = difference.score, difference.null_variance
    if compress and not shared_step(score):
        score = to_grid(score, _SCORE_STEP)
    yield _plane("SCORE", score, "", _score_cards(difference), compress=compress)
    if compress and not shared_step(null):
        null = to_grid(null, grid_step(float(np.nanmedian(null[::16, ::16])), 256.0))
    yield _plane("NULL_VARIANCE", null, f"{exposure.unit}**2", compress=compress)
    if difference.noise_scale is not None:
        scale = difference.noise_scale
        if compress and not shared_step(scale):
            scale = to_grid(scale, _SCORE_STEP)
        yield _plane("NOISE_SCALE", scale, "", compress=compress)
    yield from _kernel_hdus(difference.kernel)
    yield _metrics_hdu(difference.metrics)


def _score_cards(difference: Difference) -> fits.Header:
    counted = difference.noise_scale is not None
    meaning = "noise: of the sky and photons, or also of the scene"
    return cards([("SCORETYP", "S_corr" if counted else "S", meaning)])


def _plane(
    name: str,
    pixels: Image,
    unit: str,
    more: fits.Header | None = None,
    *,
    compress: bool = True,
) -> Iterable[bytes]:
    unit_card = cards([("BUNIT", unit, "unit of the pixels")] if unit else [])
    if not compress:
        return array_hdu(name, pixels, _joined(unit_card, more))
    return (compressed_hdu(name, pixels, _joined(unit_card, more), shared_step(pixels) or 1.0),)


def _joined(*headers: fits.Header | None) -> fits.Header:
    joined = fits.Header()
    for header in headers:
        for card in header.cards if header is not None else ():
            joined.append(card, end=True)
    return joined


def _primary_cards(exposure: Exposure, more: Iterable[Card]) -> Iterator[Card]:
    for name, key, comment in _INFO:
        yield (key, getattr(exposure.info, name), comment)
    for name, key, comment in _CALIB if exposure.photo_calib is not None else ():
        yield (key, getattr(exposure.photo_calib, name), comment)
    yield from more
    for key, value in exposure.provenance.items():
        yield (key, value, "")


def _psf_hdus(psf: Psf) -> Iterator[Iterable[bytes]]:
    if isinstance(psf, PolynomialPsf):
        header = cards(
            [
                ("PSFTYPE", "POLYNOMIAL", "pixels are polynomials of position"),
                ("PSFORDER", psf.order, "degree"),
                ("PSFNX", psf.shape[1], "[pixel] width of the image"),
                ("PSFNY", psf.shape[0], "[pixel] height of the image"),
            ]
        )
        yield array_hdu("PSF", psf.coefficients, header)
    elif isinstance(psf, GridPsf):
        yield array_hdu("PSF", psf.cube, cards([("PSFTYPE", "GRID", "stamps on a grid")]))
        yield array_hdu("PSF_X", psf.x, cards([("BUNIT", "pixel", "columns of the grid")]))
        yield array_hdu("PSF_Y", psf.y, cards([("BUNIT", "pixel", "rows of the grid")]))
    else:
        raise TypeError(f"no file format for a PSF of type {type(psf).__name__}")


def _kernel_hdus(kernel: MatchingKernel) -> Iterator[Iterable[bytes]]:
    header = cards(
        [
            ("KORDER", kernel.order, "degree of the spatial variation"),
            ("KNX", kernel.shape[1], "[pixel] width of the image"),
            ("KNY", kernel.shape[0], "[pixel] height of the image"),
            ("KCOND", kernel.condition, "condition number of the fit"),
            ("KCONV", kernel.convolved, "image that was convolved"),
        ]
    )
    yield array_hdu("KERNEL", kernel.basis, header)
    yield array_hdu("KERNEL_COEFFICIENTS", kernel.coefficients)
    for name, array in (("BACKGROUND", kernel.background), ("STAMPS", kernel.stamps)):
        if array.size:
            yield array_hdu(f"KERNEL_{name}", array)
    if kernel.before is not None:
        yield array_hdu("KERNEL_BEFORE", kernel.before)


def _metrics_hdu(metrics: Mapping[str, float]) -> Iterable[bytes]:
    return array_hdu(
        "METRICS",
        np.array([float(v) for v in metrics.values()]),
        cards((f"METRIC{i + 1}", name, "") for i, name in enumerate(metrics)),
    )


def read_exposure(
    path: str | Path, near: Sky | None = None, *, background: bool = True
) -> Exposure:
    """Read an exposure that `write_exposure` or `write_difference` wrote.

    Parameters
    ----------
    path : path-like
        The file.
    near : tuple of ndarray, (n,), deg, optional
        Right ascensions and declinations (ICRS): pixels within 12 of these are wanted.  Of others
        image, variance and mask may be zero, which no measurement takes for data.  The background
        is not read.
    background : bool
        Whether the background that was subtracted is read.

    Returns
    -------
    Exposure
        With pixels, coordinates, PSF and cards as they were written.

    Raises
    ------
    FileFormatError
        If the file is missing, damaged or no such product.
    """
    with _open(path) as hdus:
        return _exposure(hdus, path, _places(hdus, path, near), background=background)


def read_difference(path: str | Path, near: Sky | None = None) -> Difference:
    """Read a difference that `write_difference` wrote.

    Parameters
    ----------
    path : path-like
        The file.
    near : tuple of ndarray, optional
        As for `read_exposure`; what only detection needs, the score and its noise, is not read:
        the score is NaN.

    Returns
    -------
    Difference
        With the kernel, the PSF and the score image.

    Raises
    ------
    FileFormatError
        If the file is missing, damaged or no difference.
    """
    with _open(path) as hdus:
        places = _places(hdus, path, near)
        exposure = _exposure(hdus, path, places)
        counted = places is None and "NOISE_SCALE" in hdus
        nothing = np.broadcast_to(np.float32("nan"), exposure.shape)
        return Difference(
            exposure=exposure,
            score=nothing if places else read_pixels(_hdu(hdus, "SCORE", path)),
            null_variance=read_pixels(_hdu(hdus, "NULL_VARIANCE", path), places),
            noise_scale=read_pixels(hdus["NOISE_SCALE"]) if counted else None,
            kernel=_kernel(hdus, path),
            metrics=_metrics(_hdu(hdus, "METRICS", path)),
            excluded=_excluded(hdus, path),
        )


def read_plane(path: str | Path, name: str = "IMAGE") -> tuple[npt.NDArray[Any], WCS | None]:
    """Read one plane of a product, where the others are not wanted.

    Parameters
    ----------
    path : path-like
        The file.
    name : str
        ``IMAGE``, ``VARIANCE``, ``MASK``, ``BACKGROUND``, ``SCORE``, ``NULL_VARIANCE`` or
        ``NOISE_SCALE``.

    Returns
    -------
    pixels : ndarray, (ny, nx)
        As in the `Exposure` or `Difference` that the file holds.
    wcs : astropy.wcs.WCS, optional
        Its sky coordinates.

    Raises
    ------
    FileFormatError
        If the file is missing, damaged, no such product, or has no such plane.
    """
    with _open(path) as hdus:
        hdu = _hdu(hdus, name, path)
        wcs = world.from_header(_hdu(hdus, "IMAGE", path).header)
        return (_mask(hdu) if name == "MASK" else read_pixels(hdu)), wcs


@contextmanager
def _open(path: str | Path) -> Iterator[fits.HDUList]:
    with open_fits(path, expected="a product of Nightjar", scaled=False) as hdus:
        if hdus[0].header.get("NEXTEND", len(hdus) - 1) != len(hdus) - 1:
            raise FileFormatError("truncated: extensions are missing", path=path)
        yield hdus


def _hdu(hdus: fits.HDUList, name: str, path: str | Path) -> fits.ImageHDU:
    if name not in hdus:
        raise FileFormatError("no such HDU", path=path, hdu=name, expected="a product of Nightjar")
    return hdus[name]


def _places(hdus: fits.HDUList, path: str | Path, near: Sky | None) -> Places | None:
    """Turn places on the sky into places on the image."""
    wcs = None if near is None else world.from_header(_hdu(hdus, "IMAGE", path).header)
    if near is None or wcs is None:
        return None
    x, y = wcs.all_world2pix(*near, 0) if np.size(near[0]) else (np.zeros(0), np.zeros(0))
    return Places(x, y, GridPsf.FLUX_RADIUS)


def _exposure(
    hdus: fits.HDUList, path: str | Path, places: Places | None = None, *, background: bool = True
) -> Exposure:
    image = _hdu(hdus, "IMAGE", path)
    header = hdus[0].header
    sky = background and places is None and "BACKGROUND" in hdus
    return Exposure(
        image=read_pixels(image, places),
        variance=read_pixels(_hdu(hdus, "VARIANCE", path), places),
        mask=_mask(_hdu(hdus, "MASK", path), places),
        info=_from_cards(VisitInfo, _INFO, header),
        wcs=world.from_header(image.header),
        psf=_psf(hdus),
        photo_calib=_from_cards(PhotoCalib, _CALIB, header) if "NJYPERE" in header else None,
        background=read_pixels(hdus["BACKGROUND"]) if sky else None,
        unit=str(image.header.get("BUNIT", "electron")),
        noise_correlation=_array(hdus, "NOISE_CORRELATION"),
        provenance={
            card.keyword: card.value
            for card in header.cards
            if card.keyword not in _OWN | _STRUCTURE
        },
    )


def _excluded(hdus: fits.HDUList, path: str | Path) -> np.uint32:
    """Planes that kept pixels from detection, at our bits."""
    card = hdus[0].header.get("DETBAD")
    if not isinstance(card, int):
        expected = "bits of the planes excluded from detection"
        raise FileFormatError("no such card", path=path, key="DETBAD", expected=expected)
    stored = np.array([card], np.uint32)
    return np.uint32(_own_bits(stored, _hdu(hdus, "MASK", path).header)[0])


def _mask(hdu: fits.ImageHDU, places: Places | None = None) -> Mask:
    return _own_bits(read_pixels(hdu, places).view(np.uint32), hdu.header)


def _own_bits(stored: Mask, header: fits.Header) -> Mask:
    """Mask values with the planes at our bits, wherever the file has them."""
    places = {name: header[f"MP_{name}"] for name in MASK_PLANES if f"MP_{name}" in header}
    if all(bits(name) == np.uint32(1) << place for name, place in places.items()):
        return np.asarray(stored)
    mask = np.zeros(stored.shape, np.uint32)
    for name, place in places.items():
        mask |= np.where(stored & np.uint32(1 << place), bits(name), np.uint32(0))
    return mask


def _from_cards(
    kind: type[_Info], table: tuple[tuple[str, str, str], ...], header: fits.Header
) -> _Info:
    """Build a dataclass from its cards; what FITS could not express has its default, NaN or inf."""
    values: dict[str, Any] = {name: header[key] for name, key, _ in table if key in header}
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            values.setdefault(field.name, float("nan"))
    return kind(**values)


def _array(hdus: fits.HDUList, name: str) -> Any:
    return np.asarray(hdus[name].data, float) if name in hdus else None


def _psf(hdus: fits.HDUList) -> Psf | None:
    if "PSF" not in hdus:
        return None
    header, data = hdus["PSF"].header, _array(hdus, "PSF")
    if header["PSFTYPE"] == "GRID":
        return GridPsf(data, _array(hdus, "PSF_X"), _array(hdus, "PSF_Y"))
    return PolynomialPsf(data, header["PSFORDER"], (header["PSFNY"], header["PSFNX"]))


def _kernel(hdus: fits.HDUList, path: str | Path) -> MatchingKernel:
    header = _hdu(hdus, "KERNEL", path).header
    background, stamps = _array(hdus, "KERNEL_BACKGROUND"), _array(hdus, "KERNEL_STAMPS")
    return MatchingKernel(
        basis=_array(hdus, "KERNEL"),
        coefficients=_array(hdus, "KERNEL_COEFFICIENTS"),
        order=header["KORDER"],
        shape=(header["KNY"], header["KNX"]),
        background=np.zeros(0) if background is None else background,
        condition=float(header.get("KCOND", float("nan"))),
        stamps=np.zeros((0, 4)) if stamps is None else stamps,
        convolved=header["KCONV"],
        before=_array(hdus, "KERNEL_BEFORE"),
    )


def _metrics(hdu: fits.ImageHDU) -> dict[str, float]:
    if hdu.data is None:
        return {}
    return {hdu.header[f"METRIC{i + 1}"]: float(v) for i, v in enumerate(hdu.data)}
