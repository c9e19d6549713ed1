"""Avro container files: one per visit and detector, the same bytes for the same alerts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
from fastavro.write import Writer

from pipeline.alerts.avro import SCHEMA_VERSION, packet_schema
from pipeline.alerts.blocks import MAGIC, check_blocks, check_schema
from pipeline.atomic import atomic_path
from pipeline.errors import FileFormatError

if TYPE_CHECKING:
    from pipeline.alerts.run import Packet

__all__ = ["read", "read_payloads", "write"]

# A random marker would make every run's files differ.
_SYNC = b"nightjar.alerts\x01"
_PER_BLOCK = 16
_FRAME, _FRAMED = b"\0", 5
_TEXT = 64
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
)
_OTHERS = (
    (b"SIMPLE  =", "a FITS file"),
    (b"PAR1", "a Parquet file"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"<", "a web page or XML"),
    (b"version https://git-lfs", "a Git LFS pointer (git lfs pull)"),
)
"""First bytes of files, and what they are."""


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
    with _readable(path):
        for record in _containers(path) if _is_container(path) else _single(path, schema):
            if not isinstance(record, dict):
                raise FileFormatError("does not hold records", path=path)
            yield record


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Make one line of whatever a file that is missing or damaged makes of its readers."""
    try:
        yield
    except FileFormatError:
        raise
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
        raise FileFormatError(
            f"not a readable Avro container: {error}", path=path, expected="an Avro object file"
        ) from error


def read_payloads(path: str | Path, sizes: Sequence[int]) -> Iterator[bytes]:
    """Take the packets out of one of our files as they were encoded, without decoding them.

    Parameters
    ----------
    path : path-like
        A file of `write`.
    sizes : sequence of int, byte
        Size of every packet, in the order of the file.

    Yields
    ------
    bytes
        One packet after the other, in Avro's binary encoding.

    Raises
    ------
    FileFormatError
        If the file cannot be read, is of another schema than `packet_schema`, or its packets are
        of other sizes.
    """
    path, left = Path(path), list(sizes)
    with _readable(path):
        check_blocks(path)
        with path.open("rb") as stream:
            blocks = fastavro.block_reader(stream)
            _require_our_schema(blocks.writer_schema, path)
            for block in blocks:
                here, left = left[: block.num_records], left[block.num_records :]
                yield from _split(block.bytes_.getvalue(), here, block.num_records, path)
    if left:
        raise _other_alerts(path)


def _require_our_schema(schema: Any, path: Path) -> None:
    canonical = fastavro.schema.to_parsing_canonical_form
    if canonical(schema) != canonical(packet_schema()):
        raise FileFormatError(
            "holds alerts of another schema",
            path=path,
            expected=f"version {SCHEMA_VERSION}",
            hint="nightjar run",
        )


def _split(data: bytes, sizes: Sequence[int], number: int, path: Path) -> Iterator[bytes]:
    if len(sizes) != number or sum(sizes) != len(data):
        raise _other_alerts(path)
    start = 0
    for size in sizes:
        yield data[start : start + size]
        start += size


def _other_alerts(path: Path) -> FileFormatError:
    return FileFormatError(
        "holds other alerts than the catalogue says", path=path, hint="nightjar run"
    )


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
        kind = _kind_of(data)
        if kind:
            raise FileFormatError(kind, path=path, expected="an Avro object file")
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


def _kind_of(data: bytes) -> str:
    """Say what a file is that is no Avro, if its first bytes tell."""
    if not data:
        return "is empty"
    packed = next((name for start, name in _PACKED if data.startswith(start)), "")
    if packed:
        return f"is packed by {packed}: unpack it first"
    start = data[:_TEXT].lstrip()
    other = next((name for first, name in _OTHERS if start.startswith(first)), "")
    text = start.isascii() and start.decode("ascii").replace("\n", " ").isprintable()
    return f"is {other}, not an Avro container" if other and (text or start[:4] == b"PAR1") else ""


def _schema(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as stream:
            described = json.load(stream)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"not a schema: {error}", path=path, expected="JSON") from error
    check_schema(described, path)
    return described
