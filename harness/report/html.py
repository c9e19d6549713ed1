"""The report as one HTML file: no network, prints cleanly, the same bytes every time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from harness.report.text import label, number, quantity, shape
from harness.system.templates import page_environment
from pipeline.errors import InputError

__all__ = ["environment", "render_html", "render_nights", "style", "with_images"]

_IMAGE = re.compile(r"[a-z]+/[0-9a-f]{20}\.png")
_NIGHT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TEMPLATES = Path(__file__).parent / "templates"


def render_html(report: dict[str, Any], folder: Path) -> str:
    """Render a report.

    Parameters
    ----------
    report : dict
        The report.
    folder : path-like
        Holds ``evidence/`` with the images that the report names; they are set inline.

    Returns
    -------
    str
        A complete document.
    """
    pages = with_images(folder)
    digest = hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()
    return pages.get_template("report.html.j2").render(
        r=report,
        style=style(),
        digest=digest,
        matrices=_tables(report, "attribute matrix"),
        audits=_tables(report, "log audit"),
    )


def render_nights(report: dict[str, Any], folder: Path) -> dict[str, str]:
    """Render the pages on data quality and performance.

    Parameters
    ----------
    report : dict
        The report.
    folder : path-like
        Folder of the report.

    Returns
    -------
    dict of str
        Documents by their path within the folder, one for each night.

    Raises
    ------
    InputError
        If the report names a night by something else than a date.
    """
    page = with_images(folder).get_template("night.html.j2")
    shown = [n for n in report.get("nights", ()) if not n.get("problem")]
    return {
        f"nights/{_date(n['night'], folder)}.html": page.render(r=report, n=n, style=style())
        for n in shown
    }


def _date(text: object, folder: Path) -> str:
    """Return a date as it is; it names a file and must not lead elsewhere."""
    if not isinstance(text, str) or not _NIGHT.fullmatch(text):
        raise InputError(
            f"names the night {text!r}", path=folder / "report.json", expected="YYYY-MM-DD"
        )
    return text


def with_images(folder: Path) -> Environment:
    """Return the templates with what reports print besides verdicts.

    Parameters
    ----------
    folder : path-like
        Folder of the report whose images are set inline.

    Returns
    -------
    jinja2.Environment
        With numbers, plots, images and parameters.
    """
    pages = environment()
    pages.filters |= {
        "number": number,
        "quantity": quantity,
        "plot": _plot,
        "inline": lambda image: _inline(folder, image),
        "pretty": lambda value: json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True),
    }
    return pages


def environment() -> Environment:
    """Return the templates of pages, with everything escaped that they print.

    Returns
    -------
    jinja2.Environment
        With the words and shapes of verdicts.
    """
    pages = page_environment(_TEMPLATES)
    pages.filters |= {"label": label, "shape": shape}
    return pages


def style() -> Markup:
    """Return the style sheet of all pages.

    Returns
    -------
    markupsafe.Markup
        CSS, not to be escaped.
    """
    return Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))


def _plot(plot: dict[str, Any]) -> str:
    from harness.drawing.plots import render_plot

    return f"data:image/svg+xml;base64,{base64.b64encode(render_plot(plot).encode()).decode()}"


def _inline(folder: Path, image: dict[str, str]) -> str:
    """Set an image of the report inline; a report that names anything else is refused."""
    path = folder / image["path"]
    if not _IMAGE.fullmatch(image["path"]) or path.is_symlink() or path.parent.is_symlink():
        raise InputError(
            f"names the file {image['path']!r}, which is no image of the report",
            path=folder / "report.json",
            expected="evidence/HASH.png",
        )
    if not path.is_file():
        return ""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != image["sha256"]:
        raise InputError("is not the image that the report names", path=path)
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _tables(report: dict[str, Any], title: str) -> list[dict[str, Any]]:
    """Collect evidence tables whose title ends with some words, each once."""
    found = {
        e["title"]: e
        for case in report["cases"]
        for item in case["items"]
        for check in item["checks"]
        for e in check["evidence"]
        if e["kind"] == "table" and e["title"].endswith(title)
    }
    return [found[t] for t in sorted(found)]
