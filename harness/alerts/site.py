"""Alerts as a folder of static pages: a table of every night, a page of every object.

Nothing is fetched: style, scripts and curves stand in the pages, stamps lie beside them.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment
from markupsafe import Markup

from harness.alerts.entries import summary
from harness.alerts.page import open_templates, utc_words
from harness.drawing.cutouts import read_stamps, stamp_as_png
from harness.drawing.lightcurve import Epoch, curve_as_svg, read_curve
from harness.workspace import atomic, translate_os_errors
from pipeline.errors import ConfigError
from pipeline.sphere import project, radec, unit_vectors

__all__ = ["Counts", "nights_of", "sky_map", "write_site"]

_GAP = 0.25  # d: a pause of six hours is a day
_MARK = ".nightjar-site"
_SKY = 300
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """What the pages show.

    Attributes
    ----------
    alerts, nights, objects : int
        How many of each.
    """

    alerts: int
    nights: int
    objects: int


@dataclass(frozen=True, slots=True)
class _Night:
    """A page: its name, the date and the alerts."""

    file: str
    date: str
    rows: list[Row]


def write_site(folder: Path, packets: Iterable[Mapping[str, Any]]) -> Counts:
    """Write the pages; those of an earlier call are replaced.

    Parameters
    ----------
    folder : Path
        What to make.
    packets : iterable of mapping
        Alerts; each is held only while its stamps are drawn.

    Returns
    -------
    Counts
        What the pages show.

    Raises
    ------
    ConfigError
        If the folder holds something else.
    """
    fresh = folder.with_name(f".{folder.name}.partial")
    with translate_os_errors(folder):
        if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
            raise ConfigError("holds something else", path=folder, hint="choose another folder")
        shutil.rmtree(fresh, ignore_errors=True)
        (fresh / "stamps").mkdir(parents=True)
        (fresh / "objects").mkdir()
        (fresh / _MARK).touch()
        try:
            counts = _write(fresh, packets)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return counts


def _write(folder: Path, packets: Iterable[Mapping[str, Any]]) -> Counts:
    rows: list[Row] = []
    curves: dict[str, list[Epoch]] = {}
    for packet in packets:
        row = summary(packet)
        row["page"] = _page_name(row)
        row["stamps"] = _stamps(folder, packet, len(rows))
        curve = read_curve(packet)
        if len(curve) >= len(curves.get(row["page"], ())):
            curves[row["page"]] = curve
        rows.append(row)
    rows.sort(key=lambda row: (row["midpointMjdTai"] or 0.0, str(row["diaSourceId"])))
    templates = open_templates()
    nights = nights_of([row["midpointMjdTai"] or 0.0 for row in rows])
    for row, night in zip(rows, nights, strict=True):
        row["night"] = night
    _objects(folder, templates, rows, curves)
    return Counts(len(rows), _nights(folder, templates, rows), len(curves))


def _page_name(row: Row) -> str:
    """Name of the page of an object or body; of a source that belongs to neither, its own."""
    for kind, key in (("body", "ssObjectId"), ("object", "diaObjectId"), ("source", "diaSourceId")):
        if isinstance(row[key], int) and row[key] > 0:
            return f"{kind}_{row[key]}"
    return "unknown"


def _stamps(folder: Path, packet: Mapping[str, Any], number: int) -> list[dict[str, str]]:
    drawn = []
    for stamp in read_stamps(packet):
        name = f"stamps/{number:06d}_{stamp.name}.png"
        (folder / name).write_bytes(stamp_as_png(stamp))
        drawn.append({"name": stamp.name, "note": stamp.note, "image": name})
    return drawn


def nights_of(times: Sequence[float]) -> list[int]:
    """Tell nights apart: a new one begins after six hours without an alert.

    Parameters
    ----------
    times : sequence of float, d
        Ascending.

    Returns
    -------
    list of int
        Night of each, from zero.
    """
    if not len(times):
        return []
    return [int(n) for n in np.r_[0, np.cumsum(np.diff(np.asarray(times, float)) > _GAP)]]


def _objects(
    folder: Path, templates: Environment, rows: Sequence[Row], curves: Mapping[str, list[Epoch]]
) -> None:
    of: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of[row["page"]].append(row)
    template = templates.get_template("object.html.j2")
    for page, its in of.items():
        cards = [{"row": row, "stamps": _beside(row["stamps"]), "curve": ""} for row in its]
        title = page.replace("_", " ")
        curve = curve_as_svg(curves[page], 640, 220)
        text = template.render(title=title, cards=cards, curve=curve)
        with atomic(folder / "objects" / f"{page}.html") as partial:
            partial.write_text(text, encoding="utf-8")


def _beside(stamps: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    return [{**stamp, "image": f"../{stamp['image']}"} for stamp in stamps]


def _nights(folder: Path, templates: Environment, rows: Sequence[Row]) -> int:
    """Write the page of every night, the latest also as the index; return their number."""
    of: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        of[row["night"]].append(row)
    nights = [
        _Night(f"night_{n:04d}.html", utc_words(its[0]["midpointMjdTai"])[:10], its)
        for n, its in of.items()
    ] or [_Night("night_0000.html", "–", [])]
    template = templates.get_template("night.html.j2")
    for night in nights:
        text = template.render(
            night=night,
            nights=nights,
            sky=sky_map(night.rows),
            classes=sorted({row["class"] for row in night.rows}),
            bands=sorted({str(row["band"] or "–") for row in night.rows}),
        )
        for name in (night.file, "index.html") if night is nights[-1] else (night.file,):
            with atomic(folder / name) as partial:
                partial.write_text(text, encoding="utf-8")
    return len(of)


def sky_map(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw where alerts are: north up, east left, true distances from their middle.

    Parameters
    ----------
    rows : sequence of mapping
        With ``ra``, ``dec`` (deg), ``page``, ``diaSourceId`` and ``reliability``.

    Returns
    -------
    markupsafe.Markup
        An ``svg`` element whose points lead to the pages; a sentence where there are none.
    """
    placed = [r for r in rows if all(isinstance(r[k], float) for k in ("ra", "dec"))]
    if not placed:
        return Markup('<p class="missing">no positions</p>')
    ra, dec = (np.array([r[k] for r in placed]) for k in ("ra", "dec"))
    plane, middle = _equidistant(ra, dec)
    seen = np.asarray(np.isfinite(plane).all(axis=1))
    reach = max(float(np.abs(plane[seen]).max(initial=0.0)), 1e-4) * 1.08
    parts = [
        _point(row, *((0.5 - offset / reach / 2) * _SKY))
        for row, offset, inside in zip(placed, plane, seen, strict=True)
        if inside
    ]
    beyond = f", {(~seen).sum()} alerts beyond" if not seen.all() else ""
    words = Markup(
        '<text x="4" y="12" font-size="10" fill="#5a6470">{}</text>'
        '<text x="4" y="{}" font-size="10" fill="#5a6470">E ←  ↑ N{}</text>'
    ).format(f"{2 * reach:.3g} deg wide, middle {middle[0]:.4f} {middle[1]:+.4f}", _SKY - 5, beyond)
    head = Markup('<svg class="sky" viewBox="0 0 {0} {0}" role="img">').format(_SKY)
    return head + Markup("").join(parts) + words + Markup("</svg>")


