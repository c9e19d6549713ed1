"""What is to be done: frames, their roles, and the templates of the science units.

Simulated visits come with a role and a field; a template then consists of the template visits of
the same field, band and detector.  Ingested visits have neither: frames belong together where they
overlap on the sky, whatever their detector, the sharpest visits become template inputs, and
where there are too few visits to set any aside every unit gets a template made of all others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from harness.settings import Campaign
from pipeline.exposure import FloatArray
from pipeline.sphere import project, radec, unit_vectors

__all__ = [
    "OPEN",
    "SCIENCE",
    "TEMPLATE",
    "Frame",
    "Selection",
    "TemplatePlan",
    "Unit",
    "assign_roles",
    "group_by_overlap",
    "overlap",
    "plan_templates",
    "reference_frames",
]

_Key = TypeVar("_Key")

Unit = tuple[int, int]
"""Visit and detector."""

TEMPLATE, SCIENCE, OPEN = "template", "science", "open"


@dataclass(frozen=True, slots=True)
class Frame:
    """One detector of one exposure, ready to be read.

    Attributes
    ----------
    visit, detector : int
        The unit.
    band, field_name : str
        Band, and the field by which simulated frames are grouped.
    role : str
        ``template``, ``science``, or ``open`` where the campaign must choose.
    mjd : float, d
        TAI midpoint.
    kind : str
        ``raw``, ``instcal`` or ``generic``: which reader applies.
    path : Path
        The file.
    corners : tuple of float, deg
        RA and Dec of the four corners in turn; empty where not needed.
    sha256 : str
        Of the file when it was simulated or ingested; empty if it is not known.
    """

    visit: int
    detector: int
    band: str
    field_name: str
    role: str
    mjd: float
    kind: str
    path: Path
    corners: tuple[float, ...] = ()
    sha256: str = ""

    @property
    def unit(self) -> Unit:
        """Visit and detector."""
        return self.visit, self.detector


@dataclass(frozen=True, slots=True)
class Selection:
    """Which units a command is about; empty sets and NaN select everything.

    Attributes
    ----------
    visits, detectors : frozenset of int
        Exposure and CCD numbers.
    since, until : float, d
        Range of the TAI midpoint.
    """

    visits: frozenset[int] = frozenset()
    detectors: frozenset[int] = frozenset()
    since: float = float("nan")
    until: float = float("nan")

    def keeps(self, frame: Frame) -> bool:
        """Whether a science frame is meant."""
        return (
            (not self.visits or frame.visit in self.visits)
            and (not self.detectors or frame.detector in self.detectors)
            and not frame.mjd < self.since
            and not frame.mjd > self.until
        )


@dataclass(frozen=True, slots=True)
class TemplatePlan:
    """One template and whom it serves.

    Attributes
    ----------
    name : str
        Its name, also of its file.
    band : str
        Band.
    inputs : tuple of Unit
        Frames that go in, sharpest or earliest first.
    serves : tuple of Unit
        Science units that are subtracted from it.
    """

    name: str
    band: str
    inputs: tuple[Unit, ...]
    serves: tuple[Unit, ...] = field(default=())


def assign_roles(
    frames: Sequence[Frame], campaign: Campaign, seeing: Mapping[Unit, float]
) -> list[Frame]:
    """Give the frames without a role one: the sharpest visits of a field are template inputs.

    Parameters
    ----------
    frames : sequence of Frame
        All frames of the campaign that have a visit image.
    campaign : Campaign
        Numbers of inputs and the overlap that is asked for.
    seeing : mapping of Unit to float, arcsec
        PSF width of the visit images; infinite for those not on the common flux scale.

    Returns
    -------
    list of Frame
        The same frames.  Where setting visits aside would leave fewer than as many again, all of
        them are science frames, and each gets a template made of the others.
    """
    roles: dict[Unit, str] = {}
    for group in group_by_overlap([f for f in frames if f.role == OPEN], campaign.overlap):
        chosen = _template_visits(_sharpest(group, seeing), campaign.template_inputs)
        roles |= {f.unit: TEMPLATE if f.visit in chosen else SCIENCE for f in group}
    return [replace(f, role=roles.get(f.unit, f.role)) for f in frames]


def plan_templates(
    frames: Sequence[Frame], campaign: Campaign, seeing: Mapping[Unit, float]
) -> list[TemplatePlan]:
    """Choose the template of every science unit.

    Parameters
    ----------
    frames : sequence of Frame
        With roles.  Those with corners are matched on the sky, those without by field, band
        and detector.
    campaign : Campaign
        Numbers of inputs and the overlap that is asked for.
    seeing : mapping of Unit to float, arcsec
        PSF width of the visit images; infinite for those not on the common flux scale.

    Returns
    -------
    list of TemplatePlan
        In the order of the science visits.  A science unit without any input is in none.
    """
    plans = _from_roles([f for f in frames if not f.corners])
    for group in group_by_overlap([f for f in frames if f.corners], campaign.overlap):
        plans += _from_overlap(group, campaign, seeing)
    return plans


def _from_roles(frames: Sequence[Frame]) -> list[TemplatePlan]:
    def key(frame: Frame) -> tuple[str, str, int]:
        return frame.field_name, frame.band, frame.detector

    inputs = _collect((f for f in frames if f.role == TEMPLATE), key)
    science_frames = _collect((f for f in frames if f.role == SCIENCE), key)
    return [
        TemplatePlan(
            name=f"{_word(name)}_{band}_{detector:02d}",
            band=band,
            inputs=tuple(f.unit for f in inputs[name, band, detector]),
            serves=tuple(f.unit for f in members),
        )
        for (name, band, detector), members in science_frames.items()
        if (name, band, detector) in inputs
    ]


def _from_overlap(
    group: Sequence[Frame], campaign: Campaign, seeing: Mapping[Unit, float]
) -> list[TemplatePlan]:
    ranked = _sharpest(group, seeing)
    pool = [f for f in ranked if f.role == TEMPLATE] or ranked
    science = sorted((f for f in group if f.role == SCIENCE), key=lambda f: (f.mjd, f.unit))
    shared: dict[tuple[Unit, ...], list[Frame]] = defaultdict(list)
    for frame in science:
        inputs = [
            f for f in pool if f.visit != frame.visit and _overlaps(f, frame, campaign.overlap)
        ]
        usable = [f for f in inputs if np.isfinite(seeing.get(f.unit, np.inf))]
        inputs = usable or inputs[:1]  # never a mean of images on different flux scales
        shared[tuple(f.unit for f in inputs[: campaign.template_inputs_max])].append(frame)
    return [
        TemplatePlan(
            name=f"{_word(members[0].field_name)}_{members[0].band}_"
            f"{members[0].detector:02d}_for_{members[0].visit}",
            band=members[0].band,
            inputs=inputs,
            serves=tuple(f.unit for f in members),
        )
        for inputs, members in shared.items()
        if inputs
    ]


def _sharpest(frames: Sequence[Frame], seeing: Mapping[Unit, float]) -> list[Frame]:
    return sorted(frames, key=lambda f: (seeing.get(f.unit, np.inf), f.mjd, f.unit))


def _template_visits(ranked: Sequence[Frame], wanted: int) -> frozenset[int]:
    """Sharpest visits to set aside; none where fewer than as many again would remain."""
    visits = list(dict.fromkeys(f.visit for f in ranked))
    return frozenset(visits[:wanted]) if len(visits) >= 2 * wanted else frozenset()


def _overlaps(a: Frame, b: Frame, least: float) -> bool:
    return overlap(a.corners, b.corners) >= least


def group_by_overlap(frames: Sequence[Frame], least: float) -> list[list[Frame]]:
    """Divide frames into fields: same band and connected by overlap on the sky.

    Parameters
    ----------
    frames : sequence of Frame
        With corners.
    least : float
        Shared fraction of the smaller one that makes two frames neighbours.

    Returns
    -------
    list of list of Frame
        One list per field.
    """
    groups: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda f: (f.mjd, f.unit)):
        near = [g for g in groups if any(_same_field(frame, other, least) for other in g)]
        merged = [f for g in near for f in g] + [frame]
        groups = [g for g in groups if g not in near] + [merged]
    return groups


def _same_field(a: Frame, b: Frame, least: float) -> bool:
    return a.band == b.band and _overlaps(a, b, least)


def reference_frames(
    frames: Sequence[Frame], least: float, unfit: Collection[Unit] = ()
) -> dict[Unit, Unit]:
    """Pair every frame without a reference catalogue with the frame it is aligned to.

    Parameters
    ----------
    frames : sequence of Frame
        With corners.
    least : float
        Overlap that makes two frames neighbours.
    unfit : collection of Unit
        Frames that failed and cannot be a reference.

    Returns
    -------
    dict of Unit to Unit
        Frames that are their own reference are not in it.  The reference is the visit nearest to
        the middle of the field's visits of which no frame is unfit.
    """
    pairs: dict[Unit, Unit] = {}
    bad = {visit for visit, _ in unfit}
    for group in group_by_overlap(frames, least):
        visits = sorted({f.visit for f in group}, key=lambda v: _time_of(group, v))
        middle = len(visits) // 2
        outward = sorted(range(len(visits)), key=lambda i: (abs(i - middle), i))
        first = next((visits[i] for i in outward if visits[i] not in bad), visits[middle])
        anchors = [f for f in group if f.visit == first]
        for frame in group:
            if frame.visit == first:
                continue
            best = max(anchors, key=lambda f: (overlap(f.corners, frame.corners), -f.detector))
            pairs[frame.unit] = best.unit
    return pairs


def _time_of(group: Sequence[Frame], visit: int) -> float:
    return min(f.mjd for f in group if f.visit == visit)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Shared area of two frames in units of the smaller one.

    Parameters
    ----------
    a, b : sequence of float, (8,), deg
        RA and Dec of four corners in turn, in either sense.

    Returns
    -------
    float
        0 to 1; measured on the plane tangent at the centre of the first.
    """
    if len(a) != 8 or len(b) != 8:
        return 0.0
    ra, dec = np.asarray([*a, *b], float).reshape(-1, 2).T
    centre = radec(unit_vectors(ra[:4], dec[:4]).mean(axis=0))
    plane = project(ra, dec, centre)
    if not np.isfinite(plane).all():
        return 0.0
    first, second = plane[:4], plane[4:]
    smaller = min(abs(_area(first)), abs(_area(second)))
    shared = _clip(first, second if _area(second) > 0 else second[::-1])
    return abs(_area(shared)) / smaller if smaller > 0 and len(shared) > 2 else 0.0


