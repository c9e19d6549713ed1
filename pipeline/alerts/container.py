"""Avro container files: one per visit and detector, the same bytes for the same alerts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
from fastavro.write import Writer

from pipeline.alerts.avro import packet_schema
from pipeline.alerts.blocks import MAGIC, check_blocks, check_schema
from pipeline.atomic import atomic_path
from pipeline.errors import FileFormatError

if TYPE_CHECKING:
    from pipeline.alerts.packet import Packet

__all__ = ["read", "write"]

# A random marker would make every run's files differ.
_SYNC = b"nightjar.alerts\x01"
_PER_BLOCK = 16
_FRAME, _FRAMED = b"\0", 5


def write(path: str | Path, packets: Sequence[Packet]) -> Path:
    """Write alerts into one uncompressed container file.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    path : path-like
        Where.
    packets : sequence of Packet
        Alerts; none gives a valid, empty file.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    FileFormatError
        If the file cannot be written.
    """
    path = Path(path)
    with atomic_path(path) as partial, partial.open("wb") as stream:
        writer = Writer(stream, packet_schema(), sync_marker=_SYNC)
        for start in range(0, len(packets), _PER_BLOCK):
            payloads = [packet.payload for packet in packets[start : start + _PER_BLOCK]]
            writer.write_block(_Block(len(payloads), BytesIO(b"".join(payloads))))
        writer.flush()
    return path


@dataclass(frozen=True, slots=True)
class _Block:
    """Records that are encoded already, as `fastavro.write.Writer.write_block` takes them."""

    num_records: int
    bytes_: BytesIO


def read(path: str | Path, schema: str | Path | None = None) -> Iterator[dict[str, Any]]:
    """Read alerts of any origin from a container file, or one record as brokers send it.

    Parameters
    ----------
    path : path-like
        An Avro object container file; with a schema also a single record, bare or in Confluent's
        framing (a zero and the four bytes of a schema's number in front).
    schema : path-like, optional
        Schema (``.avsc``) of a record that comes without one.

    Yields
    ------
    dict
        One alert after the other.

    Raises
    ------
    FileFormatError
        If the file is no Avro container or is damaged, or a record lacks its schema.
    """
    path = Path(path)
    try:
        for record in _containers(path) if _is_container(path) else _single(path, schema):
            if not isinstance(record, dict):
                raise FileFormatError("does not hold records", path=path)
            yield record
    except OSError as error:
        raise FileFormatError(str(error.strerror or error), path=path) from error
    except (
        ValueError,
        EOFError,
        MemoryError,
        RecursionError,
        KeyError,
        IndexError,
        fastavro.schema.SchemaParseException,
    ) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(
            f"not a readable Avro container: {error}", path=path, expected="an Avro object file"
        ) from error


def _is_container(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def _containers(path: Path) -> Iterator[Any]:
    check_blocks(path)
    with path.open("rb") as stream:
        yield from fastavro.reader(stream)


def _single(path: Path, schema: str | Path | None) -> Iterator[Any]:
    """Decode one record without schema, whose bytes have to be all of the file."""
    with path.open("rb") as stream:
        data = stream.read()
    framed = data[:1] == _FRAME and len(data) > _FRAMED
    if schema is None:
        what = "not an Avro container"
        if framed:
            number = int.from_bytes(data[1:_FRAMED], "big")
            what = f"perhaps one record in Confluent's framing, of schema {number}, but {what}"
        raise FileFormatError(
            what,
            path=path,
            expected="an Avro object file",
            hint="a record alone needs its --schema",
        )
    parsed = fastavro.parse_schema(_schema(Path(schema)))
    for start in (_FRAMED, 0) if framed else (0,):
        rest = BytesIO(data[start:])
        try:
            record = fastavro.schemaless_reader(rest, parsed, None)
        except (ValueError, EOFError, IndexError, KeyError, MemoryError, OverflowError):
            continue
        if rest.tell() == len(data) - start:
            yield record
            return
    raise FileFormatError("is no record of this schema", path=path, key=str(schema))


def _schema(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as stream:
            described = json.load(stream)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"not a schema: {error}", path=path, expected="JSON") from error
    check_schema(described, path)
    return described
