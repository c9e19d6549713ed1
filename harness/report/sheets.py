"""Contact sheets: the drawn units of every inspection, and stamps of what was found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from harness.drawing.images import (
    Panel,
    binned,
    difference_panel,
    draw_panels,
    light_panel,
    noise_of,
    smooth_panel,
)
from harness.drawing.style import as_png
from harness.verify.context import Context, Unit
from harness.verify.kinds.inspect import Inspect, draw
from harness.verify.loader import Spec
from harness.verify.sampling import Picture, draw_pictures
from harness.verify.view import View
from pipeline.atomic import atomic_path
from pipeline.masks import bits

__all__ = [
    "contact_sheets",
    "sheet_pictures",
    "source_stamps",
    "stamp_picture",
    "store_image",
]

_PANEL = 220
Pixels = np.ndarray[Any, Any]


def sheet_pictures(spec: Spec, context: Context) -> dict[str, list[Picture]]:
    """List the drawings of the units that the inspections ask about.

    Parameters
    ----------
    spec : Spec
        Holds the inspections.
    context : Context
        The campaign.

    Returns
    -------
    dict of list of Picture
        By the path of the check.
    """
    return {
        f"{case.id}/{item.id}/{check.id}": [
            Picture(unit.visit, unit.detector, _SHEETS[check.subject.product])
            for unit in draw(context, check.subject)
        ]
        for case, item, check in spec.checks()
        if isinstance(check.subject, Inspect)
    }


def contact_sheets(spec: Spec, context: Context, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Draw the units that the inspections ask about.

    Parameters
    ----------
    spec : Spec
        Holds the inspections.
    context : Context
        The campaign.
    folder : path-like
        Where the images are kept, by their content.

    Returns
    -------
    dict
        Captions and files by the path of the check.
    """
    return {
        path: _figures(context, {p: Unit(p.visit, p.detector).caption for p in drawn}, folder)
        for path, drawn in sheet_pictures(spec, context).items()
    }


def store_image(data: bytes, folder: Path) -> dict[str, str]:
    """Keep a PNG under the name of its content and return ``{"path", "sha256"}``.

    Parameters
    ----------
    data : bytes
        The PNG.
    folder : Path
        Folder of images.

    Returns
    -------
    dict
        ``path``, relative to the report, and ``sha256``.
    """
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{digest[:20]}.png"
    if not path.is_file():
        with atomic_path(path) as partial:
            partial.write_bytes(data)
    return {"path": f"{folder.name}/{path.name}", "sha256": digest}


