"""Alerts in a terminal: stamps and light curve side by side, several in a row where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from harness.alerts.entries import summary
from harness.drawing.cutouts import read_stamps, stamps_as_text
from harness.drawing.lightcurve import curve_as_text, read_curve
from harness.system.text import one_line

__all__ = ["blocks"]

_CURVE, _GAP = 30, 4


def blocks(
    packets: Iterable[Mapping[str, Any]], *, width: int, side: int = 19, colour: bool = False
) -> Iterator[str]:
    """Draw alerts.

    Parameters
    ----------
    packets : iterable of mapping
        The alerts.
    width : int
        Columns of the terminal; at least one alert stands in a row.
    side : int, pixel
        Side of the middle of a stamp that is shown.
    colour : bool
        Whether the terminal has colours.

    Yields
    ------
    str
        Lines of a row of alerts, and an empty one.
    """
    each = 3 * (side + 1) + 1 + _CURVE
    number = max(1, (width + _GAP) // (each + _GAP))
    left = iter(packets)
    while row := list(islice(left, number)):
        drawn = [_block(packet, side, each, colour=colour) for packet in row]
        for cells in zip(*drawn, strict=True):
            yield (" " * _GAP).join(cells).rstrip()
        yield ""


def _block(packet: Mapping[str, Any], side: int, width: int, *, colour: bool) -> list[str]:
    """Lines of one alert, each as wide as the others."""
    stamps = read_stamps(packet)
    height = (side + 1) // 2
    lines = stamps_as_text(stamps, side, colour=colour) if stamps else ["no cut-outs"] * height
    room = 3 * (side + 1)
    used = len(stamps) * (side + 1) - 1 if stamps else len(lines[0])
    lines = [line + " " * (room - used) for line in lines]
    curve = curve_as_text(read_curve(packet), _CURVE, height)
    heads = [head[:width].ljust(width) for head in _heads(packet, [s.note for s in stamps])]
    return [*heads, *(f"{a} {b}" for a, b in zip(lines, curve, strict=True))]


def _heads(packet: Mapping[str, Any], notes: Sequence[str]) -> tuple[str, str]:
    row = {name: "-" if v is None else v for name, v in summary(packet).items()}
    first = f"{row['diaSourceId']}  {row['visit']}/{row['detector']} {row['band']}  {row['class']}"
    numbers = [
        f"{word} {_short(row[name])}"
        for word, name in (("SNR", "snr"), ("reliability", "reliability"))
    ]
    second = f"object {row['diaObjectId']}  {'  '.join(numbers)}"
    trouble = next((note for note in notes if note), "")
    return one_line(first), one_line(f"{second}  {trouble}")


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
