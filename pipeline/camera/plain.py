"""Cameras of which reduced images are read: which cards, extensions, bits and filters they use.

Such a definition is a TOML file of a few lines, ``images = "plain"``; all of it may be left out but
the name, for `pipeline.io` knows the usual words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

__all__ = ["completed"]

_BANDS = "ugrizy"
_TYPES: Mapping[str, type] = {
    "name": str, "images": str, "pixel_scale": float, "psf_fwhm_min": float, "mask_bits": str,
    "extension": str, "fiducial_seeing": float, "keywords": dict, "filters": dict, "bands": dict,
    "colour_terms": dict,
}  # fmt: skip
_UNKNOWN: Mapping[str, Any] = {
    "raw_shape": [0, 0], "shape": [0, 0], "pixel_size": 0.0, "bias_step_row": 0,
    "skipped_detectors": [], "files": {}, "layouts": {}, "pixel_scale": 0.0, "psf_fwhm_min": 0.0,
    "mask_bits": "", "extension": "", "keywords": {}, "filters": {},
    "focal_plane": {"radial": [0.0, 0.0], "north": [0.0, 1.0], "east": [-1.0, 0.0]},
}  # fmt: skip


def completed(spec: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Check a definition and fill in what such a camera has not.

    Parameters
    ----------
    spec : mapping
        The parsed TOML.
    path : Path
        Its file, for messages.

    Returns
    -------
    dict
        With every key that a camera needs.

    Raises
    ------
    ConfigError
        For an unknown key or item, a value of another type or one that cannot be.
    """
    for key, value in spec.items():
        if key not in _TYPES:
            raise ConfigError("unknown key", path=path, key=key, hint=_near(key, _TYPES))
        if not isinstance(value, _TYPES[key]):
            raise ConfigError(
                f"is {value!r}", path=path, key=key,
                expected={str: "a text", float: "a number with a decimal point"}.get(
                    _TYPES[key], f"a section [{key}]"
                ),
            )  # fmt: skip
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", spec.get("name", "")):
        raise ConfigError(
            f"is {spec.get('name')!r}", path=path, key="name", expected="letters, digits, _ and -"
        )
    _check_keywords(spec.get("keywords", {}), path)
    for name, band in spec.get("filters", {}).items():
        if band not in tuple(_BANDS):
            raise ConfigError(
                f"is {band!r}", path=path, key=f"filters.{name}", expected=f"one of {_BANDS}"
            )
    return {**_UNKNOWN, **spec}


def _check_keywords(keywords: Mapping[str, Any], path: Path) -> None:
    from pipeline.io.keywords import ITEMS

    for item, card in keywords.items():
        key = f"keywords.{item}"
        if item not in ITEMS:
            raise ConfigError("unknown item", path=path, key=key, hint=_near(item, ITEMS))
        if not isinstance(card, str) or not card.strip():
            raise ConfigError(f"is {card!r}", path=path, key=key, expected="the name of a card")


def _near(word: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {found[0]}?" if found else f"known are {', '.join(known)}"
