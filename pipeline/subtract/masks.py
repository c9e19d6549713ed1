"""From which image, under which name, and how far every mask plane reaches the difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Mask, MatchingKernel
from pipeline.masks import BRIDGEABLE, SATURATED, bits, flagged, ordered

__all__ = ["RULES", "Halo", "Rule", "beside", "halos", "propagate", "spread"]

_Indices = npt.NDArray[np.int64]
_Bridges = tuple[_Indices, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Rule:
    """How one plane of one image enters the mask of the difference.

    Attributes
    ----------
    plane : str
        Plane of the input.
    becomes : str
        Plane of the difference.
    spread : str, optional
        Plane for the surroundings, in the image that is convolved: pixels to which masked pixels
        contribute more than their share of the kernel.  None: the plane does not grow.
    bridged : bool
        Whether masked pixels in a narrow gap, whose values are known from both sides, count as
        much as these are wrong.
    doubt : float
        Surroundings with more than this share, in units of the configured one, are masked too if
        what is left there shows that the masked pixels were not put right.
    """

    plane: str
    becomes: str
    spread: str | None = None
    bridged: bool = False
    doubt: float = 1.0


def _wrong(plane: str) -> Rule:
    return Rule(plane, plane, plane, bridged=plane in BRIDGEABLE)


def _saturated(becomes: str) -> Rule:
    # A core is some thousand times the noise: if it could not be restored, a small share shows.
    return Rule("SAT", becomes, becomes, doubt=0.1)


_COMMON = (
    _wrong("BAD"),
    _wrong("CR"),
    _wrong("UNMASKEDNAN"),
    _wrong("STREAK"),
    _wrong("BLEED"),
    _wrong("EDGEBLEED"),
    _wrong("UNLISTED"),
    Rule("NO_DATA", "NO_DATA", "EDGE"),
    Rule("EDGE", "EDGE"),
    Rule("SUSPECT", "SUSPECT"),
    Rule("INTRP", "INTRP"),
    Rule("CROSSTALK", "CROSSTALK"),
    Rule("HIGH_VARIANCE", "HIGH_VARIANCE"),
)

RULES: dict[str, tuple[Rule, ...]] = {
    "science": (
        *_COMMON,
        _saturated("SAT"),
        Rule("INJECTED", "INJECTED"),
        Rule("INJECTED_CORE", "INJECTED_CORE"),
    ),
    "template": (
        *_COMMON,
        _saturated("SAT_TEMPLATE"),
        Rule("CLIPPED", "CLIPPED"),
        Rule("REJECTED", "REJECTED"),
        Rule("INEXACT_PSF", "INEXACT_PSF"),
        Rule("INJECTED", "INJECTED_TEMPLATE"),
        Rule("INJECTED_TEMPLATE", "INJECTED_TEMPLATE"),
    ),
}
"""One row per plane and image; planes without a row, such as DETECTED, do not propagate."""

_BESIDE = 2
"""How far, in pixels, the light of a saturated core may be wrong."""


def propagate(
    masks: dict[str, Mask],
    kernel: MatchingKernel,
    share: float,
    bridged: dict[str, _Bridges] | None = None,
) -> Mask:
    """Mask of the difference by the table of rules.

    Parameters
    ----------
    masks : dict
        Masks, (ny, nx), of ``science`` and ``template``.
    kernel : MatchingKernel
        Says which image is convolved, and by what.
    share : float
        Share of Σ|κ| from which on a pixel counts as affected.
    bridged : dict, optional
        Flat indices, increasing, of the pixels of either image that were bridged, and their
        errors; see `pipeline.fill.bridge`.

    Returns
    -------
    ndarray, (ny, nx), uint32
        The mask.
    """
    weight = _weight(kernel)
    out = np.zeros(kernel.shape, np.uint32)
    for name, mask in masks.items():
        present = np.bitwise_or.reduce(mask, axis=None)
        rules = [rule for rule in RULES[name] if present & bits(rule.plane)]
        planes = np.array([bits(rule.plane) for rule in rules], np.uint32)
        _translate(mask, planes, np.array([bits(r.becomes) for r in rules], np.uint32), out)
        for rule, plane in zip(rules, planes, strict=True):
            if rule.spread and name == kernel.convolved:
                known = bridged[name] if bridged and rule.bridged else None
                reach = _reach(flagged(mask, plane), weight, known)
                _mark(reach, np.float32(share), mask, plane, bits(rule.spread), out)
    _rim(out, weight, share)
    return out


def _weight(kernel: MatchingKernel) -> FloatArray:
    """|κ| in the middle of the image, of unit sum."""
    weight = np.abs(kernel.middle())
    return np.asarray(weight / weight.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Halo:
    """Surroundings of masked pixels that have to be looked at.

    Attributes
    ----------
    plane : str
        Plane for those that do not fit.
    y, x : ndarray, (n,)
        The surroundings, row by row.
    """

    plane: str
    y: _Indices
    x: _Indices


def halos(mask: Mask, kernel: MatchingKernel, share: float) -> list[Halo]:
    """Pixels that are masked only if what is left in them does not fit, by the table of rules.

    Parameters
    ----------
    mask : ndarray, (ny, nx)
        Mask of the image that is convolved.
    kernel, share
        As in `propagate`.

    Returns
    -------
    list of Halo
        One per rule with such surroundings.
    """
    found, weight = [], _weight(kernel)
    for rule in RULES[kernel.convolved]:
        if rule.spread and rule.doubt < 1.0 and (here := flagged(mask, bits(rule.plane))).any():
            reach = _reach(here, weight)
            zone = (reach > share * rule.doubt) & (reach <= share) & ~here
            found.append(Halo(rule.spread, *np.divmod(np.flatnonzero(zone), mask.shape[1])))
    return found


def beside(mask: Mask) -> list[Halo]:
    """Pixels beside saturated ones, which are masked only if what is left in them does not fit.

    Parameters
    ----------
    mask : ndarray, (ny, nx), uint32
        Mask of the difference.

    Returns
    -------
    list of Halo
        One per plane.
    """
    found, box = [], np.ones((2 * _BESIDE + 1, 2 * _BESIDE + 1))
    for plane in ordered(SATURATED):
        if (here := flagged(mask, bits(plane))).any():
            zone = (_reach(here, box) > 0) & ~here
            found.append(Halo(plane, *np.divmod(np.flatnonzero(zone), mask.shape[1])))
    return found


def spread(
    mask: Mask,
    name: str,
    kernel: FloatArray,
    share: float,
    bridged: _Bridges | None = None,
) -> Mask:
    """Grow the mask of an image that is filtered before it is matched.

    Parameters
    ----------
    mask : ndarray, (ny, nx)
        Its mask.
    name : str
        ``science`` or ``template``: whose rules say which planes grow.
    kernel : ndarray, (side, side)
        The filter.
    share
        As in `propagate`.
    bridged : tuple of ndarray, (n,), optional
        Flat indices of bridged pixels and their errors.

    Returns
    -------
    ndarray, (ny, nx), uint32
        The mask, with the same planes; surroundings of missing pixels become EDGE.
    """
    weight = np.abs(kernel) / np.abs(kernel).sum()
    out = mask.copy()
    for rule in RULES[name]:
        here = flagged(mask, bits(rule.plane))
        if rule.spread and here.any():
            grows = "EDGE" if rule.spread == "EDGE" else rule.plane
            known = bridged if rule.bridged else None
            near = _reach(here, weight, known) > share
            out[near] |= bits(grows)
    _rim(out, weight, share)
    return out


def _reach(
    here: npt.NDArray[np.bool_], weight: FloatArray, known: _Bridges | None = None
) -> npt.NDArray[np.float32]:
    """Share of the kernel that falls on marked pixels; known ones count as much as their error."""
    flat = np.flatnonzero(here)
    y, x = np.divmod(flat, here.shape[1])
    counts = np.ones(len(y), np.float32)
    if known is not None and len(known[0]):
        place = np.minimum(np.searchsorted(known[0], flat), len(known[0]) - 1)
        counts = np.where(known[0][place] == flat, known[1][place], counts)
    out = np.zeros(here.shape, np.float32)
    _add_runs(out, y, x, counts, np.cumsum(np.pad(weight, ((0, 0), (1, 0))), axis=1))
    return out


@compiled
def _add_runs(
    out: npt.NDArray[np.float32],
    ys: npt.NDArray[np.int64],
    xs: npt.NDArray[np.int64],
    counts: npt.NDArray[np.float32],
    sums: npt.NDArray[np.float64],
) -> None:
    """Add the kernel at every pixel; runs along x at once, by its sums (side, side + 1) along x."""
    ny, nx = out.shape
    half = sums.shape[0] // 2
    first = 0
    for k in range(len(ys)):
        if (
            k + 1 < len(ys)
            and ys[k + 1] == ys[k]
            and xs[k + 1] == xs[k] + 1
            and counts[k + 1] == counts[k]
        ):
            continue
        for j in range(max(0, ys[k] - half), min(ny, ys[k] + half + 1)):
            row = j - ys[k] + half
            for i in range(max(0, xs[first] - half), min(nx, xs[k] + half + 1)):
                right = min(i - xs[first] + half, 2 * half)
                left = max(i - xs[k] + half, 0)
                out[j, i] += counts[k] * (sums[row, right + 1] - sums[row, left])
        first = k + 1


@compiled
def _translate(
    mask: Mask,
    planes: npt.NDArray[np.uint32],
    becomes: npt.NDArray[np.uint32],
    out: Mask,
) -> None:
    """Set the planes of the difference that the planes of an image become."""
    ny, nx = mask.shape
    for j in range(ny):
        for i in range(nx):
            if mask[j, i]:
                for k in range(len(planes)):
                    if mask[j, i] & planes[k]:
                        out[j, i] |= becomes[k]


@compiled
def _mark(
    reach: npt.NDArray[np.float32],
    share: np.float32,
    mask: Mask,
    plane: np.uint32,
    becomes: np.uint32,
    out: Mask,
) -> None:
    """Set a plane of the difference where masked pixels reach, but not on these."""
    ny, nx = mask.shape
    for j in range(ny):
        near, own, to = reach[j], mask[j], out[j]
        for i in range(nx):  # no branches: this becomes vectors
            to[i] |= becomes if (near[i] > share) & (own[i] & plane == 0) else np.uint32(0)


def _rim(mask: Mask, weight: FloatArray, share: float) -> None:
    """Mark the rim of the image whose kernel reaches too far outside.

    The first rows are reached from beyond the edge by what the kernel has above its middle, the
    last ones by what it has below.
    """
    for axis in (0, 1):
        line = np.cumsum(weight.sum(1 - axis))
        half = len(line) // 2
        first = int(np.count_nonzero(1.0 - line[half:] > share))
        last = int(np.count_nonzero(line[:half] > share))
        plane = mask if axis == 0 else mask.T
        plane[:first] |= bits("EDGE")
        plane[len(plane) - last :] |= bits("EDGE")
