"""Mask planes and the named sets of them: every statement about pixels that are left out.

A plane is one bit and one statement about a pixel.  A set says for which purpose pixels with any of
its planes are left out; code asks for a set by its name and never lists planes of its own.  Sets
that differ do so for the reason given with each.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = [
    "BRIDGEABLE",
    "DOUBTFUL",
    "MASK_PLANES",
    "NOT_AS_MEASURED",
    "NOT_BLANK",
    "NOT_IN_SCORE",
    "NO_BACKGROUND",
    "NO_FLUX",
    "NO_PEAK",
    "NO_PSF_STAR",
    "NO_SKY",
    "SATURATED",
    "UNCLEAN",
    "bits",
    "flagged",
    "ordered",
    "plane_names",
]

_STRIP = 64

MASK_PLANES: dict[str, str] = {
    "BAD": "defect listed for this detector, or found bad in the data",
    "SAT": "saturated",
    "SUSPECT": "doubtful response: edge of the detector or close to saturation",
    "INTRP": "value was interpolated from its neighbours",
    "CR": "cosmic ray",
    "EDGE": "a kernel or footprint reached over the edge of the data",
    "NO_DATA": "no input here",
    "DETECTED": "inside the footprint of a positive detection",
    "DETECTED_NEGATIVE": "inside the footprint of a negative detection",
    "CROSSTALK": "victim of a source too bright for the crosstalk correction",
    "UNMASKEDNAN": "not a number without any other reason",
    "STREAK": "trail of a satellite or an aeroplane",
    "BLEED": "charge bled along the column from a saturated pixel",
    "EDGEBLEED": "row whose overscan a bleed into the serial register corrupted",
    "HIGH_VARIANCE": "variance far above the median of the template",
    "SAT_TEMPLATE": "saturated in the template",
    "CLIPPED": "at least one template input was rejected as an outlier",
    "REJECTED": "at least one template input was masked",
    "INEXACT_PSF": "template PSF is inexact because inputs are missing here",
    "INJECTED": "footprint of a synthetic source",
    "INJECTED_CORE": "central pixels of a synthetic source",
    "INJECTED_TEMPLATE": "footprint of a synthetic source in the template",
    "UNLISTED": "bad column found from the data, not in the list of defects",
}
"""Every mask plane and its one statement; the order is the bit number, as written to files."""

_BIT = {name: np.uint32(1 << i) for i, name in enumerate(MASK_PLANES)}

NO_SKY = frozenset(
    {"BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN", "BLEED", "EDGEBLEED", "STREAK", "UNLISTED"}
)
"""Pixels of an image whose value says nothing about the sky.

The base of every other set: what may not enter a template, what is filled before a subtraction,
what is no part of a stamp of the PSF, and what is counted as the masked area of a visit image.
Interpolated pixels without one of these planes count as sky: their value is known.
"""

BRIDGEABLE = frozenset({"BAD", "CR", "UNMASKEDNAN", "UNLISTED"})
"""Planes of `NO_SKY` that an interpolator may bridge from both sides of a narrow gap.

They come from the detector or from a particle and say nothing about the pixels beside them.
Saturation, bleeds and trails come with light that the neighbours have too.
"""

SATURATED = frozenset({"SAT", "SAT_TEMPLATE", "BLEED"})
"""Planes of a difference beside which the light of a saturated star may be wrong."""

NO_BACKGROUND = NO_SKY | {"INTRP", "CROSSTALK"}
"""Pixels that do not enter a model of the background.

More than `NO_SKY`: an interpolated value repeats its neighbours and would count them twice, and a
crosstalk victim holds a remainder that is no sky.
"""

NOT_BLANK = NO_BACKGROUND | {"EDGE", "SUSPECT", "DETECTED"}
"""Pixels that do not show the noise of blank sky.

More than `NO_BACKGROUND`: light of sources has photon noise, and the response at the edge of the
detector is not that of its middle.  A background model masks sources by its own means and needs
the edge.
"""

NO_PSF_STAR = NO_SKY | {"SUSPECT"}
"""Planes that spoil a star as a model of the point spread function.

More than `NO_SKY`: near the edge of the detector the shape is distorted although the flux is good.
"""

NO_FLUX = (NO_SKY | {"SAT_TEMPLATE"}) - {"STREAK"}
"""Pixels left out of the measurement of a source.

On a difference saturation of the template counts as well.  A trail that detection found is a source
itself, whose pixels carry its flux: it is measured, and flagged.
"""

NOT_IN_SCORE = NO_SKY | {"EDGE", "SAT_TEMPLATE"}
"""Pixels of a difference that do not enter the score of the matched filter.

More than `NO_SKY`: saturation of the template, and pixels into which the matching kernel brought
something from beyond the edge.
"""

NO_PEAK = NOT_IN_SCORE - {"CR", "UNLISTED", "STREAK"}
"""Pixels of a difference on which no source may be centred.

Less than `NOT_IN_SCORE`: these three are narrower than a star, whose other pixels still show it.
Whether enough of them are left is judged by the share of good pixels, not by the central one.
"""

NOT_AS_MEASURED = NOT_IN_SCORE | {"INTRP"}
"""Pixels by which verification judges nothing.

More than detection excludes: an interpolated pixel shows how well it was filled, not how well the
image was calibrated or subtracted.
"""

UNCLEAN = NOT_AS_MEASURED | {"SUSPECT", "CROSSTALK"}
"""Near these planes a star does not show what constant stars leave in a difference."""

DOUBTFUL = frozenset({"INTRP", "SUSPECT", "CROSSTALK", "CR"})
"""Planes of a visit image near a source that lower its reliability.

An input of the trained classifier: a change of this set needs a new training.  What a template
lacks (``INEXACT_PSF``, ``CLIPPED``, ``REJECTED``) is asked for apart: it marks rims and edges.
"""


def bits(*names: str) -> np.uint32:
    """Combine mask planes into one value.

    Parameters
    ----------
    *names : str
        Plane names of `MASK_PLANES`.

    Returns
    -------
    numpy.uint32
        The planes' bits, or-ed.

    Raises
    ------
    KeyError
        For an unknown plane.
    """
    value = np.uint32(0)
    for name in names:
        value |= _BIT[name]
    return value


def plane_names(value: int) -> list[str]:
    """Names of the planes set in a mask value.

    Parameters
    ----------
    value : int
        Bits of one pixel or of a set.

    Returns
    -------
    list of str
        In the order of their bits.
    """
    return [name for name, bit in _BIT.items() if int(value) & int(bit)]


def ordered(planes: Iterable[str]) -> tuple[str, ...]:
    """Names of a set of planes in the order of their bits.

    Parameters
    ----------
    planes : iterable of str
        Names of planes.

    Returns
    -------
    tuple of str
        The same names.
    """
    return tuple(plane_names(int(bits(*planes))))


def flagged(mask: npt.NDArray[np.uint32], wanted: np.uint32) -> npt.NDArray[np.bool_]:
    """Mark pixels with any of some bits, strip by strip, which spares a copy of the mask.

    Parameters
    ----------
    mask : ndarray, (ny, nx)
        Mask.
    wanted : numpy.uint32
        From `bits`.

    Returns
    -------
    ndarray of bool, (ny, nx)
        True where one of the bits is set.
    """
    out = np.empty(mask.shape, bool)
    for y in range(0, len(mask), _STRIP):
        np.not_equal(mask[y : y + _STRIP] & wanted, 0, out=out[y : y + _STRIP])
    return out
