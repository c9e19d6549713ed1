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

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import FileFormatError
from pipeline.io.catalogues import (
    FLUXES,
    GAIA_TO_SDSS,
    MAGNITUDES,
    NAMES,
    NANOMAGGY,
    READERS,
    UNITS,
    Columns,
    degrees,
    in_unit,
    magnitudes,
    numbers,
)
from pipeline.io.headers import Header
from pipeline.schema import OBJECT, REFCAT
from pipeline.sphere import turned

__all__ = ["read_objects", "read_places", "read_refcat"]

_BANDS = "ugrizy"
_MAS_PER_RADIAN = np.degrees(1.0) * 3.6e6
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
_GAIA = ("phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag")
_EXTENDEDNESS = ("refExtendedness", "extendedness")
_IDENTIFIERS = ("id", "name", "Name", "NAME", "objectId")
_OBJECT_NAMES = "ra and dec in degrees and objectType star or galaxy"
_LEAST = "ra and dec in degrees and a flux {b}Flux (nJy) or magnitude {b}Mag"


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


def read_places(path: str | Path) -> pa.Table:
    """Read a list of coordinates.

    Parameters
    ----------
    path : path-like
        A table in any format of a reference catalogue, or a folder of such files.

    Returns
    -------
    pyarrow.Table
        ``id`` (text: that of the file, or the number of the row from 1), ``ra`` and ``dec``
        (deg, ICRS).

    Raises
    ------
    FileFormatError
        If a file cannot be read or lacks coordinates.
    """
    return _read(Path(path), _places)


_Made = Callable[[Columns, Header, Path], pa.Table]


def _read(path: Path, made: _Made) -> pa.Table:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in READERS)
        if not files:
            raise FileFormatError("no catalogue here", path=path, expected=", ".join(READERS))
        return pa.concat_tables([_read(file, made) for file in files])
    if not path.is_file():
        raise FileFormatError("no such file", path=path, expected="a catalogue")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise FileFormatError(
            f"unknown kind of catalogue {path.suffix!r}", path=path, expected=", ".join(READERS)
        )
    columns, header, units = reader(path)
    if not columns or not len(next(iter(columns.values()))):
        raise FileFormatError("holds no row", path=path, expected="a catalogue")
    return made(_renamed(columns, units, path), header, path)


def _reference_stars(columns: Columns, header: Header, path: Path) -> pa.Table:
    shard = "coord_ra" in columns
    found = (
        from_shard(columns, header) if shard else _from_table(columns, REFCAT.names, NAMES, path)
    )
    _require_place(found, path, _LEAST)
    if not any(f"{band}Flux" in found for band in _BANDS):
        raise FileFormatError("no flux in any band", path=path, expected=_LEAST)
    fluxes = [found[f"{band}Flux"] for band in _BANDS if f"{band}Flux" in found]
    if not any(np.isfinite(flux).any() for flux in fluxes):
        raise FileFormatError(
            "no known flux in any row" + _why_unknown(columns), path=path, expected=_LEAST
        )
    return REFCAT.to_arrow(_placed(found, path))


def _why_unknown(columns: Columns) -> str:
    """Say of Gaia's magnitudes why they give no flux."""
    if not all(key in columns for key in _GAIA):
        return ""
    low = min(blue for _, _, (blue, _) in GAIA_TO_SDSS.values())
    high = max(red for _, _, (_, red) in GAIA_TO_SDSS.values())
    return f": BP - RP is unknown or outside {low:g} to {high:g} mag, where g, r, i follow from G"


def _objects(columns: Columns, header: Header, path: Path) -> pa.Table:
    found = _from_table(columns, OBJECT.names, {**NAMES, **_RUBIN_OBJECT}, path)
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


def _places(columns: Columns, _header: Header, path: Path) -> pa.Table:
    _require_place(columns, path, "ra and dec in degrees")
    placed = _placed({name: columns[name] for name in ("ra", "dec")}, path)
    own = next((columns[name] for name in _IDENTIFIERS if name in columns), None)
    names = range(1, len(placed["ra"]) + 1) if own is None else own
    schema = pa.schema(
        [pa.field("id", pa.string())]
        + [pa.field(name, pa.float64(), metadata={b"unit": b"deg"}) for name in ("ra", "dec")]
    )
    values = {"id": [str(v) for v in names], "ra": placed["ra"], "dec": placed["dec"]}
    return pa.table(values, schema=schema)


def _renamed(columns: Columns, units: Mapping[str, str], path: Path) -> Columns:
    """Columns under our names where an archive's are known, places in degrees."""
    lower = {name.lower(): name for name in reversed(list(columns))}
    found = dict(columns)
    for ours, others in NAMES.items():
        source = next((n for n in (ours, *others) if n in columns), None)
        if source is None:
            source = next((lower[n.lower()] for n in (ours, *others) if n.lower() in lower), None)
        if source is None:
            continue
        found[ours] = columns[source]
        if ours in ("ra", "dec"):
            found[ours] = degrees(columns[source], ours, units.get(source, ""), path)
        elif ours in UNITS:
            found[ours] = in_unit(columns[source], source, units.get(source, ""), UNITS[ours], path)
    for name in set(UNITS) & set(columns) - set(NAMES):
        found[name] = in_unit(columns[name], name, units.get(name, ""), UNITS[name], path)
    return found


