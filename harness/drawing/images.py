"""Images for people: grey for light, a diverging scale about zero for differences, NaN hatched."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.visualization import AsinhStretch, ImageNormalize, ZScaleInterval
from matplotlib import image as files
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, Colormap, LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure, FigureBase
from matplotlib.image import AxesImage

from harness.drawing.style import drawing_style
from pipeline.statistics import mad_std

__all__ = [
    "DIFFERENCE", "GREY", "Panel", "add_scale", "binned", "difference_panel", "draw_panels",
    "light_norm", "light_panel", "noise_of", "panel_colours", "pixels_as_png", "show",
    "significance_norm", "smooth_panel",
]  # fmt: skip

Pixels = npt.NDArray[Any]

GREY = LinearSegmentedColormap.from_list("grey", ["#000000", "#ffffff"])
"""For light."""
DIFFERENCE = LinearSegmentedColormap.from_list(
    "difference", ["#061a45", "#2c68b0", "#999999", "#e8a33d", "#fff5cc"]
)
"""Blue below zero, grey at zero, orange above; ever lighter, so that it keeps its sign in grey."""

_MASKED = to_rgba("#cc79a7", 0.55)
_LIMIT = 50.0  # σ at the ends of a difference
_TICKS = (-50, -10, -3, 0, 3, 10, 50)
_NAN_HATCH = "////"


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of a sheet.

    Attributes
    ----------
    title : str
        What it shows.
    pixels : ndarray, (ny, nx)
        NaN is hatched.
    norm : Normalize
        Maps pixels to 0 … 1.
    cmap : Colormap
        `GREY` or `DIFFERENCE`.
    masked : ndarray of bool, (ny, nx), optional
        Pixels to be tinted.
    """

    title: str
    pixels: Pixels
    norm: Normalize
    cmap: Colormap
    masked: npt.NDArray[np.bool_] | None = None


