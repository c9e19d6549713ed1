"""Test of the checks: known defects are planted, and each must be found by its check."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import duckdb

from harness.catalog import QueryError
from harness.system.hashes import file_hash
from harness.system.processes import running_pool
from harness.system.software import software_version
from harness.verify.conditions import CONDITIONS
from harness.verify.context import Context
from harness.verify.copy import Copy
from harness.verify.defect import Defect
from harness.verify.defects import load_defects
from harness.verify.engine import judge_check
from harness.verify.loader import Spec, load_spec
from harness.verify.model import Check
from harness.verify.paths import TESTCASES
from harness.verify.sampling import requests_of, start_measuring
from harness.verify.verdict import Verdict
from harness.workspace import Workspace
from pipeline.errors import ConfigError

__all__ = ["matrix_fault", "sabotage", "sealed"]

_UNTOUCHED = ("command", "inspect", "review")
_PASSING = frozenset({Verdict.PASS, Verdict.DEVIATION})
_GOOD = _PASSING | {Verdict.NOT_APPLICABLE}
_SHARED = ("samples", "alerts", "sha256", "damage", "headers", "study")


def sabotage(
    root: Path,
    *,
    only: Iterable[str] = (),
    jobs: int = 2,
    testcases: Path = TESTCASES,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Plant every known defect in a copy of a workspace and judge the copy.

    What a defect cannot touch is not measured again: samples of images and alert files are kept
    by the state of the files behind them, and unharmed files of a copy are links; verdicts that
    rest on tables alone are kept by the content of these.

    Parameters
    ----------
    root : path-like
        The workspace; it is only read.
    only : iterable of str
        Names of defects; all when empty.
    jobs : int
        Processes, each of which tries defects.
    testcases : path-like
        The specification.
    quick : bool
        Whether to ask only the check that is named for a defect; what else would catch it is not
        known then.
    progress : callable, optional
        Called with the name of each defect after it was tried.

    Returns
    -------
    dict
        ``{"unharmed": {"caught_by"}, "defects": [{"id", "family", "text", "expected_check",
        "caught", "caught_by", "faint_caught"}], "survivors", "idle", "unjudged", …}``.
        A check catches a defect when it passed on the unharmed copy and does
        not pass any more.  ``unharmed.caught_by`` lists the expected checks that do not pass
        without any defect, ``survivors`` the defects that escaped, ``idle`` the checks that
        must hold and are not the only one to catch any defect, by how many they catch, and
        ``unjudged`` those that can catch none since they do not pass without a defect or do not
        apply.  ``faint_caught`` says whether the check noticed an amplitude that it must not, None
        where there is none.
    """
    spec = load_spec(testcases)
    origin = Workspace.open(root)
    chosen = _chosen(list(only))
    with (
        origin.reading("sabotage"),
        tempfile.TemporaryDirectory(prefix=".sabotage-", dir=root.resolve().parent) as scratch,
    ):
        asked = frozenset(d.check for d in chosen) if quick else None
        task = _Task(root, Path(scratch), testcases, asked)
        before: dict[str, Verdict] = {}
        rows = []
        for name, (unharmed, row) in _trials(task, [d.id for d in chosen], jobs):
            before |= {p: max(v, before.get(p, v)) for p, v in unharmed.items()}
            rows.append(row)
            if progress is not None:
                progress(name)
    expected = {d.check for d in chosen}
    false_alarms = sorted(p for p in expected if before.get(p, Verdict.ERROR) not in _GOOD)
    must = {p for p, k in _measured_checks(spec) if k.severity == "must"}
    judged = must & {p for p, v in before.items() if v in _PASSING}
    return sealed(
        {
            "unharmed": {"caught_by": false_alarms},
            "defects": rows,
            "survivors": [r["id"] for r in rows if not r["caught"]],
            "idle": {} if quick else _idle(rows, judged),
            "unjudged": [] if quick else sorted(must - judged),
            "spec_hash": spec.hash,
            "catalogue": file_hash(origin.catalog),
            "software": software_version(),
        }
    )


@dataclass(frozen=True, slots=True)
class _Task:
    """What is common to all trials: workspace, folder of copies, cases, and checks to ask."""

    root: Path
    scratch: Path
    testcases: Path
    asked: frozenset[str] | None


_Trial = tuple[dict[str, Verdict], dict[str, Any]]


