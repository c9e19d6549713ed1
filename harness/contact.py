"""Contact sheets: what a person looks at to judge a unit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.alertfiles import stretched
from harness.catalog import Catalog
from harness.settings import Settings
from harness.workspace import Workspace, atomic
from pipeline import io, template
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["contact_sheet"]

_Planes = dict[str, npt.NDArray[np.floating[Any]]]

_HALF = 15
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
    figure = _figure(_planes(space, visit, detector, rows[0]["templateId"]), sources, stamps)
    figure.suptitle(f"visit {visit}  detector {detector}  {len(sources)} detections", fontsize=10)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
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


def _figure(planes: _Planes, sources: list[dict[str, Any]], stamps: int) -> Figure:
    from matplotlib.figure import Figure

    shown = sources[:stamps]
    per_row = 6
    bands = -(-len(shown) // per_row)
    figure = Figure(figsize=(12, 4.2 + 1.1 * bands), layout="constrained")
    upper, lower = _halves(figure, [4.2, max(1.1 * bands, 0.1)])
    for axes, (title, pixels) in zip(upper.subplots(1, 4), planes.items(), strict=True):
        _draw_plane(axes, title, pixels, sources)
    if shown:
        grid = lower.subplots(bands, per_row, squeeze=False)
        for k, axes in enumerate(grid.ravel()):
            axes.set_axis_off()
            if k < len(shown):
                _draw_stamps(axes, planes, shown[k])
    return figure


def _halves(figure: Figure, heights: list[float]) -> tuple[Any, Any]:
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=heights), dtype=object)
    return upper, lower


def _draw_plane(
    axes: Axes, title: str, pixels: npt.NDArray[Any], sources: list[dict[str, Any]]
) -> None:
    step = max(1, max(pixels.shape) // 1024)
    ny, nx = pixels.shape
    grey = stretched(np.asarray(pixels[::step, ::step], float))
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, origin="lower", extent=(0, nx, 0, ny))
    for alerted, marker in ((True, "o"), (False, "x")):
        places = [(s["x"], s["y"]) for s in sources if bool(s["alerted"]) is alerted]
        if places and title in ("difference", "score"):
            x, y = zip(*places, strict=True)
            axes.plot(x, y, marker, color="white", mfc="none", ms=5, mew=0.7)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=6)


def _draw_stamps(axes: Axes, planes: _Planes, source: dict[str, Any]) -> None:
    row = [_stamp(planes[name], source) for name in ("science", "template", "difference")]
    axes.imshow(np.hstack(row), cmap="gray", vmin=0, vmax=1, origin="lower")
    reliability = source["reliability"]
    words = "" if reliability is None else f"  R {reliability:.2f}"
    axes.set_title(f"SNR {source['snr']:.0f}{words}", fontsize=6)


def _stamp(pixels: npt.NDArray[Any], source: dict[str, Any]) -> npt.NDArray[np.float64]:
    x, y = round(source["x"]), round(source["y"])
    side = 2 * _HALF + 1
    stamp = np.full((side, side), np.nan)
    y0, x0 = max(y - _HALF, 0), max(x - _HALF, 0)
    part = pixels[y0 : y + _HALF + 1, x0 : x + _HALF + 1]
    oy, ox = y0 - (y - _HALF), x0 - (x - _HALF)
    stamp[oy : oy + part.shape[0], ox : ox + part.shape[1]] = part
    return stretched(stamp)
