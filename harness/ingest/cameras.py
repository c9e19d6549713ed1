"""Definitions of cameras: written from their files, and kept in a workspace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.ingest.camera import keep_camera
from harness.workspace import Workspace, translate_os_errors
from pipeline.camera import Camera
from pipeline.errors import FileFormatError
from pipeline.io.files import open_fits
from pipeline.io.filters import band_of, filter_name
from pipeline.io.headers import Header
from pipeline.io.keywords import SYNONYMS, item_of
from pipeline.io.planes import Planes, Raw, read_planes, science_images
from pipeline.io.quality import preset_of
from pipeline.io.raw import BANDS
from pipeline.io.times import read_midpoint
from pipeline.wcs import pixel_scale

__all__ = ["adopt_camera", "describe_files"]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one file tells of its camera."""

    cards: Mapping[str, tuple[str, object]]
    filters: Mapping[str, str]
    scale: float
    mask_bits: str
    images: int
    times: str


def adopt_camera(space: Workspace, chosen: str) -> str:
    """Keep a definition of plain images in a workspace, which then needs no other file.

    Parameters
    ----------
    space : Workspace
        The workspace.
    chosen : str
        Name of a camera, or a TOML file.

    Returns
    -------
    str
        What to call the camera in the configuration.

    Raises
    ------
    ConfigError
        If there is no such camera, or its file is wrong.
    """
    definition = Camera.load(chosen)
    if not chosen.endswith(".toml") or not definition.plain:
        return chosen
    with translate_os_errors(space.root):
        keep_camera(space, chosen, None)
    return definition.name


def describe_files(files: Sequence[Path], name: str) -> str:
    """Write the definition of a camera from its images.

    Parameters
    ----------
    files : sequence of Path
        Reduced images of one camera; of several filters, so that all are listed.
    name : str
        Name of the camera.

    Returns
    -------
    str
        TOML that `Camera.load` reads.  What no file tells stands in comments.

    Raises
    ------
    FileFormatError
        If a file cannot be read or holds no image.
    """
    seen = [_look(path) for path in files]
    scales = [s.scale for s in seen if np.isfinite(s.scale)]
    presets = Counter(s.mask_bits for s in seen if s.mask_bits)
    lines = [
        f"# Written from {len(files)} file{'s' * (len(files) > 1)}; what is left out is found by"
        " the usual names.",
        f'name = "{name}"',
        'images = "plain"',
        f"pixel_scale = {float(np.median(scales)):.4f}" if scales else "# pixel_scale = 0.0",
        f'mask_bits = "{presets.most_common(1)[0][0]}"'
        if presets
        else '# mask_bits = "0,8=SAT"   # if harmless bits are set',
        f"# {max(s.images for s in seen)} images per file: all enter, as detectors;"
        ' extension = "SCI" takes one',
        "",
        "[keywords]",
        *(_card_line(item, (s.cards for s in seen)) for item in SYNONYMS),
        f"# time from {seen[0].times}",
        "",
        "[filters]",
        *_filter_lines(seen),
    ]
    return "\n".join(lines) + "\n"


def _look(path: Path) -> _Seen:
    with open_fits(path) as hdus:
        places = science_images(hdus)
    if not places:
        raise FileFormatError("no image", path=path, expected="a two-dimensional image")
    raw = read_planes(Planes(path, ext=str(places[0])))
    header = raw.header
    found = {item: item_of(header, item, {}) for item in SYNONYMS}
    moment = read_midpoint(header)
    missing = "no card: give start = and exptime ="
    return _Seen(
        {item: card for item, card in found.items() if card is not None},
        _filters(header),
        3600.0 * pixel_scale(raw.wcs) if raw.wcs is not None else float("nan"),
        _bits(raw),
        len(places),
        f"{moment.source or missing}, exposure {moment.exptime or missing}",
    )


def _filters(header: Header) -> dict[str, str]:
    found = filter_name(header)
    return {} if found is None else {found[1]: band_of(found[1])}


def _bits(raw: Raw) -> str:
    if raw.mask is None or any(str(key).startswith("MP_") for key in raw.mask_header):
        return ""
    return preset_of(raw.header, raw.mask_header) or ""


def _card_line(item: str, cards: Iterable[Mapping[str, tuple[str, object]]]) -> str:
    found = [of[item] for of in cards if item in of]
    if not found:
        return f'# {item} = "CARD"   # no card found'
    card, value = found[0]
    return f'{item} = "{card}"   # such as {value}'


def _filter_lines(seen: Sequence[_Seen]) -> list[str]:
    names = {name: band for s in seen for name, band in s.filters.items()}
    if not names:
        return ['# "name" = "r"   # no card of a filter found: band = "CARD" in [keywords]']
    return [
        f'"{name}" = "{band}"' if band in BANDS else f'# "{name}" = "r"   # one of {BANDS}'
        for name, band in sorted(names.items())
    ]
