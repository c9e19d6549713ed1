"""Packing of identifiers into 63 bits, and the refusal to overflow.

A `diaSourceId` is ``(visit * 100 + detector) << 25 | counter``, the packing Rubin uses for
DECam; an object born from a source takes that source's number.  The numbers are therefore
unique over a survey, stable under re-processing and readable by hand.  Of a detector above 99 the
last two digits stand there, and its hundreds in the upper four of the 25 bits.
"""

from __future__ import annotations

__all__ = ["COUNTER_BITS", "LARGEST_DETECTOR", "LARGEST_VISIT", "pack", "unpack"]

COUNTER_BITS = 21
LARGEST_DETECTOR = 999
LARGEST_VISIT = ((1 << 38) - 1) // 100 - 1


def pack(visit: int, detector: int, counter: int = 0) -> int:
    """Pack visit, detector and a running number into one identifier.

    Parameters
    ----------
    visit, detector, counter : int
        Exposure number, CCD number (0-999) and running number within the pair.

    Returns
    -------
    int
        A positive 63-bit number.

    Raises
    ------
    OverflowError
        If one of the three does not fit.
    """
    limits = {
        "visit": (visit, LARGEST_VISIT),
        "detector": (detector, LARGEST_DETECTOR),
        "counter": (counter, (1 << COUNTER_BITS) - 1),
    }
    for name, (value, largest) in limits.items():
        if not 0 <= value <= largest:
            raise OverflowError(f"{name} {value} does not fit an identifier (0 to {largest})")
    hundreds, last = divmod(int(detector), 100)
    return ((int(visit) * 100 + last) << 4 | hundreds) << COUNTER_BITS | int(counter)


def unpack(identifier: int) -> tuple[int, int, int]:
    """Return ``(visit, detector, counter)`` of an identifier made by `pack`.

    Parameters
    ----------
    identifier : int
        A number made by `pack`.

    Returns
    -------
    visit, detector, counter : int
        What it was made of.
    """
    rest, counter = divmod(int(identifier), 1 << COUNTER_BITS)
    pair, hundreds = divmod(rest, 16)
    visit, last = divmod(pair, 100)
    return visit, 100 * hundreds + last, counter
