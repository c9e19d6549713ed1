"""Contact sheets: the drawn units of every inspection, and stamps of what was found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.report.png import beside, binned, encode, grey
from harness.verify.context import Context
from harness.verify.kinds.inspect import Inspect, draw
from harness.verify.loader import Spec
from harness.verify.sampling import template_records
from harness.verify.view import TemplateRecord, View

__all__ = ["contact_sheets", "source_stamps", "store_image"]

_PANEL = 220


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
            view = View(
                context.space.root,
                *place,
                context.camera_name,
                records.get(place, TemplateRecord()),
            )
            pixels = _science(view) if check.subject.product == "visit_image" else _triplet(view)
            rows.append(
                {
                    "caption": f"visit {unit.visit} detector {unit.detector}",
                    **store_image(pixels, folder),
                }
            )
        sheets[f"{case.id}/{item.id}/{check.id}"] = rows
    return sheets


def store_image(pixels: np.ndarray[Any, Any], folder: Path) -> dict[str, str]:
    """Write a PNG under the name of its content and return ``{"path", "sha256"}``."""
    data = encode(pixels)
    digest = hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest[:20]}.png"
    if not path.is_file():
        path.write_bytes(data)
    return {"path": f"{folder.name}/{path.name}", "sha256": digest}


def _science(view: View) -> np.ndarray[Any, Any]:
    image = view.visit_image
    factor = max(1, image.shape[1] // _PANEL)
    flat = binned(image.image, factor)
    masked = binned((image.mask != 0) & ~image.has("DETECTED", "DETECTED_NEGATIVE"), factor) > 0.3
    panels = [grey(flat), grey(flat, masked=masked)]
    if image.background is not None:
        panels.append(grey(binned(image.background, factor)))
    return beside(*panels)


def _triplet(view: View) -> np.ndarray[Any, Any]:
    exposure = view.difference.exposure
    factor = max(1, exposure.shape[1] // _PANEL)
    masked = binned((exposure.mask & np.uint32(view.excluded_bits)) != 0, factor) > 0.3
    difference = binned(exposure.image, factor)
    return beside(
        grey(binned(view.visit_image.image, factor)),
        grey(_template_panel(view, factor)),
        grey(difference, symmetric=True),
        grey(difference, symmetric=True, masked=masked),
    )


def _template_panel(view: View, factor: int) -> np.ndarray[Any, Any]:
    """Template on the binned pixels of the visit: the nearest bin is good enough to look at."""
    science, coadd = view.visit_image, view.template
    assert science.wcs is not None
    assert coadd.wcs is not None
    ny, nx = (n // factor for n in science.shape)
    y, x = factor * np.mgrid[:ny, :nx] + (factor - 1) / 2
    u, v = coadd.wcs.world_to_pixel_values(*science.wcs.pixel_to_world_values(x, y))
    small = binned(coadd.image, factor)
    row, column = (np.rint((c + 0.5) / factor - 0.5).astype(int) for c in (v, u))
    inside = (row >= 0) & (row < small.shape[0]) & (column >= 0) & (column < small.shape[1])
    return np.where(
        inside,
        small[np.clip(row, 0, small.shape[0] - 1), np.clip(column, 0, small.shape[1] - 1)],
        np.nan,
    )


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
            views = {place: View(context.space.root, *place, context.camera_name, records[place])}
        view = views[place]
        difference = view.difference.exposure
        noise = float(np.sqrt(np.nanmedian(difference.variance[::16, ::16])))
        box = _box(difference.shape, source["x"], source["y"], half)
        images = (
            (view.visit_image.image[box], False),
            (view.warped_part(*box).image, False),
            (difference.image[box], True),
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
