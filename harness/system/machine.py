"""How fast this machine is: processor time of a fixed piece of work.

Costs are judged in units of it, so that a bound holds on any processor.  It is measured in the
process that does the work and beside whatever else the machine does.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np

__all__ = ["loop_s"]

_SIDE, _HALF, _REPEATS = 1024, 2, 3


@cache
def loop_s() -> float:
    """Time the calibration loop, once in a process.

    Returns
    -------
    float, s
        Processor time, the best of three: 1024 × 1024 pixels of 32 bits convolved directly with
        5 × 5, whose median is then sought; some 30 ms in 2020.
    """
    image = np.arange(_SIDE * _SIDE, dtype=np.float32).reshape(_SIDE, _SIDE) % np.float32(8191)
    return min(_timed(image) for _ in range(_REPEATS))


def _timed(image: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    start, n = time.process_time(), len(image) - 2 * _HALF
    total = np.zeros((n, n), np.float32)
    for j in range(2 * _HALF + 1):
        for i in range(2 * _HALF + 1):
            total += np.float32(1 + j * i) * image[j : j + n, i : i + n]
    np.median(total)
    return time.process_time() - start
