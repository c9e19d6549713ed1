"""Raw frames: one HDU per detector, found by its number and never by its place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from pipeline.camera import Camera, Detector
from pipeline.errors import FileFormatError, KeywordError
from pipeline.exposure import RawFrame, VisitInfo
from pipeline.io.files import open_fits
from pipeline.io.hdus import read_pixels, verify_data_sum
from pipeline.io.headers import CardValue, Header, plain_header
from pipeline.timescales import midpoint_mjd_tai

__all__ = [
    "BANDS",
    "RawContents",
    "list_raw",
    "parse_visit_info",
    "read_raw",
    "read_raw_headers",
    "reason_to_skip",
    "survey_raw",
]

BANDS = "ugrizy"
"""Filters known by the first letter of their name."""

_MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RawContents:
    """What a raw file holds.

    Attributes
    ----------
    detectors : tuple of int
        CCD numbers to process, ascending.
    skipped : mapping of int to str
        CCD numbers left out, each with its reason.
    header : mapping
        Primary header.
    """

    detectors: tuple[int, ...]
    skipped: Mapping[int, str]
    header: Header


def survey_raw(path: str | Path, camera: Camera) -> RawContents:
    """List the detectors of a raw file, and those to leave out with the reason.

    Parameters
    ----------
    path : path-like
        A multi-extension FITS file.
    camera : Camera
        Its camera.

    Returns
    -------
    RawContents
        Numbers of the detectors, and the reasons for those left out.

    Raises
    ------
    FileFormatError
        If it is no such file or holds a detector twice.
    """
    skipped: dict[int, str] = {}
    found: list[int] = []
    with open_fits(path, expected=f"a raw {camera.name} frame", scaled=False) as hdus:
        primary = plain_header(hdus[0].header)
        for number, index in _detector_hdus(hdus, camera, path).items():
            header = {**primary, **plain_header(hdus[index].header)}
            reason = reason_to_skip(number, camera, header.get(camera.keywords["exptime"]))
            if reason:
                skipped[number] = reason
            else:
                found.append(number)
    return RawContents(tuple(sorted(found)), skipped, primary)


def list_raw(path: str | Path, camera: Camera) -> list[int]:
    """Return the numbers of the detectors in a raw file that are worth processing.

    Parameters
    ----------
    path : path-like
        A multi-extension FITS file.
    camera : Camera
        Its camera.

    Returns
    -------
    list of int
        Ascending.
    """
    return list(survey_raw(path, camera).detectors)


def read_raw(path: str | Path, camera: Camera, detector: int) -> RawFrame:
    """Read one detector of a raw exposure.

    Parameters
    ----------
    path : path-like
        A multi-extension FITS file, compressed or not.
    camera : Camera
        Its camera.
    detector : int
        CCD number.

    Returns
    -------
    RawFrame
        All pixels the controller sent, with the header of the HDU merged over the primary one.

    Raises
    ------
    FileFormatError
        If the file, the detector or the size is wrong, or the data do not have the sum of DATASUM.
    KeywordError
        If a keyword is missing or unusable.
    """
    expected = camera.detector(detector)
    with open_fits(path, expected=f"a raw {camera.name} frame", scaled=False) as hdus:
        places = _detector_hdus(hdus, camera, path)
        if detector not in places:
            present = ", ".join(map(str, sorted(places))) or "none"
            raise FileFormatError(
                f"no detector {detector}", path=path, expected=f"one of {present}"
            )
        hdu = hdus[places[detector]]
        verify_data_sum(hdu, path)
        data = np.ascontiguousarray(read_pixels(hdu))
        header = {**plain_header(hdus[0].header), **plain_header(hdu.header)}
        name = hdu.name or places[detector]
    if data.shape != expected.raw_shape:
        raise FileFormatError(
            f"raw frame of {data.shape[0]} rows × {data.shape[-1]} columns",
            path=path,
            hdu=name,
            expected="{} × {}".format(*expected.raw_shape),
            hint=f"is this {camera.name}?",
        )
    info = parse_visit_info(header, camera, path=path, hdu=name, electronics=expected)
    return RawFrame(data=data, header=header, info=info, path=str(path))


def read_raw_headers(path: str | Path, camera: Camera) -> dict[int, tuple[VisitInfo, Header]]:
    """Read what a raw file says of the detectors worth processing, without their pixels.

    Parameters
    ----------
    path : path-like
        A multi-extension FITS file.
    camera : Camera
        Its camera.

    Returns
    -------
    dict
        By CCD number: the exposure, and the keywords of the HDU over those of the primary one.

    Raises
    ------
    FileFormatError
        If it is no such file or holds a detector twice.
    KeywordError
        If a keyword is missing or unusable.
    """
    found: dict[int, tuple[VisitInfo, Header]] = {}
    with open_fits(path, expected=f"a raw {camera.name} frame", scaled=False) as hdus:
        primary = plain_header(hdus[0].header)
        for number, index in sorted(_detector_hdus(hdus, camera, path).items()):
            header = {**primary, **plain_header(hdus[index].header)}
            if not reason_to_skip(number, camera, header.get(camera.keywords["exptime"])):
                info = parse_visit_info(
                    header, camera, path=path, hdu=index, electronics=camera.detector(number)
                )
                found[number] = info, header
    return found


def parse_visit_info(
    header: Header,
    camera: Camera,
    *,
    path: str | Path | None = None,
    hdu: str | int | None = None,
    electronics: Detector | None = None,
    **given: Any,
) -> VisitInfo:
    """Read what a header says about an exposure.

    Parameters
    ----------
    header : mapping
        Keywords of the HDU over those of the primary HDU.
    camera : Camera
        Says which keyword means what.
    path, hdu : optional
        For messages.
    electronics : Detector, optional
        Source of gain, read noise and saturation; without it they come from the header.
    **given
        Items of `VisitInfo` that are known already; they win over the header.

    Returns
    -------
    VisitInfo
        With the defaults of its items where the header is silent.

    Raises
    ------
    KeywordError
        If an item without a default is missing, or one has an unusable value.
    """
    reader = _Reader(header, camera.keywords, given, path, hdu)
    exptime = reader.number("exptime")
    items = {
        "visit": int(reader.number("visit")),
        "detector": int(reader.number("detector")),
        "band": reader.band(),
        "exptime": exptime,
        "midpoint_mjd_tai": reader.midpoint(exptime),
        "ra": reader.angle("ra", hours=True),
        "dec": reader.angle("dec", hours=False),
        "airmass": reader.number("airmass", math.nan),
        "camera": camera.name,
        "field": str(reader.value("field") or "").strip(),
        "reason": str(reader.value("reason") or "").strip(),
    }
    return VisitInfo(**{**items, **_electronics(electronics, reader), **given})


def _electronics(detector: Detector | None, reader: _Reader) -> dict[str, float]:
    if detector is None:
        return {
            "gain": reader.number("gain", 1.0),
            "read_noise": reader.number("read_noise", 0.0),
            "saturation": reader.number("saturation", math.inf),
        }
    amps = detector.amplifiers
    return {
        "gain": float(np.mean([a.gain for a in amps])),
        "read_noise": float(np.mean([a.read_noise for a in amps])),
        "saturation": min(a.saturation for a in amps),
    }


class _Reader:
    """Items of a header by their meaning, with an error that says where."""

    def __init__(
        self,
        header: Header,
        keywords: Mapping[str, str],
        given: Header,
        path: str | Path | None,
        hdu: str | int | None,
    ) -> None:
        self.header, self.keywords, self.given = header, keywords, given
        self.path, self.hdu = path, hdu

    def value(self, item: str) -> CardValue | None:
        """Return the value of an item, or None."""
        if item in self.given:
            return self.given[item]
        return self.header.get(self.keywords.get(item, ""))

    def fail(self, item: str, message: str, expected: str) -> KeywordError:
        key = self.keywords.get(item) or item
        return KeywordError(message, path=self.path, hdu=self.hdu, key=key, expected=expected)

    def number(self, item: str, default: float | None = None) -> float:
        """Return a finite number; without a default it must be there."""
        value = self.value(item)
        if value is None and default is not None:
            return default
        try:
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) and default is not None:
            return default
        if not math.isfinite(number):
            problem = "missing keyword" if value is None else f"unusable value {value!r}"
            raise self.fail(item, problem, "a number")
        return number

    def band(self) -> str:
        """Return the first letter of the filter."""
        name = self.value("band")
        if name is None:
            raise self.fail("band", "missing keyword", "the name of a filter")
        letter = str(name).strip()[:1].lower()
        if letter not in BANDS or not letter:
            raise self.fail("band", f"unknown filter {str(name).strip()!r}", f"one of {BANDS}")
        return letter

    def midpoint(self, exptime: float) -> float:
        """Return the middle of the exposure, MJD TAI, from its start in UTC."""
        if "midpoint_mjd_tai" in self.given:
            return float(self.given["midpoint_mjd_tai"])
        text = self.value("start")
        if text is None:
            raise self.fail("start", "missing keyword", "a UTC date, 2015-02-17T01:02:03.4")
        try:
            start = datetime.fromisoformat(str(text).strip())
        except ValueError:
            raise self.fail(
                "start", f"not a date: {text!r}", "a UTC date, 2015-02-17T01:02:03.4"
            ) from None
        # A header's UTC has no zone, or Z.
        elapsed = start.replace(tzinfo=UTC) - _MJD_ZERO
        return midpoint_mjd_tai(
            elapsed.days + (elapsed.seconds + elapsed.microseconds * 1e-6) / 86400.0, exptime
        )

    def angle(self, item: str, *, hours: bool) -> float:
        """Return an angle in degrees, from degrees or sexagesimal text; NaN if absent."""
        value = self.value(item)
        if isinstance(value, str) and ":" in value:
            sign = -1.0 if value.strip().startswith("-") else 1.0
            parts = [float(p) for p in value.strip().lstrip("+-").split(":")]
            degrees = sum(p / 60.0**i for i, p in enumerate(parts))
            return sign * degrees * (15.0 if hours else 1.0)
        return self.number(item, math.nan)


def _detector_hdus(hdus: fits.HDUList, camera: Camera, path: str | Path) -> dict[int, int]:
    """Place of every detector in the file."""
    key = camera.keywords["detector"]
    places: dict[int, int] = {}
    for index, hdu in enumerate(hdus):
        number = hdu.header.get(key)
        axes = hdu.header.get("NAXIS", 0)
        if not isinstance(number, (int, float)) or axes != 2:
            continue
        if int(number) in places:
            raise FileFormatError(f"detector {number} occurs twice", path=path, hdu=index, key=key)
        places[int(number)] = index
    if not places:
        raise FileFormatError(
            "no HDU with an image of a detector", path=path, key=key, expected="a CCD number"
        )
    return places


def reason_to_skip(number: int, camera: Camera, exptime: object) -> str:
    """Say why a detector of an exposure is not processed; empty if it is.

    Parameters
    ----------
    number : int
        CCD number.
    camera : Camera
        The camera.
    exptime : float, s
        Open-shutter time; anything that is no number counts as unknown.

    Returns
    -------
    str
        The reason.
    """
    if number in camera.skipped_detectors:
        return "not a science detector"
    if number not in camera.detectors:
        return f"unknown to the definition of {camera.name}"
    if camera.detector(number).status == "dead":
        return "dead detector"
    if isinstance(exptime, (int, float)) and exptime <= 0:
        return "exposure time is zero"
    return ""
