"""The packet's Avro schema, and rows of tables as Avro bytes.

The schema is generated from `pipeline.schema`.  Its fields and their order are those of Rubin's
version 11.1; whatever is ours stands in one optional record behind them, so that also a reader that
knows no other schema than that one decodes our packets.

Rows are encoded column by column: each column becomes a block of bytes of fixed width with a
boolean block that says which of them count; joined side by side, the chosen bytes in row order
are the Avro encoding of all rows.  This costs microseconds per row of 180 fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.schema import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_OBJECT_TO_OBJECT_MATCH,
    DIA_SOURCE,
    MPC_ORBITS,
    SS_SOURCE,
    Column,
    Table,
    parse,
)

__all__ = [
    "CUTOUTS",
    "NAMESPACE",
    "NOISE_LIMIT",
    "RECORDS",
    "SCHEMA_VERSION",
    "Rows",
    "encode",
    "long",
    "optional",
    "packet_schema",
    "text",
]

SCHEMA_VERSION = "1.1"
NAMESPACE = "nightjar.v1_1"
CUTOUTS = ("difference", "science", "template")
"""The images that cut-outs show, in the order of the packet."""

_AVRO = {
    "i64": "long",
    "i32": "int",
    "i16": "int",
    "f64": "double",
    "f32": "float",
    "bool": "boolean",
    "str": "string",
    "time": {"type": "long", "logicalType": "timestamp-micros"},
}
_CHUNK = 4096
_Bytes = npt.NDArray[np.uint8]
_Bools = npt.NDArray[np.bool_]

_LIMITS = """
visit*          | i64 |     | meta.id;obs.image | 0274 | exposure that covered the position
detector*       | i16 |     | meta.id;instr.det | 0274 | its CCD number
band            | str |     | instr.bandpass    | 0274 | its filter
midpointMjdTai* | f64 | d   | time.epoch        | 0274 | middle of the exposure, TAI
limit           | f32 | nJy | phot.flux;stat.max | 0274 | flux of a point source of five σ there
"""


NOISE_LIMIT = Table(
    "noiseLimit",
    parse("diaObjectId* | i64 | | meta.id.assoc | 0274 | the object", added=True)
    + parse(_LIMITS, added=True),
    ("diaObjectId", "visit", "detector"),
    "A visit to this place without any measurement, and how deep it was.",
)


def _only(table: Table, added: bool, without: Sequence[str] = ()) -> tuple[Column, ...]:
    return tuple(c for c in table.columns if c.added is added and c.name not in without)


_LATE = (
    ("scienceFluxMean", "scienceFluxMeanErr"),
    ("psfFluxMin", "psfFluxMax", "psfFluxMaxSlope", "psfFluxErrMean"),
)
"""Statistics of one filter that packets of Rubin hold behind the others, of all filters."""


def _in_order(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Columns of an object in the order of Rubin's packets; the table's is filter by filter."""
    late = {name: k for k, names in enumerate(_LATE, start=1) for name in names}
    last = [k for k, c in enumerate(columns) if c.name.partition("_")[2] in late][-1]

    def block(place: int) -> int:
        behind = len(_LATE) + 1 if place > last else 0
        return late.get(columns[place].name.partition("_")[2], behind)

    return tuple(columns[k] for k in sorted(range(len(columns)), key=block))


RECORDS: dict[str, tuple[Column, ...]] = {
    "diaSource": _only(DIA_SOURCE, False, ["ssObjectReassocTimeMjdTai"]),
    "diaForcedSource": _only(DIA_FORCED_SOURCE, False),
    "diaObject": _in_order(_only(DIA_OBJECT, False, ["validityEndMjdTai"])),
    "ssSource": SS_SOURCE.columns,
    "mpc_orbits": MPC_ORBITS.columns,
    "diaSourceMore": _only(DIA_SOURCE, True),
    "diaForcedSourceMore": _only(DIA_FORCED_SOURCE, True),
    "diaObjectMore": _only(DIA_OBJECT, True),
    "nearbyObject": DIA_OBJECT_TO_OBJECT_MATCH.columns,
    "noiseLimit": _only(NOISE_LIMIT, True, ["diaObjectId"]),
}
"""Fields of each record of the packet."""


