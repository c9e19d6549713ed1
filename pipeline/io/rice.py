"""Rice coding of image rows, as the FITS standard (version 4.0, section 10.4.1) defines RICE_1.

Every row is one tile.  A row starts with its first pixel; differences of neighbours, folded to
unsigned numbers, follow in blocks of 32.  A block stores a shift ``k`` and, for every difference,
``d >> k`` in unary and the lowest ``k`` bits as they are.  See Rice, Yeh & Miller (1993) and
White & Becker (1998).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled

__all__ = ["BLOCK", "decode", "encode"]

_AHEAD = 32
BLOCK = 32
"""Pixels that share one shift."""

Integers = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


def encode(rows: Integers, bytepix: int = 4) -> tuple[Bytes, Offsets]:
    """Compress every row.

    Parameters
    ----------
    rows : ndarray, (ny, nx), int32
        Pixels; for two bytes, of 16-bit range.
    bytepix : int
        Bytes of a pixel when it is restored: 2 or 4.

    Returns
    -------
    heap : ndarray, (n,), uint8
        The compressed rows one after another.
    offsets : ndarray, (ny + 1,), int64
        Row i is ``heap[offsets[i]:offsets[i + 1]]``.
    """
    ny, nx = rows.shape
    # Raw blocks of 37 bits per pixel at worst, plus the first pixel and padding.
    heap = np.empty(ny * (5 * nx + 16), np.uint8)
    offsets = np.zeros(ny + 1, np.int64)
    _encode(np.ascontiguousarray(rows, np.int32), heap, offsets, bytepix)
    return heap[: offsets[-1]], offsets


def decode(
    heap: Bytes, offsets: Offsets, lengths: Offsets, nx: int, bytepix: int, block: int
) -> Integers:
    """Restore rows.

    Parameters
    ----------
    heap : ndarray, uint8
        Compressed bytes.
    offsets, lengths : ndarray, (ny,), int64
        Where each row starts in the heap and how long it is.
    nx : int
        Pixels per row.
    bytepix : int
        Size of a pixel when it was compressed: 1, 2 or 4 bytes.
    block : int
        Pixels per block.

    Returns
    -------
    ndarray, (ny, nx), int32
        Pixels.

    Raises
    ------
    OSError
        If a row is shorter than its pixels, or the sizes are none that the standard knows.
    """
    if bytepix not in (1, 2, 4) or block < 1:
        raise OSError(f"{bytepix} bytes per pixel in blocks of {block} pixels")
    rows = np.empty((len(offsets), nx), np.int32)
    # The decoder looks up to eight bytes ahead, of a damaged row twice as far.
    padded = np.concatenate([heap, np.zeros(_AHEAD, np.uint8)])
    bad = _decode(padded, offsets, lengths, rows, bytepix, block)
    if bad >= 0:
        raise OSError(f"compressed row {bad} is damaged")
    return rows


@compiled
def _encode(rows: Any, heap: Any, offsets: Any, bytepix: int) -> None:
    ny, nx = rows.shape
    # Width of a shift, the shift from which blocks are stored raw, and the width of a raw value.
    code_bits, raw_shift, raw_bits = (5, 25, 32) if bytepix == 4 else (4, 14, 16)
    wrap = 64 - raw_bits
    folded = np.empty(32, np.uint32)
    place = 0
    for y in range(ny):
        row = rows[y]
        word = np.uint64(row[0]) & ((np.uint64(1) << np.uint64(raw_bits)) - np.uint64(1))
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
            shift = np.int64(0)
            mean = (total - min(total, np.uint64(n // 2 + 1))) // np.uint64(n) >> np.uint64(1)
            while mean > 0:
                mean >>= np.uint64(1)
                shift += 1
            # Emptying the word before each piece leaves room for 32 bits and more.
            while filled >= 8:
                filled -= 8
                heap[place] = np.uint8((word >> np.uint64(filled)) & np.uint64(255))
                place += 1
            if total == 0:
                word = word << np.uint64(code_bits)
                filled += code_bits
                continue
            if shift >= raw_shift:
                word = (word << np.uint64(code_bits)) | np.uint64(raw_shift + 1)
                filled += code_bits
                for i in range(n):
                    while filled >= 8:
                        filled -= 8
                        heap[place] = np.uint8((word >> np.uint64(filled)) & np.uint64(255))
                        place += 1
                    word = (word << np.uint64(raw_bits)) | np.uint64(folded[i])
                    filled += raw_bits
                continue
            word = (word << np.uint64(code_bits)) | np.uint64(shift + 1)
            filled += code_bits
            for i in range(n):
                top = np.int64(folded[i] >> np.uint32(shift))
                while filled >= 8:
                    filled -= 8
                    heap[place] = np.uint8((word >> np.uint64(filled)) & np.uint64(255))
                    place += 1
                while top >= 24:
                    word = word << np.uint64(24)
                    filled += 24
                    top -= 24
                    while filled >= 8:
                        filled -= 8
                        heap[place] = np.uint8((word >> np.uint64(filled)) & np.uint64(255))
                        place += 1
                low = np.uint64(folded[i]) & ((np.uint64(1) << np.uint64(shift)) - np.uint64(1))
                word = (word << np.uint64(top + 1)) | np.uint64(1)
                word = (word << np.uint64(shift)) | low
                filled += int(top) + 1 + int(shift)
        while filled > 0:
            if filled >= 8:
                filled -= 8
                heap[place] = np.uint8((word >> np.uint64(filled)) & np.uint64(255))
            else:
                heap[place] = np.uint8((word << np.uint64(8 - filled)) & np.uint64(255))
                filled = 0
            place += 1
        offsets[y + 1] = place


@compiled
def _decode(heap: Any, offsets: Any, lengths: Any, rows: Any, bytepix: int, block: int) -> int:
    """Return the first damaged row, or -1."""
    ny, nx = rows.shape
    fs_bits = 5 if bytepix == 4 else (4 if bytepix == 2 else 3)
    fs_max = 25 if bytepix == 4 else (14 if bytepix == 2 else 6)
    raw_bits = 8 * bytepix
    # Pixels wrap round at their size; bytes are unsigned, longer ones signed.
    wrap = 64 - raw_bits
    for y in range(ny):
        place = offsets[y]
        if place < 0 or lengths[y] < bytepix or lengths[y] > heap.size - _AHEAD - place:
            return y
        end = place + lengths[y]
        word = np.uint64(0)  # the lowest `held` bits are still to be read
        held = 0
        while held < raw_bits:
            word = (word << np.uint64(8)) | np.uint64(heap[place])
            place += 1
            held += 8
        last = np.int64(word)
        held = 0
        for start in range(0, nx, block):
            stop = min(start + block, nx)
            while held <= 48:
                word = (word << np.uint64(8)) | np.uint64(heap[place])
                place += 1
                held += 8
            held -= fs_bits
            shift = np.int64((word >> np.uint64(held)) & np.uint64((1 << fs_bits) - 1)) - 1
            for x in range(start, stop):
                if place > end + 8:
                    return y
                value = np.uint64(0)
                if shift >= 0:
                    while held <= 48:
                        word = (word << np.uint64(8)) | np.uint64(heap[place])
                        place += 1
                        held += 8
                    width = raw_bits
                    if shift < fs_max:
                        held -= 1
                        while (word >> np.uint64(held)) & np.uint64(1) == 0:
                            value += np.uint64(1)
                            if held == 0:
                                if place >= end:
                                    return y
                                word = (word << np.uint64(8)) | np.uint64(heap[place])
                                place += 1
                                held = 8
                            held -= 1
                        width = int(shift)
                        while held < width:
                            word = (word << np.uint64(8)) | np.uint64(heap[place])
                            place += 1
                            held += 8
                    held -= width
                    low = (word >> np.uint64(held)) & (
                        (np.uint64(1) << np.uint64(width)) - np.uint64(1)
                    )
                    value = (value << np.uint64(width)) | low
                step = np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))
                last += step
                if bytepix == 1:
                    last &= 255
                else:
                    last = (last << wrap) >> wrap
                rows[y, x] = np.int32(last)
            if place - held // 8 > end:
                return y
    return -1
