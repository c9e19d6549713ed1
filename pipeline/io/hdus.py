"""HDUs as bytes: cards with exact numbers, compressed images, checksums that repeat.

Everything that is written twice must be the same twice.  Dates are therefore left out, the
comments of CHECKSUM and DATASUM are fixed, and floats are written with all their digits.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from pipeline.compiled import compiled
from pipeline.errors import FileFormatError
from pipeline.exposure import FloatArray, Image
from pipeline.io import rice

__all__ = [
    "Card",
    "Places",
    "array_hdu",
    "cards",
    "compressed_hdu",
    "primary_hdu",
    "read_pixels",
    "verify_data_sum",
]

Card = tuple[str, Any, str]
"""Keyword, value and comment."""

_UNSIGNED = 2**15
_TILE = (32, 64)  # of a Rice-coded plane: who wants a few places reads few tiles
_TILE_ROWS = 64  # of a deflated image
_UNIT = 2880
_PIECE = 1 << 18  # elements


def cards(items: Iterable[Card]) -> fits.Header:
    """Make a header; numbers keep all their digits, values that FITS cannot express are left out.

    Parameters
    ----------
    items : iterable of Card
        Keywords of any length; NaN, infinity and None are skipped.

    Returns
    -------
    astropy.io.fits.Header
        The cards.
    """
    header = fits.Header()
    for key, value, comment in items:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        name = key if len(key) <= 8 else f"HIERARCH {key}"
        header.append(_card(name, value, comment), end=True)
    return header


def _card(name: str, value: object, comment: str) -> fits.Card:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and len(repr(value)) > 20 and len(name) <= 8:
        # astropy would round it to 20 characters; the standard allows more in free format.
        return fits.Card.fromstring(f"{name:8}= {repr(value).upper()} / {comment}"[:80])
    if isinstance(value, str):
        value = value.encode("ascii", "replace").decode()
    text = f"{value!s:>20}"
    room = 80 - max(len(name), 8) - 5 - (len(text) + 2 if isinstance(value, str) else len(text))
    return fits.Card(name, value, comment[: max(room, 0)])


def primary_hdu(header: fits.Header) -> bytes:
    """Return a primary HDU without data.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Further keywords.

    Returns
    -------
    bytes
        Whole blocks of 2880 bytes.
    """
    return _summed(_with_structure(fits.PrimaryHDU().header, header), b"")


def array_hdu(
    name: str, array: npt.NDArray[np.generic], header: fits.Header | None = None
) -> Iterator[bytes]:
    """Yield an uncompressed image HDU in pieces, so that no second copy of the array is made.

    Parameters
    ----------
    name : str
        EXTNAME.
    array : ndarray
        Of any shape.
    header : astropy.io.fits.Header, optional
        More cards.

    Yields
    ------
    bytes
        The header, the pixels by the megabyte, the filling.
    """
    start = fits.ImageHDU(array, name=name).header
    words = np.ascontiguousarray(array).reshape(-1)
    filling = bytes(-words.nbytes % _UNIT)
    yield _with_sums(_with_structure(start, header or fits.Header()), _sum_of_words(words))
    for k in range(0, words.size, _PIECE):
        yield words[k : k + _PIECE].astype(words.dtype.newbyteorder(">")).tobytes()
    yield filling


def _sum_of_words(array: npt.NDArray[np.generic]) -> int:
    """Ones' complement sum of an array as it will be stored."""
    if array.itemsize % 4:
        stored = array.astype(array.dtype.newbyteorder(">")).tobytes()
        return _ones_complement_sum(stored + bytes(-len(stored) % 4))
    # The big-endian words of a number of four bytes, or of eight, have the native words' values.
    return _folded(int(array.view(np.uint32).sum(dtype=np.uint64)))


def _with_structure(start: fits.Header, more: fits.Header) -> fits.Header:
    """Append cards as they are; `Header.extend` would drop some and reorder others."""
    header = start.copy()
    if any(isinstance(c.value, str) and len(c.image) > 80 for c in more.cards):
        header.append(("LONGSTRN", "OGIP 1.0", "long strings continue on the next card"), end=True)
    for card in more.cards:
        header.append(card, end=True)
    return header


