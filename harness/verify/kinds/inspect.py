"""Inspection by a person: a seeded sample, contact sheets, closed answers bound to the pixels."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.verify.kind import Kind
from harness.verify.measurement import Evidence, Measurement, NotRun
from harness.verify.nodes import SpecError, read_yaml

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context, Unit

__all__ = ["LEVELS", "Inspect", "draw", "fingerprint"]

LEVELS = {"none": 0, "minor": 1, "serious": 2}
"""The answers, and how bad each is."""


class Named(BaseModel):
    """Units that somebody chose: some detectors of a visit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    visit: int
    detectors: list[int] = Field(min_length=1)


class Inspect(Kind):
    """The worst answer to a closed question about a seeded sample: 0 none, 1 minor, 2 serious.

    Answers lie in ``inspections/NAME.yaml`` of the workspace and count only for the pixels they
    were given for.  ``proxy`` names the quantitative check that stands beside the question, or
    several of which those that apply stand together.  Of a campaign that holds units of ``named``
    these are the sample.
    """

    name: ClassVar[str] = "inspect"
    elsewhere: ClassVar[bool] = True
    default_bound: ClassVar[str] = "= 0 level"

    question: str
    product: Literal["visit_image", "difference"]
    sheet: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    visits: int = Field(default=2, ge=1)
    detectors: int = Field(default=5, ge=1)
    seed: int
    named: list[Named] = Field(default_factory=list)
    proxy: str | list[str]

    @property
    def unit(self) -> str:
        """``level``."""
        return "level"

    def references(self) -> list[str]:
        """Return the proxies."""
        return [self.proxy] if isinstance(self.proxy, str) else list(self.proxy)

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Look for a person's answers about the drawn units."""
        units = draw(context, self)
        if not units:
            return Measurement(float("nan"), 0)
        pixels = fingerprint(context, self.product, units)
        path = context.space.root / "inspections" / f"{self.sheet}.yaml"
        if not path.is_file():
            raise NotRun(f"nobody has answered yet ({path.name}, pixels {pixels[:12]})", len(units))
        answers = _answers(path)
        if answers.get("pixels") != pixels:
            raise NotRun("the answers are about other pixels", len(units))
        given = {(a["visit"], a["detector"]): a["answer"] for a in answers["answers"]}
        absent = [u for u in units if given.get((u.visit, u.detector)) not in LEVELS]
        if absent:
            raise NotRun(f"{len(absent)} of {len(units)} questions are unanswered", len(units))
        levels = {u: LEVELS[given[u.visit, u.detector]] for u in units}
        rows = [[u.visit, u.detector, given[u.visit, u.detector]] for u in units]
        table = Evidence(
            f"answers of {answers.get('inspector', 'unknown')}",
            "table",
            {"columns": ["visit", "detector", "answer"], "rows": rows},
        )
        failing = tuple({**u.key, "level": n} for u, n in levels.items() if n)
        return Measurement(max(levels.values()), len(units), failing=failing, evidence=(table,))


def draw(context: Context, check: Inspect) -> list[Unit]:
    """Draw the sample: the named units, or visits by the seed, then detectors within each visit.

    Parameters
    ----------
    context : Context
        The campaign.
    check : Inspect
        Numbers and seed.

    Returns
    -------
    list of Unit
        In the order drawn.
    """
    present = [
        u for u in context.expected(check.product) if context.product(check.product, u).is_file()
    ]
    named = {(n.visit, d) for n in check.named for d in n.detectors}
    if chosen_by_name := [u for u in present if (u.visit, u.detector) in named]:
        return chosen_by_name
    choice = random.Random(check.seed)
    visits = sorted({u.visit for u in present})
    chosen = sorted(choice.sample(visits, min(check.visits, len(visits))))
    sample: list[Unit] = []
    for visit in chosen:
        units = [u for u in present if u.visit == visit]
        sample += sorted(choice.sample(units, min(check.detectors, len(units))))
    return sample


def fingerprint(context: Context, product: str, units: list[Unit]) -> str:
    """SHA-256 over the files of the sample, to which answers are bound.

    Parameters
    ----------
    context : Context
        The campaign.
    product : str
        Kind of image.
    units : list of Unit
        The sample.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    digest = hashlib.sha256()
    for unit in units:
        digest.update(context.product(product, unit).read_bytes())
    return digest.hexdigest()


def _answers(path: Path) -> dict[str, Any]:
    document = read_yaml(path)
    if document.problems or not isinstance(document.value, dict):
        raise SpecError(document.problems or [document.problem((), "answers are a mapping")])
    return document.value
