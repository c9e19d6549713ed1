"""Tables of others: separators, comments, units, names of columns, Gaia's photometry."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from pipeline.errors import FileFormatError
from pipeline.io.files import open_fits
from pipeline.io.headers import Header, image_header
from pipeline.io.tables import read_parquet

__all__ = [
    "FLUXES",
    "GAIA_TO_SDSS",
    "MAGNITUDES",
    "NAMES",
    "NANOMAGGY",
    "READERS",
    "UNITS",
    "Columns",
    "degrees",
    "in_unit",
    "magnitudes",
    "numbers",
]

Columns = dict[str, npt.NDArray[Any]]
_T = TypeVar("_T", bound=np.generic)
_Contents = tuple[Columns, Header, Mapping[str, str]]

GAIA_TO_SDSS: Mapping[str, tuple[tuple[float, ...], float, tuple[float, float]]] = {
    "g": ((0.2199, -0.6365, -0.1548, 0.0064), 0.0745, (0.3, 3.0)),
    "r": ((-0.09837, 0.08592, 0.1907, -0.1701, 0.02263), 0.0378, (0.0, 3.0)),
    "i": ((-0.293, 0.6404, -0.09609, -0.002104), 0.0409, (0.5, 2.0)),
}
"""G minus the SDSS band as a polynomial of BP - RP, its scatter in mag, and the range of BP - RP
(Gaia DR3 documentation, section 5.5.1)."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "objectId": ("id", "source_id", "Source", "objID"),
    "ra": ("raDeg", "RA_ICRS", "RAJ2000", "_RAJ2000", "raMean", "raStack", "ALPHA_J2000"),
    "dec": ("decDeg", "DE_ICRS", "DEJ2000", "_DEJ2000", "DEdeg", "decMean", "decStack",
            "DELTA_J2000"),
    "raErr": ("ra_error", "e_RA_ICRS"),
    "decErr": ("dec_error", "e_DE_ICRS"),
    "pmRa": ("pmra",),
    "pmDec": ("pmdec", "pmDE"),
    "parallax": ("Plx",),
    "phot_g_mean_mag": ("Gmag",),
    "phot_bp_mean_mag": ("BPmag",),
    "phot_rp_mean_mag": ("RPmag",),
}  # fmt: skip
"""Our names, or Gaia's, and those of other archives; in any case of letters."""

MAGNITUDES: tuple[tuple[str, str], ...] = (
    ("{b}Mag", "{b}MagErr"), ("{b}mag", "e_{b}mag"), ("{b}mag", "{b}magErr"),
    ("{b}'mag", "e_{b}'mag"), ("{b}_mag", "{b}_magErr"), ("{b}MeanPSFMag", "{b}MeanPSFMagErr"),
    ("{b}PSFMag", "{b}PSFMagErr"), ("psfMag_{b}", "psfMagErr_{b}"), ("{b}PSF", "e_{b}PSF"),
    ("{b}_psf", "e_{b}_psf"), ("{b}_psfflux_mag", "{b}_psfflux_magerr"),
    ("wavg_mag_psf_{b}", "wavg_magerr_psf_{b}"), ("WAVG_MAG_PSF_{B}", "WAVG_MAGERR_PSF_{B}"),
    ("mag_auto_{b}", "magerr_auto_{b}"), ("MAG_AUTO_{B}", "MAGERR_AUTO_{B}"),
    ("{b}", "err_{b}"), ("{b}", "Err_{b}"), ("{b}", "d{b}"),
)  # fmt: skip
"""Names of AB magnitudes and their errors: ours, those of VizieR, MAST (PS1, ATLAS-Refcat2), SDSS,
SkyMapper, HSC and DES; ``{B}`` is the capital letter of the band."""

FLUXES: tuple[tuple[str, str], ...] = (
    ("flux_{b}", "flux_ivar_{b}"),
    ("FLUX_{B}", "FLUX_IVAR_{B}"),
    ("psfFlux_{b}", "psfFluxIvar_{b}"),
)
"""Names of fluxes in nanomaggies and their inverse variances: Legacy Surveys, SDSS."""

NANOMAGGY = 10.0 ** (0.4 * (31.4 - 22.5))
"""In nJy."""