def _science(view: View) -> bytes:
    image, mask, sky = (view.plane("visit_image", n)[0] for n in ("IMAGE", "MASK", "BACKGROUND"))
    factor = max(1, image.shape[1] // _PANEL)
    flat = binned(image, factor)
    hidden = (mask & ~np.uint32(bits("DETECTED", "DETECTED_NEGATIVE"))) != 0
    masked = binned(hidden, factor) > 0.3
    panels = (
        light_panel("visit image", flat),
        light_panel("masked pixels tinted", flat, masked=masked),
        smooth_panel("background model", binned(sky, factor)),
    )
    return _sheet(panels, factor)


def _triplet(view: View) -> bytes:
    image, mask = (view.plane("difference", n)[0] for n in ("IMAGE", "MASK"))
    factor = max(1, image.shape[1] // _PANEL)
    masked = binned((mask & np.uint32(view.excluded_bits)) != 0, factor) > 0.3
    difference = binned(image, factor)
    panels = (
        light_panel("visit image", binned(view.plane("visit_image")[0], factor)),
        light_panel("template", _template_panel(view, factor)),
        difference_panel("difference", difference),
        difference_panel("excluded pixels tinted", difference, masked=masked),
    )
    return _sheet(panels, factor)


def _sheet(panels: Sequence[Panel], factor: int) -> bytes:
    middle = (factor - 1) / 2 + 0.5 - 0.5 * factor
    return as_png(draw_panels(panels, corner=(middle, middle), step=factor))


def _template_panel(view: View, factor: int) -> Pixels:
    """Template on the binned pixels of the visit: the nearest bin is good enough to look at."""
    ny, nx = (n // factor for n in view.plane("difference")[0].shape)
    v, u = _on_template(view, *(factor * np.mgrid[:ny, :nx] + (factor - 1) / 2))
    small = binned(view.plane("template")[0], factor)
    places = [(c + 0.5) / factor - 0.5 for c in (v, u)]
    return np.asarray(map_coordinates(small, places, order=0, cval=np.nan))


def _on_template(view: View, y: Pixels, x: Pixels) -> Pixels:
    """Rows and columns of the template at pixels of the visit."""
    science, coadd = view.plane("difference")[1], view.plane("template")[1]
    assert science is not None
    assert coadd is not None
    u, v = coadd.world_to_pixel_values(*science.pixel_to_world_values(x, y))
    return np.stack([v, u])


def stamp_picture(source: Mapping[str, Any], half: int = 25) -> Picture:
    """Describe science, template and difference round a source, side by side.

    Parameters
    ----------
    source : mapping
        With ``visit``, ``detector``, ``x`` and ``y``.
    half : int, pixel
        Half size of a stamp.

    Returns
    -------
    Picture
        The drawing.
    """
    where = (float(source["x"]), float(source["y"]), half)
    return Picture(int(source["visit"]), int(source["detector"]), _stamps, where)


def source_stamps(
    context: Context, sources: Sequence[Mapping[str, Any]], folder: Path
) -> list[dict[str, Any]]:
    """Draw science, template and difference round some sources, side by side.

    Parameters
    ----------
    context : Context
        The campaign.
    sources : sequence of mapping
        With ``visit``, ``detector``, ``x``, ``y`` and ``caption``.
    folder : path-like
        Where the images are kept.

    Returns
    -------
    list of dict
        Path, hash and caption of each image.
    """
    ordered = sorted(sources, key=lambda s: (s["visit"], s["detector"]))
    return _figures(context, {stamp_picture(s): s["caption"] for s in ordered}, folder)


def _figures(
    context: Context, captions: Mapping[Picture, str], folder: Path
) -> list[dict[str, Any]]:
    """Draw and keep images; where a product is missing or broken, say so in its place."""
    drawn = draw_pictures(context, captions)
    return [
        {"caption": caption, **store_image(data, folder)}
        if isinstance(data := drawn[picture], bytes)
        else {"caption": caption, "missing": f"cannot be drawn: {data}"}
        for picture, caption in captions.items()
    ]


def _stamps(view: View, x: float, y: float, half: int) -> bytes:
    difference = view.plane("difference")[0]
    noise = noise_of(difference[::16, ::16])
    box = _box(difference.shape, x, y, half)
    around = _on_template(view, *np.mgrid[box])
    template = map_coordinates(view.plane("template")[0], around, order=1, cval=np.nan)
    panels = (
        light_panel("science", view.plane("visit_image")[0][box], noise=noise),
        light_panel("template", template, noise=noise),
        difference_panel("difference", difference[box], noise=noise),
    )
    return as_png(draw_panels(panels, width=5.6, corner=(box[1].start, box[0].start)))


def _box(shape: tuple[int, int], x: float, y: float, half: int) -> tuple[slice, slice]:
    """Rows and columns round a place: all of the same size, moved inwards at an edge."""
    first = (
        min(max(round(c) - half, 0), size - 2 * half - 1)
        for c, size in zip((y, x), shape, strict=True)
    )
    row, column = first
    return slice(row, row + 2 * half + 1), slice(column, column + 2 * half + 1)


_SHEETS = {"visit_image": _science, "difference": _triplet}
"""How a sheet of a product is drawn."""
