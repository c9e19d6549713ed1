"""Reference catalogues: Parquet, FITS or CSV, ours or Rubin's.

The least a catalogue must have is ``ra`` and ``dec`` (deg, ICRS) and in one band a flux
(``gFlux``, nJy) or an AB magnitude (``gMag``).  Everything of `pipeline.schema.REFCAT` is used
where present: ``objectId``, ``raErr decErr`` (mas), ``pmRa pmDec`` (mas/yr, pmRa times cos dec),
``parallax`` (mas), ``epochMjdTai`` (d), ``{b}FluxErr``.  Names as in the Gaia archive
(``source_id pmra pmdec ra_error dec_error ref_epoch``) are understood, and so are the shards of
Rubin's reference catalogues (``coord_ra`` and ``coord_dec`` in radians, ``g_flux``), one file or a
folder of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from pipeline.errors import FileFormatError
from pipeline.io.files import open_fits
from pipeline.io.tables import read_parquet
from pipeline.schema import REFCAT

__all__ = ["read_refcat"]

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
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in _READERS)
        if not files:
            raise FileFormatError("no catalogue here", path=path, expected=", ".join(_READERS))
        return pa.concat_tables([read_refcat(file) for file in files])
    if not path.is_file():
        raise FileFormatError("no such file", path=path, expected="a reference catalogue")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise FileFormatError(
            f"unknown kind of catalogue {path.suffix!r}", path=path, expected=", ".join(_READERS)
        )
    columns, header = reader(path)
    shard = "coord_ra" in columns
    found = _from_shard(columns, header) if shard else _from_table(columns)
    return _checked(found, path)


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


def _native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Array in the byte order of this machine."""
    return np.asarray(array).astype(array.dtype.newbyteorder("="))


def _from_table(columns: _Columns) -> _Columns:
    """Columns by our names from those of a table."""
    found = {name: columns[name] for name in REFCAT.names if name in columns}
    for name, others in _ALIASES.items():
        for other in others:
            if name not in found and other in columns:
                found[name] = columns[other]
    if "epochMjdTai" not in found and "ref_epoch" in columns:
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


def _checked(found: _Columns, path: Path) -> pa.Table:
    missing = [name for name in ("ra", "dec") if name not in found]
    if missing:
        raise FileFormatError("missing column", path=path, key=missing[0], expected=_NAMES)
    if not any(f"{band}Flux" in found for band in _BANDS):
        raise FileFormatError("no flux in any band", path=path, expected=_NAMES)
    ra, dec = found["ra"].astype(float), found["dec"].astype(float)
    wrong = ~(np.isfinite(ra) & (np.abs(dec) <= 90.0) & (ra >= -180.0) & (ra <= 360.0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise FileFormatError(
            f"row {row} has ra {ra[row]:g}, dec {dec[row]:g}", path=path, expected="degrees"
        )
    columns = {**found, "ra": ra % 360.0, "dec": dec}
    columns.setdefault("objectId", np.arange(len(ra), dtype=np.int64))
    return REFCAT.to_arrow(columns)
