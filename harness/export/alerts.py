"""Alert files for people: one line each, or a page with stamps."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from harness.workspace import atomic
from pipeline import alerts

__all__ = ["summaries", "write_page"]

_STAMPS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
_SCALE = 3
_COLUMNS = (
    "visit", "detector", "band", "midpointMjdTai", "ra", "dec", "psfFlux", "psfFluxErr", "snr",
    "reliability",
)  # fmt: skip


def summaries(
    files: Sequence[Path], *, source: int | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """One row per alert: source, object, time, place, flux, significance, history.

    Parameters
    ----------
    files : sequence of Path
        Alert files, in the order of the rows.
    source : int, optional
        Only the alert of this ``diaSourceId``.
    limit : int
        Largest number of rows.

    Returns
    -------
    list of dict
        One per alert.
    """
    return [_summary(packet) for packet in islice(_packets(files, source), limit)]


def write_page(path: Path, files: Sequence[Path], *, source: int | None, limit: int) -> int:
    """Write an HTML page with science, template and difference of each alert.

    Parameters
    ----------
    path : Path
        File to write.
    files : sequence of Path
        Alert files.
    source : int, optional
        Only the alert of this ``diaSourceId``.
    limit : int
        Largest number of alerts.

    Returns
    -------
    int
        Alerts shown.
    """
    parts = [_section(packet) for packet in islice(_packets(files, source), limit)]
    style = (
        "body{font:14px sans-serif;margin:2em}figure{display:inline-block;margin:.3em}"
        "img{image-rendering:pixelated}td{padding-right:1em}"
    )
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Alerts</title>"
        f"<style>{style}</style><h1>{len(parts)} alerts</h1>{''.join(parts)}</html>\n"
    )
    with atomic(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return len(parts)


def _packets(files: Sequence[Path], source: int | None) -> Iterator[dict[str, Any]]:
    for path in files:
        for packet in alerts.read(path):
            if source is None or packet["diaSourceId"] == source:
                yield packet


def _summary(packet: dict[str, Any]) -> dict[str, Any]:
    row = packet["diaSource"]
    return {
        "diaSourceId": packet["diaSourceId"],
        "diaObjectId": row.get("diaObjectId"),
        "ssObjectId": row.get("ssObjectId"),
        **{name: row.get(name) for name in _COLUMNS},
        "history": len(packet.get("prvDiaSources") or ()),
        "forced": len(packet.get("prvDiaForcedSources") or ()),
    }


def _section(packet: dict[str, Any]) -> str:
    cells = "".join(
        f"<tr><td>{escape(name)}<td>{escape(_words(value))}"
        for name, value in _summary(packet).items()
    )
    figures = "".join(
        f'<figure><img alt="{name}" src="data:image/png;base64,{_png(name, packet[name])}">'
        f"<figcaption>{name[6:].lower()}</figcaption></figure>"
        for name in _STAMPS
        if packet.get(name)
    )
    title = escape(_words(packet["diaSourceId"]))
    return f"<section><h2>{title}</h2>{figures}<table>{cells}</table></section>"


def _words(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _png(name: str, cutout: bytes) -> str:
    from harness.drawing.images import difference_panel, light_panel, noise_of, pixels_as_png

    with fits.open(io.BytesIO(cutout)) as hdus:
        pixels = np.asarray(hdus[0].data, float)
    if name == "cutoutDifference":
        panel = difference_panel(name, pixels)
    else:
        panel = light_panel(name, pixels, noise=noise_of(pixels))
    return base64.b64encode(pixels_as_png(panel, _SCALE)).decode()
