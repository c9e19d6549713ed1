"""Planes of an image, in one file or in several: pixels, noise, mask, header.

`subtract` and `ingest` both read files of any origin with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from pipeline import wcs as world
from pipeline.errors import FileFormatError, InputError
from pipeline.exposure import Image
from pipeline.io.files import open_fits
from pipeline.io.headers import (
    CardValue,
    Header,
    image_header,
    plain_header,
    readable,
    unreadable_cards,
)

__all__ = [
    "EXTENSIONS",
    "Planes",
    "Raw",
    "place_of",
    "read_planes",
    "science_images",
    "split_extension",
]

EXTENSIONS: Mapping[str, tuple[str, ...]] = {
    "image": ("IMAGE", "SCI", "SCIENCE", "DATA"),
    "variance": ("VARIANCE", "VAR"),
    "error": ("ERR", "ERROR", "SIGMA", "UNCERT", "RMS", "STDDEV"),
    "weight": ("INVVAR", "IVAR", "WHT", "WEIGHT"),
    "mask": ("MASK", "DQ", "BPM", "FLAGS", "FLAG", "BADPIX"),
}
"""Names of extensions (EXTNAME, any case) by what they hold, the preferred one first."""

_ASINH = 2.5 * float(np.log10(np.e))
_IDENTITY = ("EXTNAME", "CCDNUM", "CCDNAME", "CHIPID", "DETECTOR", "EXTVER")
_BRACKETED = re.compile(r"(?P<file>.+)\[(?P<ext>[^\[\]]+)\]")


@dataclass(frozen=True, slots=True)
class Planes:
    """Where an image and what goes with it are to be found, and what the user knows of it.

    Attributes
    ----------
    path : path
        The image, or a file with several extensions.
    variance, mask, weight, psf : path, optional
        Separate files.
    gain : float, optional, electron per image unit
        Overrides the header.
    read_noise : float, optional, electron
        Overrides the header.
    saturation : float, optional, image unit
        Overrides the header.
    ext : str, optional
        Number or name of the extension that holds the image; ``NAME,2`` for EXTVER 2.
    mask_bits : str, optional
        Which bits of the mask count, see `pipeline.io.quality.decode`.
    keywords : mapping of str to str
        Header cards of items that the usual names miss, by item.
    """

    path: Path
    variance: Path | None = None
    mask: Path | None = None
    gain: float | None = None
    read_noise: float | None = None
    saturation: float | None = None
    weight: Path | None = None
    ext: str | None = None
    mask_bits: str | None = None
    keywords: Mapping[str, str] = field(default_factory=dict)
    psf: Path | None = None

    @classmethod
    def of(cls, path: Path, **known: Any) -> Planes:
        """Make one of a path that may end in ``[EXTENSION]``, which wins over ``ext``."""
        file, own = split_extension(path)
        return cls(file, **{**known, "ext": own or known.get("ext")})


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """What the files hold.

    Attributes
    ----------
    image : ndarray, (ny, nx)
        Pixels.
    variance, mask : ndarray, optional
        As found; standard deviations are squared.
    weight : ndarray, optional
        Inverse variance, or something in proportion to it; 0 where there is no data.
    header, mask_header : mapping
        Keywords of the image (the primary HDU's underneath) and of the mask.
    files : tuple of path
        Everything that was read.
    wcs : astropy.wcs.WCS, optional
        Sky coordinates, ICRS.
    notes : tuple of str
        What could not be read, or had to be chosen.
    """

    image: Image
    variance: Image | None
    mask: npt.NDArray[np.integer] | None
    header: Header
    mask_header: Header = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    weight: Image | None = None
    wcs: WCS | None = None
    notes: tuple[str, ...] = ()


def split_extension(path: Path) -> tuple[Path, str | None]:
    """Take the extension off ``file.fits[2]``.

    Parameters
    ----------
    path : path
        A file, with or without the number or name of an extension in brackets.

    Returns
    -------
    path : path
        The file.
    ext : str, optional
        What stood in the brackets; None if the file is really called so.
    """
    found = _BRACKETED.fullmatch(str(path))
    if found is None or path.exists():
        return path, None
    return Path(found["file"]), found["ext"]


def read_planes(planes: Planes, like: Header | None = None) -> Raw:
    """Read an image and, where they exist, its noise and its mask.

    Extensions are recognised by the names of `EXTENSIONS`; a file without such names holds its
    image in the first HDU that has one.  Axes of length one are dropped.

    Parameters
    ----------
    planes : Planes
        The files.
    like : mapping, optional
        Header of the image this one belongs with: of several images the one with its name or
        number is taken.

    Returns
    -------
    Raw
        Their contents.

    Raises
    ------
    FileFormatError
        If a file is no FITS file, is truncated, or holds no image.
    InputError
        If the planes have different shapes.
    """
    with open_fits(planes.path) as hdus:
        index, notes = _chosen(hdus, planes, like)
        found = _companions(hdus, index)
        own = hdus[index].header
        header = image_header(hdus[0].header, own)
        notes += unreadable_cards(own, *([hdus[0].header] if index else []))
        wcs, said = world.read(_celestial(hdus[0].header, own), hdus)
        notes += said
        image = _linear(_float(hdus[index]), header, notes)
        planes_found = {kind: _float(hdus[k]) for kind, k in found.items() if kind != "mask"}
        mask, mask_header = _integer(hdus[found["mask"]]) if "mask" in found else (None, {})
    for kind, path in (("variance", planes.variance), ("weight", planes.weight)):
        if path is not None:
            planes_found = {kind: _only(path, planes.ext)}
    if planes.mask is not None:
        with open_fits(planes.mask) as hdus:
            mask, mask_header = _integer(hdus[_place(hdus, planes.mask, planes.ext)])
    variance = planes_found.get("variance")
    if variance is None and "error" in planes_found:
        variance = planes_found["error"] ** 2
    raw = Raw(
        image, variance, mask, header, mask_header, _files(planes),
        planes_found.get("weight") if variance is None else None, wcs, tuple(notes),
    )  # fmt: skip
    _same_shape(planes, raw)
    return raw


def _files(planes: Planes) -> tuple[Path, ...]:
    files = (planes.path, planes.variance, planes.mask, planes.weight, planes.psf)
    return tuple(p for p in files if p is not None)


def science_images(hdus: Sequence[fits.ImageHDU]) -> list[int]:
    """Return the places of the HDUs that hold images of the sky.

    Parameters
    ----------
    hdus : sequence of astropy HDU
        A file.

    Returns
    -------
    list of int
        Those with the name of an image if there are any, otherwise all images that have not the
        name of a mask or of a noise plane.
    """
    images = [k for k, hdu in enumerate(hdus) if _is_image(hdu)]
    named = [k for k in images if _name(hdus[k]) in EXTENSIONS["image"]]
    others = {name for kind, names in EXTENSIONS.items() if kind != "image" for name in names}
    others |= {"WCSDVARR", "D2IMARR"}  # look-up tables of the coordinates
    return named or [k for k in images if _name(hdus[k]) not in others]


def place_of(hdus: fits.HDUList, path: Path, ext: str) -> int:
    """Return the place of an extension by number, name or ``NAME,VERSION``.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList
        A file.
    path : path
        For messages.
    ext : str
        What is asked for.

    Returns
    -------
    int
        Place of an HDU with an image.
    """
    return _first(hdus, path, ext)


def _chosen(hdus: fits.HDUList, planes: Planes, like: Header | None) -> tuple[int, list[str]]:
    """Place of the image, and what there is to say about it."""
    if planes.ext is not None:
        return _first(hdus, planes.path, planes.ext), []
    found = science_images(hdus)
    if not found:
        return _first(hdus, planes.path, None), []
    preferred = sorted(found, key=lambda k: (_preference(_name(hdus[k])), k))
    rivals = [
        k
        for k in preferred
        if _preference(_name(hdus[k])) == _preference(_name(hdus[preferred[0]]))
    ]
    if len(rivals) == 1:
        return rivals[0], []
    for key in _IDENTITY:
        matching = [k for k in rivals if like and _same(hdus[k].header, like, key)]
        if like and len(matching) == 1:
            return matching[0], [f"{len(rivals)} images: the one of {key} {like[key]} used"]
    first = rivals[0]
    name = _name(hdus[first])
    label = f"HDU {first}" + (f" ({name})" if name else "")
    return first, [f"{len(rivals)} images: {label} used; choose with --ext or FILE[EXTENSION]"]


def _same(header: fits.Header, like: Header, key: str) -> bool:
    value = plain_header(header).get(key)
    return value is not None and str(value).strip() == str(like.get(key)).strip()


def _preference(name: str) -> int:
    names = EXTENSIONS["image"]
    return names.index(name) if name in names else len(names)


def _companions(hdus: fits.HDUList, index: int) -> dict[str, int]:
    """Places of the planes that belong to an image: those of its EXTVER."""
    places: dict[str, int] = {}
    for kind, names in EXTENSIONS.items():
        candidates = [
            (_version(hdus[k]) != _version(hdus[index]), names.index(_name(hdus[k])), k)
            for k in range(len(hdus))
            if kind != "image" and k != index and _is_image(hdus[k]) and _name(hdus[k]) in names
        ]
        of_same = [c for c in candidates if not c[0]]
        if of_same or len(candidates) == 1:
            places[kind] = min(of_same or candidates)[2]
    return places


def _name(hdu: fits.ImageHDU) -> str:
    try:
        return str(hdu.name).strip().upper()
    except fits.VerifyError:  # a card like any other
        return ""


def _version(hdu: fits.ImageHDU) -> int:
    try:
        return int(hdu.ver)
    except (fits.VerifyError, TypeError, ValueError):
        return 1


def _first(hdus: fits.HDUList, path: Path, ext: str | None) -> int:
    """Place of the first image, or of the extension asked for."""
    if ext is None:
        for k, hdu in enumerate(hdus):
            if _is_image(hdu):
                return k
        raise FileFormatError("no image", path=path, expected="a two-dimensional image in some HDU")
    for k, hdu in enumerate(hdus):
        if ext.upper() in (str(k), _name(hdu), f"{_name(hdu)},{_version(hdu)}") and _is_image(hdu):
            return k
    present = ", ".join(f"{k} {_name(hdu)}".strip() for k, hdu in enumerate(hdus) if _is_image(hdu))
    raise FileFormatError("no image there", path=path, hdu=ext, expected=f"one of: {present}")


def _is_image(hdu: fits.ImageHDU) -> bool:
    """Tell an image of two axes, others of length one aside."""
    kinds = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
    if not isinstance(hdu, kinds):
        return False
    shape = hdu.shape
    return len(shape) >= 2 and all(n == 1 for n in shape[:-2]) and min(shape[-2:]) > 0


def _celestial(primary: fits.Header, own: fits.Header) -> fits.Header:
    """Header that describes the coordinates: that of the HDU unless only the primary has any."""
    header = readable(own)
    if "CTYPE1" in header or own is primary:
        return header
    return readable(primary)


def _pixels(hdu: fits.ImageHDU) -> npt.NDArray[Any]:
    """Pixels of a plane, without axes of length one."""
    try:
        data = hdu.data
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as err:  # the codecs' own exceptions have no public name
        raise OSError(f"pixels cannot be read: {err}") from err
    if data is None or data.dtype.kind not in "iubf":
        raise OSError("holds no numbers")
    flat: npt.NDArray[Any] = data.reshape(data.shape[-2:])
    return flat


def _float(hdu: fits.ImageHDU) -> Image:
    data = _pixels(hdu)
    if data.dtype == np.dtype(">f4") and data.flags.writeable and data.flags.c_contiguous:
        # Nobody else will read this HDU: its bytes are turned round where they are.
        return np.asarray(data.byteswap(inplace=True).view(np.float32))
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and that is no data
        return np.ascontiguousarray(data, np.float32)


def _linear(image: Image, header: Header, notes: list[str]) -> Image:
    """Pixels of Pan-STARRS, stored as x = a asinh((f - BOFFSET) / 2 BSOFTEN), made linear."""
    soften, offset = header.get("BSOFTEN"), header.get("BOFFSET", 0.0)
    if not isinstance(soften, (int, float)) or not isinstance(offset, (int, float)) or soften <= 0:
        return image
    notes.append("pixels stored as asinh magnitudes (BSOFTEN) made linear")
    wide = np.sinh(image.astype(float) / _ASINH)
    return np.asarray(offset + 2.0 * soften * wide, np.float32)


def _only(path: Path, ext: str | None) -> Image:
    """Pixels of a file that holds one plane, or one for each extension of the image."""
    with open_fits(path) as hdus:
        return _float(hdus[_place(hdus, path, ext)])


def _place(hdus: fits.HDUList, path: Path, ext: str | None) -> int:
    single = sum(_is_image(h) for h in hdus) == 1
    return _first(hdus, path, None if single else ext)


def _integer(hdu: fits.ImageHDU) -> tuple[npt.NDArray[np.integer], dict[str, CardValue]]:
    data = _pixels(hdu)
    if data.dtype.kind == "f":
        data = np.nan_to_num(data, nan=1.0, posinf=1.0, neginf=1.0).astype(np.int64)
    if data.dtype.kind == "b":
        data = data.astype(np.uint8)
    return data.astype(data.dtype.newbyteorder("="), copy=False), plain_header(hdu.header)


def _same_shape(planes: Planes, raw: Raw) -> None:
    given = (
        (planes.variance, raw.variance),
        (planes.mask, raw.mask),
        (planes.weight, raw.weight),
    )
    for path, other in given:
        if other is not None and other.shape != raw.image.shape:
            raise InputError(
                f"{other.shape[1]} x {other.shape[0]} pixels",
                path=path or planes.path,
                expected=f"{raw.image.shape[1]} x {raw.image.shape[0]} as in {planes.path.name}",
            )