def _equidistant(
    ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """East and north of the middle of positions, deg, their distances kept, and that middle.

    Zenithal equidistant (Calabretta & Greisen 2002, section 5.1.6); NaN from 90 degrees on.
    """
    centre = radec(unit_vectors(ra, dec).mean(axis=0, keepdims=True))
    middle = (float(centre[0][0]), float(centre[1][0]))
    plane = project(ra, dec, middle)
    radius = np.deg2rad(np.hypot(*plane.T))[:, None]
    stretch = np.divide(np.arctan(radius), radius, out=np.ones_like(radius), where=radius > 0)
    return plane * stretch, middle


def _point(row: Mapping[str, Any], x: float, y: float) -> Markup:
    reliability = row["reliability"]
    good = reliability is None or reliability >= 0.5
    return Markup(
        '<a href="objects/{page}.html"><circle data-id="{id}" cx="{x:.1f}" cy="{y:.1f}" r="3.2" '
        'fill="{ink}" fill-opacity=".75"><title>{id}, reliability {rel}</title></circle></a>'
    ).format(
        page=row["page"], id=row["diaSourceId"], x=x, y=y, ink="#0b4f8a" if good else "#d55e00",
        rel="unknown" if reliability is None else f"{reliability:.2f}",
    )  # fmt: skip
