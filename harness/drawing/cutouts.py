"""Cut-outs of alerts for people: north up, east left, on a page or in a terminal."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from harness.drawing.images import (
    Panel,
    difference_panel,
    light_panel,
    noise_of,
    panel_colours,
    pixels_as_png,
)
from harness.system.text import one_line

__all__ = ["STAMPS", "Stamp", "north_up", "read_stamps", "stamp_as_png", "stamps_as_text"]

STAMPS = {
    "science": "cutoutScience",
    "template": "cutoutTemplate",
    "difference": "cutoutDifference",
}
"""The three images of an alert, and the fields that hold them."""

_Pixels = npt.NDArray[np.float64]
_HOLE = (204, 121, 167)
_LIGHT, _MORE, _LESS = " .:-=+*#%@", " .+*#@", " ,~oO8"
_RESET = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Stamp:
    """One image of an alert.

    Attributes
    ----------
    name : str
        ``science``, ``template`` or ``difference``.
    pixels : ndarray, (n, n)
        North up, east left, the first row at the bottom; NaN where nothing is known.
    noise : float
        Standard deviation of the difference, in the unit of the pixels.
    note : str
        What is wrong with it, empty if nothing is.
    """

    name: str
    pixels: _Pixels
    noise: float
    note: str = ""

    @property
    def panel(self) -> Panel:
        """How it is drawn: light in grey, a difference about zero."""
        if self.name == "difference":
            return difference_panel(self.name, self.pixels, noise=self.noise)
        return light_panel(self.name, self.pixels, noise=self.noise)


def read_stamps(packet: Mapping[str, object]) -> list[Stamp]:
    """Read the images of an alert that it has.

    Parameters
    ----------
    packet : mapping
        An alert in the layout of LSST.

    Returns
    -------
    list of Stamp
        Science, template and difference; one that cannot be read is a hole with a note.
    """
    found = {name: _read(data) for name, field in STAMPS.items() if (data := packet.get(field))}
    pixels, _ = found.get("difference", (None, ""))
    noise = None if pixels is None else noise_of(pixels)
    return [
        Stamp(name, image, noise_of(image) if noise is None else noise, note)
        for name, (image, note) in found.items()
    ]


def _read(data: object) -> tuple[_Pixels, str]:
    """Pixels of a FITS file with north up, and what is wrong with them."""
    hole = np.full((1, 1), np.nan)
    if not isinstance(data, bytes):
        return hole, "is no FITS file"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files of any origin; what matters is said in the note
        try:
            with fits.open(io.BytesIO(data)) as hdus:
                hdu = next(h for h in hdus if h.data is not None)
                pixels, header = np.array(hdu.data, float), hdu.header
            if pixels.ndim != 2:
                return hole, f"has {pixels.ndim} dimensions"
        except Exception as err:  # whatever a damaged file makes of the reader
            return hole, f"cannot be read: {one_line(err) or type(err).__name__}"
        try:
            matrix = WCS(header, naxis=2).celestial.pixel_scale_matrix
            return north_up(pixels, matrix), ""
        except Exception:  # no coordinates, or none that span a plane
            return pixels, "orientation unknown"


def north_up(pixels: npt.NDArray[np.floating], matrix: npt.ArrayLike) -> _Pixels:
    """Turn an image so that north is up and east is left; every pixel keeps its value.

    Parameters
    ----------
    pixels : ndarray, (ny, nx)
        The image, its first row at the bottom.
    matrix : array-like, (2, 2), deg per pixel
        East and north by column and row.

    Returns
    -------
    ndarray, (n, n)
        The nearest pixel of each place, n the greater side; NaN beyond the image.

    Raises
    ------
    ValueError
        If the matrix spans no plane.
    """
    cd = np.asarray(matrix, float)
    determinant = abs(np.linalg.det(cd))
    if not (np.isfinite(determinant) and determinant > 0):
        raise ValueError("the coordinates span no plane")
    side = max(pixels.shape)
    offset = np.sqrt(determinant) * (np.arange(side) - (side - 1) / 2)
    north, west = np.meshgrid(offset, offset, indexing="ij")
    steps = np.einsum("ij,jkl->ikl", np.linalg.inv(cd), np.stack([-west, north]))
    # A little less than half: where places lie between pixels all round the same way.
    x, y = (
        np.rint(s + (n - 1) / 2 - 1e-3).astype(int)
        for s, n in zip(steps, pixels.shape[::-1], strict=True)
    )
    inside = (x >= 0) & (x < pixels.shape[1]) & (y >= 0) & (y < pixels.shape[0])
    turned = np.full((side, side), np.nan)
    turned[inside] = pixels[y[inside], x[inside]]
    return turned


def stamp_as_png(stamp: Stamp, scale: int = 2) -> bytes:
    """Write the pixels of a stamp as PNG, NaN hatched.

    Parameters
    ----------
    stamp : Stamp
        The image.
    scale : int
        Side of a pixel on the page.

    Returns
    -------
    bytes
        The file.
    """
    return pixels_as_png(stamp.panel, scale)


def stamps_as_text(stamps: Sequence[Stamp], side: int, *, colour: bool) -> list[str]:
    """Draw the middle of stamps side by side for a terminal.

    In colour every character holds two pixels, one above the other, and NaN is pink; without,
    light runs from blank to ``@``, a difference to ``@`` above and to ``8`` below zero, and NaN
    is ``/``.

    Parameters
    ----------
    stamps : sequence of Stamp
        From the left.
    side : int, pixel
        Width and height of what is shown.
    colour : bool
        Whether the terminal has colours (24 bits).

    Returns
    -------
    list of str
        Lines from the top; each fills ``len(stamps) * (side + 1) - 1`` columns.
    """
    draw = _coloured if colour else _plain
    drawn = [draw(_middle(stamp, side)) for stamp in stamps]
    return [" ".join(row) for row in zip(*drawn, strict=True)]


def _middle(stamp: Stamp, side: int) -> Panel:
    """Cut out the innermost pixels, from the top, with an even number of rows."""
    panel = stamp.panel
    rows = side + side % 2
    cut = np.full((rows, side), np.nan)
    ny, nx = panel.pixels.shape
    y, x = (ny - rows) // 2, (nx - side) // 2
    source = panel.pixels[max(y, 0) : y + rows, max(x, 0) : x + side]
    y, x = max(-y, 0), max(-x, 0)
    cut[y : y + source.shape[0], x : x + source.shape[1]] = source
    return Panel(panel.title, cut[::-1], panel.norm, panel.cmap)


def _coloured(panel: Panel) -> list[str]:
    colours = panel_colours(panel)[..., :3]
    colours[~np.isfinite(panel.pixels)] = _HOLE
    lines = []
    for upper, lower in zip(colours[::2], colours[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀"
            for a, b in zip(upper.tolist(), lower.tolist(), strict=True)
        )
        lines.append("".join(cells) + _RESET)
    return lines


def _plain(panel: Panel) -> list[str]:
    shown = np.asarray(panel.norm(np.where(np.isfinite(panel.pixels), panel.pixels, 0.0)), float)
    shown[~np.isfinite(panel.pixels)] = np.nan
    pairs = shown.reshape(-1, 2, shown.shape[1])
    known = np.isfinite(pairs).sum(axis=1)
    mean = np.where(np.isfinite(pairs), pairs, 0.0).sum(axis=1) / np.maximum(known, 1)
    signed = panel.title == "difference"
    return [
        "".join(
            _character(v, signed=signed) if n else "/" for v, n in zip(row, counts, strict=True)
        )
        for row, counts in zip(mean.tolist(), known.tolist(), strict=True)
    ]


def _character(value: float, *, signed: bool) -> str:
    """Character of a value of 0 … 1; of a difference the middle is zero."""
    ramp, share = _LIGHT, value
    if signed:
        ramp, share = (_MORE if value >= 0.5 else _LESS), abs(2 * value - 1)
    return ramp[min(int(share * len(ramp)), len(ramp) - 1)]
