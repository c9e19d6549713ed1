"""What is known of a camera band by band: throughput, dark sky, refraction, colour terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import ConfigError

__all__ = ["Band", "ColourTerm", "Passbands", "parse_passbands"]

_T = TypeVar("_T", "Band", "ColourTerm")


@dataclass(frozen=True, slots=True)
class Band:
    """One filter of a camera at its site.

    Attributes
    ----------
    filter : str
        FILTER keyword of its raw files.
    zero_point : float, mag
        AB magnitude of one electron per second at the zenith.
    dark_sky : float, mag/arcsec²
        Surface brightness of the sky without moon.
    refraction : float, arcsec
        Displacement of a source per magnitude of its colour g - i and unit tan z.
    """

    filter: str
    zero_point: float
    dark_sky: float
    refraction: float

    def fault(self) -> str:
        """Say which value cannot be, empty if all can."""
        for name in ("zero_point", "dark_sky"):
            if not 10.0 < getattr(self, name) < 40.0:
                return f"{name} is not between 10 and 40 mag"
        return "" if 0.0 <= self.refraction < 1.0 else "refraction is not between 0 and 1 arcsec"


@dataclass(frozen=True, slots=True)
class ColourTerm:
    """``m = m_ref + c0 + c1 colour + c2 colour²`` with colour = m_blue - m_red, AB magnitudes.

    Attributes
    ----------
    blue, red : str
        Bands of the colour.
    c0, c1, c2 : float, mag
        Coefficients.
    low, high : float, mag
        Range of the colour in which the relation holds.
    """

    blue: str
    red: str
    c0: float
    c1: float
    c2: float
    low: float = -1.0
    high: float = 2.0

    def fault(self) -> str:
        """Say which value cannot be, empty if all can."""
        return "" if self.low < self.high else "low is not below high"


@dataclass(frozen=True, slots=True)
class Passbands:
    """All bands of a camera.

    Attributes
    ----------
    fiducial_seeing : float, arcsec
        Width of the PSF (FWHM) that, with the zero points and dark skies, defines effective times.
    bands : mapping of str to Band
        By name; a band that is not there has no effective time and no refraction.
    colour_terms : mapping of str to mapping of str to ColourTerm
        From a photometric system to the camera's own, by the system's name and the band.
    """

    fiducial_seeing: float
    bands: Mapping[str, Band]
    colour_terms: Mapping[str, Mapping[str, ColourTerm]] = field(default_factory=dict)


def parse_passbands(spec: Mapping[str, Any], path: Path) -> Passbands:
    """Read the sections ``bands`` and ``colour_terms`` of a camera definition.

    Parameters
    ----------
    spec : mapping
        The parsed TOML.
    path : Path
        The file, for messages.

    Returns
    -------
    Passbands
        The bands of the camera and their colour terms.

    Raises
    ------
    ConfigError
        For an unknown or missing key, a value of another type or one that cannot be.
    """
    seeing = spec.get("fiducial_seeing")
    if not isinstance(seeing, float) or not 0.0 < seeing < 10.0:
        raise ConfigError(
            f"not a seeing: {seeing!r}",
            path=path,
            key="fiducial_seeing",
            expected="between 0 and 10 arcsec",
        )
    bands = {b: _read(Band, row, path, f"bands.{b}") for b, row in spec["bands"].items()}
    terms = {
        system: {
            b: _read(ColourTerm, row, path, f"colour_terms.{system}.{b}") for b, row in rows.items()
        }
        for system, rows in spec.get("colour_terms", {}).items()
    }
    return Passbands(seeing, bands, terms)


def _read(kind: type[_T], row: Mapping[str, Any], path: Path, key: str) -> _T:
    types = {f.name: str if f.type == "str" else float for f in fields(kind)}
    for name, value in row.items():
        if name not in types:
            raise ConfigError(
                f"unknown key {name!r}", path=path, key=key, expected=", ".join(types)
            )
        if type(value) is not types[name] or (isinstance(value, float) and not isfinite(value)):
            wanted = "a text" if types[name] is str else "a number with a decimal point"
            raise ConfigError(f"is {value!r}", path=path, key=f"{key}.{name}", expected=wanted)
    try:
        made = kind(**row)
    except TypeError as err:
        raise ConfigError(f"incomplete: {err}", path=path, key=key) from err
    if fault := made.fault():
        raise ConfigError(fault, path=path, key=key)
    return made
