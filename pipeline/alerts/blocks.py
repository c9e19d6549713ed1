"""The blocks of an Avro container, looked at before they are unpacked.

A block says how many records and how many bytes it holds, and a compressed one may unpack to far
more; a reader that believes all of it can be made to use any amount of memory or of time.
"""

from __future__ import annotations

import bz2
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.errors import FileFormatError

__all__ = ["MAGIC", "check_blocks", "check_schema"]

MAGIC = b"Obj\x01"
"""First bytes of an Avro container."""
_SYNC = 16
_FREE = 64 << 20  # bytes that any block may unpack to
_RATIO = 200
_LARGEST_HEADER = 16 << 20
_DEEPEST = 60
_Schema = Any


def check_blocks(path: Path) -> None:
    """Walk through a container from block to block.

    Parameters
    ----------
    path : Path
        An Avro object container file.

    Raises
    ------
    FileFormatError
        If a block claims more bytes than the file has, more records than bytes, or unpacks to
        more than two hundred times its size and 64 MiB.
    EOFError, ValueError
        If the file ends within a block or is no container.
    """
    end = path.stat().st_size
    with path.open("rb") as stream:
        metadata = _metadata(stream, end)
        codec = metadata.get(b"avro.codec", b"null").decode("ascii", "replace")
        check_schema(json.loads(metadata.get(b"avro.schema", b"null")), path)
        marker = _exactly(stream, _SYNC, end)
        for number in _block_numbers(stream, end):
            if _begins(stream):
                raise FileFormatError(
                    f"holds another container behind {number} blocks", path=path,
                    expected="one Avro object file", hint="split it",
                )  # fmt: skip
            count, size = _long(stream), _long(stream)
            if count < 0 or not 0 <= size <= end - stream.tell():
                raise _refused(path, number, f"claims {count} records in {size} bytes")
            length = _unpacked_length(stream.read(size), codec, max(_FREE, _RATIO * size))
            if length is None:
                raise _refused(path, number, f"unpacks {size} bytes to far more")
            if count > length:
                raise _refused(path, number, f"claims {count} records in {length} bytes")
            if _exactly(stream, _SYNC, end) != marker:
                raise _refused(path, number, "does not end where it says")


def _block_numbers(stream: IO[bytes], end: int) -> Iterator[int]:
    number = 0
    while stream.tell() < end:
        yield number
        number += 1


def _begins(stream: IO[bytes]) -> bool:
    """Whether a container begins here; a block of -40 records would look like it."""
    at = stream.tell()
    found = stream.read(len(MAGIC)) == MAGIC
    stream.seek(at)
    return found


def _metadata(stream: IO[bytes], end: int) -> dict[bytes, bytes]:
    if stream.read(4) != MAGIC:
        raise ValueError("cannot read header - is it an avro file?")
    found: dict[bytes, bytes] = {}
    end = min(end, _LARGEST_HEADER)
    while count := _long(stream):
        if count < 0:  # then the size of the block in bytes follows
            count = -count
            _long(stream)
        for _ in range(count):
            key = _exactly(stream, _long(stream), end)
            found[key] = _exactly(stream, _long(stream), end)
    return found


def _exactly(stream: IO[bytes], size: int, end: int) -> bytes:
    if not 0 <= size <= end - stream.tell():
        raise EOFError(f"{size} bytes expected, the file ends before")
    return stream.read(size)


def _long(stream: IO[bytes]) -> int:
    """Read an integer: seven bits per byte, zigzag."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise EOFError("the file ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
    raise ValueError("a number of more than 64 bits")


def _unpacked_length(data: bytes, codec: str, most: int) -> int | None:
    """Bytes that a block unpacks to; None if they are more than so many.

    Codecs that need a library of their own are known by name only: their frames say how long
    they are, and the libraries keep to it.
    """
    source: Any
    if codec == "deflate":
        source = zlib.decompressobj(-zlib.MAX_WBITS)
    elif codec == "bzip2":
        source = bz2.BZ2Decompressor()
    elif codec == "xz":
        source = lzma.LZMADecompressor()
    else:
        return len(data) if codec == "null" else most
    try:
        length = len(source.decompress(data, most + 1))
    except (zlib.error, lzma.LZMAError) as err:
        raise ValueError(f"a compressed block is damaged: {err}") from err
    return length if length <= most else None


def check_schema(schema: _Schema, path: Path, depth: int = 0) -> None:
    """Refuse items that take no bytes: any number of them fits into an array.

    Parameters
    ----------
    schema : object
        A schema as JSON, or a part of it.
    path : Path
        Where it stands.
    depth : int
        How deep the part is nested.

    Raises
    ------
    FileFormatError
        For such items, and for a schema that is nested too deeply.
    """
    if depth > _DEEPEST:
        raise FileFormatError("schema nested too deeply", path=path)
    if isinstance(schema, list):
        for branch in schema:
            check_schema(branch, path, depth + 1)
    if not isinstance(schema, dict):
        return
    items = schema.get("items")
    if items is not None and _empty(items):
        raise FileFormatError("an array of items without content", path=path, key="avro.schema")
    for part in (items, schema.get("values"), schema.get("type"), *_fields(schema)):
        check_schema(part, path, depth + 1)


def _fields(schema: dict[str, Any]) -> list[_Schema]:
    fields = schema.get("fields")
    return [f.get("type") for f in fields if isinstance(f, dict)] if fields else []


def _empty(schema: _Schema) -> bool:
    if isinstance(schema, dict) and schema.get("type") == "record":
        return all(_empty(kind) for kind in _fields(schema))
    if isinstance(schema, dict):
        return schema.get("type") == "null" or schema.get("size") == 0
    return bool(schema == "null")


def _refused(path: Path, number: int, what: str) -> FileFormatError:
    return FileFormatError(
        f"block {number} {what}", path=path, expected="an Avro object file",
        hint="fetch or write it again",
    )  # fmt: skip
