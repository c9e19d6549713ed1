"""Slices of a simulated campaign: some CCDs of one field, with the visits that they need."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

import sims
from pipeline.errors import ConfigError

__all__ = ["Slice", "plan_slices"]

_Item = TypeVar("_Item", int, str)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a campaign that can be processed by itself.

    CCDs of one visit share no pixels, and those of a template none with another's, so that nothing
    but the objects that drift over the border of a CCD knows of the rest.

    Attributes
    ----------
    field : str
        Name of the field.
    detectors : tuple of int
        CCD numbers.
    visits : tuple of int
        Exposure numbers, templates among them.
    """

    field: str
    detectors: tuple[int, ...]
    visits: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.field}_{self.detectors[0]:02d}-{self.detectors[-1]:02d}"

    @property
    def units(self) -> frozenset[tuple[int, int]]:
        """Visit and detector of every frame that it promises."""
        return frozenset((v, d) for v in self.visits for d in self.detectors)


def plan_slices(
    profile: str,
    *,
    size: int,
    fields: Collection[str] = (),
    visits: int | None = None,
    detectors: Collection[int] = (),
) -> list[Slice]:
    """Divide a simulated campaign.

    Parameters
    ----------
    profile : str
        One of `sims.profiles`.
    size : int
        CCDs in a slice, at most.
    fields : collection of str
        Fields wanted; all by default.
    visits : int, optional
        Science visits of each field, the first in time; all by default.
    detectors : collection of int
        CCDs wanted; all of the profile by default.

    Returns
    -------
    list of Slice
        Field by field.

    Raises
    ------
    ConfigError
        If there is no such profile, field or CCD.
    """
    known = sims.profiles()
    if profile not in known:
        raise ConfigError(f"unknown profile {profile!r}", expected=", ".join(known))
    chosen = known[profile]
    all_fields = list(dict.fromkeys(visit.field for visit in chosen.visits))
    wanted = _subset("field", all_fields, fields)
    numbers = _subset("detector", list(chosen.detectors), detectors)
    groups = [tuple(numbers[i : i + size]) for i in range(0, len(numbers), size)]
    return [
        Slice(field, group, _visits(chosen, field, visits)) for field in wanted for group in groups
    ]


def _visits(profile: sims.Profile, field: str, most: int | None) -> tuple[int, ...]:
    """Template visits of a field and its first science visits, in the order of time."""
    science = [v for v in profile.visits if v.field == field and v.role == "science"][:most]
    return tuple(
        v.number
        for v in profile.visits
        if v.field == field and (v.role == "template" or v in science)
    )


def _subset(what: str, known: list[_Item], wanted: Collection[_Item]) -> list[_Item]:
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise ConfigError(
            f"the profile has no {what} {missing[0]}", expected=", ".join(map(str, known))
        )
    return [item for item in known if not wanted or item in wanted]
