"""Raw multi-extension files as the instrument writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from pipeline.camera import Camera, Detector, Section
from pipeline.io import atomic_path
from pipeline.io.hdus import Card, cards, compressed_hdu, primary_hdu
from sims.conditions import Conditions
from sims.geometry import DetectorGeometry, tpv_cards
from sims.schedule import LATITUDE, LONGITUDE, horizon
from sims.streams import stream

__all__ = ["PROGRAM", "Piece", "extension", "pieces", "primary", "write_raw"]

PROGRAM = "Nightjar simulation"
"""Observing programme of simulated exposures."""

_BLOCK = 2880
_KEYWORD = 8


def primary(conditions: Conditions, camera: Camera) -> bytes:
    """Return the primary HDU of a visit; it does not depend on which detectors follow.

    Parameters
    ----------
    conditions : Conditions
        Of the visit.
    camera : Camera
        Names the keywords.

    Returns
    -------
    bytes
        Whole blocks of 2880 bytes.
    """
    visit = conditions.visit
    altitude, _, hour = horizon(visit)
    obsid = "ct4m" + visit.start[:19].replace("-", "").replace(":", "").replace("T", "t")
    return primary_hdu(
        cards(
            [
                ("INSTRUME", camera.cards["INSTRUME"], "instrument"),
                ("TELESCOP", camera.cards["TELESCOP"], "telescope"),
                ("OBSERVAT", camera.cards["OBSERVAT"], "observatory"),
                ("OBS-LONG", -LONGITUDE, "[deg] longitude, west positive"),
                ("OBS-LAT", LATITUDE, "[deg] latitude"),
                ("OBS-ELEV", camera.cards["OBS-ELEV"], "[m] elevation"),
                ("PROCTYPE", "RAW", "data processing level"),
                ("PRODTYPE", "image", "data product type"),
                ("OBSTYPE", "object", "observation type"),
                ("OBJECT", visit.field, "field"),
                ("PROGRAM", PROGRAM, "observing programme"),
                ("EXPNUM", visit.number, "exposure number"),
                ("OBSID", obsid, "observation ID"),
                ("FILTER", camera.passbands.bands[visit.band].filter, "unique filter identifier"),
                ("EXPREQ", visit.exptime, "[s] requested exposure"),
                ("EXPTIME", visit.exptime, "[s] exposure"),
                ("DARKTIME", visit.exptime + 1.13, "[s] dark time"),
                ("DATE-OBS", visit.start, "UTC of the start of the exposure"),
                ("TIMESYS", "UTC", "time system"),
                ("MJD-OBS", visit.start_mjd_utc, "MJD (UTC) of the start"),
                ("RADESYS", "FK5", "default coordinate system"),
                ("TELEQUIN", 2000.0, "equinox of telescope coordinates"),
                ("TELRA", _sexagesimal(conditions.nominal.ra / 15.0, 3), "[HH:MM:SS]"),
                ("TELDEC", _sexagesimal(conditions.nominal.dec, 2), "[DD:MM:SS]"),
                ("HA", _sexagesimal(hour / 15.0, 2), "[HH:MM:SS] hour angle"),
                ("ZD", 90.0 - altitude, "[deg] zenith distance"),
                ("AIRMASS", round(conditions.airmass, 4), "at the middle of the exposure"),
                ("DIMMSEE", round(conditions.seeing * conditions.airmass**-0.6, 3), "[arcsec]"),
                ("PIXSCAL1", camera.cards["PIXSCAL1"], "[arcsec/pixel] nominal scale"),
                ("PIXSCAL2", camera.cards["PIXSCAL2"], "[arcsec/pixel] nominal scale"),
                ("SIMULATE", True, "simulated pixels"),
            ]
        )
    )


def _sexagesimal(value: float, digits: int) -> str:
    sign = "-" if value < 0 else ""
    units = 60 * 10**digits
    total = round(abs(value) * 60 * units)
    minutes, rest = divmod(total, units)
    width = 3 + digits
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:{rest / 10**digits:0{width}.{digits}f}"


def extension(
    raw: npt.NDArray[np.uint16],
    conditions: Conditions,
    geometry: DetectorGeometry,
    nominal: Detector,
) -> bytes:
    """Return the HDU of one detector, RICE-compressed row by row.

    Parameters
    ----------
    raw : ndarray, raw_shape, uint16, ADU
        The frame.
    conditions : Conditions
        Of the visit.
    geometry : DetectorGeometry
        The detector and its camera.
    nominal : Detector
        The detector as the observatory knows it: gains and levels of the header.

    Returns
    -------
    bytes
        Whole blocks of 2880 bytes.
    """
    header = cards([*_identity(geometry), *_sections(nominal), *_wcs(conditions, geometry)])
    return compressed_hdu(geometry.detector.name, raw, header)


def _identity(geometry: DetectorGeometry) -> list[Card]:
    return [
        ("CCDNUM", geometry.detector.number, "detector number"),
        ("DETPOS", geometry.detector.name, "detector position"),
        ("FPA", geometry.camera.cards["FPA"], "focal plane"),
    ]


def _sections(detector: Detector) -> list[Card]:
    amps = detector.amplifiers
    data = _around([a.data for a in amps])
    first = amps[0]
    items: list[Card] = [
        ("TRIMSEC", data.fits, "pixels with data"),
        ("DATASEC", data.fits, "pixels with data"),
        ("LTV1", float(first.data.x0 - first.trimmed.x0), "raw minus trimmed column"),
        ("LTV2", float(first.data.y0 - first.trimmed.y0), "raw minus trimmed row"),
    ]
    for amp in amps:
        values: list[Card] = [
            ("DATASEC", amp.data.fits, "pixels of the channel"),
            ("BIASSEC", amp.overscan.fits, "its serial overscan"),
            ("CCDSEC", amp.trimmed.fits, "where its pixels go"),
            ("GAIN", round(amp.gain, 3), "[electron/adu]"),
            ("RDNOISE", round(amp.read_noise, 3), "[electron]"),
            ("SATURAT", round(amp.saturation), "[adu]"),
        ]
        items += [
            (name + amp.name, value, f"{amp.name}: {comment}")
            for name, value, comment in values
            if len(name + amp.name) <= _KEYWORD
        ]
    return items


def _around(sections: Iterable[Section]) -> Section:
    boxes = list(sections)
    return Section(
        min(s.x0 for s in boxes),
        max(s.x1 for s in boxes),
        min(s.y0 for s in boxes),
        max(s.y1 for s in boxes),
    )


def _wcs(conditions: Conditions, geometry: DetectorGeometry) -> list[Card]:
    values: dict[str, Any] = tpv_cards(geometry, conditions.nominal)
    return [
        ("WCSAXES", 2, "axes"),
        ("RADESYS", "FK5", "coordinate system"),
        ("EQUINOX", 2000.0, "equinox"),
        *((key, value, "") for key, value in values.items()),
    ]


@dataclass(frozen=True, slots=True)
class Piece:
    """Where the bytes of an HDU are.

    Attributes
    ----------
    path : Path
        The file.
    start, length : int
        The first byte and their number.
    """

    path: Path
    start: int
    length: int

    def read(self) -> bytes:
        """Return the bytes."""
        with self.path.open("rb") as f:
            f.seek(self.start)
            return f.read(self.length)


def pieces(path: Path) -> dict[int, Piece]:
    """Find the extensions of a raw file by their detectors, from the headers alone.

    Parameters
    ----------
    path : path-like
        A file written by `write_raw`.

    Returns
    -------
    dict of Piece
        By detector number.
    """
    found: dict[int, Piece] = {}
    start, end = 0, path.stat().st_size
    with path.open("rb") as f:
        while start < end:
            f.seek(start)
            header = fits.Header.fromfile(f, endcard=True)
            length = f.tell() - start + _data_length(header)
            if start > 0:
                found[int(header["CCDNUM"])] = Piece(path, start, length)
            start += length
    return found


def _data_length(header: fits.Header) -> int:
    axes = [header[f"NAXIS{i + 1}"] for i in range(header["NAXIS"])]
    size = math.prod(axes) if axes else 0
    size = abs(header["BITPIX"]) // 8 * header.get("GCOUNT", 1) * (header.get("PCOUNT", 0) + size)
    return int(-(-size // _BLOCK) * _BLOCK)


def write_raw(
    path: Path, seed: int, conditions: Conditions, camera: Camera, extensions: Mapping[int, Piece]
) -> None:
    """Write the file of a visit.

    Parameters
    ----------
    path : path-like
        The file.
    seed : int
        Seed of the campaign.
    conditions : Conditions
        Of the visit.
    camera : Camera
        The camera.
    extensions : mapping of int to Piece
        HDU of each detector; some may be in the file that is replaced.  They are written in an
        order of their own in every visit, as the instrument does: detectors are found by their
        number.
    """
    rng = stream(seed, conditions.visit.number, 0, "order of extensions")
    order = rng.permutation(max(camera.detectors) + 1).tolist()
    with atomic_path(path) as partial, partial.open("wb") as f:
        f.write(primary(conditions, camera))
        for number in sorted(extensions, key=order.__getitem__):
            f.write(extensions[number].read())