def _record(name: str) -> dict[str, object]:
    fields = []
    for column in RECORDS[name]:
        unit = f" [{column.unit}]" if column.unit else ""
        field: dict[str, object] = {"name": column.name, "doc": column.description + unit}
        if column.nullable:
            field |= {"type": ["null", _AVRO[column.dtype]], "default": None}
        else:
            field["type"] = _AVRO[column.dtype]
        fields.append(field)
    return {"type": "record", "name": f"{NAMESPACE}.{name}", "fields": fields}


def _array(items: object) -> dict[str, object]:
    return {"type": "array", "items": items}


def _field(name: str, kind: object, doc: str) -> dict[str, object]:
    return {"name": name, "type": ["null", kind], "default": None, "doc": doc}


def packet_schema() -> dict[str, object]:
    """Return the Avro schema of one alert.

    The order of the fields is the order in which `pipeline.alerts.run` writes them.

    Returns
    -------
    dict
        A record, as the Avro specification writes schemas in JSON.
    """
    more = [
        {"name": "alertId", "type": "long", "doc": "number of the alert: its source's"},
        {"name": "databaseId", "type": "string", "doc": "catalogue the alert comes from"},
        {"name": "schemaVersion", "type": "string", "doc": "version of this schema"},
        _field("softwareVersion", "string", "version of the pipeline"),
        _field("runId", "string", "run that made the alert"),
        {"name": "diaSource", "type": _record("diaSourceMore"), "doc": "the source, continued"},
        _field("diaObject", _record("diaObjectMore"), "the object, continued"),
        _field(
            "nearbyObjects", _array(_record("nearbyObject")), "neighbours in the deep catalogue"
        ),
        _field("prvDiaForcedSources", _array(_record("diaForcedSourceMore")), "flags, row by row"),
        _field("prvSsSources", _array(f"{NAMESPACE}.ssSource"), "the body's previous detections"),
        _field("noiseLimits", _array(_record("noiseLimit")), "visits without any measurement"),
    ]
    extension = {"type": "record", "name": f"{NAMESPACE}.more", "fields": more}
    return {
        "type": "record",
        "name": f"{NAMESPACE}.alert",
        "doc": "One source on a difference image, with its history and its surroundings",
        "fields": [
            {"name": "diaSourceId", "type": "long", "doc": "the source; also the alert's number"},
            _field("observation_reason", "string", "why the exposure was taken"),
            _field("target_name", "string", "what it was pointed at"),
            {"name": "diaSource", "type": _record("diaSource"), "doc": "the source announced"},
            _field("prvDiaSources", _array(f"{NAMESPACE}.diaSource"), "12 months of sources"),
            _field("prvDiaForcedSources", _array(_record("diaForcedSource")), "forced fluxes"),
            _field("diaObject", _record("diaObject"), "the object it belongs to"),
            _field("ssSource", _record("ssSource"), "the solar-system body it belongs to"),
            _field("mpc_orbits", _record("mpc_orbits"), "that body's orbit"),
            _field("cutoutDifference", "bytes", "difference image round the source, FITS"),
            _field("cutoutScience", "bytes", "visit image round the source, FITS"),
            _field("cutoutTemplate", "bytes", "template round the source, FITS"),
            _field("nightjar", extension, "what goes beyond the common field set"),
        ],
    }


def long(value: int) -> bytes:
    """Encode an integer: zigzag, then seven bits per byte.

    Parameters
    ----------
    value : int
        A number of at most 64 bits.

    Returns
    -------
    bytes
        One to ten bytes.
    """
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str) -> bytes:
    """Encode a string.

    Parameters
    ----------
    value : str
        Any text.

    Returns
    -------
    bytes
        Its length in bytes, then its UTF-8.
    """
    raw = value.encode()
    return long(len(raw)) + raw


