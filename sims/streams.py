"""Random numbers that depend on what they are for, never on the order in which they are drawn."""

from __future__ import annotations

from zlib import crc32

import numpy as np

__all__ = ["stream"]


def stream(seed: int, visit: int, detector: int, stage: str) -> np.random.Generator:
    """Return the random numbers of one stage of one unit.

    Every stage of every detector of every visit has its own counter-based stream (Philox, Salmon
    et al. 2011), so that any subset of units, made in any order by any number of processes, gets
    the same numbers.

    Parameters
    ----------
    seed : int
        Seed of the campaign.
    visit, detector : int
        The unit; zero for what belongs to all visits or all detectors.
    stage : str
        What the numbers are for.

    Returns
    -------
    numpy.random.Generator
        A fresh generator at the beginning of the stream.
    """
    key = np.random.SeedSequence([seed, visit, detector, crc32(stage.encode())])
    return np.random.Generator(np.random.Philox(key))