def _area(polygon: FloatArray) -> float:
    x, y = polygon.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def _clip(polygon: FloatArray, window: FloatArray) -> FloatArray:
    """Clip a polygon by a convex, counter-clockwise one (Sutherland & Hodgman 1974)."""
    points = list(polygon)
    for start, end in zip(window, np.roll(window, -1, axis=0), strict=True):
        edge = end - start
        kept: list[FloatArray] = []
        for p, q in zip(points, points[1:] + points[:1], strict=True):
            side_p = edge[0] * (p[1] - start[1]) - edge[1] * (p[0] - start[0])
            side_q = edge[0] * (q[1] - start[1]) - edge[1] * (q[0] - start[0])
            if side_p >= 0:
                kept.append(p)
            if (side_p >= 0) != (side_q >= 0):
                kept.append(p + (q - p) * side_p / (side_p - side_q))
        points = kept
        if not points:
            break
    return np.array(points).reshape(-1, 2)


def _collect(frames: Iterable[Frame], key: Callable[[Frame], _Key]) -> dict[_Key, list[Frame]]:
    groups: dict[_Key, list[Frame]] = defaultdict(list)
    for frame in sorted(frames, key=lambda f: (f.mjd, f.unit)):
        groups[key(frame)].append(frame)
    return groups


def _word(text: str) -> str:
    """Make a field name fit for a file name."""
    return "".join(c if c.isalnum() or c in "-+._" else "-" for c in text.strip()) or "field"
