"""Rice coding of image tiles, as the FITS standard (version 4.0, section 10.4.1) defines RICE_1.

A tile is coded row after row.  It starts with its first pixel; differences of neighbours, folded to
unsigned numbers, follow in blocks of 32.  A block stores a shift ``k`` and, for every difference,
``d >> k`` in unary and the lowest ``k`` bits as they are.  See Rice, Yeh & Miller (1993) and
White & Becker (1998).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import Image

__all__ = ["BLANK", "BLOCK", "decode", "encode"]

BLOCK = 32
"""Pixels that share one shift."""

BLANK = -(2**31)
"""Integer of a pixel that is not a number."""

_LEADING = np.array([8 - k.bit_length() for k in range(256)], np.uint8)
"""Zeros before the first bit of a byte."""

Integers = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


def encode(
    image: Integers, bytepix: int = 4, tile: tuple[int, int] | None = None
) -> tuple[Bytes, Offsets]:
    """Compress every tile.

    Parameters
    ----------
    image : ndarray, (ny, nx), int32
        Pixels; for two bytes, of 16-bit range.
    bytepix : int
        Bytes of a pixel when it is restored: 2 or 4.
    tile : tuple of int, (ny, nx), pixel, optional
        Size of a tile; those at the upper and right edges may be smaller.  A row by default.

    Returns
    -------
    heap : ndarray, (n,), uint8
        The compressed tiles one after another, the first row of them first.
    offsets : ndarray, (tiles + 1,), int64
        Tile i is ``heap[offsets[i]:offsets[i + 1]]``.
    """
    ny, nx = image.shape
    tall, wide = tile or (1, nx)
    count = -(-ny // tall) * -(-nx // wide)
    # Raw blocks of 37 bits per pixel at worst, plus the first pixel and padding.
    heap = np.empty(5 * ny * nx + 16 * count, np.uint8)
    offsets = np.zeros(count + 1, np.int64)
    _encode_all(np.ascontiguousarray(image, np.int32), tall, wide, heap, offsets, bytepix)
    return heap[: offsets[-1]], offsets


@compiled
def _encode_all(
    image: Integers, tall: int, wide: int, heap: Bytes, offsets: Offsets, bytepix: int
) -> None:
    """Compress tile by tile."""
    ny, nx = image.shape
    flat = np.empty(min(tall, ny) * min(wide, nx), np.int32)
    across = -(-nx // wide)
    for k in range(len(offsets) - 1):
        y, x = k // across * tall, k % across * wide
        h, w = min(tall, ny - y), min(wide, nx - x)
        for j in range(h):
            for i in range(w):
                flat[j * w + i] = image[y + j, x + i]
        offsets[k + 1] = _encode(flat[: h * w], heap, offsets[k], bytepix)


@compiled
def _flush(heap: Bytes, place: int, word: np.uint64, filled: int) -> tuple[int, int]:
    """Store the first 32 of more bits that a word holds at its lower end."""
    if filled < 32:
        return place, filled
    first, half = np.uint64(place), word >> np.uint64(filled - 32)
    heap[first] = np.uint8(half >> np.uint64(24))
    heap[first + np.uint64(1)] = np.uint8(half >> np.uint64(16))
    heap[first + np.uint64(2)] = np.uint8(half >> np.uint64(8))
    heap[first + np.uint64(3)] = np.uint8(half)
    return place + 4, filled - 32


@compiled
def _encode(row: Integers, heap: Bytes, place: int, bytepix: int) -> int:
    """Compress the pixels of a tile into the heap from a place on; return where they end."""
    nx = row.size
    # Width of a shift, the shift from which blocks are stored raw, and the width of a raw value.
    code_bits, raw_shift, raw_bits = (5, 25, 32) if bytepix == 4 else (4, 14, 16)
    wrap, one = 64 - raw_bits, np.uint64(1)
    folded = np.empty(32, np.uint32)
    word = np.uint64(row[0]) & ((one << np.uint64(raw_bits)) - one)
    filled = raw_bits
    last = row[0]
    for start in range(0, nx, 32):
        n = min(32, nx - start)
        total = np.uint64(0)
        for i in range(n):
            step = ((np.int64(row[start + i]) - np.int64(last)) << wrap) >> wrap
            last = row[start + i]
            value = np.uint32((step << 1) ^ (step >> 63))
            folded[i] = value
            total += np.uint64(value)
        shift = 0
        mean = (total - min(total, np.uint64(n // 2 + 1))) // np.uint64(n) >> np.uint64(1)
        while mean > 0:
            mean >>= np.uint64(1)
            shift += 1
        raw = shift >= raw_shift
        code = 0 if total == 0 else raw_shift + 1 if raw else shift + 1
        # Half a word is free before each piece, which has 32 bits at most.
        place, filled = _flush(heap, place, word, filled)
        word = (word << np.uint64(code_bits)) | np.uint64(code)
        filled += code_bits
        if total == 0:
            continue
        for i in range(n):
            place, filled = _flush(heap, place, word, filled)
            piece, bits = np.uint64(folded[i]), raw_bits
            if not raw:
                zeros = int(piece >> np.uint64(shift))
                piece = (piece & ((one << np.uint64(shift)) - one)) | (one << np.uint64(shift))
                bits = zeros + shift + 1
                while bits > 32:
                    few = min(bits - shift - 1, 32)
                    word, filled, bits = word << np.uint64(few), filled + few, bits - few
                    place, filled = _flush(heap, place, word, filled)
            word = (word << np.uint64(bits)) | piece
            filled += bits
    place, filled = _flush(heap, place, word, filled)
    while filled > 0:
        filled -= 8
        last_bits = word >> np.uint64(filled) if filled >= 0 else word << np.uint64(-filled)
        heap[place] = np.uint8(last_bits & np.uint64(255))
        place += 1
    return place


def decode(
    heap: Bytes,
    starts: Offsets,
    lengths: Offsets,
    out: Integers | Image,
    tile: tuple[int, int],
    bytepix: int = 4,
    *,
    step: float = 1.0,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> bool:
    """Restore the tiles of an image.

    Parameters
    ----------
    heap : ndarray, (n,), uint8
        The compressed tiles.
    starts, lengths : ndarray, (tiles,), int64
        Where each lies in the heap, in the order of the tiles, the first row of them first.
    out : ndarray, (ny, nx), int32 or float32
        Is filled; NaN where floats are `BLANK`.
    tile : tuple of int, (ny, nx), pixel
        Size of a tile; those at the upper and right edges may be smaller.
    bytepix : int
        Bytes of a pixel when it is restored: 2 or 4.
    step : float
        Value of one integer, for floats.
    wanted : ndarray, (tiles,), bool, optional
        Which tiles are restored; all by default.

    Returns
    -------
    bool
        Whether every tile was as long as it says: false for damaged ones.
    """
    count = -(-out.shape[0] // tile[0]) * -(-out.shape[1] // tile[1])
    if len(starts) != count or starts.min() < 0 or lengths.min() < 1:
        return False
    if (starts + lengths).max() > heap.size:
        return False
    if wanted is None:
        wanted = np.ones(count, bool)
    scaled = out.dtype == np.float32
    integers = cast(Integers, np.empty((0, 0), np.int32) if scaled else out)
    floats = cast(Image, out if scaled else np.empty((0, 0), np.float32))
    places = np.where(wanted, starts, -1)
    return bool(
        _decode_all(
            heap, places, lengths, integers, floats, np.float32(step), *tile, bytepix, _LEADING
        )
    )


@compiled
def _decode_all(
    heap: Bytes,
    starts: Offsets,
    lengths: Offsets,
    integers: Integers,
    floats: Image,
    step: np.float32,
    tall: int,
    wide: int,
    bytepix: int,
    leading: Bytes,
) -> bool:
    """Restore the tiles that start somewhere into one of two images; the other one is empty."""
    scaled = floats.size > 0
    ny, nx = floats.shape if scaled else integers.shape
    flat = np.empty(min(tall, ny) * min(wide, nx), np.int32)
    across = -(-nx // wide)
    for k in range(len(starts)):
        if starts[k] < 0:
            continue
        y, x = k // across * tall, k % across * wide
        h, w = min(tall, ny - y), min(wide, nx - x)
        tile = flat[: h * w]
        if not _decode(heap, starts[k], starts[k] + lengths[k], tile, bytepix, leading):
            return False
        for j in range(h):
            for i in range(w):
                value = tile[j * w + i]
                if not scaled:
                    integers[y + j, x + i] = value
                elif value == np.int32(BLANK):
                    floats[y + j, x + i] = np.float32(np.nan)
                else:
                    floats[y + j, x + i] = np.float32(value) * step
    return True


@compiled
def _refill(
    heap: Bytes, place: int, stop: int, word: np.uint64, held: int
) -> tuple[int, np.uint64, int]:
    """Take bytes into a word, which holds its bits at its upper end; zeros from `stop` on."""
    if place + 8 <= stop:
        first, new = np.uint64(place), np.uint64(0)
        for k in range(8):
            new = (new << np.uint64(8)) | np.uint64(heap[first + np.uint64(k)])
        return place + ((63 - held) >> 3), word | (new >> np.uint64(held)), held | 56
    while held <= 56:
        byte = np.uint64(heap[place]) if place < stop else np.uint64(0)
        word |= byte << np.uint64(56 - held)
        place += 1
        held += 8
    return place, word, held


@compiled
def _decode(
    heap: Bytes, place: int, stop: int, pixels: Integers, bytepix: int, leading: Bytes
) -> bool:
    """Restore the pixels of a tile, from its bytes between two places."""
    code_bits, raw_shift, raw_bits = (5, 25, 32) if bytepix == 4 else (4, 14, 16)
    wrap, top_byte = 64 - raw_bits, np.uint64(56)
    place, word, held = _refill(heap, place, stop, np.uint64(0), 0)
    last = np.int64(word) >> wrap
    word, held = word << np.uint64(raw_bits), held - raw_bits
    for start in range(0, pixels.size, 32):
        block = pixels[start : start + 32]
        place, word, held = _refill(heap, place, stop, word, held)
        code = np.int64(word >> np.uint64(64 - code_bits))
        word, held = word << np.uint64(code_bits), held - code_bits
        if code == 0:
            block[:] = last
            continue
        shift = code - 1 if code <= raw_shift else raw_bits
        for i in range(block.size):
            place, word, held = _refill(heap, place, stop, word, held)
            zeros = np.int64(0)
            if code <= raw_shift:
                while word >> top_byte == 0:
                    zeros += 8
                    place, word, held = _refill(heap, place, stop, word << np.uint64(8), held - 8)
                    if place > stop + 16:
                        return False
                few = np.int64(leading[word >> top_byte])
                zeros += few
                word, held = word << np.uint64(few + 1), held - int(few) - 1
            # In two steps, for no shift is as wide as a word.
            folded = (zeros << shift) | np.int64(word >> np.uint64(1) >> np.uint64(63 - shift))
            word, held = word << np.uint64(shift), held - int(shift)
            last = ((last + ((folded >> 1) ^ -(folded & 1))) << wrap) >> wrap
            block[i] = last
    return place - held // 8 == stop