UNITS: Mapping[str, str] = {
    "raErr": "mas", "decErr": "mas", "pmRa": "mas/yr", "pmDec": "mas/yr", "parallax": "mas",
} | {f"{b}Flux{e}": "nJy" for b in "ugrizy" for e in ("", "Err")}  # fmt: skip
"""What our columns are in; where a table names another unit, they are converted."""

_SEPARATORS = ("\t", ";", "|", ",")
_MISSING = ["", "null", "NULL", "None", "nan", "NaN", "NAN", "N/A", "--", "-"]
_SEXAGESIMAL = re.compile(r"([+-]?)(\d{1,3})[:hd ]\s*(\d{1,2})[:m' ]\s*(\d{1,2}(?:\.\d*)?)[s\"]?")
_FAINTEST, _BRIGHTEST = 50.0, -30.0


def _parquet(path: Path) -> _Contents:
    return _arrays(read_parquet(path)), {}, {}


def _csv(path: Path) -> _Contents:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if content.startswith(b"# %ECSV"):
        return _astropy(path, "ascii.ecsv")
    lines = [s for s in content.splitlines() if s.strip() and not s.lstrip().startswith(b"#")]
    first = lines[0].decode("utf-8-sig", "replace") if lines else ""
    separator = max(_SEPARATORS, key=first.count)
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(b"\n".join([*lines, b""])),
            parse_options=pyarrow.csv.ParseOptions(delimiter=separator),
            convert_options=pyarrow.csv.ConvertOptions(
                null_values=_MISSING, strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid as err:
        raise FileFormatError(f"not a table: {err}", path=path, expected="CSV with names") from err
    return {name.strip(): _stripped(v) for name, v in _arrays(table).items()}, {}, {}


def _stripped(values: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
    """Text without blanks, as numbers if it is numbers."""
    if values.dtype != object:
        return values
    text = [v.strip() if isinstance(v, str) else v for v in values]
    kept = [None if isinstance(v, str) and v in _MISSING else v for v in text]
    try:
        return np.array([np.nan if v is None else float(v) for v in kept])
    except (TypeError, ValueError):
        return np.array(kept, object)


def _fits(path: Path) -> _Contents:
    with open_fits(path, expected="a table") as hdus:
        tables = [hdu for hdu in hdus if getattr(hdu, "columns", None) is not None]
        if not tables:
            raise FileFormatError("holds no table", path=path, expected="a table of stars")
        data, header = tables[0].data, image_header(hdus[0].header, tables[0].header)
        units = {c.name: str(c.unit or "") for c in tables[0].columns}
        return {name: _native(data[name]) for name in tables[0].columns.names}, header, units


def _votable(path: Path) -> _Contents:
    return _astropy(path, "votable")


def _ecsv(path: Path) -> _Contents:
    return _astropy(path, "ascii.ecsv")


def _astropy(path: Path, kind: str) -> _Contents:
    """Read with astropy what has units of its own."""
    from astropy.table import Table

    try:
        table = Table.read(path, format=kind)
    except Exception as err:  # the readers' own exceptions are many
        reason = " ".join(str(err).split())[:120]
        raise FileFormatError(f"not a table: {reason}", path=path, expected=kind) from err
    units = {name: str(table[name].unit or "") for name in table.colnames}
    return {name: _filled(table[name]) for name in table.colnames}, {}, units


def _filled(column: object) -> npt.NDArray[Any]:
    """Column with not-a-number or None where it is masked."""
    mask = np.asarray(getattr(column, "mask", False))
    values = np.array(getattr(column, "data", column))
    if not mask.any():
        return values
    if values.dtype.kind == "f":
        return np.where(mask, np.nan, values)
    out = values.astype(object)
    out[mask] = None
    return np.asarray(out)


def _gzipped(path: Path) -> tuple[Columns, Mapping[str, Any], Mapping[str, str]]:
    """Read what the name says without its last suffix; every reader sees through gzip."""
    return READERS.get(Path(path.stem).suffix.lower(), _fits)(path)


READERS = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _csv,
    ".tab": _csv,
    ".ecsv": _ecsv,
    ".vot": _votable,
    ".xml": _votable,
    ".votable": _votable,
    ".fits": _fits,
    ".fit": _fits,
    ".fz": _fits,
    ".gz": _gzipped,
}
"""Readers by the end of the file's name: columns, header, units."""


def _arrays(table: pa.Table) -> Columns:
    return {
        name: column.combine_chunks().to_numpy(zero_copy_only=False)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _native(array: npt.NDArray[_T]) -> npt.NDArray[_T]:
    """Array in the byte order of this machine."""
    return np.asarray(array).astype(array.dtype.newbyteorder("="))


def numbers(values: npt.NDArray[np.generic], name: str, path: Path) -> npt.NDArray[np.float64]:
    """Return a column as numbers, not-a-number where there is none.

    Parameters
    ----------
    values : ndarray, (n,)
        The column.
    name : str
        Its name, for messages.
    path : path
        The file, for messages.

    Returns
    -------
    ndarray, (n,), float
        The numbers.

    Raises
    ------
    FileFormatError
        If it holds other text.
    """
    try:
        if values.dtype.kind in "OUS":
            blank = [v is None or str(v).strip() in _MISSING for v in values]
            return np.array(
                [np.nan if b else float(v) for v, b in zip(values, blank, strict=True)], float
            )
        return values.astype(float)
    except (TypeError, ValueError) as err:
        raise FileFormatError(f"{err}", path=path, key=name, expected="numbers") from err


def degrees(
    values: npt.NDArray[np.generic], name: str, unit: str, path: Path
) -> npt.NDArray[np.float64]:
    """Return angles in degrees.

    Parameters
    ----------
    values : ndarray
        Numbers, or sexagesimal text: hours for ``ra``.
    name : str
        ``ra`` or ``dec``.
    unit : str
        As the table says; empty means degrees.
    path : path
        For messages.

    Returns
    -------
    ndarray, (n,), deg
        The angles.

    Raises
    ------
    FileFormatError
        If unit or text are not understood.
    """
    if values.dtype.kind in "OUS":
        found = [_SEXAGESIMAL.fullmatch(str(v).strip()) for v in values]
        if len(found) and all(found):
            angles = [
                (-1.0 if f[1] == "-" else 1.0)
                * (float(f[2]) + float(f[3]) / 60.0 + float(f[4]) / 3600.0)
                for f in found
                if f is not None
            ]
            return np.array(angles) * (15.0 if name == "ra" else 1.0)
    word = unit.strip().lower().rstrip("s")
    factors = {"": 1.0, "deg": 1.0, "degree": 1.0, "rad": float(np.degrees(1.0))}
    factors |= {"radian": factors["rad"], "hourangle": 15.0, "h": 15.0, "hour": 15.0}
    if word not in factors:
        raise FileFormatError(f"unit {unit!r}", path=path, key=name, expected="deg, rad or hours")
    return numbers(values, name, path) * factors[word]


def in_unit(
    values: npt.NDArray[np.generic], name: str, unit: str, wanted: str, path: Path
) -> npt.NDArray[np.float64]:
    """Convert a column from the unit that its table names.

    Parameters
    ----------
    values : ndarray, (n,)
        The column.
    name : str
        Its name, for messages.
    unit : str
        As the table says; empty means the wanted one.
    wanted : str
        The unit of the result.
    path : path
        For messages.

    Returns
    -------
    ndarray, (n,), float
        The numbers.

    Raises
    ------
    FileFormatError
        If it holds text, or its unit is unknown or of another kind.
    """
    found = numbers(values, name, path)
    if not unit.strip():
        return found
    if unit.strip().lower() in ("nanomaggy", "nanomaggies", "nmgy"):
        found, unit = found * NANOMAGGY, "nJy"
    from astropy import units

    try:
        return found * float(units.Unit(unit).to(wanted))
    except (ValueError, TypeError) as err:  # no unit, or one that cannot be converted
        raise FileFormatError(f"unit {unit!r}", path=path, key=name, expected=wanted) from err


def magnitudes(values: npt.NDArray[np.generic], name: str, path: Path) -> npt.NDArray[np.float64]:
    """Return magnitudes; 99, -99 and what else is beyond -30 to 50 is unknown.

    Parameters
    ----------
    values : ndarray, (n,)
        The column.
    name : str
        Its name, for messages.
    path : path
        The file, for messages.

    Returns
    -------
    ndarray, (n,), mag
        Not-a-number where unknown.
    """
    found = numbers(values, name, path)
    wrong = ~((found > _BRIGHTEST) & (found < _FAINTEST))
    return np.where(wrong, np.nan, found)
