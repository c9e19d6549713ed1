"""Judging a campaign: run every check, apply the algebra, return the report as plain data."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

import duckdb

from harness.catalog import QueryError
from harness.verify.bounds import Bound, judge
from harness.verify.conditions import CONDITIONS
from harness.verify.context import Context
from harness.verify.loader import Spec
from harness.verify.measurement import Measurement, NotApplicable, NotRun
from harness.verify.model import Case, Check, Item, Waiver
from harness.verify.verdict import Verdict, worst
from harness.verify.waivers import apply_waiver
from pipeline.errors import ConfigError

__all__ = [
    "CaseResult",
    "CheckResult",
    "ItemResult",
    "Observation",
    "conclude",
    "judge_cases",
    "judge_check",
]

_log = logging.getLogger(__name__)
_BLOCKING = frozenset({Verdict.NOT_RUN, Verdict.FAIL, Verdict.ERROR})


@dataclass(frozen=True, slots=True)
class Observation:
    """What became of the measurement of a check, before anyone judges it.

    Attributes
    ----------
    outcome : str
        Whether it was made, or what kept it from being made.
    measurement : Measurement, optional
        The numbers; None unless ``measured``.
    text : str
        The note on the numbers, or the reason why there are none.
    population : int, optional
        Subjects, also of a measurement that was not made.
    n_failing : int
        Subjects outside the bound, of which the measurement may hold the first only.
    seconds : float
        Wall time.
    """

    outcome: Literal["measured", "not_applicable", "not_run", "error"]
    measurement: Measurement | None = None
    text: str = ""
    population: int | None = None
    n_failing: int = 0
    seconds: float = 0.0


Observer = Callable[[str, Check], Observation]
"""Measures a check, or looks its measurement up."""


@dataclass
class CheckResult:
    """Verdict of one check with everything behind it.

    Attributes
    ----------
    path : str
        ``case/item/check``.
    verdict : Verdict
        The check's own.
    counts : bool
        Whether it takes part in the verdict of the item; informative checks and unanswered
        inspections whose proxy passed do not.
    absent : bool
        Whether it reads `NOT_RUN` because evidence from elsewhere is absent; such a verdict
        stays out of the exit status.
    observation : Observation
        What it rests on.
    reason : str
        One sentence.
    waiver : dict, optional
        Which waiver applied, and how.
    """

    path: str
    check: Check
    verdict: Verdict
    observation: Observation
    counts: bool = True
    absent: bool = False
    reason: str = ""
    waiver: dict[str, str] | None = None

    @property
    def measurement(self) -> Measurement | None:
        """What was measured, None when nothing could be."""
        return self.observation.measurement

    @property
    def population(self) -> int | None:
        """Number of subjects, where it is known."""
        return self.observation.population


@dataclass
class ItemResult:
    """Verdict of one line of the report."""

    item: Item
    checks: list[CheckResult]

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks that count."""
        return _combine(self.checks)


