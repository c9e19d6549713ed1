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
from astropy.io import fits

from pipeline import wcs as world
from pipeline.camera import Camera
from pipeline.errors import FileFormatError, KeywordError
from pipeline.exposure import Exposure, Image, Mask, PhotoCalib, VisitInfo
from pipeline.ids import LARGEST_DETECTOR
from pipeline.io.files import open_fits
from pipeline.io.filters import band_of, filter_name
from pipeline.io.headers import CardValue, Header, number, plain_header
from pipeline.io.keywords import item_of
from pipeline.io.nodata import no_data, plateau
from pipeline.io.noise import checked_gain, given_variance, measured_gain, sky_noise
from pipeline.io.planes import Planes, Raw, place_of, read_planes, science_images
from pipeline.io.quality import decode_quality, mask_of
from pipeline.io.raw import BANDS, parse_visit_info
from pipeline.io.times import read_midpoint
from pipeline.masks import bits

__all__ = ["list_generic", "list_instcal", "read_generic", "read_instcal"]

_AGREEMENT = 1.6
"""Measured over expected variance of the sky, either way, from which on the measured one counts."""


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
        numbers = (_ccd(h) for h in hdus if _is_image(h))
        return sorted(n for n in numbers if n is not None)


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
    saturation = (number(header, ("SATURATE",)) or ("", np.inf))[1] * gain
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
    path: Path, header: Header, image: Image, detector: int, fills: list[str]
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


