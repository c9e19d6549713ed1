"""Products, truth and tables of one unit for the metrics, read once and on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.wcs import WCS

from harness.campaign.frames import load_frames
from harness.plan import Frame
from harness.settings import Settings
from harness.workspace import Workspace
from pipeline import io
from pipeline.camera import Camera, Detector
from pipeline.exposure import Difference, Exposure, RawFrame
from pipeline.schema import to_numpy

__all__ = ["Artefacts", "TemplateRecord", "View", "remember"]

_T = TypeVar("_T")

_Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """What the catalogue says of a difference and its template.

    Attributes
    ----------
    file : str
        Relative to the workspace; empty where there is none.
    inputs : tuple of (int, int, float)
        Visit, detector and weight of each input.
    difference : tuple of str
        SHA-256 of the difference's file, and what its cards STAGEVER, SOFTVER and RUNID contain.
    """

    file: str = ""
    inputs: tuple[tuple[int, int, float], ...] = ()
    difference: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Artefacts:
    """The true artefacts of one raw frame.

    Attributes
    ----------
    bits : ndarray, (ny, nx), unsigned integers
        Trimmed pixels, one bit per kind of artefact.
    planes : mapping of str to int
        Bit number by name, upper case.
    """

    bits: npt.NDArray[Any]
    planes: Mapping[str, int]

    def has(self, *names: str) -> npt.NDArray[np.bool_]:
        """Return a boolean image, true where any of the artefacts lies.

        Raises
        ------
        KeyError
            If the map knows no such artefact: a misspelt one would find nothing to complain of.
        """
        value = sum(1 << self.planes[n] for n in names)
        return np.asarray((self.bits & self.bits.dtype.type(value)) != 0)


def remember(view: Any, name: str, make: Callable[[], _T]) -> _T:
    """Compute something once per view and share it between metrics.

    Parameters
    ----------
    view : View
        The unit; the answer is kept with it.
    name : str
        Name of the answer.
    make : callable
        Computes it.

    Returns
    -------
    object
        The answer.
    """
    memory = vars(view).setdefault("memory", {})
    if name not in memory:
        memory[name] = make()
    found: _T = memory[name]
    return found


@lru_cache(maxsize=1)
def _read_template(path: Path, _modified: int) -> Exposure:
    """Read a template once for units that follow one another and have the same."""
    return io.read_exposure(path)


class View:
    """One unit of a campaign.

    Parameters
    ----------
    root : path-like
        The workspace.
    visit, detector : int
        The unit.
    template : TemplateRecord
        What the catalogue says of the template of the difference.
    """

    def __init__(self, root: Path, visit: int, detector: int, template: TemplateRecord) -> None:
        self.space = Workspace(root)
        self.visit, self.number = visit, detector
        self._record = template

    @property
    def template_inputs(self) -> tuple[tuple[int, int, float], ...]:
        """Visit, detector and weight of every input of the template."""
        return self._record.inputs

    @property
    def recorded(self) -> tuple[str, ...]:
        """What the catalogue says of the difference, see `TemplateRecord`."""
        return self._record.difference

    @cached_property
    def excluded_bits(self) -> int:
        """Mask bits that exclude a pixel of the difference from detection: its card DETBAD."""
        path = self.space.difference(self.visit, self.number)
        return int(fits.getval(path, "DETBAD"))

    @cached_property
    def settings(self) -> Settings:
        """The campaign's own configuration."""
        return Settings.load(self.space.config)

    @cached_property
    def camera(self) -> Camera:
        """The camera as the pipeline knows it."""
        return Camera.load(self.space.camera(self.settings.campaign.camera))

    @property
    def detector(self) -> Detector:
        """The detector as the pipeline knows it."""
        return self.camera.detector(self.number)

    @cached_property
    def visit_image(self) -> Exposure:
        """The visit image."""
        return io.read_exposure(self.space.visit_image(self.visit, self.number))

    @cached_property
    def difference(self) -> Difference:
        """The difference with kernel, score and null variance."""
        return io.read_difference(self.space.difference(self.visit, self.number))

    @cached_property
    def template(self) -> Exposure:
        """The template on its own patch of the sky."""
        path = self.space.root / self._record.file
        return _read_template(path, path.stat().st_mtime_ns)

    @cached_property
    def warped(self) -> Exposure:
        """The template on the pixels of the visit."""
        from pipeline import template

        science = self.visit_image
        assert science.wcs is not None
        return template.warp(self.template, science.wcs, science.shape, self.settings.template)

    def plane(self, product: str, name: str = "IMAGE") -> tuple[npt.NDArray[Any], WCS | None]:
        """One plane of ``visit_image``, ``difference`` or ``template`` with its coordinates.

        Of a product that was read already nothing is read again.
        """
        paths = {
            "visit_image": self.space.visit_image(self.visit, self.number),
            "difference": self.space.difference(self.visit, self.number),
            "template": self.space.root / self._record.file,
        }
        whole = vars(self).get(product)
        exposure = getattr(whole, "exposure", whole)
        if exposure is not None and (pixels := getattr(exposure, name.lower(), None)) is not None:
            return pixels, exposure.wcs
        return remember(self, f"{product}/{name}", lambda: io.read_plane(paths[product], name))

    @cached_property
    def frame(self) -> Frame:
        """The frame as the campaign planned it, with its files."""
        frames, _ = load_frames(self.space, self.camera)
        return next(f for f in frames if f.unit == (self.visit, self.number))

    @cached_property
    def raw(self) -> RawFrame:
        """The raw frame."""
        return io.read_raw(self.frame.path, self.camera, self.number)

    @cached_property
    def artefacts(self) -> Artefacts:
        """The true artefacts of the raw frame."""
        folder = self.space.root / "truth" / "artefacts"
        with fits.open(folder / f"{self.visit}_{self.number:02d}.fits") as hdus:
            hdu = next(h for h in hdus if h.data is not None)
            cards = {**hdus[0].header, **hdu.header}
            data = np.ascontiguousarray(hdu.data).astype(np.uint32)
        planes = {k[3:].upper(): int(v) for k, v in cards.items() if k.startswith("MP_")}
        return Artefacts(data, planes)

    @cached_property
    def truth(self) -> _Columns:
        """True position and flux of every source in this frame: truth/visits with its object."""
        folder = self.space.root / "truth"
        wanted = [("visit", "=", self.visit), ("detector", "=", self.number)]
        here = pq.read_table(folder / "visits.parquet", filters=wanted)
        names = ["truthId", "kind", "gFlux", "rFlux"]
        objects = pq.read_table(folder / "objects.parquet", columns=names)
        joined = here.join(objects, "truthId") if "kind" not in here.column_names else here
        return {n: joined.column(n).to_numpy(zero_copy_only=False) for n in joined.column_names}

    @cached_property
    def sources(self) -> _Columns:
        """The sources of this difference as they were measured."""
        return self._staged("DiaSource")

    @cached_property
    def forced(self) -> _Columns:
        """The forced sources on this difference as they were measured."""
        return self._staged("DiaForcedSource")

    def _staged(self, table: str) -> _Columns:
        rows = pq.read_table(self.space.staging(table, self.visit, self.number))
        return {n: to_numpy(rows, n) for n in rows.column_names}

    @cached_property
    def refcat(self) -> _Columns:
        """The reference catalogue."""
        table = pq.read_table(self.space.refcat)
        return {n: table.column(n).to_numpy(zero_copy_only=False) for n in table.column_names}
