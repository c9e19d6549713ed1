"""Small figures as SVG, drawn from numbers alone so that they come out the same every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

__all__ = ["render_figure"]

_W, _H = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 12, 12, 44
_INKS = ("#111", "#777", "#0b5394", "#b45f06")
_DASHES = ("", "5 3", "2 2", "8 3 2 3")


def render_figure(figure: dict[str, Any]) -> str:
    """Draw a figure.

    Parameters
    ----------
    figure : dict
        ``type`` (``curve``: points with error bars, joined; ``points``; ``bars``: a histogram),
        ``x`` and ``y`` (``label``, optional ``log`` and ``range``) and ``series`` of ``name`` and
        ``points``: ``[x, y]``, ``[x, y, low, high]`` or for bars ``[x0, x1, n]``.  Optional
        ``marks``: ``{"x" or "y": value, "label"}``, drawn as lines.

    Returns
    -------
    str
        An ``svg`` element.
    """
    xs, ys = _extent(figure, 0), _extent(figure, 1)
    to_x = _scale(figure["x"], xs, _LEFT, _W - _RIGHT)
    to_y = _scale(figure["y"], ys, _H - _BOTTOM, _TOP)
    parts = [
        f'<svg viewBox="0 0 {_W} {_H}" width="{_W}" height="{_H}" role="img" font-size="11" '
        'font-family="Helvetica Neue, Arial, sans-serif">',
        *_axes(figure, xs, ys, to_x, to_y),
        *_marks(figure, to_x, to_y),
    ]
    for index, series in enumerate(figure["series"]):
        draw = _bars if figure["type"] == "bars" else _line
        parts += draw(series, index, to_x, to_y, joined=figure["type"] == "curve")
    return "".join([*parts, *_legend(figure), "</svg>"])


def _extent(figure: dict[str, Any], axis: int) -> tuple[float, float]:
    spec = figure["x" if axis == 0 else "y"]
    if "range" in spec:
        return float(spec["range"][0]), float(spec["range"][1])
    values: list[float] = []
    for series in figure["series"]:
        for point in series["points"]:
            if figure["type"] == "bars":
                values += point[:2] if axis == 0 else [0.0, point[2]]
            else:
                values += point[:1] if axis == 0 else [v for v in point[1:4] if v is not None]
    values += [m["xy"[axis]] for m in figure.get("marks", []) if "xy"[axis] in m]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if spec.get("log"):
        return low / 1.2, high * 1.2
    room = 0.06 * (high - low or abs(high) or 1.0)
    return (low if figure["type"] == "bars" else low - room), high + room


def _scale(
    spec: dict[str, Any], extent: tuple[float, float], start: float, end: float
) -> Callable[[float], float]:
    transform = math.log10 if spec.get("log") else float
    low, high = (transform(v) for v in extent)

    def place(value: float) -> float:
        if spec.get("log") and value <= 0:
            return start
        return start + (transform(value) - low) / (high - low) * (end - start)

    return place


def _ticks(spec: dict[str, Any], low: float, high: float) -> list[float]:
    if spec.get("log"):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high / low < 300 else (1, 3) if high / low < 3000 else (1,)
        return [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw)
    first = math.ceil(low / step)
    return [round(n * step, 12) for n in range(first, math.floor(high / step) + 1)]


def _axes(
    figure: dict[str, Any],
    xs: tuple[float, float],
    ys: tuple[float, float],
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
) -> list[str]:
    bottom, right = _H - _BOTTOM, _W - _RIGHT
    parts = [
        f'<rect x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{bottom - _TOP}" '
        'fill="none" stroke="#999"/>'
    ]
    for value in _ticks(figure["x"], *xs):
        x = to_x(value)
        parts.append(f'<path d="M{x:.1f} {bottom}v4" stroke="#999"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(figure["y"], *ys):
        y = to_y(value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + bottom) / 2
    label = escape(figure["x"]["label"])
    parts.append(f'<text x="{middle_x}" y="{_H - 8}" text-anchor="middle">{label}</text>')
    parts.append(
        f'<text transform="translate(13 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"{escape(figure['y']['label'])}</text>"
    )
    return parts


def _marks(
    figure: dict[str, Any], to_x: Callable[[float], float], to_y: Callable[[float], float]
) -> list[str]:
    parts = []
    for mark in figure.get("marks", []):
        if "x" in mark:
            x = to_x(mark["x"])
            parts.append(
                f'<path d="M{x:.1f} {_TOP}V{_H - _BOTTOM}" stroke="#444" stroke-dasharray="3 3"/>'
            )
            parts.append(
                f'<text x="{x + 4:.1f}" y="{_TOP + 12}" fill="#444">{escape(mark["label"])}</text>'
            )
        else:
            y = to_y(mark["y"])
            parts.append(
                f'<path d="M{_LEFT} {y:.1f}H{_W - _RIGHT}" stroke="#444" stroke-dasharray="3 3"/>'
            )
            parts.append(
                f'<text x="{_W - _RIGHT - 4}" y="{y - 4:.1f}" text-anchor="end" fill="#444">'
                f"{escape(mark['label'])}</text>"
            )
    return parts


def _line(
    series: dict[str, Any],
    index: int,
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
    *,
    joined: bool,
) -> list[str]:
    ink, dash = _INKS[index % 4], _DASHES[index % 4]
    places = [(to_x(p[0]), to_y(p[1])) for p in series["points"]]
    parts = []
    if joined and len(places) > 1:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="{path}" fill="none" stroke="{ink}" stroke-dasharray="{dash}"/>')
    for point, (x, y) in zip(series["points"], places, strict=True):
        if len(point) >= 4:
            low, high = to_y(point[2]), to_y(point[3])
            parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{ink}"/>')
        parts.append(_marker(x, y, index, ink))
    return parts


def _marker(x: float, y: float, index: int, ink: str) -> str:
    if index % 2 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{ink}"/>'
    return (
        f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="#fff" stroke="{ink}"/>'
    )


def _bars(
    series: dict[str, Any],
    index: int,
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
    *,
    joined: bool,
) -> list[str]:
    del joined
    ink = _INKS[index % 4]
    parts = []
    for low, high, count in series["points"]:
        x0, x1, y = to_x(low), to_x(high), to_y(count)
        parts.append(
            f'<rect x="{x0:.1f}" y="{y:.1f}" width="{x1 - x0 - 0.5:.1f}" '
            f'height="{_H - _BOTTOM - y:.1f}" fill="{ink}" fill-opacity="0.35" stroke="{ink}"/>'
        )
    return parts


def _legend(figure: dict[str, Any]) -> list[str]:
    named: Sequence[dict[str, Any]] = [s for s in figure["series"] if s.get("name")]
    if len(named) < 2:
        return []
    parts = []
    for index, series in enumerate(named):
        y = _H - _BOTTOM - 12 - 16 * (len(named) - 1 - index)
        x = _W - _RIGHT - 110
        parts.append(_marker(x, y - 4, index, _INKS[index % 4]))
        parts.append(f'<text x="{x + 9}" y="{y}">{escape(str(series["name"]))}</text>')
    return parts
