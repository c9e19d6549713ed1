"""Files in and out: raw frames, products, reference catalogues; nothing else touches a file.

Everything is written to a temporary name and renamed, so that a name never stands for half a
file.
"""

from typing import TYPE_CHECKING

from pipeline.atomic import atomic_path
from pipeline.io.calibrations import read_bias, read_flat
from pipeline.io.external import list_generic, list_instcal, read_generic, read_instcal
from pipeline.io.files import open_fits
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
from pipeline.io.tables import read_parquet, write_parquet
from pipeline.lazy import lazy

if TYPE_CHECKING:
    from pipeline.io.orbits import read_orbits
    from pipeline.io.refcat import read_objects, read_places, read_refcat

__all__ = [
    "BANDS",
    "RawContents",
    "atomic_path",
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

# Images do without Arrow and the schema, which catalogues need.
__getattr__ = lazy(
    __name__,
    read_objects="refcat",
    read_orbits="orbits",
    read_places="refcat",
    read_refcat="refcat",
)