@dataclass
class CaseResult:
    """Verdict of one test case."""

    case: Case
    items: list[ItemResult] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of the items."""
        return worst(i.verdict for i in self.items)

    @property
    def judged(self) -> Verdict:
        """The worst with absent evidence left out: what the exit status is made of."""
        checks = [c for i in self.items for c in i.checks if c.counts and not c.absent]
        return max((c.verdict for c in checks), default=Verdict.NOT_APPLICABLE)


def _combine(checks: Sequence[CheckResult]) -> Verdict:
    counted = [c.verdict for c in checks if c.counts]
    if counted:
        return worst(counted)
    return Verdict.NOT_APPLICABLE if checks else Verdict.NOT_RUN


def judge_cases(
    spec: Spec,
    context: Context,
    *,
    only: Iterable[str] = (),
    progress: Callable[[str], None] | None = None,
) -> list[CaseResult]:
    """Judge a campaign by a specification.

    Parameters
    ----------
    spec : Spec
        What is demanded.
    context : Context
        The campaign.
    only : iterable of str
        Paths ``case``, ``case/item`` or ``case/item/check`` to judge; all when empty.
    progress : callable, optional
        Called with the path of each check before it runs.

    Returns
    -------
    list of CaseResult
        In the order of the identifiers.
    """

    def look(path: str, check: Check) -> Observation:
        if progress is not None:
            progress(path)
        return _observe(path, check, context)

    return conclude(spec, look, context.today, only=only)


def conclude(
    spec: Spec, observer: Observer, today: date, *, only: Iterable[str] = ()
) -> list[CaseResult]:
    """Draw the verdicts from measurements: bounds, waivers, dependencies and inspections.

    Parameters
    ----------
    spec : Spec
        What is demanded.
    observer : callable
        Measures the check of a path, or looks up what was measured.
    today : date
        By which waivers expire.
    only : iterable of str
        Paths to judge; all when empty.

    Returns
    -------
    list of CaseResult
        In the order of the identifiers.
    """
    waivers = {w.check: w for w in spec.waivers}
    asked = tuple(only)
    wanted = _with_dependencies(spec, asked)
    results: list[CaseResult] = []
    for case in spec.cases:
        result = CaseResult(case)
        results.append(result)
        for item in case.items:
            blocked = _blocked(case, results)
            checks = []
            for check in item.checks:
                path = f"{case.id}/{item.id}/{check.id}"
                if wanted and not any(_covers(w, path) for w in wanted):
                    continue
                if blocked:
                    seen = Observation("not_run", text=f"blocked by {blocked}")
                else:
                    seen = observer(path, check)
                decided = _decide(path, check, seen)
                decided.absent = decided.absent and not blocked
                _waive(decided, waivers.get(path), today)
                checks.append(decided)
            if checks:
                result.items.append(ItemResult(item, checks))
    settle_inspections(results)
    return _selected(results, asked)


def _selected(results: Sequence[CaseResult], asked: Sequence[str]) -> list[CaseResult]:
    """Drop what was judged only because something else depends on it."""
    for result in results:
        for item in result.items:
            item.checks = [
                c for c in item.checks if not asked or any(_covers(w, c.path) for w in asked)
            ]
        result.items = [i for i in result.items if i.checks]
    return [r for r in results if r.items]


def _blocked(case: Case, results: Sequence[CaseResult]) -> str:
    """Return the first dependency that did not hold, empty when all did."""
    known = {r.case.id: r.verdict for r in results if r.case is not case}
    known |= {f"{r.case.id}/{i.item.id}": i.verdict for r in results for i in r.items}
    for target in case.depends_on:
        if known.get(target, Verdict.NOT_RUN) in _BLOCKING:
            return target
    return ""


def _with_dependencies(spec: Spec, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return paths with everything that their cases depend on; it is judged as well."""
    chosen = list(wanted)
    for case in reversed(spec.cases):  # a case depends on earlier ones only
        if any(_covers(w, case.id) or w.startswith(f"{case.id}/") for w in chosen):
            chosen += case.depends_on
    return tuple(dict.fromkeys(chosen))


def _covers(wanted: str, path: str) -> bool:
    return path == wanted or path.startswith(f"{wanted}/")


def judge_check(
    path: str, check: Check, context: Context, waiver: Waiver | None = None
) -> CheckResult:
    """Run one check.

    Parameters
    ----------
    path : str
        ``case/item/check``.
    check : Check
        What is measured and the bound.
    context : Context
        The campaign.
    waiver : Waiver, optional
        An accepted failure of this check.

    Returns
    -------
    CheckResult
        An exception inside the check becomes the verdict `ERROR`, never a crash.

    Raises
    ------
    ConfigError
        If the check asks the catalogue for what no check may have, see `harness.catalog.guard`.
    """
    result = _decide(path, check, _observe(path, check, context))
    if waiver is not None:
        _waive(result, waiver, context.today)
    return result


def _observe(path: str, check: Check, context: Context) -> Observation:
    """Measure a check; what keeps it from being measured is an observation too."""
    start = time.perf_counter()
    try:
        seen = _measured(check, context)
    except NotApplicable as rule:
        seen = Observation("not_applicable", text=str(rule))
    except NotRun as err:
        seen = Observation("not_run", text=str(err), population=err.population)
    except QueryError as err:  # the case file asks for what it may not have
        raise ConfigError(f"{path}: {err}") from err
    except duckdb.Error as err:
        lack = context.unanswerable(err)
        seen = Observation("not_applicable", text=lack) if lack else _broken(path, err)
    except Exception as err:  # a check that breaks is an error of the check, not of the campaign
        seen = _broken(path, err)
    return replace(seen, seconds=time.perf_counter() - start)


