"""Reference catalogues and catalogues of static objects: Parquet, FITS or CSV, ours or Rubin's.

The least a catalogue must have is ``ra`` and ``dec`` (deg, ICRS) and in one band a flux
(``gFlux``, nJy) or an AB magnitude (``gMag``).  Everything of `pipeline.schema.REFCAT` is used
where present: ``objectId``, ``raErr decErr`` (mas), ``pmRa pmDec`` (mas/yr, pmRa times cos dec),
``parallax`` (mas), ``epochMjdTai`` (d), ``{b}FluxErr``.  Names as in the Gaia archive
(``source_id pmra pmdec ra_error dec_error ref_epoch``) are understood, and so are the shards of
Rubin's reference catalogues (``coord_ra`` and ``coord_dec`` in radians, ``g_flux``), one file or a
folder of them.

A catalogue of objects must have ``ra``, ``dec`` and ``objectType`` (star or galaxy), or Rubin's
``refExtendedness`` (above a half: a galaxy) in its place; fluxes and ``radius`` (arcsec) are used
where present.  Rubin's Object table is understood, with ``coord_ra`` and ``coord_dec`` in degrees
and ``g_cModelFlux`` or ``g_psfFlux``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from pipeline.errors import FileFormatError
from pipeline.io.files import open_fits
from pipeline.io.tables import read_parquet
from pipeline.schema import OBJECT, REFCAT

__all__ = ["read_objects", "read_refcat"]

_Columns = dict[str, npt.NDArray[Any]]

_BANDS = "ugrizy"
_MAS_PER_RADIAN = np.degrees(1.0) * 3.6e6
_ALIASES = {
    "objectId": ("id", "source_id"),
    "ra": ("RA", "raDeg"),
    "dec": ("DEC", "Dec", "decDeg"),
    "raErr": ("ra_error",),
    "decErr": ("dec_error",),
    "pmRa": ("pmra",),
    "pmDec": ("pmdec",),
}
_SHARD = {
    "raErr": "coord_raErr",
    "decErr": "coord_decErr",
    "pmRa": "pm_ra",
    "pmDec": "pm_dec",
    "parallax": "parallax",
}
_RUBIN_OBJECT = {"ra": ("coord_ra",), "dec": ("coord_dec",)} | {
    f"{b}Flux{e}": (f"{b}_cModelFlux{e}", f"{b}_psfFlux{e}") for b in _BANDS for e in ("", "Err")
}
_EXTENDEDNESS = ("refExtendedness", "extendedness")
_OBJECT_NAMES = "ra and dec in degrees and objectType star or galaxy"
_NAMES = "ra and dec in degrees and a flux {b}Flux (nJy) or magnitude {b}Mag"


def read_refcat(path: str | Path) -> pa.Table:
    """Read a reference catalogue.

    Parameters
    ----------
    path : path-like
        A ``.parquet``, ``.csv`` or FITS file, or a folder of such files.

    Returns
    -------
    pyarrow.Table
        As `pipeline.schema.REFCAT`; what the catalogue lacks is NULL.

    Raises
    ------
    FileFormatError
        If a file cannot be read or lacks the columns every catalogue must have.
    """
    return _read(Path(path), _reference_stars)


def read_objects(path: str | Path) -> pa.Table:
    """Read a catalogue of static stars and galaxies.

    Parameters
    ----------
    path : path-like
        A ``.parquet``, ``.csv`` or FITS file, or a folder of such files.

    Returns
    -------
    pyarrow.Table
        As `pipeline.schema.OBJECT`; what the catalogue lacks is NULL.

    Raises
    ------
    FileFormatError
        If a file cannot be read or lacks the columns every catalogue must have.
    """
    return _read(Path(path), _objects)


_Made = Callable[[_Columns, Mapping[str, Any], Path], pa.Table]


def _read(path: Path, made: _Made) -> pa.Table:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in _READERS)
        if not files:
            raise FileFormatError("no catalogue here", path=path, expected=", ".join(_READERS))
        return pa.concat_tables([_read(file, made) for file in files])
    if not path.is_file():
        raise FileFormatError("no such file", path=path, expected="a catalogue")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise FileFormatError(
            f"unknown kind of catalogue {path.suffix!r}", path=path, expected=", ".join(_READERS)
        )
    columns, header = reader(path)
    return made(columns, header, path)


def _reference_stars(columns: _Columns, header: Mapping[str, Any], path: Path) -> pa.Table:
    shard = "coord_ra" in columns
    found = _from_shard(columns, header) if shard else _from_table(columns, REFCAT.names, _ALIASES)
    _require_place(found, path, _NAMES)
    if not any(f"{band}Flux" in found for band in _BANDS):
        raise FileFormatError("no flux in any band", path=path, expected=_NAMES)
    return REFCAT.to_arrow(_placed(found, path))


def _objects(columns: _Columns, header: Mapping[str, Any], path: Path) -> pa.Table:
    found = _from_table(columns, OBJECT.names, {**_ALIASES, **_RUBIN_OBJECT})
    _require_place(found, path, _OBJECT_NAMES)
    for name in _EXTENDEDNESS:
        if "objectType" not in found and name in columns:
            found["objectType"] = np.where(columns[name].astype(float) > 0.5, "galaxy", "star")
    if "objectType" not in found:
        raise FileFormatError("missing column", path=path, key="objectType", expected=_OBJECT_NAMES)
    kinds = found["objectType"] = np.char.strip(found["objectType"].astype(str))
    wrong = (kinds != "star") & (kinds != "galaxy")
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise FileFormatError(
            f"row {row} has objectType {str(kinds[row])!r}", path=path, expected="star or galaxy"
        )
    found["objectType"] = kinds.astype(object)
    known = {name: found[name] for name in OBJECT.names if name in found}
    return OBJECT.to_arrow(_placed(known, path))


def _parquet(path: Path) -> tuple[_Columns, Mapping[str, Any]]:
    return _arrays(read_parquet(path)), {}


def _csv(path: Path) -> tuple[_Columns, Mapping[str, Any]]:
    try:
        return _arrays(pyarrow.csv.read_csv(path)), {}
    except pa.ArrowInvalid as err:
        raise FileFormatError(f"not a table: {err}", path=path, expected="CSV with names") from err


def _fits(path: Path) -> tuple[_Columns, Mapping[str, Any]]:
    with open_fits(path, expected="a table") as hdus:
        tables = [hdu for hdu in hdus if getattr(hdu, "columns", None) is not None]
        if not tables:
            raise FileFormatError("holds no table", path=path, expected=_NAMES)
        data, header = tables[0].data, {**hdus[0].header, **tables[0].header}
        return {name: _native(data[name]) for name in tables[0].columns.names}, header


_READERS = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".fits": _fits,
    ".fit": _fits,
    ".fz": _fits,
    ".gz": _fits,
}


def _arrays(table: pa.Table) -> _Columns:
    return {
        name: column.combine_chunks().to_numpy(zero_copy_only=False)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _native(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Array in the byte order of this machine."""
    return np.asarray(array).astype(array.dtype.newbyteorder("="))


