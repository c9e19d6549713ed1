"""What a file may unpack to: looked at before anything is unpacked.

A few bytes of a gzip stream, or one card of a header, can ask for more memory than there is.  A
file may become `RATIO` times as large as the space it takes on the disk, which no image of a
telescope comes near to, or `FREE` bytes if that is more, which allows for empty masks.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

import numpy as np

from pipeline.errors import FileFormatError

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["FREE", "RATIO", "check_counts", "check_sizes", "inflate", "largest", "unpacked"]

FREE = 192 << 20
"""Bytes that any file may unpack to."""

RATIO = 50
"""Unpacked bytes for each on the disk; noise compresses by 2 to 4."""

_PIECE = 1 << 20
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_Opener = Callable[[IO[bytes]], BinaryIO]
_PACKED: dict[bytes, _Opener] = {
    b"\x1f\x8b": lambda stream: cast(BinaryIO, gzip.GzipFile(fileobj=stream)),
    b"BZ": lambda stream: cast(BinaryIO, bz2.BZ2File(stream)),
    b"\xfd7": lambda stream: cast(BinaryIO, lzma.LZMAFile(stream)),  # noqa: SIM115
}
_BLOCK, _CARD, _MOST = 2880, 80, 999
_COUNTS = (b"NAXIS", b"ZNAXIS", b"TFIELDS")
_NUMBER = re.compile(rb"([A-Z]+\d*) *= *(-?\d+)")
_HCOMPRESS_MAGIC = b"\xdd\x99"


def largest(path: Path) -> int:
    """Return how many bytes a file may unpack to.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    int, byte
        A multiple of the space it takes on disk, and never less than `FREE`.
    """
    entry = path.stat()
    taken = min(entry.st_size, entry.st_blocks * 512)  # holes of a sparse file take no space
    if not taken and entry.st_size > FREE and _has_data(path):
        taken = entry.st_size  # of a file system that does not say what it takes
    return max(FREE, RATIO * taken)


def _has_data(path: Path) -> bool:
    """Whether there is anything in a regular file but a hole."""
    if not path.is_file():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as err:
        return err.errno != errno.ENXIO
    finally:
        os.close(descriptor)
    return True


def unpacked(stream: IO[bytes], path: Path) -> IO[bytes]:
    """Unpack a compressed file in memory.

    Parameters
    ----------
    stream : binary file
        At its beginning.
    path : Path
        Its name, for messages.

    Returns
    -------
    binary file
        The stream itself unless it is packed with gzip, bzip2 or xz.

    Raises
    ------
    FileFormatError
        If it is, or would unpack to, more than `largest`.
    OSError, EOFError
        If it is damaged.
    """
    opener = _PACKED.get(stream.read(2))
    stream.seek(0)
    limit = largest(path)
    if opener is None:
        if path.stat().st_size > limit:  # nearly all of it is a hole
            raise _too_large(path, f"is a file of {_words(path.stat().st_size)}", limit)
        return stream
    try:
        whole = _all(opener, stream, FREE)
        if whole is None:
            # Counted first: what is too large costs time, and no memory.
            if _all(opener, stream, limit, keep=False) is None:
                raise _too_large(path, f"unpacks to more than {_words(limit)}", limit)
            whole = _all(opener, stream, limit)
    except (zlib.error, lzma.LZMAError) as err:
        raise OSError(str(err)) from err
    assert whole is not None
    return whole


def _all(opener: _Opener, stream: IO[bytes], most: int, *, keep: bool = True) -> BytesIO | None:
    """Everything that a stream unpacks to, kept or counted; None if it is more than so much."""
    stream.seek(0)
    out, size = BytesIO(), 0
    with opener(stream) as source:
        while piece := source.read(_PIECE):
            size += len(piece)
            if size > most:
                return None
            if keep:
                out.write(piece)
    out.seek(0)
    return out


def check_counts(stream: IO[bytes]) -> None:
    """Refuse headers with more axes or columns than FITS allows: astropy would count them all.

    Parameters
    ----------
    stream : binary file
        Of an unpacked file; left at its beginning.

    Raises
    ------
    OSError
        If there is one.
    """
    place = 0
    while found := _numbers_at(stream, place):
        sides = [found.get(b"NAXIS%d" % k, 0) for k in range(1, found.get(b"NAXIS", 0) + 1)]
        size = abs(found.get(b"BITPIX", 8)) // 8 * found.get(b"GCOUNT", 1)
        size *= found.get(b"PCOUNT", 0) + (math.prod(sides) if sides else 0)
        place = stream.tell() + max(0, -(-size // _BLOCK) * _BLOCK)
        if place >= 2**63:  # `check_sizes` has words for it
            break
    stream.seek(0)


def _numbers_at(stream: IO[bytes], place: int) -> dict[bytes, int]:
    """Whole numbers of the header at a place, after which the stream stands; empty at the end.

    The first of several cards of one name, but each of them has to be possible: readers differ.
    """
    found: dict[bytes, int] = {}
    stream.seek(place)
    while len(block := stream.read(_BLOCK)) == _BLOCK:
        for k in range(0, _BLOCK, _CARD):
            match = _NUMBER.match(block, k, k + _CARD)
            if match:
                key, value = match[1], int(match[2])
                if key in _COUNTS and not 0 <= value <= _MOST:
                    raise OSError(f"{key.decode()} is {value}, not from 0 to {_MOST}")
                found.setdefault(key, value)
            elif block[k : k + _CARD].rstrip() == b"END":
                return found or {b"": 0}
    return {}


def check_sizes(hdus: fits.HDUList, path: Path, length: int) -> None:
    """Refuse HDUs that declare more than the file can hold.

    Parameters
    ----------
    hdus : HDUList
        Opened, nothing read but headers.
    path : Path
        The file.
    length : int
        Bytes of the file once unpacked.

    Raises
    ------
    FileFormatError
        If an HDU declares an array larger than `largest`, or holds compressed tiles that unpack
        to more than a tile's pixels.
    OSError
        If the last HDU is truncated.
    """
    limit = largest(path)
    for number, hdu in enumerate(hdus):
        table = getattr(hdu, "_bintable", None)  # what a compressed image is stored in
        for size in _declared(hdu.header if table is None else table.header):
            if not 0 <= size <= limit:
                raise _too_large(path, f"declares an array of {_words(size)}", limit, number)
        if table is not None:
            _check_tiles(table, path, number)
    last = getattr(hdus[-1], "_bintable", None) or hdus[-1]
    place = last.fileinfo()
    # Some writers leave out the padding of the last block; what is cut off ends anywhere.
    if place["datLoc"] + place["datSpan"] > length != place["datLoc"] + last.size:
        raise OSError("the last HDU is truncated")


def _declared(header: fits.Header) -> Iterator[int]:
    """Bytes of the data of an HDU, of the image it is the compressed form of, and of a tile."""
    yield _product(header, "NAXIS") * abs(int(header.get("BITPIX", 8))) // 8
    if header.get("ZIMAGE"):
        depth = abs(int(header.get("ZBITPIX", 8))) // 8
        yield _product(header, "ZNAXIS") * depth
        axes = range(1, int(header.get("ZNAXIS", 0)) + 1)
        first = header.get("ZNAXIS1", 1)
        yield int(np.prod([float(header.get(f"ZTILE{k}", first if k == 1 else 1)) for k in axes]))


def _product(header: fits.Header, key: str) -> int:
    axes = int(header.get(key, 0))
    if not 0 <= axes < 1000 or not axes:
        return 0
    size = 1
    for k in range(1, axes + 1):
        size *= int(header[f"{key}{k}"])
    return size


def _check_tiles(table: fits.BinTableHDU, path: Path, number: int) -> None:
    """Refuse tiles that unpack to far more than a tile has, or that name another size."""
    header = table.header
    most = 8 * max(_tile_pixels(header), 1)
    hcompress = header.get("ZCMPTYPE") == "HCOMPRESS_1"
    for name, place, length in _tiles(table):
        if hcompress and name == "COMPRESSED_DATA":
            _check_hcompress(_bytes(table, place, min(length, 10)), most // 8, path, number)
        # Deflation makes a thousandth at best: most tiles are too short to be a danger.
        elif length > FREE // 1032 and (name != "COMPRESSED_DATA" or _deflated(header)):
            try:
                inflate(_bytes(table, place, length), most)
            except OSError as err:
                raise FileFormatError(f"compressed tile: {err}", path=path, hdu=number) from err


def _deflated(header: fits.Header) -> bool:
    return header.get("ZCMPTYPE") in ("GZIP_1", "GZIP_2")


def _tile_pixels(header: fits.Header) -> int:
    size = 1
    for k in range(1, int(header.get("ZNAXIS", 0)) + 1):
        axis = int(header[f"ZNAXIS{k}"])
        size *= min(int(header.get(f"ZTILE{k}", axis if k == 1 else 1)), axis)
    return size


def _tiles(table: fits.BinTableHDU) -> Iterator[tuple[str, int, int]]:
    """Column, place in the data and length of every tile that may not tell its own size."""
    header, layout = table.header, table.columns.dtype
    rows, width = int(header["NAXIS2"]), int(header["NAXIS1"])
    heap, end = int(header.get("THEAP", rows * width)), rows * width + int(header["PCOUNT"])
    for column in table.columns:
        deflated = column.name == "GZIP_COMPRESSED_DATA"
        if not deflated and (column.name != "COMPRESSED_DATA" or "RICE" in header["ZCMPTYPE"]):
            continue
        kind = ">i8" if "Q" in column.format else ">i4"
        start = layout.fields[column.name][1]
        cells = np.frombuffer(_bytes(table, 0, rows * width), np.uint8).reshape(rows, width)
        cells = np.ascontiguousarray(cells[:, start : start + 2 * int(kind[2])])
        for length, place in cells.view(kind).astype(np.int64).tolist():
            if length < 0 or place < 0 or heap + place + length > end:
                raise OSError("a compressed tile lies beyond the end of the table")
            if length:
                yield column.name, heap + place, length


def _bytes(table: fits.BinTableHDU, place: int, length: int) -> bytes:
    return bytes(table._get_raw_data(length, "u1", table._data_offset + place))


def _check_hcompress(tile: bytes, pixels: int, path: Path, number: int) -> None:
    sides = np.frombuffer(tile[2:10], ">i4").astype(np.int64)
    right = tile[:2] == _HCOMPRESS_MAGIC and len(sides) == 2
    if not right or sides.min() < 1 or int(sides[0]) * int(sides[1]) > pixels:
        raise FileFormatError(
            "compressed tile of another size", path=path, hdu=number,
            expected=f"at most {pixels} pixels", hint="fetch or write it again",
        )  # fmt: skip


def inflate(data: bytes, most: int) -> bytes:
    """Undo gzip, up to a size.

    Parameters
    ----------
    data : bytes
        One gzip stream.
    most : int
        Bytes it may unpack to.

    Returns
    -------
    bytes
        The contents.

    Raises
    ------
    OSError
        If the stream is damaged, or longer.
    """
    source = zlib.decompressobj(32 + zlib.MAX_WBITS)
    try:
        out = source.decompress(data, most)
        if source.unconsumed_tail and source.decompress(source.unconsumed_tail, 1):
            raise OSError(f"unpacks to more than its {most} bytes")
    except zlib.error as err:
        raise OSError(f"damaged: {err}") from err
    return out


def _too_large(path: Path, what: str, limit: int, hdu: int | None = None) -> FileFormatError:
    return FileFormatError(
        what, path=path, hdu=hdu, expected=f"at most {_words(limit)} from a file of its size"
    )


def _words(size: int) -> str:
    power = max(0, min(len(_UNITS) - 1, (len(str(abs(size))) - 1) // 3))
    return f"{size / 1000**power:.3g} {_UNITS[power]}"
