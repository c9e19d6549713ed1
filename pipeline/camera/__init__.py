"""Cameras: geometry, electronics, crosstalk, linearity and defects, read from TOML and CSV.

One loader serves every camera.  `Camera.load` takes the name of a bundled definition or the path
of a TOML file that follows `decam.toml`; tables stand beside it or, if short, in it.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.camera.passbands import Band, ColourTerm, Passbands, parse_passbands
from pipeline.camera.plain import completed
from pipeline.errors import ConfigError
from pipeline.exposure import FloatArray
from pipeline.ids import LARGEST_DETECTOR

__all__ = [
    "Amplifier",
    "Band",
    "Box",
    "Camera",
    "ColourTerm",
    "Crosstalk",
    "Detector",
    "FocalPlane",
    "Passbands",
    "Section",
]

_HERE = Path(__file__).parent
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Section:
    """A rectangle of pixels, half-open and 0-based.

    Attributes
    ----------
    x0, x1, y0, y1 : int, pixel
        Columns ``x0 ... x1 - 1`` and rows ``y0 ... y1 - 1``.
    """

    x0: int
    x1: int
    y0: int
    y1: int

    @classmethod
    def parse(cls, text: str) -> Section:
        """Read a FITS section such as ``[1:1024,1:4096]`` (1-based, inclusive)."""
        match = re.fullmatch(r"\s*\[(\d+):(\d+),(\d+):(\d+)\]\s*", text)
        if match is None:
            raise ConfigError("not a section", key=text, expected="[x1:x2,y1:y2]")
        xa, xb, ya, yb = (int(g) for g in match.groups())
        return cls(min(xa, xb) - 1, max(xa, xb), min(ya, yb) - 1, max(ya, yb))

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of an array ``[y, x]``."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def fits(self) -> str:
        """The same as a FITS section."""
        return f"[{self.x0 + 1}:{self.x1},{self.y0 + 1}:{self.y1}]"


@dataclass(frozen=True, slots=True)
class Box:
    """A defect: a rectangle of trimmed pixels, lower left corner and size."""

    x0: int
    y0: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Crosstalk:
    """One source amplifier of one victim amplifier.

    The victim receives ``coefficient * s`` below the onset and
    ``coefficient * onset + Σ_k p_k (s - onset)^k`` above it, s in overscan-subtracted ADU of the
    source pixel that is read at the same moment.
    """

    victim: int
    victim_amp: str
    source: int
    source_amp: str
    coefficient: float
    coefficient_err: float
    onset: float
    p1: float
    p2: float
    p3: float


@dataclass(frozen=True, slots=True, eq=False)
class Amplifier:
    """One readout channel.

    Attributes
    ----------
    name : str
        Its name within the detector.
    data, overscan : Section
        Where its pixels and its serial overscan stand in the raw frame.
    trimmed : Section
        Where its pixels go in the trimmed image.
    at_top, at_right : bool
        Whether the amplifier sits at the upper and at the right edge of its data: the row and the
        column it reads first.
    gain : float, electron / ADU
        Conversion.
    read_noise : float, electron
        Read noise.
    saturation : float, ADU
        Level on overscan-subtracted counts above which a pixel is saturated.
    linearity_nodes, linearity : ndarray, (n,), ADU
        Counts and the correction to add at those counts; zero beyond the calibrated range.
    """

    name: str
    data: Section
    overscan: Section
    trimmed: Section
    at_top: bool
    at_right: bool
    gain: float
    read_noise: float
    saturation: float
    linearity_nodes: FloatArray
    linearity: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """One CCD.

    Attributes
    ----------
    number : int
        CCDNUM.
    name : str
        Position in the focal plane, such as ``S4``.
    layout : str
        Name of the section layout.
    status : str
        ``good``, ``half`` or ``dead``.
    x_mm, y_mm, yaw_deg : float, mm, deg
        Centre and rotation in the focal plane.
    raw_shape, shape : tuple of int, (ny, nx)
        Size of the raw frame and of the trimmed image.
    amplifiers : tuple of Amplifier
        The readout channels.
    crosstalk : tuple of Crosstalk
        Entries of which this detector is the victim.
    defects : tuple of Box
        Listed defects in trimmed pixels.
    bias_step_row : int
        Row, counted from the start of the readout, at which the bias level steps; 0 for none.
    """

    number: int
    name: str
    layout: str
    status: str
    x_mm: float
    y_mm: float
    yaw_deg: float
    raw_shape: tuple[int, int]
    shape: tuple[int, int]
    amplifiers: tuple[Amplifier, ...]
    crosstalk: tuple[Crosstalk, ...]
    defects: tuple[Box, ...]
    bias_step_row: int

    def amplifier(self, name: str) -> Amplifier:
        """Return the amplifier of that name."""
        for amp in self.amplifiers:
            if amp.name == name:
                return amp
        raise KeyError(f"detector {self.number} has no amplifier {name!r}")

    @property
    def partners(self) -> tuple[int, ...]:
        """Other detectors whose signal leaks into this one."""
        return tuple(sorted({c.source for c in self.crosstalk} - {self.number}))

    def replace(self, **changes: Any) -> Detector:
        """Return a copy with some attributes exchanged, for perturbed calibrations."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class FocalPlane:
    """How the focal plane looks at the sky.

    Attributes
    ----------
    radial : tuple of float
        r1, r3 of ``angle [rad] = r1 r + r3 r³`` with r in mm.
    north, east : tuple of float
        Unit vectors of north and east in the focal plane's x and y.
    """

    radial: tuple[float, float]
    north: tuple[float, float]
    east: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """All detectors of a camera and the keywords of its files.

    Attributes
    ----------
    name : str
        Its name.
    pixel_scale : float, arcsec / pixel
        Mean scale.
    pixel_size : float, mm
        Pitch.
    psf_fwhm_min : float, arcsec
        A width below that of any star: what is sharper is a cosmic ray.
    keywords : mapping
        Header keyword of each item of `pipeline.exposure.VisitInfo`; empty where there is none.
    focal_plane : FocalPlane
        Geometry.
    detectors : mapping of int to Detector
        By CCD number.
    skipped_detectors : tuple of int
        CCDs in the files that are not science products.
    passbands : Passbands
        Throughput, dark sky, refraction and colour terms.  A definition without them has those of
        the bundled camera of its name, else those of ``generic``.
    cards : mapping of str to str or float
        Constant cards of its raw files, which simulations write.
    simulated : bool
        Whether it exists only in simulations.
    plain : bool
        Whether its images come reduced, one per extension, with coordinates in their headers.
    mask_bits : str
        Of plain images, which bits of masks count, see `pipeline.io.quality.decode`.
    extension : str
        Of plain images, the extension to take; empty for all.
    filters : mapping of str to str
        Of plain images, the band of each name of a filter that is not a usual one.
    """

    name: str
    pixel_scale: float
    pixel_size: float
    psf_fwhm_min: float
    keywords: Mapping[str, str]
    focal_plane: FocalPlane
    detectors: Mapping[int, Detector]
    skipped_detectors: tuple[int, ...]
    passbands: Passbands
    cards: Mapping[str, str | float] = field(default_factory=dict)
    simulated: bool = False
    plain: bool = False
    mask_bits: str = ""
    extension: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str | Path) -> Camera:
        """Read a camera definition.

        Parameters
        ----------
        name : str or path-like
            One of `Camera.names` or the path of a TOML file.

        Raises
        ------
        ConfigError
            If there is no such camera or its file is wrong.
        """
        path = Path(name)
        if path.suffix != ".toml":
            path = _HERE / f"{name}.toml"
        if not path.is_file():
            known = ", ".join(cls.names())
            raise ConfigError(f"unknown camera {name!r}", expected=f"{known} or a TOML file")
        return _load(path.resolve())

    @staticmethod
    def names() -> list[str]:
        """Return the names of the bundled cameras."""
        return sorted(p.stem for p in _HERE.glob("*.toml"))

    def detector(self, number: int) -> Detector:
        """Return one detector.

        Raises
        ------
        ConfigError
            If the camera has no such detector.
        """
        try:
            return self.detectors[number]
        except KeyError:
            raise ConfigError(
                f"camera {self.name} has no detector {number}",
                expected=f"one of {min(self.detectors)} to {max(self.detectors)}",
            ) from None