def _broken(path: str, err: Exception) -> Observation:
    _log.debug("%s", path, exc_info=True)
    return Observation("error", text=f"{type(err).__name__}: {' '.join(str(err).split())}")


def _measured(check: Check, context: Context) -> Observation:
    if rule := check.excluded(context):
        raise NotApplicable(rule)
    for word in check.when:
        condition = CONDITIONS[word]
        if condition.broken(context):
            raise NotRun(f"the campaign is a simulation, but {condition.otherwise}")
        if not condition.holds(context):
            raise NotApplicable(condition.otherwise)
    got = check.subject.measure(context, check.limit)
    if context.foreign and not got.population and not got.broken:
        raise NotApplicable("these products hold nothing that this is said of")
    return Observation("measured", got, got.note, got.population, len(got.failing))


_UNMEASURED = {
    "not_applicable": Verdict.NOT_APPLICABLE,
    "not_run": Verdict.NOT_RUN,
    "error": Verdict.ERROR,
}


def _decide(path: str, check: Check, seen: Observation) -> CheckResult:
    """Judge what was observed."""
    result = CheckResult(path, check, Verdict.ERROR, seen, counts=check.severity != "info")
    got = seen.measurement
    if got is None:
        result.verdict, result.reason = _UNMEASURED[seen.outcome], seen.text
    elif got.population:
        result.verdict, result.reason = _judged(check, got)
        if got.broken:  # the others tell what they can, and make nothing good
            others = "; ".join(t for t in (result.verdict.label, result.reason) if t)
            result.verdict, result.reason = Verdict.ERROR, f"{got.broken}; the others: {others}"
    elif got.broken:
        result.reason = got.broken
    elif check.allow_empty:
        result.verdict, result.reason = Verdict.NOT_APPLICABLE, check.allow_empty
    else:
        result.reason = "the population is empty: nothing was tested"
    result.absent = check.subject.elsewhere and result.verdict == Verdict.NOT_RUN
    return result


def _judged(check: Check, got: Measurement) -> tuple[Verdict, str]:
    partial = Bound.parse(check.partial) if check.partial else None
    stderr = math.nan if got.stderr is not None and got.population < 2 else got.stderr
    verdict, reason = judge(
        got.value, check.limit, partial=partial, stderr=stderr, tolerance=check.tolerance
    )
    if verdict == Verdict.FAIL and check.severity == "should":
        verdict = Verdict.PARTIAL
    return verdict, "; ".join(text for text in (reason, got.note) if text)


def _waive(result: CheckResult, waiver: Waiver | None, today: date) -> None:
    if waiver is None:
        return
    got = result.measurement
    ruling = apply_waiver(
        waiver,
        result.verdict,
        got.value if got else math.nan,
        got.failing if got else (),
        today,
    )
    result.verdict = ruling.verdict
    result.waiver = {"id": waiver.id, "state": ruling.state, "sentence": ruling.sentence}


def settle_inspections(results: Sequence[CaseResult]) -> None:
    """Leave unanswered inspections out of the verdict where their proxies passed.

    Proxies are the quantitative checks named by the inspection.  Those that do not apply to the
    campaign are neutral, but one at least must have passed and none failed; else the inspection
    keeps its `NOT_RUN`.
    """
    every = {c.path: c for r in results for i in r.items for c in i.checks}
    good = (Verdict.PASS, Verdict.DEVIATION)
    for result in every.values():
        if result.check.subject.name != "inspect" or result.verdict != Verdict.NOT_RUN:
            continue
        proxies = [every.get(p) for p in result.check.subject.references()]
        applied = [p for p in proxies if p is None or p.verdict != Verdict.NOT_APPLICABLE]
        passed = [p for p in applied if p is not None and p.verdict in good]
        if applied and len(passed) == len(applied):
            result.counts = False
            names = ", ".join(p.path for p in passed)
            result.reason += f"; its {'proxy' if len(passed) == 1 else 'proxies'} {names} passed"