def _from_table(
    columns: Columns, names: Sequence[str], aliases: Mapping[str, Sequence[str]], path: Path
) -> Columns:
    """Columns by our names from those of a table."""
    found = {name: columns[name] for name in names if name in columns}
    for name, others in aliases.items():
        for other in others:
            if name in names and name not in found and other in columns:
                found[name] = columns[other]
    for name in found:
        if name not in ("objectId", "objectType"):
            found[name] = numbers(found[name], name, path)
    if "epochMjdTai" in names and "epochMjdTai" not in found and "ref_epoch" in columns:
        years = numbers(columns["ref_epoch"], "ref_epoch", path)
        found["epochMjdTai"] = 51544.5 + (years - 2000.0) * 365.25
    for band in _BANDS:
        _add_flux(found, band, columns, path)
    if not any(f"{band}Flux" in found for band in _BANDS):
        _add_gaia(found, columns, path)
    return found


def _add_flux(found: Columns, band: str, columns: Columns, path: Path) -> None:
    """Add a band from fluxes in nanomaggies or magnitudes, if there are some."""
    if f"{band}Flux" in found:
        return
    pair = _present(columns, FLUXES, band)
    if pair is not None:
        name, weight = pair
        found[f"{band}Flux"] = numbers(columns[name], name, path) * NANOMAGGY
        if weight in columns:
            known = numbers(columns[weight], weight, path)
            found[f"{band}FluxErr"] = NANOMAGGY * np.where(known > 0, known, np.nan) ** -0.5
        return
    pair = _present(columns, MAGNITUDES, band)
    if pair is None:
        return
    name, error = pair
    flux = 10 ** (0.4 * (31.4 - magnitudes(columns[name], name, path)))
    found[f"{band}Flux"] = flux
    if error in columns:
        known = numbers(columns[error], error, path)
        found[f"{band}FluxErr"] = flux * np.where(known > 0, known, np.nan) * (0.4 * np.log(10))


def _present(
    columns: Columns, names: Sequence[tuple[str, str]], band: str
) -> tuple[str, str] | None:
    """Name of a band's column and of its error; the pair that is whole comes first."""
    pairs = [(a.format(b=band, B=band.upper()), e.format(b=band, B=band.upper())) for a, e in names]
    found = [pair for pair in pairs if pair[0] in columns and _is_band(pair[0], columns)]
    return next((pair for pair in found if pair[1] in columns), found[0] if found else None)


def _is_band(name: str, columns: Columns) -> bool:
    """Tell a magnitude from a coordinate or a redshift that is called y or z."""
    if name not in ("u", "y", "z"):
        return True
    return any(b in columns for b in "gri") and not (name == "y" and "x" in columns)


def _add_gaia(found: Columns, columns: Columns, path: Path) -> None:
    """g, r and i from Gaia's G, BP and RP where the colour allows."""
    if not all(key in columns for key in _GAIA):
        return
    g, bp, rp = (magnitudes(columns[key], key, path) for key in _GAIA)
    for band, (polynomial, scatter, (blue, red)) in GAIA_TO_SDSS.items():
        known = (bp - rp >= blue) & (bp - rp <= red)
        offset = np.polynomial.polynomial.polyval(bp - rp, polynomial)
        flux = 10 ** (0.4 * (31.4 - np.where(known, g - offset, np.nan)))
        found[f"{band}Flux"] = flux
        found[f"{band}FluxErr"] = flux * scatter * (0.4 * np.log(10))


def from_shard(columns: Columns, header: Header) -> Columns:
    """Columns by our names from a Rubin shard; angles are radians there.

    Parameters
    ----------
    columns : mapping of str to ndarray
        As they are in the file.
    header : mapping
        Its header, which may hold the version of the format.

    Returns
    -------
    mapping of str to ndarray
        Those of `pipeline.schema.REFCAT` that it has.
    """
    found = {
        "objectId": columns["id"].astype(np.int64),
        "ra": turned(np.degrees(columns["coord_ra"])),
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


def _require_place(found: Columns, path: Path, expected: str) -> None:
    missing = [name for name in ("ra", "dec") if name not in found]
    if missing:
        raise FileFormatError("missing column", path=path, key=missing[0], expected=expected)


def _placed(found: Columns, path: Path) -> Columns:
    """Columns with positions checked and every row numbered."""
    ra, dec = found["ra"].astype(float), found["dec"].astype(float)
    wrong = ~(np.isfinite(ra) & (np.abs(dec) <= 90.0) & (ra >= -180.0) & (ra <= 360.0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise FileFormatError(
            f"row {row} has ra {ra[row]:g}, dec {dec[row]:g}", path=path, expected="degrees"
        )
    columns = {**found, "ra": turned(ra), "dec": dec}
    columns["objectId"] = _identifiers(columns.get("objectId"), len(ra))
    return columns


def _identifiers(values: npt.NDArray[np.generic] | None, n: int) -> npt.NDArray[np.int64]:
    """Whole numbers, one per row; the numbers of the rows where some have none."""
    rows = np.arange(n, dtype=np.int64)
    if values is None:
        return rows
    try:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return rows
        return values.astype(np.int64)
    except (TypeError, ValueError):
        return rows
