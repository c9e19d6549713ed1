"""Files in and out: raw frames, products, reference catalogues; nothing else touches a file.

Everything is written to a temporary name and renamed, so that a name never stands for half a
file.
"""

from typing import TYPE_CHECKING

from pipeline.atomic import atomic_path
from pipeline.lazy import lazy

if TYPE_CHECKING:
    from pipeline.io.calibrations import read_bias, read_flat
    from pipeline.io.external import list_generic, list_instcal, read_generic, read_instcal
    from pipeline.io.files import open_fits
    from pipeline.io.orbits import read_orbits
    from pipeline.io.products import (
        read_difference,
        read_exposure,
        read_plane,
        write_difference,
        write_exposure,
    )
    from pipeline.io.raw import (
        BANDS,
        RawContents,
        list_raw,
        parse_visit_info,
        read_raw,
        read_raw_headers,
        reason_to_skip,
        survey_raw,
    )
    from pipeline.io.refcat import read_objects, read_places, read_refcat
    from pipeline.io.tables import count_rows, read_parquet, write_parquet

__all__ = [
    "BANDS",
    "RawContents",
    "atomic_path",
    "count_rows",
    "list_generic",
    "list_instcal",
    "list_raw",
    "open_fits",
    "parse_visit_info",
    "read_bias",
    "read_difference",
    "read_exposure",
    "read_flat",
    "read_generic",
    "read_instcal",
    "read_objects",
    "read_orbits",
    "read_parquet",
    "read_places",
    "read_plane",
    "read_raw",
    "read_raw_headers",
    "read_refcat",
    "reason_to_skip",
    "survey_raw",
    "write_difference",
    "write_exposure",
    "write_parquet",
]

# Tables do without FITS, and images without Arrow and the schema.
__getattr__ = lazy(
    __name__,
    BANDS="raw",
    RawContents="raw",
    count_rows="tables",
    list_generic="external",
    list_instcal="external",
    list_raw="raw",
    open_fits="files",
    parse_visit_info="raw",
    read_bias="calibrations",
    read_difference="products",
    read_exposure="products",
    read_flat="calibrations",
    read_generic="external",
    read_instcal="external",
    read_objects="refcat",
    read_orbits="orbits",
    read_parquet="tables",
    read_places="refcat",
    read_plane="products",
    read_raw="raw",
    read_raw_headers="raw",
    read_refcat="refcat",
    reason_to_skip="raw",
    survey_raw="raw",
    write_difference="products",
    write_exposure="products",
    write_parquet="tables",
)
