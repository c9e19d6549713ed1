"""Crosstalk: what the raw signal of one amplifier leaves in another after its correction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.verify.metric import Sample, metric
from harness.verify.view import View
from pipeline.camera import Amplifier
from pipeline.masks import bits

__all__: list[str] = []

_BRIGHT = 40000.0  # ADU to which residuals are scaled
_CLIPPED = 65535
_QUIET = 300.0  # ADU below which a source leaves no ghost to speak of
_AROUND = np.arange(-12, 13, 2)  # pixel

_Plane = npt.NDArray[Any]


@metric(
    "crosstalk_residual",
    unit="σ",
    product="visit_image",
    reads=("visit_image", "raw"),
    reduce="pooled",
)
def crosstalk_residual(view: View, floor_adu: float = 3000.0) -> Sample:
    """Ghost that a 40,000 ADU pixel leaves in the other amplifier, in units of the sky noise.

    Sources are raw pixels, saturated and bled ones included: these are what leaves ghosts.  Each
    victim is compared with its surroundings, since undetected galaxies lie under it in every
    visit.  The rows hold every pair of amplifiers by itself, to be pooled over images.
    """
    image = view.visit_image
    calm = ((image.mask & ~bits("INTRP", "CROSSTALK")) == 0) & np.isfinite(image.image)
    noise = float(np.sqrt(np.median(image.variance[::8, ::8][calm[::8, ::8]])))
    rows, pixels = [], 0
    for source in view.detector.amplifiers:
        counts = _signal(view.raw.data, source)
        for victim in view.detector.amplifiers:
            if victim.name == source.name:
                continue
            signal = _read_with(counts, source, victim)
            at = victim.trimmed.slices
            s, ghost = _ghosts(signal, image.image[at], calm[at], floor_adu)
            if len(s) < 50:
                continue
            weight = float(s @ s)
            pair = f"{view.number} {source.name} to {victim.name}"
            value = float(s @ ghost) / weight / noise
            rows.append({"group": pair, "value": value, "stderr": weight**-0.5})
            pixels += len(s)
    if not rows:
        return Sample(float("nan"), 0)
    weights = np.array([row["stderr"] for row in rows]) ** -2.0
    mean = float(np.average([row["value"] for row in rows], weights=weights))
    return Sample(mean, pixels, float(weights.sum() ** -0.5), rows=tuple(rows))


def _ghosts(
    signal: _Plane, image: _Plane, calm: npt.NDArray[np.bool_], floor_adu: float
) -> tuple[_Plane, _Plane]:
    """Signal of bright source pixels in units of 40,000 ADU, and the victims' excess light."""
    rows, columns = np.nonzero((signal > floor_adu) & calm)
    quiet = calm & (signal < _QUIET)
    total, number = np.zeros(len(rows)), np.zeros(len(rows))
    for dy, dx in np.stack(np.meshgrid(_AROUND, _AROUND), axis=-1).reshape(-1, 2):
        y = (rows + dy).clip(0, image.shape[0] - 1)
        x = (columns + dx).clip(0, image.shape[1] - 1)
        total += np.where(quiet[y, x], image[y, x], 0.0)
        number += quiet[y, x]
    known = number > 20
    level = total[known] / number[known]
    rows, columns = rows[known], columns[known]
    return signal[rows, columns] / _BRIGHT, image[rows, columns] - level


def _signal(raw: npt.NDArray[np.integer], source: Amplifier) -> _Plane:
    """Overscan-subtracted counts; none where the converter clipped them."""
    counts = raw[source.data.slices]
    signal = counts - float(np.median(raw[source.overscan.slices][::8]))
    return np.where(counts >= _CLIPPED, 0.0, signal)


def _read_with(counts: _Plane, source: Amplifier, victim: Amplifier) -> _Plane:
    """Turn the source's pixels so that each lies where the victim is read at the same moment."""
    step_y = -1 if source.at_top != victim.at_top else 1
    step_x = -1 if source.at_right != victim.at_right else 1
    return counts[::step_y, ::step_x]