def optional(value: bytes | None) -> bytes:
    """Encode a value of type ``[null, …]`` that is encoded already.

    Parameters
    ----------
    value : bytes, optional
        The encoded value; None for a null.

    Returns
    -------
    bytes
        The branch of the union, then the value.
    """
    return b"\x00" if value is None else b"\x02" + value


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Encoded rows of a table.

    Attributes
    ----------
    data : bytes
        All rows, one after the other.
    offsets : ndarray, (n + 1,)
        Where each begins; the last entry is the end.
    """

    data: bytes
    offsets: npt.NDArray[np.int64]

    def __getitem__(self, row: int) -> bytes:
        """Return one row."""
        return self.data[self.offsets[row] : self.offsets[row + 1]]

    def span(self, first: int, last: int) -> bytes:
        """Rows from `first` up to, not including, `last`."""
        return self.data[self.offsets[first] : self.offsets[last]]

    def array(self, first: int, last: int) -> bytes | None:
        """Rows as an Avro array; None when there are none."""
        if last <= first:
            return None
        return long(last - first) + self.span(first, last) + b"\x00"


def encode(table: pa.Table, columns: Iterable[Column]) -> Rows:
    """Encode columns of a table as Avro records.

    Parameters
    ----------
    table : pyarrow.Table, n rows
        Must have the columns.
    columns : iterable of Column
        Fields of the record, in order; nullable ones are of type ``[null, …]``.

    Returns
    -------
    Rows
        n records.
    """
    columns = tuple(columns)
    parts, lengths = [], []
    for start in range(0, table.num_rows, _CHUNK):
        chunk = table.slice(start, _CHUNK)
        blocks = [b for c in columns for b in _blocks(c, chunk.column(c.name).combine_chunks())]
        keep = np.concatenate([mask for _, mask in blocks], axis=1)
        parts.append(np.concatenate([data for data, _ in blocks], axis=1)[keep].tobytes())
        lengths.append(keep.sum(axis=1))
    offsets = np.r_[0, np.cumsum(np.concatenate(lengths))] if lengths else np.zeros(1)
    return Rows(b"".join(parts), offsets.astype(np.int64))


def _blocks(column: Column, values: pa.Array) -> list[tuple[_Bytes, _Bools]]:
    """Bytes and the choice among them, ``(n, width)`` each: union branch, then the value."""
    n = len(values)
    valid = np.asarray(values.is_valid())
    everything = np.ones((n, 1), bool)
    branch = [(2 * valid.astype(np.uint8)[:, None], everything)] if column.nullable else []
    data, mask = _value(column.dtype, values)
    return [*branch, (data, mask & valid[:, None])]


def _value(dtype: str, values: pa.Array) -> tuple[_Bytes, _Bools]:
    if dtype == "str":
        return _strings(values)
    if dtype == "bool":
        data = np.asarray(values.fill_null(False)).astype(np.uint8)[:, None]
    elif dtype[0] == "f":
        kind = "<f4" if dtype == "f32" else "<f8"
        numbers = np.ascontiguousarray(np.asarray(values.fill_null(0.0)), kind)
        data = numbers.view(np.uint8).reshape(len(values), -1)
    else:
        numbers = values.cast(pa.int64()).fill_null(0)
        return _varints(np.asarray(numbers))
    return data, np.ones(data.shape, bool)


def _varints(numbers: npt.NDArray[np.int64]) -> tuple[_Bytes, _Bools]:
    zigzag = ((numbers << 1) ^ (numbers >> 63)).astype(np.uint64)
    widest = int(zigzag.max(initial=0)).bit_length()
    width = max(1, -(-widest // 7))
    shifts = np.arange(width, dtype=np.uint64) * np.uint64(7)
    rest = zigzag[:, None] >> shifts
    keep = rest > 0
    keep[:, 0] = True
    follows = np.zeros_like(keep)
    follows[:, :-1] = keep[:, 1:]
    data = (rest & np.uint64(0x7F)).astype(np.uint8) | (follows * np.uint8(0x80))
    return data, keep


def _strings(values: pa.Array) -> tuple[_Bytes, _Bools]:
    raw = [(value or "").encode() for value in values.to_pylist()]
    lengths = np.array([len(r) for r in raw], np.int64)
    width = int(lengths.max(initial=0))
    head, head_keep = _varints(lengths)
    body = np.frombuffer(b"".join(r.ljust(width, b"\0") for r in raw), np.uint8)
    body = body.reshape(len(raw), width)
    keep = np.arange(width) < lengths[:, None]
    return np.hstack([head, body]), np.hstack([head_keep, keep])