@lru_cache(maxsize=16)
def _load(path: Path) -> Camera:
    try:
        spec = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"is not TOML: {err}", path=path) from err
    if spec.get("images") == "plain":
        spec = completed(spec, path)
    elif "files" not in spec:
        raise ConfigError(
            "missing", path=path, key="files",
            hint='images = "plain" if the images come reduced, with coordinates',
        )  # fmt: skip
    tables = {kind: _rows(path.parent, given) for kind, given in spec["files"].items()}
    try:
        camera = _camera(spec, tables, _passbands(spec, path))
    except KeyError as err:
        raise ConfigError("incomplete camera definition", path=path, key=str(err)) from err
    for number in camera.detectors:
        if not 0 <= number <= LARGEST_DETECTOR:
            raise ConfigError(
                f"detector {number} does not fit the identifiers of sources",
                path=path,
                key="detectors",
                expected=f"detector numbers 0 to {LARGEST_DETECTOR}",
            )
    return camera


def _passbands(spec: dict[str, Any], path: Path) -> Passbands:
    if "bands" in spec:
        return parse_passbands(spec, path)
    own = _HERE / f"{spec['name']}.toml"
    return _load(own if own.is_file() and own != path else _HERE / "generic.toml").passbands


def _camera(
    spec: dict[str, Any], tables: dict[str, list[dict[str, str]]], passbands: Passbands
) -> Camera:
    electronics = {(int(r["detector"]), r["amp"]): r for r in tables.get("amplifiers", [])}
    linearity = {(int(r["detector"]), r["amp"]): r for r in tables.get("linearity", [])}
    crosstalk = _group(_crosstalk(tables.get("crosstalk", [])))
    defects = _group(_defects(tables.get("defects", [])))
    detectors = {}
    for row in tables.get("detectors", []):
        number = int(row["detector"])
        amps = tuple(
            _amplifier(a, electronics[number, a["name"]], linearity.get((number, a["name"])))
            for a in spec["layouts"][row["layout"]]["amplifiers"]
        )
        detectors[number] = Detector(
            number=number,
            name=row["name"],
            layout=row["layout"],
            status=row["status"],
            x_mm=float(row["x_mm"]),
            y_mm=float(row["y_mm"]),
            yaw_deg=float(row["yaw_deg"]),
            raw_shape=_pair(spec["raw_shape"]),
            shape=_pair(spec["shape"]),
            amplifiers=amps,
            crosstalk=tuple(crosstalk.get(number, ())),
            defects=tuple(defects.get(number, ())),
            bias_step_row=spec["bias_step_row"],
        )
    plane = spec["focal_plane"]
    return Camera(
        name=spec["name"],
        pixel_scale=spec["pixel_scale"],
        pixel_size=spec["pixel_size"],
        psf_fwhm_min=spec["psf_fwhm_min"],
        keywords=spec["keywords"],
        focal_plane=FocalPlane(
            _floats(plane["radial"]), _floats(plane["north"]), _floats(plane["east"])
        ),
        detectors=detectors,
        skipped_detectors=tuple(spec["skipped_detectors"]),
        passbands=passbands,
        cards=spec.get("cards", {}),
        simulated=spec.get("simulated", False),
        plain=spec.get("images") == "plain",
        mask_bits=spec.get("mask_bits", ""),
        extension=spec.get("extension", ""),
        filters=spec.get("filters", {}),
    )