def binned(image: Pixels, factor: int) -> npt.NDArray[np.float64]:
    """Mean over squares of pixels, NaN only where all of them are.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Pixels.
    factor : int, pixel
        Side of the squares; a rest at the far edges is left out.

    Returns
    -------
    ndarray, (ny // factor, nx // factor)
        Means.
    """
    ny, nx = (n // factor * factor for n in image.shape)
    blocks = image[:ny, :nx].astype(np.float32).reshape(ny // factor, factor, nx // factor, factor)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0.0).sum(axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def noise_of(image: Pixels) -> float:
    """Robust standard deviation of the finite pixels; one where it is zero or there are none.

    Parameters
    ----------
    image : ndarray, any shape
        Pixels.

    Returns
    -------
    float, image unit
        Standard deviation.
    """
    known = image[np.isfinite(image)]
    return (mad_std(known) if known.size else 0.0) or 1.0


def light_norm(image: Pixels, *, noise: float | None = None) -> Normalize:
    """Stretch of light, clipped at both ends.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        What is to be shown.
    noise : float, optional
        Noise in its unit: the scale then reaches from 3 σ below to 100 σ above the median, for
        small images of sources; otherwise it is that of `astropy.visualization.ZScaleInterval`,
        widened upwards for the stretch.

    Returns
    -------
    matplotlib.colors.Normalize
        From pixel value to grey.
    """
    known = image[np.isfinite(image)]
    if not known.size:
        return Normalize(0.0, 1.0, clip=True)
    if noise is not None:
        middle = float(np.median(known))
        low, high, softening = middle - 3 * noise, middle + 100 * noise, 0.04
    else:
        low, high = ZScaleInterval().get_limits(known)
        high, softening = high + 4 * (high - low), 0.1
    if not high > low:
        high = low + 1.0
    norm: Normalize
    norm = ImageNormalize(vmin=low, vmax=high, stretch=AsinhStretch(softening), clip=True)
    return norm


def significance_norm() -> Normalize:
    """Stretch of a difference in units of its noise: zero in the middle, linear within 3 σ.

    Returns
    -------
    matplotlib.colors.Normalize
        From pixel value over noise to colour.
    """
    return AsinhNorm(linear_width=3.0, vmin=-_LIMIT, vmax=_LIMIT, clip=True)


def light_panel(
    title: str,
    pixels: Pixels,
    *,
    noise: float | None = None,
    masked: npt.NDArray[np.bool_] | None = None,
) -> Panel:
    """Make a panel in grey; see `light_norm`.

    Parameters
    ----------
    title : str
        What stands above.
    pixels : ndarray, (ny, nx)
        The image.
    noise : float, optional
        As in `light_norm`.
    masked : ndarray of bool, (ny, nx), optional
        Pixels to mark.

    Returns
    -------
    Panel
        To be drawn by `draw_panels`.
    """
    return Panel(title, pixels, light_norm(pixels, noise=noise), GREY, masked)


def smooth_panel(title: str, pixels: Pixels) -> Panel:
    """Make a panel of a smooth image from its least to its greatest value, which the title gives.

    The scale is never narrower than a hundredth of the middle: what is flat looks flat.

    Parameters
    ----------
    title : str
        What stands above, before the range.
    pixels : ndarray, (ny, nx)
        The image.

    Returns
    -------
    Panel
        To be drawn by `draw_panels`.
    """
    known = pixels[np.isfinite(pixels)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    room = max(0.0, 0.005 * abs(high + low) / 2 - (high - low) / 2) or (0.5 if high == low else 0.0)
    norm = Normalize(low - room, high + room, clip=True)
    return Panel(f"{title}, {low:.5g} to {high:.5g}", pixels, norm, GREY)


def difference_panel(
    title: str,
    pixels: Pixels,
    *,
    noise: float | None = None,
    masked: npt.NDArray[np.bool_] | None = None,
) -> Panel:
    """Make a panel of a difference over its noise, by default that of the pixels themselves.

    Parameters
    ----------
    title : str
        What stands above.
    pixels : ndarray, (ny, nx)
        The difference.
    noise : float, optional
        Its standard deviation, in its unit.
    masked : ndarray of bool, (ny, nx), optional
        Pixels to mark.

    Returns
    -------
    Panel
        To be drawn by `draw_panels`.
    """
    scaled = pixels / (noise or noise_of(pixels))
    return Panel(title, scaled, significance_norm(), DIFFERENCE, masked)


def show(
    axes: Axes, panel: Panel, *, corner: tuple[float, float] = (0, 0), step: int = 1
) -> AxesImage:
    """Draw a panel.

    Parameters
    ----------
    axes : Axes
        Where.
    panel : Panel
        What.
    corner : tuple of float, pixel
        Column and row of its first pixel.
    step : int
        Pixels of the image in one of the panel.

    Returns
    -------
    AxesImage
        The image, for a colour bar.
    """
    ny, nx = panel.pixels.shape
    x, y = (c - 0.5 for c in corner)
    extent = (x, x + step * nx, y, y + step * ny)
    place: dict[str, Any]
    place = {"origin": "lower", "interpolation": "nearest", "extent": extent}
    axes.patch.set(facecolor="white", hatch=_NAN_HATCH, edgecolor="0.45")
    known, norm = np.ma.masked_invalid(panel.pixels), panel.norm
    if isinstance(norm, ImageNormalize):  # it takes no masked array
        known, norm = np.ma.masked_array(norm(known.filled(0.0)), known.mask), Normalize(0.0, 1.0)
    shown = axes.imshow(known, cmap=panel.cmap, norm=norm, **place)
    if panel.masked is not None:
        axes.imshow(np.where(panel.masked[..., None], _MASKED, 0.0), **place)
    axes.set_title(panel.title)
    return shown


def draw_panels(
    panels: Sequence[Panel],
    *,
    width: float = 10.0,
    corner: tuple[float, float] = (0, 0),
    step: int = 1,
) -> Figure:
    """Draw panels of one shape side by side, with a colour bar where there is a difference.

    Parameters
    ----------
    panels : sequence of Panel
        From the left.
    width : float, inch
        Width of the figure.
    corner, step
        As in `show`.

    Returns
    -------
    Figure
    """
    scaled = panels[-1].cmap is DIFFERENCE
    sizes, boxes = _places(panels[0].pixels.shape, len(panels), width, scaled)
    with drawing_style():
        figure = Figure(figsize=sizes)
        row: list[Axes] = []
        for panel, box in zip(panels, boxes, strict=False):
            row.append(figure.add_axes(box))
            if len(row) > 1:
                row[-1].sharex(row[0])
                row[-1].sharey(row[0])
            shown = show(row[-1], panel, corner=corner, step=step)
            row[-1].set_xlabel("x / pixel")
            row[-1].tick_params(labelleft=len(row) == 1)
        row[0].set_ylabel("y / pixel")
        row[0].locator_params(nbins=3)
        if scaled:
            add_scale(figure, shown, cax=figure.add_axes(boxes[-1]))
    return figure


_Box = tuple[float, float, float, float]


def _places(
    shape: tuple[int, ...], number: int, width: float, scaled: bool
) -> tuple[tuple[float, float], list[_Box]]:
    """Size of a figure in inches, and places of its panels and of a colour bar in parts of it.

    A layout engine would draw everything twice to find the same.
    """
    left, right, bottom, top, gap = 0.7, 0.9 if scaled else 0.1, 0.5, 0.3, 0.25
    side = (width - left - right - gap * (number - 1)) / number
    tall = side * shape[0] / shape[1]
    height = tall + bottom + top
    corners = [left + k * (side + gap) for k in range(number)]
    boxes = [(x / width, bottom / height, side / width, tall / height) for x in corners]
    bar = ((width - right + 0.1) / width, bottom / height, 0.12 / width, tall / height)
    return (width, height), [*boxes, bar]


def add_scale(
    figure: FigureBase,
    shown: AxesImage,
    label: str = "difference / σ",
    *,
    ax: Axes | None = None,
    cax: Axes | None = None,
) -> None:
    """Draw the colour bar of a difference.

    Parameters
    ----------
    figure : FigureBase
        Holds it.
    shown : AxesImage
        The difference, from `show`.
    label : str
        What it scales.
    ax, cax : Axes, optional
        What to take room from, or what to fill.
    """
    bar = figure.colorbar(shown, ticks=_TICKS, label=label, ax=ax, cax=cax)
    bar.ax.minorticks_off()
    bar.ax.set_yticklabels([f"{t:+d}".replace("-", "−") if t else "0" for t in _TICKS])


def panel_colours(panel: Panel) -> npt.NDArray[np.uint8]:
    """Return the colour of every pixel of a panel; what stands for NaN is of no meaning.

    Parameters
    ----------
    panel : Panel
        What is shown.

    Returns
    -------
    ndarray of uint8, (ny, nx, 4)
        Red, green, blue, opacity.
    """
    known = np.where(np.isfinite(panel.pixels), panel.pixels, 0.0)
    return np.asarray(panel.cmap(panel.norm(known), bytes=True))


def pixels_as_png(panel: Panel, scale: int) -> bytes:
    """Write the bare pixels of a panel, each as a square; NaN hatched.

    Parameters
    ----------
    panel : Panel
        What is shown.
    scale : int
        Side of a square.

    Returns
    -------
    bytes
        The file.
    """
    bad, colours = ~np.isfinite(panel.pixels), panel_colours(panel)
    large = np.repeat(np.repeat(colours, scale, axis=0), scale, axis=1)
    diagonal = np.add.outer(np.arange(large.shape[0]), np.arange(large.shape[1]))
    hatch = np.where(diagonal[..., None] % 6 < 2, [115, 115, 115, 255], 255)
    holes = np.repeat(np.repeat(bad, scale, axis=0), scale, axis=1)
    large[holes] = hatch[holes]
    buffer = io.BytesIO()
    nothing: dict[str, Any] = {"Software": None}
    files.imsave(buffer, large[::-1], format="png", metadata=nothing)
    return buffer.getvalue()
