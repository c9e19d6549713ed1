"""Catalogues and images on the HEALPix sphere: HATS catalogues and coverage maps (MOC)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from harness.export.regions import CORNERS
from harness.system.software import software_version
from pipeline.atomic import translate_os_errors
from pipeline.errors import ConfigError
from pipeline.schema import to_numpy

__all__ = ["write_hats", "write_moc"]

_ORDER = 29
_INDEX = f"_healpix_{_ORDER}"
_DEEPEST = 11  # of a partition
_MOST_ROWS = 50_000  # of a partition
_MOC_ORDER = 15  # cells of 6.4 arcsec
_IN_FOLDER = 10_000
_Integers = npt.NDArray[np.int64]
_Cells = dict[tuple[int, int], _Integers]


def _library() -> ModuleType:
    try:
        import mocpy
    except ImportError as err:
        raise ConfigError(
            "HATS and MOC need a library that is not installed", key="mocpy",
            expected="the extra sky: pip install 'nightjar[sky]'",
        ) from err  # fmt: skip
    return mocpy  # type: ignore[no-any-return]


def write_moc(table: pa.Table, path: Path) -> None:
    """Write the part of the sky that images or positions cover, as a MOC in FITS (IVOA 2.0).

    Parameters
    ----------
    table : pyarrow.Table
        With the corners of images, or with ``ra`` and ``dec`` in degrees; rows without are left
        out.
    path : Path
        File to write.

    Raises
    ------
    ConfigError
        If the table has neither or no row with any, or the extra ``sky`` is not installed.
    """
    from astropy import units
    from astropy.coordinates import SkyCoord

    columns = CORNERS if set(CORNERS) <= set(table.column_names) else ("ra", "dec")
    if not set(columns) <= set(table.column_names):
        raise ConfigError(
            "has no positions for a map", path=path, expected="the columns ra and dec"
        )
    places = np.stack([to_numpy(table, name) for name in columns], axis=1)
    places = places[np.isfinite(places).all(axis=1)]
    if not len(places):
        raise ConfigError("has no row with a position", path=path, expected="at least one")
    moc = _library().MOC
    if columns == CORNERS:
        outlines = [SkyCoord(p[::2], p[1::2], unit="deg") for p in places]
        parts = moc.from_polygons(outlines, max_depth=_MOC_ORDER)
        covered = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
    else:
        covered = moc.from_lonlat(*(places.T * units.deg), max_norder=_MOC_ORDER)
    covered.save(path, format="fits", overwrite=True)


def write_hats(table: pa.Table, folder: Path, name: str) -> None:
    """Write a table as a HATS catalogue (Hierarchical Adaptive Tiling Scheme).

    Rows stand in Parquet files by HEALPix cell, of at most 50,000 rows where cells of order 11
    allow it, and are ordered by the nested index of order 29 within.  Lists of structures become
    structures of lists, which readers of nested light curves want.

    Parameters
    ----------
    table : pyarrow.Table
        With ``ra`` and ``dec`` in degrees.
    folder : Path
        Folder to make.
    name : str
        Of the catalogue.

    Raises
    ------
    ConfigError
        If the folder is there, the table has no rows, or the extra ``sky`` is not installed.
    """
    if folder.exists():
        raise ConfigError("is there already", path=folder, expected="the name of a new folder")
    if not table.num_rows:
        raise ConfigError("would have no rows", path=folder, expected="at least one")
    index = _healpix(to_numpy(table, "ra"), to_numpy(table, "dec"))
    order = np.argsort(index, kind="stable")
    table = _nested(table.take(order))
    table = table.add_column(0, _INDEX, pa.array(index[order]))
    cells = _partitions(index[order])
    with _new_folder(folder) as partial:
        _write_cells(table, cells, partial / "dataset")
        lines = [f"{o},{cell}\n" for o, cell in cells]
        (partial / "partition_info.csv").write_text("Norder,Npix\n" + "".join(lines))
        size = sum(p.stat().st_size for p in partial.rglob("*.parquet"))
        text = "".join(f"{k}={v}\n" for k, v in _properties(name, table, cells, size).items())
        for file in ("hats.properties", "properties"):
            (partial / file).write_text(text)


def _healpix(ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]) -> _Integers:
    """Nested index of order 29."""
    _library()
    from astropy import units
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix import lonlat_to_healpix

    place = Longitude(ra * units.deg), Latitude(dec * units.deg)
    return np.asarray(lonlat_to_healpix(*place, _ORDER), np.int64)


def _partitions(index: _Integers) -> _Cells:
    """Rows of each partition, by order and cell: cells are divided until few enough are left."""
    found: _Cells = {}
    todo = [(0, np.arange(len(index)))]
    while todo:
        order, rows = todo.pop()
        cells = index[rows] >> (2 * (_ORDER - order))
        for cell in np.unique(cells).tolist():
            inside = rows[cells == cell]
            if len(inside) > _MOST_ROWS and order < _DEEPEST:
                todo.append((order + 1, inside))
            else:
                found[order, cell] = inside
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


def _nested(table: pa.Table) -> pa.Table:
    """Turn columns of lists of structures into structures of lists."""
    for at, field in enumerate(table.schema):
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            rows = table.column(at).combine_chunks().fill_null([])
            inner = rows.flatten()
            parts = [
                pa.ListArray.from_arrays(rows.offsets, inner.field(k))
                for k in range(inner.type.num_fields)
            ]
            names = [inner.type.field(k).name for k in range(inner.type.num_fields)]
            table = table.set_column(at, field.name, pa.StructArray.from_arrays(parts, names))
    return table


def _write_cells(table: pa.Table, cells: _Cells, dataset: Path) -> None:
    metadata: list[pq.FileMetaData] = []
    for (order, cell), rows in cells.items():
        folder = dataset / f"Norder={order}" / f"Dir={cell // _IN_FOLDER * _IN_FOLDER}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"Npix={cell}.parquet"
        part = table.slice(int(rows[0]), len(rows))
        pq.write_table(part, path, compression="zstd", metadata_collector=metadata)
        metadata[-1].set_file_path(str(path.relative_to(dataset)))
    pq.write_metadata(table.schema, dataset / "_common_metadata")
    pq.write_metadata(table.schema, dataset / "_metadata", metadata_collector=metadata)


def _properties(name: str, table: pa.Table, cells: _Cells, size: int) -> Mapping[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MUTC")
    return {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": table.num_rows,
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": _INDEX,
        "hats_col_healpix_order": _ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_max_rows": _MOST_ROWS,
        "hats_order": max(order for order, _ in cells),
        "moc_sky_fraction": f"{sum(4.0**-order / 12 for order, _ in cells):.6g}",
        "hats_builder": f"nightjar {software_version()}",
        "hats_creation_date": now,
        "hats_estsize": -(-size // 1024),
        "hats_version": "v1.0",
    }


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder under a temporary name, which becomes the other when all went well."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    with translate_os_errors(folder):
        try:
            partial.mkdir(parents=True)
            yield partial
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
