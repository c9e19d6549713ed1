"""Contact sheets: the drawn units of every inspection, and stamps of what was found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.stats import mad_std
from scipy.ndimage import map_coordinates

from harness.report.png import beside, binned, encode, grey
from harness.verify.context import Context
from harness.verify.kinds.inspect import Inspect, draw
from harness.verify.loader import Spec
from harness.verify.sampling import template_records
from harness.verify.view import TemplateRecord, View
from pipeline.atomic import atomic_path
from pipeline.masks import bits

__all__ = ["contact_sheets", "source_stamps", "store_image"]

_PANEL = 220
Pixels = np.ndarray[Any, Any]


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
    sheets: dict[str, list[dict[str, Any]]] = {}
    records = template_records(context)
    for case, item, check in spec.checks():
        if not isinstance(check.subject, Inspect):
            continue
        rows = []
        for unit in draw(context, check.subject):
            place = (unit.visit, unit.detector)
            view = View(context.space.root, *place, records.get(place, TemplateRecord()))
            pixels = _science(view) if check.subject.product == "visit_image" else _triplet(view)
            rows.append(
                {
                    "caption": f"visit {unit.visit} detector {unit.detector}",
                    **store_image(pixels, folder),
                }
            )
        sheets[f"{case.id}/{item.id}/{check.id}"] = rows
    return sheets


def store_image(pixels: Pixels, folder: Path) -> dict[str, str]:
    """Write a PNG under the name of its content and return ``{"path", "sha256"}``."""
    data = encode(pixels)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{digest[:20]}.png"
    if not path.is_file():
        with atomic_path(path) as partial:
            partial.write_bytes(data)
    return {"path": f"{folder.name}/{path.name}", "sha256": digest}


def _science(view: View) -> Pixels:
    image, mask, sky = (view.plane("visit_image", n)[0] for n in ("IMAGE", "MASK", "BACKGROUND"))
    factor = max(1, image.shape[1] // _PANEL)
    flat = binned(image, factor)
    hidden = (mask & ~np.uint32(bits("DETECTED", "DETECTED_NEGATIVE"))) != 0
    masked = binned(hidden, factor) > 0.3
    return beside(grey(flat), grey(flat, masked=masked), grey(binned(sky, factor)))


def _triplet(view: View) -> Pixels:
    image, mask = (view.plane("difference", n)[0] for n in ("IMAGE", "MASK"))
    factor = max(1, image.shape[1] // _PANEL)
    masked = binned((mask & np.uint32(view.excluded_bits)) != 0, factor) > 0.3
    difference = binned(image, factor)
    return beside(
        grey(binned(view.plane("visit_image")[0], factor)),
        grey(_template_panel(view, factor)),
        grey(difference, symmetric=True),
        grey(difference, symmetric=True, masked=masked),
    )


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


def source_stamps(
    context: Context, sources: Sequence[Mapping[str, Any]], folder: Path, half: int = 25
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
    half : int, pixel
        Half size of a stamp.
    """
    records = template_records(context)
    views: dict[tuple[int, int], View] = {}
    rows = []
    for source in sorted(sources, key=lambda s: (s["visit"], s["detector"])):
        place = (int(source["visit"]), int(source["detector"]))
        if place not in views:
            views = {place: View(context.space.root, *place, records[place])}
        view = views[place]
        difference = view.plane("difference")[0]
        noise = float(mad_std(difference[::16, ::16], ignore_nan=True))
        box = _box(difference.shape, source["x"], source["y"], half)
        around = _on_template(view, *np.mgrid[box])
        images = (
            (view.plane("visit_image")[0][box], False),
            (map_coordinates(view.plane("template")[0], around, order=1, cval=np.nan), False),
            (difference[box], True),
        )
        panels = [grey(image, symmetric=d, scale=noise) for image, d in images]
        pixels = np.repeat(np.repeat(beside(*panels, gap=1), 2, axis=0), 2, axis=1)
        rows.append({"caption": source["caption"], **store_image(pixels, folder)})
    return rows


def _box(shape: tuple[int, int], x: float, y: float, half: int) -> tuple[slice, slice]:
    """Rows and columns round a place: all of the same size, moved inwards at an edge."""
    first = (
        min(max(round(c) - half, 0), size - 2 * half - 1)
        for c, size in zip((y, x), shape, strict=True)
    )
    row, column = first
    return slice(row, row + 2 * half + 1), slice(column, column + 2 * half + 1)