def compressed_hdu(
    name: str,
    pixels: npt.NDArray[Any],
    header: fits.Header | None = None,
    step: float = 0.0,
) -> bytes:
    """Return a compressed image HDU.

    Pixels with noise are Rice-coded: float32 in small tiles, uint16 row by row.  Masks, long runs
    of few values, are deflated in tiles of 64 rows, which takes a fifth of the bytes.

    Parameters
    ----------
    name : str
        EXTNAME.
    pixels : ndarray, (ny, nx)
        uint32 below 2³¹, uint16, or float32 whose finite values are multiples of `step`.
    header : astropy.io.fits.Header, optional
        More cards.
    step : float
        Value of one integer for float pixels.

    Returns
    -------
    bytes
        The binary table that the standard's tiled-image convention prescribes.
    """
    bits = 32
    if pixels.dtype == np.float32:
        tile = min(_TILE[0], pixels.shape[0]), min(_TILE[1], pixels.shape[1])
        packed, offsets = rice.encode(_integers(pixels, step), 4, tile)
        heap, layout = packed.tobytes(), _rice_cards(4, tile)
        layout += [
            ("BSCALE", step, "value of one step, a power of two"),
            ("BZERO", 0.0, "offset"),
            ("BLANK", rice.BLANK, "not a number"),
        ]
    elif pixels.dtype == np.uint16:
        bits = 16
        packed, offsets = rice.encode(pixels.astype(np.int32) - _UNSIGNED, 2)
        heap, layout = packed.tobytes(), _rice_cards(2, (1, pixels.shape[1]))
        layout += [("BSCALE", 1, "unsigned integers"), ("BZERO", _UNSIGNED, "offset")]
    else:
        heap, offsets = _deflated(pixels)
        layout = [
            ("ZTILE1", pixels.shape[1], "columns of a tile"),
            ("ZTILE2", _TILE_ROWS, "rows of a tile"),
            ("ZCMPTYPE", "GZIP_1", "algorithm"),
        ]
    layout = [*_table_cards(name, pixels.shape, offsets, bits), *layout]
    return _tiled_table(layout, heap, offsets, header or fits.Header())


def _tiled_table(
    layout: Iterable[Card], heap: bytes, offsets: npt.NDArray[np.int64], header: fits.Header
) -> bytes:
    """Binary table of compressed tiles: `layout` says what they are, `header` is the image's."""
    table = _with_structure(cards(layout), header)
    descriptors = np.empty((len(offsets) - 1, 2), ">i4")
    descriptors[:, 0], descriptors[:, 1] = np.diff(offsets), offsets[:-1]
    return _summed(table, descriptors.tobytes() + heap)


def _rice_cards(bytepix: int, tile: tuple[int, int]) -> list[Card]:
    return [
        ("ZTILE1", tile[1], "columns of a tile"),
        ("ZTILE2", tile[0], "rows of a tile"),
        ("ZCMPTYPE", "RICE_1", "algorithm"),
        ("ZNAME1", "BLOCKSIZE", "pixels per block"),
        ("ZVAL1", rice.BLOCK, "pixels per block"),
        ("ZNAME2", "BYTEPIX", "bytes per pixel"),
        ("ZVAL2", bytepix, "bytes per pixel"),
    ]


