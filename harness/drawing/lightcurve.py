"""Light curves beside stamps: small vector graphics for pages, characters for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from harness.system.text import one_line

__all__ = ["Epoch", "curve_as_svg", "curve_as_text", "read_curve"]

_INKS = {
    "u": "#cc79a7", "g": "#009e73", "r": "#d55e00", "i": "#000000", "z": "#0072b2", "y": "#e69f00",
}  # fmt: skip
_OTHER = "#5a6470"
_SIGNS = {"limit": "v", "forced": ".", "source": "o", "alert": "@"}
"""Kinds of epochs, the later drawn over the former, and how a terminal shows them."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One point of a light curve.

    Attributes
    ----------
    mjd : float, d
        Middle of the exposure, TAI.
    flux, error : float, nJy
        Flux on the difference, or the upper limit, whose error is NaN.
    band : str
        Filter.
    kind : str
        ``alert``, ``source``, ``forced`` or ``limit``.
    """

    mjd: float
    flux: float
    error: float
    band: str
    kind: str


def read_curve(packet: Mapping[str, object]) -> list[Epoch]:
    """Collect the epochs of an alert: itself, earlier sources, forced fluxes, upper limits.

    A forced flux of an exposure that has a source is left out, and so is what lacks time or flux.

    Parameters
    ----------
    packet : mapping
        An alert in the layout of LSST.

    Returns
    -------
    list of Epoch
        In the order of time.
    """
    more = packet.get("nightjar")
    limits = more.get("noiseLimits") if isinstance(more, Mapping) else None
    rows = [
        ("alert", [packet.get("diaSource")], "psfFlux"),
        ("source", packet.get("prvDiaSources"), "psfFlux"),
        ("forced", packet.get("prvDiaForcedSources"), "psfFlux"),
        ("limit", limits, "limit"),
    ]
    epochs: list[Epoch] = []
    measured: set[float] = set()
    for kind, list_, field in rows:
        found = [e for row in _mappings(list_) if (e := _epoch(row, field, kind)) is not None]
        epochs += [e for e in found if kind != "forced" or e.mjd not in measured]
        measured |= {e.mjd for e in found}
    return sorted(epochs, key=lambda e: (e.mjd, e.kind))


def _mappings(rows: object) -> Iterable[Mapping[str, object]]:
    return [r for r in rows if isinstance(r, Mapping)] if isinstance(rows, list) else []


def _epoch(row: Mapping[str, object], field: str, kind: str) -> Epoch | None:
    mjd, flux = _number(row.get("midpointMjdTai")), _number(row.get(field))
    if not (math.isfinite(mjd) and math.isfinite(flux)):
        return None
    error = math.nan if kind == "limit" else _number(row.get("psfFluxErr"))
    return Epoch(mjd, flux, error, str(row.get("band") or ""), kind)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


@dataclass(frozen=True, slots=True)
class _Frame:
    """What part of the plane is drawn: first and last time, least and greatest flux."""

    left: float
    right: float
    low: float
    high: float

    @classmethod
    def round(cls, epochs: Sequence[Epoch]) -> _Frame:
        times = [e.mjd for e in epochs]
        spread = [0.0 if math.isnan(e.error) else e.error for e in epochs]
        low = min(0.0, *(e.flux - s for e, s in zip(epochs, spread, strict=True)))
        high = max(0.0, *(e.flux + s for e, s in zip(epochs, spread, strict=True)))
        wide = max(max(times) - min(times), 1e-3)
        tall = (high - low) or 1.0
        middle = (max(times) + min(times)) / 2
        return cls(
            middle - 0.53 * wide, middle + 0.53 * wide, low - 0.06 * tall, high + 0.06 * tall
        )

    def x(self, mjd: float) -> float:
        """Share of the width."""
        return (mjd - self.left) / (self.right - self.left)

    def y(self, flux: float) -> float:
        """Share of the height, from the top."""
        return (self.high - flux) / (self.high - self.low)


def curve_as_svg(epochs: Sequence[Epoch], width: int = 320, height: int = 130) -> Markup:
    """Draw a light curve as inline SVG.

    Sources are filled, forced fluxes are hollow, upper limits point down, and the alert has a
    ring; the colour is the filter's.

    Parameters
    ----------
    epochs : sequence of Epoch
        The light curve.
    width, height : int, pixel
        Natural size; the page may scale it.

    Returns
    -------
    markupsafe.Markup
        An ``svg`` element; a sentence where there is nothing to draw.
    """
    if not epochs:
        return Markup('<p class="missing">no flux</p>')
    frame = _Frame.round(epochs)
    base, top = height - 16.0, 4.0

    def place(e: Epoch, flux: float) -> tuple[float, float]:
        return 4 + frame.x(e.mjd) * (width - 8), top + frame.y(flux) * (base - top)

    zero = top + frame.y(0.0) * (base - top)
    order = list(_SIGNS)
    parts = [
        f'<path d="M0 {zero:.1f}H{width}" stroke="#9aa4ae" stroke-dasharray="3 3"/>',
        *(
            _mark(e, *place(e, e.flux), _bar(e, place))
            for e in sorted(epochs, key=lambda e: order.index(e.kind))
        ),
        _words(epochs, width, height),
    ]
    bands = " ".join(dict.fromkeys(one_line(e.band) for e in epochs))
    title = Markup("<title>light curve: {} epochs in {}</title>").format(len(epochs), bands)
    head = f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" fill="none">'
    return Markup(head) + title + Markup("").join(Markup(p) for p in parts) + Markup("</svg>")


def _bar(e: Epoch, place: Callable[[Epoch, float], tuple[float, float]]) -> str:
    if math.isnan(e.error):
        return ""
    (x, y0), (_, y1) = place(e, e.flux - e.error), place(e, e.flux + e.error)
    return f"M{x:.1f} {y0:.1f}V{y1:.1f}"


def _mark(e: Epoch, x: float, y: float, bar: str) -> str:
    ink = _INKS.get(e.band, _OTHER)
    if e.kind == "limit":
        return f'<path d="M{x - 3:.1f} {y:.1f}h6l-3 5z" stroke="{ink}" opacity=".5"/>'
    error = f'<path d="{bar}" stroke="{ink}"/>' if bar else ""
    fill = "#fff" if e.kind == "forced" else ink
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{fill}" stroke="{ink}"/>'
    ring = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" stroke="{ink}"/>' if e.kind == "alert" else ""
    )
    return error + dot + ring


def _words(epochs: Sequence[Epoch], width: int, height: int) -> str:
    top = max(e.flux for e in epochs)
    first, last = min(e.mjd for e in epochs), max(e.mjd for e in epochs)
    words = [
        (2, 11, "start", f"{top:.4g} nJy"),
        (2, height - 3, "start", f"MJD {first:.2f}"),
        (width - 2, height - 3, "end", f"{last:.2f}" if last > first else ""),
    ]
    return "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="10" fill="#5a6470">{text}</text>'
        for x, y, anchor, text in words
        if text
    )


def curve_as_text(epochs: Sequence[Epoch], width: int, height: int) -> list[str]:
    """Draw a light curve in characters.

    ``@`` is the alert, ``o`` a source, ``.`` a forced flux, ``v`` an upper limit, ``-`` zero.

    Parameters
    ----------
    epochs : sequence of Epoch
        The light curve.
    width, height : int
        Columns and lines; the last two lines give the range of flux and time.

    Returns
    -------
    list of str
        ``height`` lines of ``width`` columns.
    """
    if not epochs or height < 3:
        return [" " * width] * height
    frame, lines = _Frame.round(epochs), height - 2
    grid = [[" "] * width for _ in range(lines)]
    grid[_cell(frame.y(0.0), lines)] = ["-"] * width
    for kind, sign in _SIGNS.items():
        for e in epochs:
            if e.kind == kind:
                grid[_cell(frame.y(e.flux), lines)][_cell(frame.x(e.mjd), width)] = sign
    low, high = min(e.flux for e in epochs), max(e.flux for e in epochs)
    first, last = min(e.mjd for e in epochs), max(e.mjd for e in epochs)
    words = [f"{low:.3g} … {high:.3g} nJy", f"MJD {first:.1f} … {last:.1f}"]
    return ["".join(row) for row in grid] + [w[:width].ljust(width) for w in words]


def _cell(share: float, number: int) -> int:
    return min(max(int(share * number), 0), number - 1)
