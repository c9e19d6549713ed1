"""Contact sheets: one raw frame and its artefact map, for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from astropy.visualization import AsinhStretch, ImageNormalize

from pipeline.camera import Camera, Detector
from pipeline.exposure import FloatArray
from pipeline.io import atomic_path, read_raw
from sims.artefacts import ARTEFACTS, Map, bit
from sims.profiles import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["contact_sheet"]

_COLOURS = {
    "DEFECT": "0.75",
    "UNLISTED": "tab:brown",
    "CR": "tab:red",
    "SATURATED": "black",
    "BLEED": "tab:purple",
    "CROSSTALK": "tab:green",
    "SATELLITE": "tab:orange",
    "EDGEBLEED": "tab:pink",
}
_ZOOM = 160  # pixels


def contact_sheet(root: Path, profile: Profile, visit: int, detector: int, path: Path) -> None:
    """Draw a raw frame, its artefact map and a few details.

    Parameters
    ----------
    root : path-like
        A simulated workspace.
    profile : Profile
        What was simulated.
    visit, detector : int
        The frame.
    path : path-like
        The PNG to write.
    """
    from matplotlib.figure import Figure

    camera = Camera.load(profile.camera)
    raw = read_raw(Path(root) / "raw" / f"{visit}.fits.fz", camera, detector)
    artefacts = _artefacts(Path(root), visit, detector)
    figure = Figure(figsize=(10.0, 8.4), dpi=90, layout="constrained")
    grid = figure.add_gridspec(3, 3, width_ratios=[1.5, 1.5, 1.0])
    frame = np.asarray(raw.data, float)
    flat = _levelled(frame, camera.detector(detector))
    _show(figure.add_subplot(grid[:, 0]), flat, f"raw frame {visit}, detector {detector}")
    _show_map(figure, figure.add_subplot(grid[:, 1]), artefacts)
    trimmed = _trimmed(flat, camera.detector(detector))
    for k, (name, place) in enumerate(_details(artefacts)):
        x, y = place
        half = _ZOOM // 2
        box = slice(max(0, y - half), y + half), slice(max(0, x - half), x + half)
        _show(figure.add_subplot(grid[k, 2]), trimmed[box], name)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def _artefacts(root: Path, visit: int, detector: int) -> Map:
    from astropy.io import fits

    with fits.open(root / "truth" / "artefacts" / f"{visit}_{detector:02d}.fits") as hdus:
        return np.asarray(hdus[1].data, np.uint32)


def _levelled(frame: FloatArray, detector: Detector) -> FloatArray:
    """Subtract the median pedestal of each channel, so that one grey scale serves all."""
    from sims.electronics import regions

    out = frame.copy()
    for amp, region in zip(detector.amplifiers, regions(detector), strict=True):
        out[region.slices] -= np.median(frame[amp.overscan.slices])
    return out


def _trimmed(frame: FloatArray, detector: Detector) -> FloatArray:
    out = np.empty(detector.shape)
    for amp in detector.amplifiers:
        out[amp.trimmed.slices] = frame[amp.data.slices]
    return out


def _show(axes: Axes, image: npt.NDArray[np.number], title: str) -> None:
    low, high = np.percentile(image, [40, 99.3])
    low -= 0.15 * (high - low)
    step = max(1, max(image.shape) // 900)
    small = image[: len(image) // step * step, : image.shape[1] // step * step]
    small = small.reshape(len(small) // step, step, -1, step).mean(axis=(1, 3))
    top = low + 1.5 * (high - low)
    norm = ImageNormalize(vmin=low, vmax=top, stretch=AsinhStretch(1 / 6), clip=True)
    axes.imshow(small, origin="lower", cmap="gray", norm=norm)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _show_map(figure: Figure, axes: Axes, artefacts: Map) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    step = max(1, max(artefacts.shape) // 900)
    ny, nx = (n // step * step for n in artefacts.shape)
    blocks = artefacts[:ny, :nx].reshape(ny // step, step, nx // step, step)
    seen = np.bitwise_or.reduce(np.bitwise_or.reduce(blocks, axis=3), axis=1)
    picture = np.ones((*seen.shape, 3))
    for name, colour in _COLOURS.items():
        picture[(seen & bit(name)) != 0] = to_rgb(colour)
    axes.imshow(picture, origin="lower")
    axes.set_title("artefact map", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    patches = [
        Patch(color=c, label=f"{n}: {int(((artefacts & bit(n)) != 0).sum())} px")
        for n, c in _COLOURS.items()
        if n in ARTEFACTS
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8)


def _details(artefacts: Map) -> list[tuple[str, tuple[int, int]]]:
    """Places worth a closer look: where each kind of artefact covers most of a box."""
    from scipy.ndimage import uniform_filter

    found = []
    for name in ("SATURATED", "CR", "SATELLITE", "CROSSTALK", "UNLISTED"):
        hits = ((artefacts & bit(name)) != 0).astype(np.float32)
        if hits.any():
            dense = uniform_filter(hits, 33)
            half = _ZOOM // 2
            inner = dense[half:-half, half:-half]
            y, x = np.add(np.unravel_index(int(np.argmax(inner)), inner.shape), half)
            found.append((name.lower(), (int(x), int(y))))
    return found[:3]
