"""Images that others have reduced: Community Pipeline products and single-image FITS files.

They enter the pipeline at ``calibrate``.  What they lack is filled in, and every such step is
recorded in the provenance of the exposure under ``FILLn``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import wcs as world
from pipeline.camera import Camera
from pipeline.errors import FileFormatError, KeywordError
from pipeline.exposure import Exposure, Image, Mask, PhotoCalib
from pipeline.io.files import open_fits
from pipeline.io.hdus import plain_header
from pipeline.io.raw import parse_visit_info
from pipeline.masks import bits

__all__ = ["list_instcal", "read_generic", "read_instcal"]

# Community Pipeline masks: bits up to version 3.4, integer codes since (late 2014).
_FIRST_CODES = (3, 5)
_CODES = {1: "BAD", 2: "NO_DATA", 3: "SAT", 4: "BLEED", 5: "CR", 6: "BAD", 8: "STREAK"}
_BITS = {
    1: "BAD",
    2: "SAT",
    4: "INTRP",
    8: "BAD",
    16: "CR",
    64: "BLEED",
    128: "EDGEBLEED",
    256: "CROSSTALK",
    512: "SUSPECT",
    1024: "STREAK",
    2048: "INTRP",
}


def list_instcal(path: str | Path) -> list[int]:
    """Return the CCD numbers of the images in a Community Pipeline file.

    Parameters
    ----------
    path : path-like
        A multi-extension FITS file.

    Returns
    -------
    list of int
        Ascending.
    """
    with open_fits(path, expected="a Community Pipeline image") as hdus:
        return sorted(int(h.header["CCDNUM"]) for h in hdus if _is_image(h, "CCDNUM"))


def read_instcal(path: str | Path, detector: int | None = None) -> Exposure:
    """Read an image of NOIRLab's DECam Community Pipeline with its weights and mask.

    Parameters
    ----------
    path : path-like
        The ``ooi`` image; ``oow`` (weight) and ``ood`` (quality) are looked for beside it.
    detector : int, optional
        CCD number; not needed if the file holds a single one.

    Returns
    -------
    Exposure
        In electrons, the sky still in it.  A zero point in the header (MAGZERO) is kept as
        ``photo_calib`` but not applied: ``njy_per_electron`` is 1.

    Raises
    ------
    FileFormatError
        If a file is damaged, or the three do not fit together.
    KeywordError
        If a keyword is missing or unusable.
    """
    path = Path(path)
    header, adu = _one_image(path, detector)
    detector = int(_required(header, "CCDNUM", path))
    fills: list[str] = []
    gain = _mean(header, "GAINA", "GAINB", fallback="ARAWGAIN", path=path)
    info = parse_visit_info(header, Camera.load("decam"), path=path)
    image = (adu * gain).astype(np.float32)
    mask = _instcal_mask(path, header, image, detector, fills)
    variance = _instcal_variance(path, header, image, mask, gain, detector, fills)
    saturation = float(header.get("SATURATE", np.inf)) * gain
    mask[image >= saturation] |= bits("SAT")
    read_noise = _mean(header, "RDNOISEA", "RDNOISEB", fallback="RDNOISE", path=path)
    return Exposure(
        image=image,
        variance=variance,
        mask=mask,
        info=replace(info, gain=1.0, read_noise=read_noise, saturation=saturation),
        wcs=world.from_header(header),
        photo_calib=_header_zero_point(header, gain),
        unit="electron",
        provenance={
            "ORIGFILE": path.name,
            "PLVER": str(header.get("PLVER", "")),
            "ORIGGAIN": gain,
            **_recorded(fills),
        },
    )


def _instcal_mask(
    path: Path, header: Mapping[str, Any], image: Image, detector: int, fills: list[str]
) -> Mask:
    quality = _beside(path, "ood")
    if quality is None:
        fills.append("mask: no quality file, only not-a-number pixels flagged")
        codes = np.zeros(image.shape, np.int64)
    else:
        codes = _fitting(quality, image, detector).astype(np.int64)
    mask = decode_quality(codes, str(header.get("PLVER", "")))
    mask[~np.isfinite(image)] |= bits("NO_DATA", "UNMASKEDNAN")
    return mask


def decode_quality(codes: np.ndarray, version: str) -> Mask:
    """Translate a Community Pipeline quality plane.

    Parameters
    ----------
    codes : ndarray, (ny, nx), int
        Integer codes, or bits before version 3.5.
    version : str
        PLVER of the file; empty means a recent one.

    Returns
    -------
    ndarray, (ny, nx), uint32
        Bits of `pipeline.masks.MASK_PLANES`.
    """
    mask = np.zeros(codes.shape, np.uint32)
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers and numbers < _FIRST_CODES:
        for bit, plane in _BITS.items():
            mask[codes & bit != 0] |= bits(plane)
    else:
        for code, plane in _CODES.items():
            mask[codes == code] |= bits(plane)
    return mask


def _instcal_variance(
    path: Path,
    header: Mapping[str, Any],
    image: Image,
    mask: Mask,
    gain: float,
    detector: int,
    fills: list[str],
) -> Image:
    """Variance in electrons from the weights; the noise model where there are none."""
    read_noise = _mean(header, "RDNOISEA", "RDNOISEB", fallback="RDNOISE", path=path)
    expected = np.maximum(np.nan_to_num(image), 0) + np.float32(read_noise**2)
    weights = _beside(path, "oow")
    if weights is None:
        fills.append("variance: no weight file, from counts and read noise")
        return expected
    weight = _fitting(weights, image, detector)
    known = np.isfinite(weight) & (weight > 0)
    mask[~known] |= bits("BAD")
    if not known.all():
        fills.append(f"variance: {int((~known).sum())} pixels without weight, flagged BAD")
    scaled = gain**2 / np.where(known, weight, 1.0)
    return np.where(known, scaled, expected).astype(np.float32)


def _header_zero_point(header: Mapping[str, Any], gain: float) -> PhotoCalib | None:
    value = header.get("MAGZERO")
    if not isinstance(value, (int, float)) or not np.isfinite(value):
        return None
    return PhotoCalib(zero_point=float(value) + 2.5 * float(np.log10(gain)))


def read_generic(
    path: str | Path,
    visit: int,
    *,
    detector: int = 1,
    camera: Camera | None = None,
    **given: Any,
) -> Exposure:
    """Read a single reduced image with a WCS in its header.

    Parameters
    ----------
    path : path-like
        The file; the first HDU with an image is read.
    visit : int
        The exposure number to give it.
    detector : int
        The detector number to give it.
    camera : Camera, optional
        Says which keyword means what; the generic camera if not given.
    **given
        Items of `pipeline.exposure.VisitInfo` to use instead of the header's, in image units.

    Returns
    -------
    Exposure
        In electrons.  Variance is counts plus read noise squared.  Where no saturation level is
        known, it is the largest value if many pixels have it.

    Raises
    ------
    FileFormatError
        If the file holds no image or no coordinates.
    KeywordError
        If a keyword is missing or unusable.
    """
    path = Path(path)
    header, counts = _one_image(path, None)
    camera = camera or Camera.load("generic")
    known = {"visit": visit, "detector": detector, **given}
    info = parse_visit_info(header, camera, path=path, **known)
    wcs = world.from_header(header)
    if wcs is None:
        raise FileFormatError("no celestial coordinates", path=path, key="CTYPE1", expected="a WCS")
    fills = [
        f"{item}: no keyword, {default} assumed"
        for item, default in (("gain", 1.0), ("read_noise", 0.0))
        if item not in given and header.get(camera.keywords.get(item, "")) is None
    ]
    saturation = info.saturation
    if not np.isfinite(saturation):
        saturation, note = _plateau(counts)
        fills.append(note)
    image = (counts * info.gain).astype(np.float32)
    mask = np.zeros(image.shape, np.uint32)
    mask[counts >= saturation] |= bits("SAT")
    mask[~np.isfinite(image)] |= bits("NO_DATA", "UNMASKEDNAN")
    variance = np.maximum(np.nan_to_num(image), 0) + np.float32(info.read_noise**2)
    fills.append("variance: from counts and read noise")
    fills.append("mask: saturated and not-a-number pixels only")
    return Exposure(
        image=image,
        variance=np.maximum(variance, np.float32(1.0)),
        mask=mask,
        info=replace(info, gain=1.0, saturation=saturation * info.gain),
        wcs=wcs,
        unit="electron",
        provenance={"ORIGFILE": path.name, "ORIGGAIN": info.gain, **_recorded(fills)},
    )


def _plateau(counts: np.ndarray) -> tuple[float, str]:
    """Level at which the image is clipped, if it is."""
    finite = counts[np.isfinite(counts)]
    largest = float(finite.max()) if finite.size else float("inf")
    if np.count_nonzero(finite == largest) >= 3:
        return largest, f"saturation: no keyword, {largest:g} from the plateau of the brightest"
    return float("inf"), "saturation: no keyword and no plateau, none assumed"


def _recorded(fills: list[str]) -> dict[str, str]:
    return {f"FILL{i + 1}": note for i, note in enumerate(fills)}


def _one_image(path: Path, detector: int | None) -> tuple[dict[str, Any], np.ndarray]:
    """Header (primary keywords below those of the HDU) and pixels of one image."""
    with open_fits(path) as hdus:
        images = [h for h in hdus if _is_image(h)]
        if detector is not None:
            images = [h for h in images if h.header.get("CCDNUM") == detector]
        if not images:
            what = "an image" if detector is None else f"an image of CCD {detector}"
            raise FileFormatError("no such HDU", path=path, expected=what)
        if len(images) > 1:
            raise FileFormatError(
                f"holds {len(images)} images", path=path, hint="say which detector to read"
            )
        hdu = images[0]
        return {**plain_header(hdus[0].header), **plain_header(hdu.header)}, _pixels(hdu)


def _pixels(hdu: Any) -> np.ndarray:
    data = np.asarray(hdu.data)
    return data.astype(data.dtype.newbyteorder("="))


def _is_image(hdu: Any, key: str | None = None) -> bool:
    """Whether an HDU is an image with pixels, and has a keyword."""
    return bool(
        hdu.is_image and hdu.header.get("NAXIS", 0) == 2 and (key is None or key in hdu.header)
    )


def _beside(path: Path, kind: str) -> Path | None:
    """Return the companion of an ``ooi`` image, if it is there."""
    other = path.with_name(re.sub(r"ooi", kind, path.name, count=1))
    return other if other != path and other.is_file() else None


def _fitting(path: Path, image: Image, detector: int) -> np.ndarray:
    _, plane = _one_image(path, detector)
    if plane.shape != image.shape:
        raise FileFormatError(
            f"is {plane.shape}, the image {image.shape}", path=path, expected="the same size"
        )
    return plane


def _required(header: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in header:
        raise KeywordError("missing keyword", path=path, key=key)
    return header[key]


def _mean(header: Mapping[str, Any], *keys: str, fallback: str, path: Path) -> float:
    values = [float(header[k]) for k in keys if k in header]
    return float(np.mean(values)) if values else float(_required(header, fallback, path))
