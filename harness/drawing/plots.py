"""Plots of the report, drawn from the numbers that the report keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from harness.drawing.style import COLOURS, LINES, MARKERS, as_svg, drawing_style
from pipeline.timescales import UNIX_EPOCH_MJD

__all__ = ["draw_plot", "render_plot"]

Description = Mapping[str, Any]

_SIZE = (5.6, 3.6)  # inch
_PLACE = (0.14, 0.14, 0.82, 0.79)
"""Left, bottom, width and height of the axes: room for a number of seven digits beside them."""
_DATED = (0.14, 0.14, 0.82, 0.68)
"""The same below a second axis."""


def render_plot(plot: Description) -> str:
    """Draw a plot as SVG; see `draw_plot`.

    Parameters
    ----------
    plot : mapping
        Description of the plot.

    Returns
    -------
    str
        A document.
    """
    return as_svg(draw_plot(plot))


def draw_plot(plot: Description) -> Figure:
    """Draw a plot.

    Parameters
    ----------
    plot : mapping
        ``type`` (``curve``: points with error bars, joined; ``points``; ``bars``: a histogram;
        ``map``: cells ``[x0, x1, y0, y1, value]`` with the label and range of ``z``),
        ``x`` and ``y`` (``label``, optional ``log``, ``range`` and ``date`` for a Modified Julian
        Date in TAI) and ``series`` of ``name`` and ``points``: ``[x, y]``, ``[x, y, low, high]``
        or for bars ``[x0, x1, n]``; a series with ``line`` has no markers.  Optional ``marks``:
        ``{"x" or "y": value, "label"}``, drawn as lines.

    Returns
    -------
    Figure
        With one axes, and a second one of Modified Julian Dates above dates.
    """
    with drawing_style():
        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes(_DATED if plot["x"].get("date") else _PLACE)
        shift = UNIX_EPOCH_MJD if plot["x"].get("date") else 0.0
        if plot["type"] == "map":
            _draw_map(axes, plot)
            return figure
        draw = _draw_bars if plot["type"] == "bars" else _draw_points
        for index, series in enumerate(plot["series"]):
            draw(axes, series, index, shift, joined=plot["type"] == "curve")
        for mark in plot.get("marks", ()):
            _draw_mark(axes, mark, shift)
        _style_axes(axes, plot)
    return figure


def _draw_points(
    axes: Axes, series: Description, index: int, shift: float, *, joined: bool
) -> None:
    points: Sequence[Sequence[float]] = series["points"]
    bars = [(p[1] - p[2], p[3] - p[1]) if len(p) >= 4 else (0.0, 0.0) for p in points]
    axes.errorbar(
        [p[0] - shift for p in points],
        [p[1] for p in points],
        yerr=[[max(b[k], 0.0) for b in bars] for k in (0, 1)],
        color=COLOURS[index % 4],
        linestyle=LINES[index % 4] if joined else "none",
        marker="none" if series.get("line") else MARKERS[index % 4],
        markerfacecolor=COLOURS[0] if index % 4 == 0 else "none",
        markersize=4 if index % 4 == 0 else 7,
        linewidth=1.2,
        elinewidth=1.0,
        capsize=2,
        label=str(series.get("name") or ""),
    )


def _draw_bars(axes: Axes, series: Description, index: int, shift: float, *, joined: bool) -> None:
    del joined
    points: Sequence[Sequence[float]] = series["points"]
    axes.bar(
        [p[0] - shift for p in points],
        [p[2] for p in points],
        width=[p[1] - p[0] for p in points],
        align="edge",
        color=COLOURS[1 + index % 3],
        edgecolor="white",
        linewidth=0.5,
        label=str(series.get("name") or ""),
    )


def _draw_map(axes: Axes, plot: Description) -> None:
    """Draw cells in grey, each with its value written in it."""
    low, high = plot["z"]["range"]
    for x0, x1, y0, y1, value in plot["series"][0]["points"]:
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        grey = str(0.35 + 0.65 * share)
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=grey, edgecolor="white"))
        middle = ((x0 + x1) / 2, (y0 + y1) / 2)
        ink = "black" if share > 0.3 else "white"
        axes.annotate(f"{value:.2f}", middle, ha="center", va="center", fontsize=8, color=ink)
    axes.autoscale_view()
    _style_axes(axes, plot)
    axes.grid(visible=False)
    axes.set_title(plot["z"]["label"])


def _draw_mark(axes: Axes, mark: Mapping[str, Any], shift: float) -> None:
    line: dict[str, Any] = {"color": "0.3", "linestyle": (0, (3, 3)), "linewidth": 1.0, "zorder": 0}
    near: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9, "color": "0.3"}
    if "x" in mark:
        place = (mark["x"] - shift, 1.0)
        axes.axvline(place[0], **line)
        axes.annotate(mark["label"], place, (4, -10), axes.get_xaxis_transform(), **near)
    else:
        place = (1.0, mark["y"])
        axes.axhline(place[1], **line)
        axes.annotate(mark["label"], place, (-4, 3), axes.get_yaxis_transform(), ha="right", **near)


def _style_axes(axes: Axes, plot: Description) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    for spec, axis, name in ((plot["x"], axes.xaxis, "x"), (plot["y"], axes.yaxis, "y")):
        axis.set_label_text(spec["label"])
        if spec.get("log"):
            axes.set(**{f"{name}scale": "log"})
            _log_ticks(axis)
        if "range" in spec:
            room = 0.0 if spec.get("log") else 0.03 * (spec["range"][1] - spec["range"][0])
            axes.set(**{f"{name}lim": (spec["range"][0] - room, spec["range"][1] + room)})
    if plot["x"].get("date"):
        _date_ticks(axes)
    if sum(bool(s.get("name")) for s in plot["series"]) > 1:
        axes.legend(loc="best")


def _log_ticks(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _date_ticks(axes: Axes) -> None:
    axes.margins(x=0.08)
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    above = axes.secondary_xaxis(
        "top", functions=(partial(np.add, UNIX_EPOCH_MJD), partial(np.add, -UNIX_EPOCH_MJD))
    )
    above.set_xlabel("MJD (TAI)")
    above.xaxis.set_major_locator(MaxNLocator(nbins=5))
    above.ticklabel_format(axis="x", useOffset=False, style="plain")