def _from_table(
    columns: _Columns, names: Sequence[str], aliases: Mapping[str, Sequence[str]]
) -> _Columns:
    """Columns by our names from those of a table."""
    found = {name: columns[name] for name in names if name in columns}
    for name, others in aliases.items():
        for other in others:
            if name not in found and other in columns:
                found[name] = columns[other]
    if "epochMjdTai" in names and "epochMjdTai" not in found and "ref_epoch" in columns:
        found["epochMjdTai"] = 51544.5 + (columns["ref_epoch"].astype(float) - 2000.0) * 365.25
    for band in _BANDS:
        for suffix in ("Mag", "mag", "_mag"):
            if f"{band}Flux" not in found and f"{band}{suffix}" in columns:
                _add_magnitude(found, band, columns, suffix)
    return found


def _add_magnitude(found: _Columns, band: str, columns: _Columns, suffix: str) -> None:
    flux = 10 ** (0.4 * (31.4 - columns[f"{band}{suffix}"].astype(float)))
    found[f"{band}Flux"] = flux
    error = columns.get(f"{band}{suffix}Err")
    if error is not None:
        found[f"{band}FluxErr"] = flux * error.astype(float) * (0.4 * np.log(10))


def _from_shard(columns: _Columns, header: Mapping[str, Any]) -> _Columns:
    """Columns by our names from a Rubin shard; angles are radians there."""
    found = {
        "objectId": columns["id"].astype(np.int64),
        "ra": np.degrees(columns["coord_ra"]) % 360.0,
        "dec": np.degrees(columns["coord_dec"]),
    }
    for name, other in _SHARD.items():
        if other in columns:
            found[name] = columns[other] * _MAS_PER_RADIAN
    if "epoch" in columns:
        found["epochMjdTai"] = columns["epoch"]
    # Version 0 of the format had fluxes in Jy.
    scale = 1.0 if int(header.get("REFCAT_FORMAT_VERSION", 0)) >= 1 else 1e9
    for band in _BANDS:
        for suffix in ("Flux", "FluxErr"):
            other = f"{band}_{suffix[0].lower()}{suffix[1:]}"
            if other in columns:
                found[f"{band}{suffix}"] = columns[other] * scale
    return found


def _require_place(found: _Columns, path: Path, expected: str) -> None:
    missing = [name for name in ("ra", "dec") if name not in found]
    if missing:
        raise FileFormatError("missing column", path=path, key=missing[0], expected=expected)


def _placed(found: _Columns, path: Path) -> _Columns:
    """Columns with positions checked and every row numbered."""
    ra, dec = found["ra"].astype(float), found["dec"].astype(float)
    wrong = ~(np.isfinite(ra) & (np.abs(dec) <= 90.0) & (ra >= -180.0) & (ra <= 360.0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise FileFormatError(
            f"row {row} has ra {ra[row]:g}, dec {dec[row]:g}", path=path, expected="degrees"
        )
    columns = {**found, "ra": ra % 360.0, "dec": dec}
    columns.setdefault("objectId", np.arange(len(ra), dtype=np.int64))
    return columns
