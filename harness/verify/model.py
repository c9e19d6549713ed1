"""Requirement → Item → Check: the test specification as typed values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from harness.verify.bounds import Bound
from harness.verify.conditions import CONDITIONS
from harness.verify.kind import Kind
from harness.verify.kinds import load_kinds

if TYPE_CHECKING:
    from harness.verify.context import Context

__all__ = [
    "Case",
    "Check",
    "Item",
    "Requirement",
    "RequirementFile",
    "Waiver",
    "WaiverFile",
    "case_model",
]

LONGEST_WAIVER = 366
"""Longest time between the approval of a waiver and its last day, d."""

_Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
_RequirementId = Annotated[str, Field(pattern=r"^[A-Z]+(-[A-Z]+)*-\d{2,4}$")]
_Version = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
_CaseId = Annotated[str, Field(pattern=r"^AG-\d{2}-\d{2}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Requirement(_Model):
    """One requirement, in our own words.

    Attributes
    ----------
    id, title, text, source, priority : str
        What is demanded, where it is written and how urgent it is.
    method : str
        How it is verified.
    reading : str
        Our explicit reading where the requirement cannot be tested as written.
    deferred : str
        Why it is not covered yet.
    """

    id: _RequirementId
    title: str
    text: str
    source: str
    priority: Literal["1a", "1b", "2", "3", "own"]
    method: Literal["test", "analysis", "inspection", "demonstration"] = "test"
    reading: str = ""
    deferred: str = ""


class RequirementFile(_Model):
    """The file ``requirements.yaml``."""

    version: Literal[1] = Field(alias="schema")
    requirements: list[Requirement]


class Scope(_Model):
    """Which subjects a waiver covers; every key must match, none means all."""

    visit: list[int] | None = None
    detector: list[int] | None = None
    column: list[str] | None = None

    def covers(self, subject: Mapping[str, object]) -> bool:
        """Whether a failing subject lies inside."""
        wanted = {k: v for k, v in self.model_dump().items() if v is not None}
        return all(subject.get(key) in values for key, values in wanted.items())

    @property
    def empty(self) -> bool:
        """Whether nothing limits it."""
        return not any(v is not None for v in self.model_dump().values())


class Waiver(_Model):
    """A failure that was accepted, by whom, why, how much of it and until when."""

    id: Annotated[str, Field(pattern=r"^W-\d{4}$")]
    check: str
    ticket: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=10)]
    approved_by: Annotated[str, Field(min_length=1)]
    approved_on: str
    expires: str
    no_worse_than: str
    scope: Scope = Scope()

    @field_validator("ticket", "reason", "approved_by")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is blank")
        return value

    @field_validator("approved_on", "expires")
    @classmethod
    def _date(cls, value: str) -> str:
        date.fromisoformat(value)
        return value

    @model_validator(mode="after")
    def _term(self) -> Waiver:
        days = (self.last_day - date.fromisoformat(self.approved_on)).days
        if not 0 <= days <= LONGEST_WAIVER:
            raise ValueError(
                f"expires {self.expires} is {days} days after its approval on {self.approved_on}; "
                f"at most {LONGEST_WAIVER} are allowed"
            )
        return self

    @field_validator("no_worse_than")
    @classmethod
    def _limit(cls, value: str) -> str:
        Bound.parse(value)
        return value

    @property
    def last_day(self) -> date:
        """The day after which it no longer holds."""
        return date.fromisoformat(self.expires)


class WaiverFile(_Model):
    """The file ``waivers.yaml``."""

    version: Literal[1] = Field(alias="schema")
    waivers: list[Waiver]


class Check(_Model):
    """One measurement and the bound it is judged by; the kind stands under its own key.

    Attributes
    ----------
    id : str
        Unique within the item.
    text : str
        What it shows, for the report.
    severity : str
        A failed ``must`` fails, a failed ``should`` is a partial pass, ``info`` changes nothing.
    when : list of str
        Conditions of `harness.verify.conditions`; unless all hold the check is not applicable.
    bound, partial : str
        What the value must keep, and a weaker bound that earns a partial pass.
    tolerance : float
        Room for three standard errors, in the unit of the bound.
    allow_empty : str
        Why it is right that there may be no subjects.
    """

    id: _Word
    text: Annotated[str, Field(min_length=1)]
    severity: Literal["must", "should", "info"] = "must"
    when: list[str] = []
    bound: str = ""
    partial: str = ""
    tolerance: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    allow_empty: str = ""

    @field_validator("when")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for word in value:
            if word not in CONDITIONS:
                raise ValueError(f"unknown condition {word!r}; known: {', '.join(CONDITIONS)}")
        return value

    def applies(self, context: Context) -> bool:
        """Whether it has a meaning for a campaign and all its conditions hold."""
        if self.excluded(context):
            return False
        return all(CONDITIONS[word].holds(context) for word in self.when)

    def excluded(self, context: Context) -> str:
        """Say why it has no meaning for a campaign, nothing where it has."""
        return context.excluded(self.subject.name, self.subject.model_dump())

    @property
    def subject(self) -> Kind:
        """The kind with its parameters."""
        return next(iter(self._kinds().values()))

    def _kinds(self) -> dict[str, Kind]:
        present = {k: getattr(self, f"{k}_kind", None) for k in load_kinds()}
        return {k: v for k, v in present.items() if v is not None}

    @property
    def limit(self) -> Bound:
        """The bound, parsed."""
        return Bound.parse(self.bound or self.subject.usual_bound())

    @model_validator(mode="after")
    def _consistent(self) -> Check:
        kinds = self._kinds()
        if len(kinds) != 1:
            raise ValueError(f"exactly one kind per check: one of {', '.join(load_kinds())}")
        unit = self.subject.unit
        for name in ("bound", "partial"):
            text = getattr(self, name) or (self.subject.usual_bound() if name == "bound" else "")
            if text and (got := Bound.parse(text).unit) != unit:
                given = f"has the unit {got!r}" if got else "has no unit"
                raise ValueError(f"{name} {text!r} {given}; this is measured in {unit!r}")
        if not (self.bound or self.subject.usual_bound()):
            raise ValueError("a bound is missing")
        if self.partial and not Bound.parse(self.partial).weaker_than(self.limit):
            raise ValueError(f"partial {self.partial!r} is not weaker than {self.limit.text!r}")
        return self


class Item(_Model):
    """One line of the report: a statement, the requirements behind it and its checks."""

    id: _Word
    text: Annotated[str, Field(min_length=1)]
    requirements: list[_RequirementId] = []
    checks: list[Check]


class _Origin(_Model):
    document: str
    version: str
    section: str


class Case(_Model):
    """One test case.

    Attributes
    ----------
    depends_on : list of str
        Cases or items (``AG-00-05/catalog``) without which this one cannot be judged.
    """

    version_: Literal[1] = Field(alias="schema")
    id: _CaseId
    title: Annotated[str, Field(min_length=1)]
    version: _Version
    derived_from: _Origin
    purpose: Annotated[str, Field(min_length=1)]
    depends_on: list[
        Annotated[str, Field(pattern=re.compile(r"^AG-\d\d-\d\d(/[a-z0-9-]+)?$"))]
    ] = []
    items: list[Item]


@lru_cache(maxsize=1)
def case_model() -> type[Case]:
    """Build the model of a case file from the kinds there are.

    Returns
    -------
    type
        A subclass of `Case` whose checks accept one key per registered kind.
    """
    fields: dict[str, Any] = {
        f"{name}_kind": (kind | None, Field(None, alias=name, description=kind.__doc__))
        for name, kind in load_kinds().items()
    }
    check = create_model("Check", __base__=Check, __doc__=Check.__doc__, **fields)
    item = create_model(
        "Item",
        __base__=Item,
        __doc__=Item.__doc__,
        checks=(Annotated[list[check], Field(min_length=1)], ...),
    )
    return cast(
        type[Case],
        create_model(
            "Case",
            __base__=Case,
            __doc__=Case.__doc__,
            items=(Annotated[list[item], Field(min_length=1)], ...),
        ),
    )
