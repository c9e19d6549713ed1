"""From which image, under which name, and how far every mask plane reaches the difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Mask, MatchingKernel, bits, flagged
from pipeline.subtract.convolve import convolve

__all__ = ["EXCLUDED", "RULES", "Rule", "propagate", "spread"]


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
    share : float
        That share, of Σ|κ|, in units of the configured one.
    """

    plane: str
    becomes: str
    spread: str | None = None
    share: float = 1.0


def _wrong(plane: str, becomes: str | None = None, share: float = 1.0) -> Rule:
    name = becomes or plane
    return Rule(plane, name, name, share)


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
        # A saturated core is some thousand times the noise: a small share of it still shows.
        _wrong("SAT", share=0.1),
        Rule("INJECTED", "INJECTED"),
        Rule("INJECTED_CORE", "INJECTED_CORE"),
    ),
    "template": (
        *_COMMON,
        _wrong("SAT", "SAT_TEMPLATE", share=0.1),
        Rule("CLIPPED", "CLIPPED"),
        Rule("REJECTED", "REJECTED"),
        Rule("INEXACT_PSF", "INEXACT_PSF"),
        Rule("INJECTED", "INJECTED_TEMPLATE"),
        Rule("INJECTED_TEMPLATE", "INJECTED_TEMPLATE"),
    ),
}
"""One row per plane and image; planes without a row, such as DETECTED, do not propagate."""

EXCLUDED = bits(
    "BAD",
    "SAT",
    "SAT_TEMPLATE",
    "CR",
    "NO_DATA",
    "EDGE",
    "UNMASKEDNAN",
    "STREAK",
    "BLEED",
    "EDGEBLEED",
    "UNLISTED",
)
"""Planes of the difference whose pixels do not enter the score."""

_MANY = 300_000


def propagate(masks: dict[str, Mask], kernel: MatchingKernel, share: float, tile: int) -> Mask:
    """Mask of the difference by the table of rules.

    Parameters
    ----------
    masks : dict
        Masks, (ny, nx), of ``science`` and ``template``.
    kernel : MatchingKernel
        Says which image is convolved, and by what.
    share : float
        Share of Σ|κ| from which on a pixel counts as affected.
    tile : int, pixel
        Size of the tiles if a plane has so many pixels that it is convolved by transforms.

    Returns
    -------
    ndarray, (ny, nx), uint32
        The mask.
    """
    shape = kernel.shape
    weight = np.abs(kernel.at((shape[1] - 1) / 2, (shape[0] - 1) / 2))
    weight /= weight.sum()
    out = np.zeros(shape, np.uint32)
    for name, mask in masks.items():
        present = np.bitwise_or.reduce(mask, axis=None)
        for rule in RULES[name]:
            bit = bits(rule.plane)
            if present & bit:
                here = flagged(mask, bit)
                out[here] |= bits(rule.becomes)
                if rule.spread and name == kernel.convolved:
                    near = _reach(here, weight, tile) > share * rule.share
                    out[near & ~here] |= bits(rule.spread)
    _rim(out, weight, share)
    return out


def spread(mask: Mask, name: str, kernel: FloatArray, share: float, tile: int) -> Mask:
    """Grow the mask of an image that is filtered before it is matched.

    Parameters
    ----------
    mask : ndarray, (ny, nx)
        Its mask.
    name : str
        ``science`` or ``template``: whose rules say which planes grow.
    kernel : ndarray, (side, side)
        The filter.
    share, tile
        As in `propagate`.

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
            out[_reach(here, weight, tile) > share * rule.share] |= bits(grows)
    _rim(out, weight, share)
    return out


def _reach(here: npt.NDArray[np.bool_], weight: FloatArray, tile: int) -> npt.NDArray[np.float32]:
    """Share of the kernel that falls on marked pixels."""
    y, x = np.nonzero(here)
    if len(y) <= _MANY:
        out = np.zeros(here.shape, np.float32)
        _scatter(out, y, x, weight.astype(np.float32))
        return out
    kernel = MatchingKernel(
        basis=weight[None],
        coefficients=np.ones((1, 1)),
        order=0,
        shape=(int(here.shape[0]), int(here.shape[1])),
        background=np.zeros(1),
        condition=1.0,
        stamps=np.zeros((0, 4)),
    )
    return convolve(here.astype(np.float32), kernel, tile)


@compiled
def _scatter(
    out: npt.NDArray[np.float32],
    ys: npt.NDArray[np.int64],
    xs: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float32],
) -> None:
    ny, nx = out.shape
    half = weight.shape[0] // 2
    for k in range(len(ys)):
        for j in range(max(0, ys[k] - half), min(ny, ys[k] + half + 1)):
            for i in range(max(0, xs[k] - half), min(nx, xs[k] + half + 1)):
                out[j, i] += weight[j - ys[k] + half, i - xs[k] + half]


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
