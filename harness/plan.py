"""What is to be done: frames, their roles, and the templates of the science units.

Simulated visits come with a role and a field; a template then consists of the template visits of
the same field, band and detector.  Ingested visits have neither: frames belong together where they
overlap on the sky, whatever their detector, the deepest visits become template inputs, and
where there are too few visits to set any aside every unit gets a template made of all others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from harness.settings import Campaign
from harness.system.dates import periods

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
    "plan_templates",
    "reference_frames",
]

_Indices = npt.NDArray[np.int64]
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
    exptime : float, s
        Exposure time; NaN if it is not known.
    kind : str
        ``raw``, ``instcal`` or ``generic``: which reader applies.
    path : Path
        The file.
    corners : tuple of float, deg
        RA and Dec of the four corners in turn; empty where not needed.
    sha256 : str
        Of the file when it was simulated or ingested; empty if it is not known.
    reason : str
        Why the exposure was taken; empty if it is not known.
    bias, flat : Path, optional
        Calibration frames of a raw frame, whether they are there or not.
    problem : str
        Why it cannot be used, as it was found when it was ingested; empty if it can.
    """

    visit: int
    detector: int
    band: str
    field_name: str
    role: str
    mjd: float
    kind: str
    path: Path
    exptime: float = math.nan
    corners: tuple[float, ...] = ()
    sha256: str = ""
    reason: str = ""
    bias: Path | None = None
    flat: Path | None = None
    problem: str = ""

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
        Frames that go in, deepest or earliest first.
    serves : tuple of Unit
        Science units that are subtracted from it.
    """

    name: str
    band: str
    inputs: tuple[Unit, ...]
    serves: tuple[Unit, ...] = field(default=())


def assign_roles(
    frames: Sequence[Frame], campaign: Campaign, noise: Mapping[Unit, float]
) -> list[Frame]:
    """Give the frames without a role one: the deepest visits of a field are template inputs.

    Parameters
    ----------
    frames : sequence of Frame
        All frames of the campaign that have a visit image.
    campaign : Campaign
        Numbers of inputs and the overlap that is asked for.
    noise : mapping of Unit to float
        Noise of a point source in the visit images, by which depth and seeing both count; infinite
        for those not on the common flux scale.

    Returns
    -------
    list of Frame
        The same frames.  Where setting visits aside would leave fewer than as many again, all of
        them are science frames, and each gets a template made of the others.
    """
    roles: dict[Unit, str] = {}
    for group in group_by_overlap([f for f in frames if f.role == OPEN], campaign.overlap):
        ranked = _deepest(group, noise)
        chosen = _template_visits(ranked, _allowed(ranked, campaign), campaign.template_inputs)
        roles |= {f.unit: TEMPLATE if f.visit in chosen else SCIENCE for f in group}
    return [replace(f, role=roles.get(f.unit, f.role)) for f in frames]


def plan_templates(
    frames: Sequence[Frame], campaign: Campaign, noise: Mapping[Unit, float]
) -> list[TemplatePlan]:
    """Choose the template of every science unit.

    Parameters
    ----------
    frames : sequence of Frame
        With roles.  Those with corners are matched on the sky, those without by field, band
        and detector.
    campaign : Campaign
        Numbers of inputs and the overlap that is asked for.
    noise : mapping of Unit to float
        Noise of a point source in the visit images, by which depth and seeing both count; infinite
        for those not on the common flux scale.

    Returns
    -------
    list of TemplatePlan
        In the order of the science visits.  A science unit without any input is in none.
    """
    plans = _from_roles([f for f in frames if not f.corners], campaign)
    on_sky = [f for f in frames if f.corners]
    for group in group_by_overlap(on_sky, campaign.overlap):
        plans += _from_overlap(_deepest(group, noise), campaign, noise)
    return plans


def _from_roles(frames: Sequence[Frame], campaign: Campaign) -> list[TemplatePlan]:
    def key(frame: Frame) -> tuple[str, str, int]:
        return frame.field_name, frame.band, frame.detector

    inputs = _collect(_allowed((f for f in frames if f.role == TEMPLATE), campaign), key)
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
    ranked: Sequence[Frame], campaign: Campaign, noise: Mapping[Unit, float]
) -> list[TemplatePlan]:
    pool = _allowed([f for f in ranked if f.role == TEMPLATE] or ranked, campaign)
    science = _in_time(f for f in ranked if f.role == SCIENCE)
    shared: dict[tuple[Unit, ...], list[Frame]] = defaultdict(list)
    for frame, near in zip(science, _near(science, pool, campaign.overlap), strict=True):
        inputs = [f for f in near if f.visit != frame.visit]
        usable = [f for f in inputs if np.isfinite(noise.get(f.unit, np.inf))]
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


def _deepest(frames: Sequence[Frame], noise: Mapping[Unit, float]) -> list[Frame]:
    return sorted(frames, key=lambda f: (noise.get(f.unit, np.inf), f.mjd, f.unit))


def _template_visits(
    ranked: Sequence[Frame], allowed: Sequence[Frame], wanted: int
) -> frozenset[int]:
    """Deepest visits to set aside; none where fewer than as many again would remain."""
    visits = list(dict.fromkeys(f.visit for f in allowed))
    enough = len({f.visit for f in ranked}) >= 2 * wanted and len(visits) >= wanted
    return frozenset(visits[:wanted]) if enough else frozenset()


def _allowed(frames: Iterable[Frame], campaign: Campaign) -> list[Frame]:
    """Frames that are not kept out of templates by their dates."""
    out = periods(campaign.template_without)
    return [f for f in frames if not any(first <= f.mjd <= last for first, last in out)]


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
    ordered = _in_time(frames)
    labels = _groups_of(tuple(f.band for f in ordered), tuple(f.corners for f in ordered), least)
    groups: dict[int, list[Frame]] = defaultdict(list)
    for frame, label in zip(ordered, labels, strict=True):
        groups[label].append(frame)
    return list(groups.values())


@lru_cache(maxsize=4)  # a campaign asks several times for the same frames
def _groups_of(
    bands: tuple[str, ...], corners: tuple[tuple[float, ...], ...], least: float
) -> tuple[int, ...]:
    """First frame of the group of each frame."""
    from harness.footprints import connected  # large: who only reads needs it not

    places: dict[str, list[int]] = defaultdict(list)
    for i, (band, sky) in enumerate(zip(bands, corners, strict=True)):
        if len(sky) == 8 and all(map(math.isfinite, sky)):
            places[band].append(i)
    groups = np.arange(len(bands))
    for where in places.values():
        groups[where] = np.array(where)[connected(np.array([corners[i] for i in where]), least)]
    return tuple(groups.tolist())


def _near(frames: Sequence[Frame], others: Sequence[Frame], least: float) -> list[list[Frame]]:
    """Those of other frames that share sky with each frame, in their order."""
    near: list[list[Frame]] = [[] for _ in frames]
    if frames and others and len({f.unit for f in (*frames, *others)}) > 1:
        from harness.footprints import shared_sky

        pairs, _ = shared_sky(_corners(frames), _corners(others), least)
        for i, j in pairs.tolist():
            near[i].append(others[j])
    return near


def _corners(frames: Sequence[Frame]) -> npt.NDArray[np.float64]:
    return np.array([f.corners for f in frames], float)


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
        the middle of the field's visits of which no frame is unfit, nor exposed for less than half
        as long as the longest.
    """
    pairs: dict[Unit, Unit] = {}
    bad = {visit for visit, _ in unfit}
    for group in group_by_overlap(frames, least):
        first = _reference_visit(group, bad)
        anchors = sorted((f for f in group if f.visit == first), key=lambda f: f.detector)
        rest = [f for f in group if f.visit != first]
        for frame, best in zip(rest, _most_overlapping(rest, anchors), strict=True):
            pairs[frame.unit] = anchors[best].unit
    return pairs


