"""Planes of an image, in one file or in several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from pipeline.errors import FileFormatError, InputError
from pipeline.exposure import Image
from pipeline.io import open_fits

__all__ = ["Planes", "Raw", "read_planes"]

_NAMES = {
    "image": ("IMAGE", "SCI", "DATA"),
    "variance": ("VARIANCE", "VAR"),
    "error": ("ERR", "ERROR", "SIGMA", "UNCERT"),
    "mask": ("MASK", "DQ"),
}


@dataclass(frozen=True, slots=True)
class Planes:
    """Where an image and what goes with it are to be found, and what the user knows of it.

    Attributes
    ----------
    path : path
        The image, or a file with several extensions.
    variance, mask : path, optional
        Separate files.
    gain : float, optional, electron per image unit
        Overrides the header.
    read_noise : float, optional, electron
        Overrides the header.
    saturation : float, optional, image unit
        Overrides the header.
    """

    path: Path
    variance: Path | None = None
    mask: Path | None = None
    gain: float | None = None
    read_noise: float | None = None
    saturation: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """What the files hold.

    Attributes
    ----------
    image : ndarray, (ny, nx)
        Pixels.
    variance, mask : ndarray, optional
        As found.
    header, mask_header : mapping
        Keywords of the image (the primary HDU's underneath) and of the mask.
    files : tuple of path
        Everything that was read.
    """

    image: Image
    variance: Image | None
    mask: npt.NDArray[np.integer] | None
    header: Mapping[str, Any]
    mask_header: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def read_planes(planes: Planes) -> Raw:
    """Read an image and, where they exist, its variance and its mask.

    Extensions are recognised by name (IMAGE or SCI, VARIANCE, ERR, MASK or DQ); a file without
    such names holds its image in the first HDU that has one.

    Parameters
    ----------
    planes : Planes
        The files.

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
        found = _recognise(hdus, planes.path)
        image = _float(hdus[found["image"]])
        header = {**hdus[0].header, **hdus[found["image"]].header}
        variance = _float(hdus[found["variance"]]) if "variance" in found else None
        if variance is None and "error" in found:
            variance = _float(hdus[found["error"]]) ** 2
        mask: npt.NDArray[np.integer] | None = None
        mask_header: dict[str, Any] = {}
        if "mask" in found:
            mask, mask_header = _integer(hdus[found["mask"]], planes.path)
    if planes.variance is not None:
        with open_fits(planes.variance) as hdus:
            variance = _float(hdus[_first(hdus, planes.variance)])
    if planes.mask is not None:
        with open_fits(planes.mask) as hdus:
            mask, mask_header = _integer(hdus[_first(hdus, planes.mask)], planes.mask)
    _same_shape(planes, image, variance, mask)
    files = tuple(p for p in (planes.path, planes.variance, planes.mask) if p is not None)
    return Raw(image, variance, mask, header, mask_header, files)


def _recognise(hdus: fits.HDUList, path: Path) -> dict[str, int]:
    names = {hdu.name.upper(): k for k, hdu in reversed(list(enumerate(hdus))) if _is_image(hdu)}
    found = {
        kind: names[name]
        for kind, candidates in _NAMES.items()
        for name in reversed(candidates)
        if name in names
    }
    if "image" not in found:
        found = {"image": _first(hdus, path)}
    return found


def _first(hdus: fits.HDUList, path: Path) -> int:
    for k, hdu in enumerate(hdus):
        if _is_image(hdu):
            return k
    raise FileFormatError("no image", path=path, expected="a two-dimensional image in some HDU")


def _is_image(hdu: Any) -> bool:
    kinds = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
    return isinstance(hdu, kinds) and hdu.header.get("NAXIS", 0) == 2


def _float(hdu: Any) -> Image:
    data = hdu.data
    if data.dtype == np.dtype(">f4") and data.flags.writeable and data.flags.c_contiguous:
        # Nobody else will read this HDU: its bytes are turned round where they are.
        return np.asarray(data.byteswap(inplace=True).view(np.float32))
    return np.ascontiguousarray(data, np.float32)


def _integer(hdu: Any, path: Path) -> tuple[npt.NDArray[np.integer], dict[str, Any]]:
    data = np.asarray(hdu.data)
    if data.dtype.kind == "f":
        data = np.nan_to_num(data, nan=1.0).astype(np.uint32)
    if data.dtype.kind not in "iub":
        raise FileFormatError("mask is not numeric", path=path, expected="integers, 0 is good")
    return data.astype(data.dtype.newbyteorder("="), copy=False), dict(hdu.header)


def _same_shape(planes: Planes, image: Image, *others: npt.NDArray[Any] | None) -> None:
    for path, other in zip((planes.variance, planes.mask), others, strict=True):
        if other is not None and other.shape != image.shape:
            raise InputError(
                f"{other.shape[1]} x {other.shape[0]} pixels",
                path=path or planes.path,
                expected=f"{image.shape[1]} x {image.shape[0]} as in {planes.path.name}",
            )