def _trials(task: _Task, names: Sequence[str], jobs: int) -> Iterator[tuple[str, _Trial]]:
    """Try defects in some processes; each judges the unharmed copy for itself once."""
    processes = min(jobs, len(names) // 2)
    if processes < 2:
        yield from ((name, _try(task, name)) for name in names)
        _opened.cache_clear()
        return
    with running_pool(processes) as pool:
        yield from zip(names, pool.map(partial(_try, task), names), strict=True)


def _try(task: _Task, name: str) -> _Trial:
    """Plant one defect; what the checks say of the unharmed copy, and the row of the matrix."""
    copies, before = _opened(task)
    defect = load_defects()[name]
    named = frozenset({defect.check})
    after = copies.judge(defect.plant, named if task.asked is not None else None)
    faint = copies.judge(defect.faint, named) if defect.faint else None
    return before, _row(defect, before, after, faint)


@lru_cache(maxsize=1)
def _opened(task: _Task) -> tuple[_Copies, dict[str, Verdict]]:
    copies = _Copies(task)
    return copies, copies.judge(None, task.asked)


def _measured_checks(spec: Spec) -> list[tuple[str, Check]]:
    """List the checks that a defect in a workspace can touch, with their paths."""
    every = ((f"{c.id}/{i.id}/{k.id}", k) for c, i, k in spec.checks())
    return [(path, check) for path, check in every if check.subject.name not in _UNTOUCHED]


def sealed(matrix: Mapping[str, Any]) -> dict[str, Any]:
    """Add the hash of a detection matrix to it.

    Parameters
    ----------
    matrix : mapping
        JSON values.

    Returns
    -------
    dict
        The same with ``sha256``.
    """
    content = {k: v for k, v in matrix.items() if k != "sha256"}
    text = json.dumps(content, sort_keys=True)
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def matrix_fault(matrix: Any, space: Workspace, spec: Spec) -> str:
    """Say why a detection matrix is not that of a campaign.

    Parameters
    ----------
    matrix : object
        Content of ``reports/sabotage.json``.
    space : Workspace
        The campaign.
    spec : Spec
        The specification of today.

    Returns
    -------
    str
        One phrase, empty for a sound matrix.
    """
    if not isinstance(matrix, dict) or matrix != sealed(matrix):
        return "does not have the hash that it states"
    if any(d["caught"] != (d["expected_check"] in d["caught_by"]) for d in matrix["defects"]):
        return "calls a defect caught that its check did not catch"
    if matrix["catalogue"] != file_hash(space.catalog):
        return "is of another state of the catalogue"
    if matrix["spec_hash"] != spec.hash:
        return "was made with another specification"
    return ""


def _chosen(names: list[str]) -> list[Defect]:
    """Defects of some names, or all; an unknown name is an error."""
    defects = load_defects()
    for name in names:
        if name not in defects:
            near = difflib.get_close_matches(name, defects, n=3, cutoff=0.4)
            raise ConfigError(
                f"no defect is called {name!r}", key="--only", expected=" or ".join(near or defects)
            )
    return [defects[name] for name in names or defects]


def _idle(rows: Sequence[Mapping[str, Any]], must: Iterable[str]) -> dict[str, int]:
    """Count the catches of the checks without which every defect would be caught all the same."""
    needed = {r["caught_by"][0] for r in rows if len(r["caught_by"]) == 1}
    catches = Counter(path for r in rows for path in r["caught_by"])
    return {path: catches[path] for path in sorted(set(must) - needed)}


def _row(
    defect: Defect,
    before: Mapping[str, Verdict],
    after: Mapping[str, Verdict],
    faint: Mapping[str, Verdict] | None,
) -> dict[str, Any]:
    caught = _noticing(before, after)
    return {
        "id": defect.id,
        "family": defect.family,
        "text": defect.text,
        "expected_check": defect.check,
        "caught": defect.check in caught,
        "caught_by": caught,
        "faint_caught": None if faint is None else defect.check in _noticing(before, faint),
    }


def _noticing(before: Mapping[str, Verdict], after: Mapping[str, Verdict]) -> list[str]:
    """List the checks that passed without a defect and do not pass with it."""
    return [p for p, v in after.items() if v not in _GOOD and before.get(p) in _GOOD]


class _Copies:
    """Copies of a campaign: made, damaged, judged and deleted."""

    def __init__(self, task: _Task) -> None:
        self._origin, self._testcases = Workspace.open(task.root), task.testcases
        self._folder = task.scratch / f"copy-{os.getpid()}"
        self._memory: dict[Any, Any] = {name: {} for name in _SHARED}
        self._known: dict[tuple[str, tuple[Any, ...]], Verdict] = {}
        self._checks = _measured_checks(load_spec(task.testcases))
        context = Context(self._origin, task.testcases)
        present = {p: self._present(context, p) for p in ("visit_image", "difference")}
        self._units, self._science = present["visit_image"], present["difference"]
        context.close()

    @staticmethod
    def _present(context: Context, product: str) -> tuple[Any, ...]:
        units = context.expected(product)
        return tuple(u for u in units if context.product(product, u).is_file())

    def judge(
        self, plant: Callable[[Copy], None] | None, asked: frozenset[str] | None
    ) -> dict[str, Verdict]:
        """Judge a fresh copy with a defect in it, by the checks asked for or by all."""
        copy = Copy.of(self._origin, self._folder, self._units, self._science)
        try:
            if plant is not None:
                plant(copy)
            return self._verdicts(copy.space, asked)
        finally:
            copy.close()

    def _verdicts(self, space: Workspace, asked: frozenset[str] | None) -> dict[str, Verdict]:
        checks = [(p, k) for p, k in self._checks if asked is None or p in asked]
        shared = {name: self._memory[name] for name in _SHARED}
        context = Context(space, self._testcases, jobs=1, memory=shared)
        start_measuring(context, requests_of(context, [k for _, k in checks]))
        verdicts = {p: self._verdict(p, k, context) for p, k in checks}
        context.close()
        return verdicts

    def _verdict(self, path: str, check: Check, context: Context) -> Verdict:
        """Judge by a check, or remember what it said of the same tables."""
        state = _state(check, context)
        if state is None:
            return judge_check(path, check, context).verdict
        if (path, state) not in self._known:
            self._known[path, state] = judge_check(path, check, context).verdict
        return self._known[path, state]


def _state(check: Check, context: Context) -> tuple[Any, ...] | None:
    """Identify all that the verdict of a check rests on; None where that is more than tables."""
    try:
        tables = check.subject.catalogued(context)
        if tables is None:
            return None
        asked = [CONDITIONS[word] for word in check.when]
        conditions = tuple((c.holds(context), c.broken(context)) for c in asked)
        return (conditions, *((t, context.content(t)) for t in sorted(tables)))
    except (duckdb.Error, QueryError):  # a table that cannot be read: the check says how it is
        return None