def _deflated(pixels: npt.NDArray[np.integer]) -> tuple[bytes, npt.NDArray[np.int64]]:
    """Tiles of rows as gzip streams without a time, and where each begins."""
    tiles = []
    for y in range(0, len(pixels), _TILE_ROWS):
        packer = zlib.compressobj(2, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        tiles.append(packer.compress(pixels[y : y + _TILE_ROWS].astype(">u4").tobytes()))
        tiles[-1] += packer.flush()
    return b"".join(tiles), np.concatenate([[0], np.cumsum([len(t) for t in tiles])])


def _integers(pixels: Image, step: float) -> npt.NDArray[np.int32]:
    rows = np.empty(pixels.shape, np.int32)
    _to_integers(np.ascontiguousarray(pixels).ravel(), np.float32(1.0 / step), rows.ravel())
    return rows


@compiled
def _to_integers(pixels: Image, per_step: np.float32, out: npt.NDArray[np.int32]) -> None:
    for i in range(pixels.size):
        # Times zero, only not-a-number and infinity do not give zero.
        finite = pixels[i] * np.float32(0) == np.float32(0)
        out[i] = np.int32(pixels[i] * per_step) if finite else np.int32(rice.BLANK)


def _table_cards(
    name: str, shape: tuple[int, ...], offsets: npt.NDArray[np.int64], bits: int
) -> list[Card]:
    ny, nx = shape
    heap, longest = int(offsets[-1]), int(np.diff(offsets).max())
    return [
        ("XTENSION", "BINTABLE", "binary table extension"),
        ("BITPIX", 8, "bytes"),
        ("NAXIS", 2, "a table"),
        ("NAXIS1", 8, "bytes per row"),
        ("NAXIS2", len(offsets) - 1, "tiles"),
        ("PCOUNT", heap, "bytes of compressed pixels"),
        ("GCOUNT", 1, "one group"),
        ("TFIELDS", 1, "one column"),
        ("TTYPE1", "COMPRESSED_DATA", "one tile of the image each"),
        ("TFORM1", f"1PB({longest})", "variable length"),
        ("ZIMAGE", True, "a compressed image"),
        ("ZTENSION", "IMAGE", "what it was"),
        ("ZBITPIX", bits, "bits per pixel of the image"),
        ("ZNAXIS", 2, "axes of the image"),
        ("ZNAXIS1", nx, "columns of the image"),
        ("ZNAXIS2", ny, "rows of the image"),
        ("ZPCOUNT", 0, "no parameters"),
        ("ZGCOUNT", 1, "one group"),
        ("EXTNAME", name, "what this is"),
    ]


def _summed(header: fits.Header, data: bytes) -> bytes:
    """Header and data with their checksums, padded to whole blocks."""
    data += bytes(-len(data) % _UNIT)
    return _with_sums(header, _ones_complement_sum(data)) + data


def _with_sums(header: fits.Header, total: int) -> bytes:
    """Header with the checksums of itself and of data with that sum."""
    header.append(("DATASUM", str(total), "data unit checksum"), end=True)
    header.append(("CHECKSUM", "0" * 16, "HDU checksum"), end=True)
    text = header.tostring().encode("ascii")
    code = _encode_checksum(~_ones_complement_sum(text, total) & 0xFFFFFFFF)
    header["CHECKSUM"] = code
    return bytes(header.tostring().encode("ascii"))


def _ones_complement_sum(data: bytes, start: int = 0) -> int:
    """Return the 32-bit ones' complement sum of big-endian words (FITS standard, appendix J)."""
    return _folded(int(np.frombuffer(data, ">u4").sum(dtype=np.uint64)) + start)


def _folded(total: int) -> int:
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _encode_checksum(value: int) -> str:
    """Return the 16 characters that make the sum of the HDU zero (FITS standard, appendix J)."""
    forbidden = {*range(0x3A, 0x41), *range(0x5B, 0x61)}
    text = np.zeros((4, 4), np.int64)
    for i, byte in enumerate(value.to_bytes(4, "big")):
        quarters = [byte // 4 + byte % 4 + 0x30] + [byte // 4 + 0x30] * 3
        while forbidden & set(quarters):
            for j in (0, 2):
                if {quarters[j], quarters[j + 1]} & forbidden:
                    quarters[j] += 1
                    quarters[j + 1] -= 1
        text[:, i] = quarters
    letters = "".join(chr(c) for c in text.ravel())
    return letters[-1] + letters[:-1]


class Places(NamedTuple):
    """Pixels that are wanted, where the others need not be read.

    Attributes
    ----------
    x, y : ndarray, (n,), pixel
        Positions, on the image or not.
    reach : float, pixel
        How far round each of them pixels are wanted.
    """

    x: FloatArray
    y: FloatArray
    reach: float

    def tiles(self, shape: tuple[int, int], tile: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Mark the tiles that hold such pixels, the first row of tiles first."""
        wanted = np.zeros((-(-shape[0] // tile[0]), -(-shape[1] // tile[1])), bool)
        near = np.isfinite(self.x) & np.isfinite(self.y)
        for place, count in ((self.x, shape[1]), (self.y, shape[0])):
            near &= (place > -self.reach - 1) & (place < count + self.reach)
        centres = np.rint(np.stack([self.y[near], self.x[near]], axis=1))
        low, high = (np.maximum((centres + r) // tile, 0) for r in (-self.reach, self.reach))
        for (y0, x0), (y1, x1) in zip(low.astype(int), high.astype(int), strict=True):
            wanted[y0 : y1 + 1, x0 : x1 + 1] = True
        return wanted.ravel()


def read_pixels(hdu: fits.ImageHDU, places: Places | None = None) -> npt.NDArray[Any]:
    """Read the pixels of an image HDU.

    Parameters
    ----------
    hdu : astropy HDU
        An image, compressed or not, from a file opened with ``do_not_scale_image_data=True``.
    places : Places, optional
        Where pixels are wanted; others may be zero.

    Returns
    -------
    ndarray
        Integers as stored for integer images (unsigned where BZERO says so), float32 with NaN
        where BSCALE is set.

    Raises
    ------
    FileFormatError
        If the HDU holds no image.
    OSError
        If its compressed pixels are damaged.
    """
    if not hdu.is_image:
        raise FileFormatError("holds no image", hdu=hdu.name)
    try:
        restored = _restored(hdu, places)
        stored = hdu.data if restored is None else restored
    except Exception as err:  # the codec's own exception has no public name
        raise OSError(f"compressed pixels are damaged: {err}") from err
    if stored is None:
        raise FileFormatError("holds no image", hdu=hdu.name)
    data = np.asarray(stored)
    return _scaled(data.astype(data.dtype.newbyteorder("="), copy=False), hdu.header)


def _restored(
    hdu: fits.ImageHDU, places: Places | None = None
) -> npt.NDArray[np.integer] | Image | None:
    """Pixels of a Rice-coded or deflated image; None for others, and where one is not as it should.

    What is left to astropy takes some three times as long, and damage becomes its error.
    """
    table = getattr(hdu, "_bintable", None)
    if table is None or table._file is None:
        return None
    header = table.header
    restore = next((of for of, fits_it in _RESTORERS.items() if fits_it(header)), None)
    if restore is None:
        return None
    rows = int(header["NAXIS2"])
    size = 8 * rows + int(header["PCOUNT"])
    data = np.asarray(table._get_raw_data(size, np.uint8, table._data_offset))
    cells = data[: 8 * rows].view(">i4").reshape(rows, 2).astype(np.int64)
    shape = int(header["ZNAXIS2"]), int(header["ZNAXIS1"])
    tile = int(header.get("ZTILE2", 1)), int(header.get("ZTILE1", shape[1]))
    tiles = -(-shape[0] // tile[0]) * -(-shape[1] // tile[1])
    wanted = np.ones(tiles, bool) if places is None else places.tiles(shape, tile)
    return restore(_Coded(header, data[8 * rows :], cells, shape, tile, wanted))


class _Coded(NamedTuple):
    """A compressed image: its tiles in a heap, length and place of each, and which are wanted."""

    header: fits.Header
    heap: npt.NDArray[np.uint8]
    cells: npt.NDArray[np.int64]
    shape: tuple[int, int]
    tile: tuple[int, int]
    wanted: npt.NDArray[np.bool_]


def _unpacked(coded: _Coded) -> npt.NDArray[np.integer] | Image | None:
    """Rice-coded pixels."""
    header, heap, cells, shape, tile, wanted = coded
    depth = int(header["ZBITPIX"])
    ours = depth == 32 and header.get("BLANK") == rice.BLANK
    # Zeros that nobody touches cost nothing.
    out: npt.NDArray[Any] = np.zeros(shape, np.float32 if ours else np.int32)
    step = float(header.get("BSCALE", 1))
    if not rice.decode(
        heap, cells[:, 1], cells[:, 0], out, tile, depth // 8, step=step, wanted=wanted
    ):
        return None
    return out.astype(np.int16) if depth == 16 else out


def _inflated(coded: _Coded) -> npt.NDArray[np.integer] | None:
    """Pixels of deflated strips."""
    _, heap, cells, shape, tile, wanted = coded
    out = np.zeros(shape, np.int32)
    if len(cells) != len(wanted):
        return None
    for k in np.flatnonzero(wanted):
        strip = out[k * tile[0] : (k + 1) * tile[0]]
        length, place = cells[k]
        if not 0 <= place < place + length <= heap.size:
            return None
        packer = zlib.decompressobj(16 + zlib.MAX_WBITS)
        words = packer.decompress(heap[place : place + length].tobytes(), strip.nbytes + 1)
        if len(words) != strip.nbytes or not packer.eof:
            return None
        strip[:] = np.frombuffer(words, ">i4").reshape(strip.shape)
    return out


def _is_plain(header: fits.Header, expected: dict[str, object]) -> bool:
    """Whether a table holds integers as `compressed_hdu` writes them, in tiles of any size."""
    expected = {"TFIELDS": 1, "NAXIS1": 8, "ZNAXIS": 2, **expected}
    plain = all(header.get(key) == value for key, value in expected.items())
    return plain and header.get("THEAP", 8 * header["NAXIS2"]) == 8 * header["NAXIS2"]


def _is_plain_rice(header: fits.Header) -> bool:
    expected = {
        "ZCMPTYPE": "RICE_1", "ZNAME1": "BLOCKSIZE", "ZVAL1": rice.BLOCK, "ZNAME2": "BYTEPIX",
        "ZVAL2": abs(header.get("ZBITPIX", 0)) // 8,
    }  # fmt: skip
    return _is_plain(header, expected) and header["ZBITPIX"] in (16, 32)


def _is_plain_deflate(header: fits.Header) -> bool:
    expected = {"ZCMPTYPE": "GZIP_1", "ZBITPIX": 32, "ZTILE1": header.get("ZNAXIS1")}
    return _is_plain(header, expected)


_RESTORERS: Mapping[Callable[[_Coded], npt.NDArray[Any] | None], Callable[[fits.Header], bool]] = {
    _unpacked: _is_plain_rice,
    _inflated: _is_plain_deflate,
}


def verify_data_sum(hdu: fits.ImageHDU, path: str | Path) -> None:
    """Compare the bytes of an HDU with its DATASUM, if it has one.

    Parameters
    ----------
    hdu : astropy HDU
        Of a file opened for reading, before its pixels are used.
    path : path-like
        Its file, for the message.

    Raises
    ------
    FileFormatError
        If the sum (FITS standard 4.0, section 4.4.2.7) is another.
    """
    stored = getattr(hdu, "_bintable", hdu)  # what a compressed image is stored as
    recorded = str(stored.header.get("DATASUM", "")).strip()
    place = stored.fileinfo()
    if not recorded or place is None:
        return
    place["file"].seek(place["datLoc"])
    found = _ones_complement_sum(place["file"].read(place["datSpan"]))
    if not recorded.isdecimal() or (found - int(recorded)) % 0xFFFFFFFF:
        raise FileFormatError(
            f"the sum of the data is {found}", path=path, hdu=hdu.name, key="DATASUM",
            expected=recorded, hint="the file is damaged; fetch it again",
        )  # fmt: skip


def _scaled(stored: npt.NDArray[Any], header: fits.Header) -> npt.NDArray[Any]:
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    if stored.dtype.kind == "f" or (scale == 1 and zero == 0 and "BLANK" not in header):
        return stored
    if "BLANK" in header:
        pixels = stored.astype(np.float32)
        pixels *= np.float32(scale)
        pixels[stored == header["BLANK"]] = np.nan
        return pixels
    if scale != 1:
        return np.asarray((stored * scale + zero).astype(np.float32))
    if stored.dtype == np.int16 and zero == _UNSIGNED:
        return stored.view(np.uint16) ^ np.uint16(_UNSIGNED)
    return np.asarray(stored.astype(np.int64) + int(zero))