def _instcal_variance(
    path: Path,
    header: Header,
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


def _header_zero_point(header: Header, gain: float) -> PhotoCalib | None:
    value = header.get("MAGZERO")
    if not isinstance(value, (int, float)) or not np.isfinite(value):
        return None
    return PhotoCalib(zero_point=float(value) + 2.5 * float(np.log10(gain)))


def list_generic(path: str | Path, ext: str | None = None) -> list[int]:
    """Return the numbers, from 1, of the images of the sky that a plain FITS file holds.

    Parameters
    ----------
    path : path-like
        The file.
    ext : str, optional
        Extension to take alone, by number or name.

    Returns
    -------
    list of int
        Numbers for `read_generic`.

    Raises
    ------
    FileFormatError
        If there is no image, or the extension is none.
    """
    path = Path(path)
    with open_fits(path) as hdus:
        found = science_images(hdus)
        if not found:
            raise FileFormatError(
                "no image", path=path, expected="a two-dimensional image in some HDU"
            )
        if ext is None:
            return list(range(1, len(found) + 1))
        place = place_of(hdus, path, ext)
    if place not in found:
        raise FileFormatError("is not an image of the sky", path=path, hdu=ext)
    return [found.index(place) + 1]


def read_generic(
    path: str | Path,
    visit: int,
    *,
    detector: int = 1,
    camera: Camera | None = None,
    keywords: Mapping[str, str] | None = None,
    mask_bits: str | None = None,
    **given: Any,
) -> Exposure:
    """Read a reduced image with a WCS in its header.

    Parameters
    ----------
    path : path-like
        The file.
    visit : int
        The exposure number to give it.
    detector : int
        The detector number to give it; of a file with several images, which one, from 1.
    camera : Camera, optional
        Says which keyword means what; the generic camera if not given.
    keywords : mapping of str to str, optional
        Cards to look at first, by item of `pipeline.io.keywords.ITEMS`.
    mask_bits : str, optional
        Which bits of a mask count, see `pipeline.io.quality.decode`; by default the camera's.
    **given
        Items of `pipeline.exposure.VisitInfo` to use instead of the header's, in image units.

    Returns
    -------
    Exposure
        In electrons.  Without a plane of variance or weight, variance is counts plus read noise
        squared, or the measured noise of the sky where that contradicts.  Where no saturation
        level is known, it is the largest value if many pixels have it.

    Raises
    ------
    FileFormatError
        If the file holds no image or no coordinates.
    KeywordError
        If a keyword is missing or unusable.
    """
    path = Path(path)
    with open_fits(path) as hdus:
        places = science_images(hdus)
    ext = str(places[detector - 1]) if len(places) >= max(detector, 2) else None
    raw = read_planes(Planes(path, ext=ext))
    fills = list(raw.notes)
    camera = camera or Camera.load("generic")
    cards = {**camera.keywords, **(keywords or {})}
    _require_wcs(raw, path)
    holes, said = no_data(raw.image)
    fills += [f"pixels: {note}" for note in said]
    counts = np.where(holes, np.float32(np.nan), raw.image)
    raw = replace(raw, image=counts)
    numbers = _numbers(raw, holes, cards, given, fills)
    exposure_info = _visit_info(raw, camera, cards, path, fills, given)
    info = VisitInfo(**{**exposure_info, "visit": visit, "detector": detector, **numbers, **given})
    gain, notes = info.gain, list[str]()
    mask = mask_of(raw, float("inf"), mask_bits or camera.mask_bits or None, notes)
    mask[counts >= info.saturation] |= bits("SAT")
    image = np.multiply(counts, gain, dtype=np.float64).astype(np.float32)
    variance = _generic_variance(raw, image, mask, info, notes)
    return Exposure(
        image=image,
        variance=variance,
        mask=mask,
        info=replace(info, gain=1.0, saturation=info.saturation * gain),
        wcs=raw.wcs,
        unit="electron",
        provenance={"ORIGFILE": path.name, "ORIGGAIN": gain, **_recorded([*fills, *notes])},
    )


def _require_wcs(raw: Raw, path: Path) -> None:
    if raw.wcs is None:
        reason = next((n for n in raw.notes if n.startswith("coordinates")), "")
        raise FileFormatError(
            "no celestial coordinates" + (f" ({reason})" if reason else ""),
            path=path, key="CTYPE1", expected="a WCS",
        )  # fmt: skip


def _numbers(
    raw: Raw,
    holes: np.ndarray,
    cards: Mapping[str, str],
    given: Mapping[str, float],
    fills: list[str],
) -> dict[str, float]:
    """Gain, read noise and saturation level, with what had to be found otherwise."""
    found = {k: item_of(raw.header, k, cards) for k in ("gain", "read_noise", "saturation")}
    values = {k: v[1] for k, v in found.items() if v is not None} | {
        k: float(given[k]) for k in found if k in given
    }
    bad = holes if raw.mask is None else holes | (raw.mask != 0)
    if "gain" in values:
        values["gain"], note = checked_gain(raw.image, bad, values["gain"])
        fills += [note] if note else []
    else:
        measured = measured_gain(raw.image, bad, values.get("read_noise", 0.0))
        values["gain"] = measured or 1.0
        fills.append(
            f"gain: no keyword, {measured:.4g} measured from the sky, its pedestal taken as 0"
            if measured
            else "gain: no keyword, 1.0 assumed"
        )
    if "read_noise" not in values:
        values["read_noise"] = 0.0
        fills.append("read_noise: no keyword, 0.0 assumed")
    if "saturation" not in values:
        values["saturation"], note = plateau(raw.image)
        fills.append(note)
    return values


def _visit_info(
    raw: Raw,
    camera: Camera,
    cards: Mapping[str, str],
    path: Path,
    fills: list[str],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect what the header says of the exposure; what it must say is there."""
    moment = read_midpoint(
        raw.header,
        start=cards.get("start", ""),
        exptime=cards.get("exptime", ""),
        given=given.get("exptime"),
    )
    exptime = given.get("exptime", moment.exptime)
    if exptime is None:
        wrong = [n for n in moment.notes if "not an exposure time" in n]
        raise KeywordError(
            wrong[0] if wrong else "missing keyword", path=path,
            key=cards.get("exptime") or "EXPTIME", expected="seconds above 0",
            hint="--keyword exptime=CARD",
        )  # fmt: skip
    midpoint = given.get("midpoint_mjd_tai", moment.mjd_tai)
    if midpoint is None:
        raise KeywordError(
            "; ".join(moment.notes) or "missing keyword", path=path,
            key=cards.get("start") or "DATE-OBS", expected="a date with time of day",
            hint="--keyword start=CARD",
        )  # fmt: skip
    fills += [f"time: {note}" for note in moment.notes]
    assert raw.wcs is not None
    airmass = item_of(raw.header, "airmass", cards)
    return {
        "band": given.get("band") or _band(raw, camera, cards, path),
        "exptime": exptime,
        "midpoint_mjd_tai": midpoint,
        "ra": float(raw.wcs.wcs.crval[0]),
        "dec": float(raw.wcs.wcs.crval[1]),
        "airmass": airmass[1] if airmass else float("nan"),
        "camera": camera.name,
        "field": str(raw.header.get(cards.get("field", "OBJECT"), "") or "").strip(),
        "reason": str(raw.header.get(cards.get("reason", ""), "") or "").strip(),
    }


def _band(raw: Raw, camera: Camera, cards: Mapping[str, str], path: Path) -> str:
    """Band of the filter, if a campaign can work in it."""
    found = filter_name(raw.header, cards.get("band", ""))
    key = cards.get("band") or "FILTER"
    if found is None:
        value = raw.header.get(key)
        what = "missing keyword" if value is None else f"unknown filter {str(value).strip()!r}"
        raise KeywordError(
            what, path=path, key=key, expected="the name of a filter", hint="--keyword band=CARD"
        )
    band = camera.filters.get(found[1]) or band_of(found[1])
    if band not in BANDS:
        also = "" if band == found[1] else f" (band {band})"
        raise KeywordError(
            f"unknown filter {found[1]!r}{also}",
            path=path,
            key=found[0],
            expected=f"one of {BANDS}",
        )
    return band


def _generic_variance(
    raw: Raw, image: Image, mask: Mask, info: VisitInfo, notes: list[str]
) -> Image:
    """Variance in electrons squared; pixels without one are flagged BAD."""
    variance = given_variance(raw, mask != 0, notes)
    if variance is not None:
        scaled = (variance * info.gain**2).astype(np.float32)
        known = np.isfinite(scaled) & (scaled > 0)
        lacking = ~known & (mask == 0)
        if lacking.any():
            notes.append(f"variance: {int(lacking.sum())} pixels without, flagged BAD")
        mask[~known] |= bits("BAD")
        return np.where(known, scaled, np.float32(np.median(scaled[known]) if known.any() else 1.0))
    model = np.maximum(np.nan_to_num(image), 0) + np.float32(info.read_noise**2)
    good = mask == 0
    level, noise = sky_noise(image, ~good)
    expected = float(np.median(model[good])) if good.any() else float("nan")
    if noise > 0 and not 1 / _AGREEMENT < noise**2 / max(expected, 1e-30) < _AGREEMENT:
        notes.append(
            f"variance: counts and read noise give {expected:.4g}, the sky shows {noise**2:.4g}:"
            " measured noise used (was the sky subtracted, or are frames stacked?)"
        )
        return np.asarray(noise**2 + np.maximum(np.nan_to_num(image) - level, 0), np.float32)
    notes.append("variance: from counts and read noise")
    return np.maximum(model, np.float32(1.0))


def _recorded(fills: list[str]) -> dict[str, str]:
    return {f"FILL{i + 1}": note for i, note in enumerate(fills)}


def _one_image(path: Path, detector: int | None) -> tuple[dict[str, CardValue], np.ndarray]:
    """Header (primary keywords below those of the HDU) and pixels of one image."""
    with open_fits(path) as hdus:
        images = [h for h in hdus if _is_image(h)]
        if detector is not None:
            images = [h for h in images if _ccd(h) == detector]
        if not images:
            what = "an image" if detector is None else f"an image of CCD {detector}"
            raise FileFormatError("no such HDU", path=path, expected=what)
        if len(images) > 1:
            raise FileFormatError(
                f"holds {len(images)} images", path=path, hint="say which detector to read"
            )
        hdu = images[0]
        return {**plain_header(hdus[0].header), **plain_header(hdu.header)}, _pixels(hdu)


def _pixels(hdu: fits.ImageHDU) -> np.ndarray:
    data = np.asarray(hdu.data)
    return data.astype(data.dtype.newbyteorder("="))


def _is_image(hdu: fits.ImageHDU) -> bool:
    """Whether an HDU is an image with pixels."""
    return bool(hdu.is_image and hdu.header.get("NAXIS", 0) == 2)


def _ccd(hdu: fits.ImageHDU) -> int | None:
    """Return the number of the CCD, if there is one that identifiers hold."""
    found = number(plain_header(hdu.header), ("CCDNUM",))
    return int(found[1]) if found and 0 <= found[1] <= LARGEST_DETECTOR else None


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


def _required(header: Header, key: str, path: Path) -> float:
    found = number(header, (key,))
    if found is None:
        wrong = f"is {header[key]!r}" if key in header else "missing keyword"
        raise KeywordError(wrong, path=path, key=key, expected="a number")
    return found[1]


def _mean(header: Header, *keys: str, fallback: str, path: Path) -> float:
    values = [_required(header, k, path) for k in keys if k in header]
    return float(np.mean(values)) if values else _required(header, fallback, path)