def _amplifier(
    layout: dict[str, str], numbers: dict[str, str], linearity: dict[str, str] | None
) -> Amplifier:
    nodes = [k for k in linearity if k.isdigit()] if linearity else []
    return Amplifier(
        name=layout["name"],
        data=Section.parse(layout["data"]),
        overscan=Section.parse(layout["overscan"]),
        trimmed=Section.parse(layout["trimmed"]),
        at_top="upper" in layout["corner"],
        at_right="right" in layout["corner"],
        gain=float(numbers["gain"]),
        read_noise=float(numbers["read_noise"]),
        saturation=float(numbers["saturation"]),
        linearity_nodes=np.array([float(k) for k in nodes]),
        linearity=np.array([float((linearity or {})[k]) for k in nodes]),
    )


def _crosstalk(rows: list[dict[str, str]]) -> Iterator[tuple[int, Crosstalk]]:
    for r in rows:
        yield (
            int(r["victim"]),
            Crosstalk(
                int(r["victim"]),
                r["victim_amp"],
                int(r["source"]),
                r["source_amp"],
                *(
                    float(r[k])
                    for k in ("coefficient", "coefficient_err", "onset", "p1", "p2", "p3")
                ),
            ),
        )


def _defects(rows: list[dict[str, str]]) -> Iterator[tuple[int, Box]]:
    for r in rows:
        yield int(r["detector"]), Box(*(int(r[k]) for k in ("x0", "y0", "width", "height")))


def _group(pairs: Iterator[tuple[int, _T]]) -> dict[int, list[_T]]:
    groups: dict[int, list[_T]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def _rows(folder: Path, given: str | list[dict[str, object]]) -> list[dict[str, str]]:
    """Rows of a table: in a CSV file of that name, or in the definition itself."""
    if not isinstance(given, str):
        return [{key: str(value) for key, value in row.items()} for row in given]
    path = folder / given
    if not path.is_file():
        raise ConfigError("table of a camera definition is missing", path=path)
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def _pair(values: list[int]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _floats(values: list[float]) -> tuple[float, float]:
    return float(values[0]), float(values[1])
