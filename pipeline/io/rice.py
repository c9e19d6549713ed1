"""Rice coding of image rows, as the FITS standard (version 4.0, section 10.4.1) defines RICE_1.

Every row is one tile.  A row starts with its first pixel; differences of neighbours, folded to
unsigned numbers, follow in blocks of 32.  A block stores a shift ``k`` and, for every difference,
``d >> k`` in unary and the lowest ``k`` bits as they are.  See Rice, Yeh & Miller (1993) and
White & Becker (1998).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled

__all__ = ["BLOCK", "encode"]

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


@compiled
def _encode(
    rows: npt.NDArray[np.int32],
    heap: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    bytepix: int,
) -> None:
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
