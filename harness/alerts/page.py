"""Alerts as one HTML page: three stamps and the light curve of each, several in a row."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from harness.alerts.entries import summary
from harness.drawing.cutouts import read_stamps, stamp_as_png
from harness.drawing.lightcurve import curve_as_svg, read_curve
from harness.system.templates import page_environment
from harness.system.text import one_line
from harness.workspace import atomic, translate_os_errors
from pipeline.timescales import mjd_tai_to_utc

__all__ = ["as_card", "open_templates", "utc_words", "write_page"]

_TEMPLATES = Path(__file__).parent / "templates"
_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)


def open_templates() -> Environment:
    """Open the templates of pages about alerts, with their style.

    Returns
    -------
    jinja2.Environment
        Knows the filters ``words`` and ``utc`` and the style.
    """
    environment = page_environment(_TEMPLATES)
    environment.filters |= {"words": _words, "utc": utc_words}
    environment.globals["style"] = Markup((_TEMPLATES / "alerts.css").read_text(encoding="utf-8"))
    return environment


def write_page(path: Path, packets: Iterable[Mapping[str, Any]]) -> int:
    """Write a page with science, template, difference and light curve of each alert.

    Parameters
    ----------
    path : Path
        File to write.
    packets : iterable of mapping
        Alerts.

    Returns
    -------
    int
        Alerts shown.
    """
    cards = [as_card(packet) for packet in packets]
    page = open_templates().get_template("page.html.j2").render(cards=cards)
    with translate_os_errors(path), atomic(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return len(cards)


def as_card(packet: Mapping[str, Any]) -> dict[str, Any]:
    """Put together what the page shows of an alert.

    Parameters
    ----------
    packet : mapping
        The alert.

    Returns
    -------
    dict
        ``row`` (see `harness.alerts.entries.summary`), ``stamps`` and ``curve``.
    """
    stamps = [
        {"name": s.name, "note": s.note, "image": _inline(stamp_as_png(s))}
        for s in read_stamps(packet)
    ]
    return {
        "row": summary(packet),
        "stamps": stamps,
        "curve": curve_as_svg(read_curve(packet), 200, 110),
    }


def _inline(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _words(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else one_line(value)


def utc_words(mjd_tai: float | None) -> str:
    """Write a time as date and time in UTC.

    Parameters
    ----------
    mjd_tai : float, d, optional
        Modified Julian Date, TAI.

    Returns
    -------
    str
        ``YYYY-MM-DD HH:MM:SS``; a dash where it is unknown.
    """
    if not isinstance(mjd_tai, int | float):
        return "–"
    try:
        moment = _EPOCH + timedelta(days=mjd_tai_to_utc(float(mjd_tai)))
    except (ValueError, OverflowError):  # a file of any origin
        return "–"
    return moment.strftime("%Y-%m-%d %H:%M:%S")
