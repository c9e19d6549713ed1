"""Signal of other channels that leaks into this one while both are read.

A source pixel acts on the pixel that is read at the same moment: same row and column counted from
the corner in which each amplifier sits.  The victim receives ``c s`` below the onset n and
``c n + Σ_k p_k (s − n)^k`` above it, s in overscan-subtracted counts of the source (form and
coefficients of the Dark Energy Survey's data management).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pipeline.camera import Amplifier, Detector
from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image
from pipeline.isr.overscan import Levels

__all__ = ["ghosts"]

_Raw = npt.NDArray[np.uint16]


def ghosts(
    detector: Detector,
    victim: Amplifier,
    frames: Mapping[int, _Raw],
    levels: Mapping[tuple[int, str], Levels],
    suspect: float,
) -> tuple[Image, npt.NDArray[np.bool_], float]:
    """Sum what an amplifier receives from all others.

    Parameters
    ----------
    detector : Detector
        The victim, with its crosstalk entries.
    victim : Amplifier
        Which of its amplifiers.
    frames : mapping of int to ndarray, uint16, ADU
        Raw frames of the victim and of those partners that are at hand.  Partners have the same
        sections as the victim.
    levels : mapping
        Overscan levels by detector and amplifier.
    suspect : float, ADU
        Victims of saturated source pixels that receive more are flagged.

    Returns
    -------
    ghost : ndarray, (ny, nx), float32, ADU
        To be subtracted from ``victim.data``.
    flagged : ndarray, (ny, nx), bool
        Where a saturated source makes the correction doubtful.
    largest : float, ADU
        Largest absolute correction.
    """
    ghost = np.zeros(victim.data.shape, np.float32)
    flagged = np.zeros(victim.data.shape, np.bool_)
    for entry in detector.crosstalk:
        if entry.victim_amp != victim.name or entry.source not in frames:
            continue
        source = detector.amplifier(entry.source_amp)
        if source.data.shape != victim.data.shape:
            raise ValueError(f"amplifiers {source.name} and {victim.name} differ in size")
        numbers = (entry.coefficient, entry.onset, entry.p1, entry.p2, entry.p3)
        _add(
            ghost,
            flagged,
            frames[entry.source][source.data.slices],
            levels[entry.source, source.name].rows,
            np.array([*numbers, source.saturation, suspect], float),
            source.at_top != victim.at_top,
            source.at_right != victim.at_right,
        )
    return ghost, flagged, max(float(ghost.max()), -float(ghost.min()))


@compiled
def _add(
    ghost: Image,
    flagged: npt.NDArray[np.bool_],
    raw: npt.NDArray[np.uint16],
    rows: FloatArray,
    numbers: FloatArray,
    flip_y: bool,
    flip_x: bool,
) -> None:
    c, onset, p1, p2, p3, saturation, suspect = numbers
    ny, nx = ghost.shape
    for y in range(ny):
        j = ny - 1 - y if flip_y else y
        for x in range(nx):
            s = raw[j, nx - 1 - x if flip_x else x] - rows[j]
            over = s - onset
            leak = c * s
            if over > 0.0:
                leak = c * onset + over * (p1 + over * (p2 + over * p3))
            ghost[y, x] += leak
            if s >= saturation and abs(leak) > suspect:
                flagged[y, x] = True
