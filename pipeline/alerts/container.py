"""Avro container files: one per visit and detector, the same bytes for the same alerts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
from fastavro.write import Writer

from pipeline.alerts.avro import packet_schema
from pipeline.alerts.blocks import check_blocks
from pipeline.atomic import atomic_path
from pipeline.errors import FileFormatError

if TYPE_CHECKING:
    from pipeline.alerts.packet import Packet

__all__ = ["read", "write"]

# A random marker would make every run's files differ.
_SYNC = b"nightjar.alerts\x01"
_PER_BLOCK = 16


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


def read(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read alerts of any origin from a container file.

    Parameters
    ----------
    path : path-like
        An Avro object container file.

    Yields
    ------
    dict
        One alert after the other.

    Raises
    ------
    FileFormatError
        If the file is no Avro container or is damaged.
    """
    path = Path(path)
    try:
        check_blocks(path)
        with path.open("rb") as stream:
            for record in fastavro.reader(stream):
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
