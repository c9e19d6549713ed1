"""Masks of others: which bits say that a pixel is bad, saturated or a cosmic ray."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, InputError
from pipeline.exposure import Mask
from pipeline.io.headers import Header, number
from pipeline.io.planes import Raw
from pipeline.masks import MASK_PLANES, bits, flagged

__all__ = ["PRESETS", "decode", "decode_quality", "mask_of", "preset_of"]

_ROUND = np.mgrid[-1:2, -1:2].reshape(2, 9)
"""Rows and columns of a pixel and its neighbours, from that pixel."""


PRESETS: Mapping[str, Mapping[int, str]] = {
    "ztf": {
        0: "STREAK", 2: "BAD", 4: "BAD", 6: "BLEED", 7: "CR", 8: "SAT", 9: "BAD", 10: "NO_DATA",
    },
    "jwst": {0: "BAD", 1: "SAT", 10: "BAD"},
    "hst": {1: "BAD", 2: "BAD", 4: "BAD", 7: "BAD", 8: "SAT", 9: "BAD", 11: "SAT", 12: "CR",
            13: "CR"},
    "lsst": {0: "BAD", 1: "SAT", 2: "INTRP", 3: "CR", 4: "EDGE", 7: "SUSPECT", 8: "NO_DATA"},
    "lco": {0: "BAD", 1: "SAT", 2: "BAD"},
}  # fmt: skip
"""Bits (counted from 0) of the masks of surveys by our planes; other bits are harmless."""

# Community Pipeline masks: bits up to version 3.4, integer codes since (late 2014).
_FIRST_CODES = (3, 5)
_CODES = {1: "BAD", 2: "NO_DATA", 3: "SAT", 4: "BLEED", 5: "CR", 6: "BAD", 8: "STREAK"}
_BITS = {
    1: "BAD",
    2: "SAT",
    4: "INTRP",
    8: "BAD",
    16: "CR",
    64: "BLEED",
    128: "EDGEBLEED",
    256: "CROSSTALK",
    512: "SUSPECT",
    1024: "STREAK",
    2048: "INTRP",
}

_MOST_MASKED = 0.9
_WHERE = (("TELESCOP", "INSTRUME", "OBSERVAT", "ORIGIN"), ("ztf", "jwst", "hst", "lco", "noirlab"))


def preset_of(header: Header, mask_header: Header) -> str | None:
    """Name of the convention that the headers tell.

    Parameters
    ----------
    header, mask_header : mapping
        Keywords of the image and of the mask.

    Returns
    -------
    str, optional
        A key of `PRESETS`; None if neither the telescope nor cards ``BITnn`` tell.
    """
    if any(re.fullmatch(r"BIT0[01]", key) for key in mask_header):
        return "ztf"
    keys, names = _WHERE
    text = " ".join(str({**header, **mask_header}.get(key, "")) for key in keys).lower()
    if "zwicky" in text or "palomar 48" in text:
        return "ztf"
    return next((n for n in names if re.search(rf"\b{n}\b", text)), None)


def decode(mask: npt.NDArray[np.integer], convention: str) -> Mask:
    """Translate a mask.

    Parameters
    ----------
    mask : ndarray, (ny, nx), int
        As found.
    convention : str
        A key of `PRESETS`, ``noirlab`` for the integer codes of its pipeline since 3.5, or the bits
        that count as bad, by number or as ``BIT=PLANE``: ``0,8=SAT``.

    Returns
    -------
    ndarray, (ny, nx), uint32
        Bits of `pipeline.masks.MASK_PLANES`.

    Raises
    ------
    ConfigError
        If the convention is not understood.
    """
    if convention.lower() == "noirlab":
        return decode_quality(mask, "")
    out = np.zeros(mask.shape, np.uint32)
    values = mask.astype(np.int64)
    for bit, plane in _meaning(convention).items():
        out[(values >> bit) & 1 != 0] |= bits(plane)
    return out


def _meaning(convention: str) -> dict[int, str]:
    if convention.lower() in PRESETS:
        return dict(PRESETS[convention.lower()])
    found: dict[int, str] = {}
    for item in convention.split(","):
        number, _, plane = item.strip().partition("=")
        plane = plane.strip().upper() or "BAD"
        if not number.isdigit() or int(number) > 62 or plane not in MASK_PLANES:
            raise ConfigError(
                f"mask bits {item.strip()!r} are not understood",
                key="--mask-bits",
                expected=f"one of {', '.join(PRESETS)}, noirlab, or bits such as 0,8=SAT",
            )
        found[int(number)] = plane
    return found


def decode_quality(codes: np.ndarray, version: str) -> Mask:
    """Translate a Community Pipeline quality plane.

    Parameters
    ----------
    codes : ndarray, (ny, nx), int
        Integer codes, or bits before version 3.5.
    version : str
        PLVER of the file; empty means a recent one.

    Returns
    -------
    ndarray, (ny, nx), uint32
        Bits of `pipeline.masks.MASK_PLANES`.
    """
    mask = np.zeros(codes.shape, np.uint32)
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers and numbers < _FIRST_CODES:
        for bit, plane in _BITS.items():
            mask[codes & bit != 0] |= bits(plane)
    else:
        for code, plane in _CODES.items():
            mask[codes == code] |= bits(plane)
    return mask


def mask_of(raw: Raw, saturation: float, convention: str | None, notes: list[str]) -> Mask:
    """Mask planes from a mask in any convention.

    A file whose header declares ``MP_`` planes is read by their names, that of a telescope of
    `PRESETS` by its bits.  Otherwise non-zero means bad, and saturated where the pixels touch one
    above 0.98 of the saturation level.

    Parameters
    ----------
    raw : Raw
        Image and mask as found; pixels without data are not-a-number.
    saturation : float
        Saturation level.
    convention : str, optional
        Which bits count, see `decode`; None to go by the headers.
    notes : list of str
        What was assumed is added here.

    Returns
    -------
    ndarray, (ny, nx), uint32
        Bits of `MASK_PLANES`.

    Raises
    ------
    InputError
        If the mask marks nearly everything.
    """
    hot = raw.image >= np.float32(0.98 * saturation)
    hole = ~np.isfinite(raw.image)
    if raw.mask is None:
        notes.append("no mask: saturated and not-a-number pixels only")
        out = np.zeros(raw.image.shape, np.uint32)
        out[hole] = bits("NO_DATA", "UNMASKEDNAN")
    else:
        out = _given(raw, raw.mask, hot, convention, notes)
        _refuse_inverted(out, hole, raw)
        out[hole] |= bits("NO_DATA")
    if raw.mask is None or not _declared(raw.mask_header):
        out[hot] |= bits("SAT")
    return out


def _given(
    raw: Raw,
    mask: npt.NDArray[np.integer],
    hot: npt.NDArray[np.bool_],
    convention: str | None,
    notes: list[str],
) -> Mask:
    declared = _declared(raw.mask_header)
    known = convention or (None if declared else preset_of(raw.header, raw.mask_header))
    if known is not None:
        how = "as given" if convention else "from the header, --mask-bits says otherwise"
        notes.append(f"mask: bits of {known} ({how})")
        return decode(mask, known)
    out = np.zeros(mask.shape, np.uint32)
    if declared:
        for plane, bit in declared.items():
            out[flagged(mask.astype(np.uint32), np.uint32(1 << bit))] |= bits(plane)
        return out
    notes.append("mask: non-zero taken as bad, saturated where the saturation level says so")
    marked = mask != 0
    out[marked] = bits("BAD")
    out[_grow_into(hot & marked, marked)] = bits("SAT")
    return out


def _refuse_inverted(mask: Mask, hole: npt.NDArray[np.bool_], raw: Raw) -> None:
    share = float(np.mean((mask != 0) & ~hole))
    if _MOST_MASKED < share < 1.0:  # all of them: nothing usable, which is said elsewhere
        raise InputError(
            f"the mask marks {share:.1%} of the pixels as bad",
            path=raw.files[0],
            expected="0 where a pixel is good",
            hint="a map with 0 for bad is a weight, --science-weight or --template-weight;"
            " harmless bits are left out by --mask-bits",
        )


def _declared(header: Header) -> dict[str, int]:
    """Our planes that a header declares, with their bit numbers."""
    found = {name: number(header, (f"MP_{name}",)) for name in MASK_PLANES}
    return {name: int(card[1]) for name, card in found.items() if card and card[1] in range(32)}


def _grow_into(
    seed: npt.NDArray[np.bool_], allowed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Grow saturated cores by two pixels into what is flagged around them."""
    ny, nx = seed.shape
    grown = seed.copy()
    y, x = np.divmod(np.flatnonzero(seed), nx)
    for _ in range(2):
        v, u = (
            np.repeat(y, 9) + np.tile(_ROUND[0], len(y)),
            np.repeat(x, 9) + np.tile(_ROUND[1], len(x)),
        )
        inside = (v >= 0) & (v < ny) & (u >= 0) & (u < nx)
        v, u = v[inside], u[inside]
        new = allowed[v, u] & ~grown[v, u]
        y, x = v[new], u[new]
        grown[y, x] = True
    return grown