def _reference_visit(group: Sequence[Frame], bad: Collection[int]) -> int:
    """Visit to align the others to; of frames in the order of time."""
    exposed = {f.visit: f.exptime for f in group}
    visits = list(exposed)
    longest = max((t for t in exposed.values() if t > 0), default=0.0)
    middle = len(visits) // 2
    outward = sorted(range(len(visits)), key=lambda i: (abs(i - middle), i))
    fit = [visits[i] for i in outward if visits[i] not in bad]
    return next((v for v in fit if not exposed[v] < 0.5 * longest), (fit or [visits[middle]])[0])


def _most_overlapping(frames: Sequence[Frame], anchors: Sequence[Frame]) -> _Indices:
    """Place of the anchor that shares most sky with each frame; the first of equal ones."""
    best = np.zeros(len(frames), np.int64)
    if frames and len(anchors) > 1:
        from harness.footprints import shared_sky

        pairs, shares = shared_sky(_corners(anchors), _corners(frames), np.finfo(float).tiny)
        order = np.lexsort((-pairs[:, 0], shares))  # the greatest share, the first anchor last
        best[pairs[order, 1]] = pairs[order, 0]
    return best


def _in_time(frames: Iterable[Frame]) -> list[Frame]:
    return sorted(frames, key=lambda f: (f.mjd, f.unit))


def _collect(frames: Iterable[Frame], key: Callable[[Frame], _Key]) -> dict[_Key, list[Frame]]:
    groups: dict[_Key, list[Frame]] = defaultdict(list)
    for frame in _in_time(frames):
        groups[key(frame)].append(frame)
    return groups


def _word(text: str) -> str:
    """Make a field name fit for a file name."""
    return "".join(c if c.isalnum() or c in "-+._" else "-" for c in text.strip()) or "field"
