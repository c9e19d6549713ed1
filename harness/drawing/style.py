"""How everything drawn looks, and how it is written: without dates, names or random identifiers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import style
from matplotlib.figure import Figure

__all__ = ["COLOURS", "LINES", "MARKERS", "as_png", "as_svg", "drawing_style"]

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73")
"""Inks of series; blue, vermilion and green after Okabe & Ito (2008), for every eye."""
LINES = ("-", "--", ":", "-.")
"""Dashes of series, which tell them apart in grey."""
MARKERS = ("o", "s", "^", "D")
"""Markers of series, which tell them apart in grey."""

_STYLE = {
    "svg.hashsalt": "nightjar",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib: no font of the machine is asked for
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 10.0,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "axes.edgecolor": "0.35",
    "axes.grid": False,
    "grid.color": "0.88",
    "hatch.linewidth": 0.6,
    "hatch.color": "0.45",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw with these settings, whatever the machine's own are; afterwards those hold again."""
    with style.context(["default", _STYLE]):
        yield


def as_svg(figure: Figure) -> str:
    """Write a figure as SVG, its text as outlines.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.

    Returns
    -------
    str
        A document; the same figure gives the same text.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with drawing_style():
        figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def as_png(figure: Figure, dpi: float = 100.0) -> bytes:
    """Write a figure as PNG.

    Parameters
    ----------
    figure : Figure
        The figure.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        The file.
    """
    buffer = io.BytesIO()
    with drawing_style():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
