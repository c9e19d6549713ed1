"""Contact sheets: what a person looks at to judge a unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.nddata import extract_array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.catalog import Catalog
from harness.drawing.images import (
    DIFFERENCE,
    Panel,
    add_scale,
    binned,
    difference_panel,
    light_panel,
    noise_of,
    show,
)
from harness.drawing.style import as_png, drawing_style
from harness.settings import Settings
from harness.workspace import Workspace, atomic, translate_os_errors
from pipeline import io, template
from pipeline.errors import ConfigError

__all__ = ["contact_sheet", "draw_unit"]

_Planes = dict[str, npt.NDArray[np.floating[Any]]]
_Source = Mapping[str, Any]

_HALF = 15
_PER_ROW = 6
_SOURCES = """SELECT s.diaSourceId, s.x, s.y, s.snr, s.reliability,
  coalesce(a.emitted, false) AS alerted
FROM DiaSource s LEFT JOIN alert a USING (diaSourceId)
WHERE s.visit = ? AND s.detector = ? AND NOT coalesce(s.isSubThreshold, false)
ORDER BY s.snr DESC"""


def contact_sheet(
    space: Workspace, visit: int, detector: int, path: Path, *, stamps: int = 12
) -> int:
    """Draw a unit.

    Parameters
    ----------
    space : Workspace
        The campaign's folder.
    visit, detector : int
        The unit.
    path : Path
        PNG file to write.
    stamps : int
        How many of the brightest detections to show enlarged.

    Returns
    -------
    int
        Number of detections.

    Raises
    ------
    ConfigError
        If the unit has no difference image.
    """
    with Catalog(space.catalog, read_only=True) as catalog:
        rows = catalog.rows(
            "SELECT templateId FROM difference_image WHERE visit = ? AND detector = ?",
            (visit, detector),
        )
        sources = catalog.rows(_SOURCES, (visit, detector))
    if not rows:
        raise ConfigError(
            f"visit {visit} detector {detector} has no difference image", path=space.root,
            hint=f"nightjar explain {space.root} {visit} {detector}",
        )  # fmt: skip
    planes = _planes(space, visit, detector, rows[0]["templateId"])
    title = f"visit {visit}  detector {detector}  {len(sources)} detections"
    figure = draw_unit(planes, sources[:stamps], sources, title)
    with translate_os_errors(path), atomic(path) as partial:
        partial.write_bytes(as_png(figure, dpi=120))
    return len(sources)


def _planes(space: Workspace, visit: int, detector: int, name: str) -> _Planes:
    science = io.read_exposure(space.visit_image(visit, detector))
    difference = io.read_difference(space.difference(visit, detector))
    coadd = io.read_exposure(space.template(name))
    config = Settings.load(space.config).template
    warped = template.warp(coadd, science.wcs, science.shape, config)
    return {
        "science": science.image,
        "template": warped.image,
        "difference": difference.exposure.image,
        "score": difference.score,
    }


def draw_unit(
    planes: _Planes, enlarged: Sequence[_Source], sources: Sequence[_Source], title: str
) -> Figure:
    """Draw the planes of a unit with its detections, and below them some detections enlarged.

    Parameters
    ----------
    planes : mapping of ndarray, (ny, nx)
        ``science``, ``template`` and ``difference`` in one unit of flux, ``score`` in σ.
    enlarged, sources : sequence of mapping
        Detections with ``x``, ``y``, ``snr``, ``reliability`` and ``alerted``.
    title : str
        What stands above.

    Returns
    -------
    matplotlib.figure.Figure
        The page.
    """
    bands = -(-len(enlarged) // _PER_ROW)
    with drawing_style():
        figure = Figure(figsize=(13, 4.6 + 1.3 * bands), layout="constrained")
        figure.suptitle(title)
        heights = [4.6, max(1.3 * bands, 0.1)]
        upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=heights), dtype=object)
        noise = noise_of(planes["difference"])
        for axes, (name, pixels) in zip(upper.subplots(1, 4), planes.items(), strict=True):
            _draw_plane(axes, _panel(name, pixels, noise), sources)
        if bands:
            grid = lower.subplots(bands, _PER_ROW, squeeze=False)
            for axes in grid.ravel():
                axes.set_axis_off()
            for axes, source in zip(grid.ravel(), enlarged, strict=False):
                _draw_stamps(axes, planes, source, noise)
    return figure


def _panel(
    name: str, pixels: npt.NDArray[np.floating], noise: float, *, stamp: bool = False
) -> Panel:
    if name == "score":
        return difference_panel("score", pixels, noise=1.0)
    if name == "difference":
        return difference_panel("difference", pixels, noise=noise)
    return light_panel(name, pixels, noise=noise if stamp else None)


def _draw_plane(axes: Axes, panel: Panel, sources: Sequence[_Source]) -> None:
    ny, nx = panel.pixels.shape
    step = max(1, max(ny, nx) // 1024)
    shown = show(axes, replace(panel, pixels=binned(panel.pixels, step)), step=step)
    axes.set_xlabel("x / pixel")
    axes.tick_params(labelsize=7)
    if panel.cmap is not DIFFERENCE:
        return
    add_scale(axes.figure, shown, f"{panel.title} / σ", ax=axes)
    for alerted, marker in ((True, "o"), (False, "x")):
        places = [(s["x"], s["y"]) for s in sources if bool(s["alerted"]) is alerted]
        if places:
            x, y = zip(*places, strict=True)
            axes.plot(x, y, marker, color="black", mfc="none", ms=6, mew=0.8)


def _draw_stamps(axes: Axes, planes: _Planes, source: _Source, noise: float) -> None:
    side = 2 * _HALF + 1
    for k, name in enumerate(("science", "template", "difference")):
        panel = _panel(name, _stamp(planes[name], source), noise, stamp=True)
        show(axes, panel, corner=(k * side, 0))
    axes.set_xlim(-0.5, 3 * side - 0.5)
    reliability = source["reliability"]
    words = "" if reliability is None else f", reliability {reliability:.2f}"
    axes.set_title(f"SNR {source['snr']:.0f}{words}", fontsize=7)


def _stamp(pixels: npt.NDArray[np.floating], source: _Source) -> npt.NDArray[np.float64]:
    place = (source["y"], source["x"])
    shape = (2 * _HALF + 1, 2 * _HALF + 1)
    return np.asarray(
        extract_array(pixels.astype(float), shape, place, mode="partial", fill_value=np.nan)
    )
