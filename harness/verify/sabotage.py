"""Test of the checks: known defects are planted, and each must be found by its check."""

from __future__ import annotations

import difflib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from harness.catalog import QueryError
from harness.system.hashes import file_hash
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
_GOOD = frozenset({Verdict.PASS, Verdict.DEVIATION, Verdict.NOT_APPLICABLE})
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
        Processes that measure images.
    testcases : path-like
        The specification.
    quick : bool
        Whether to ask only the check that is named for a defect; what else would catch it is not
        known then.
    progress : callable, optional
        Called with the name of each defect before it is planted.

    Returns
    -------
    dict
        ``{"unharmed": {"caught_by"}, "defects": [{"id", "family", "text", "expected_check",
        "caught", "caught_by", "faint_caught"}], "survivors", "idle", …}``.
        A check catches a defect when it passed on the unharmed copy and does
        not pass any more.  ``unharmed.caught_by`` lists the expected checks that do not pass
        without any defect, ``survivors`` the defects that escaped, and ``idle`` the checks that
        must hold and are not the only one to catch any defect.  ``faint_caught`` says whether the
        check noticed an amplitude that it must not, None where there is none.
    """
    spec = load_spec(testcases)
    origin = Workspace.open(root)
    chosen = _chosen(list(only))
    memory: dict[Any, Any] = {name: {} for name in _SHARED}
    with (
        origin.reading("sabotage"),
        tempfile.TemporaryDirectory(prefix=".sabotage-", dir=root.resolve().parent) as scratch,
    ):
        copies = _Copies(origin, spec, Path(scratch), memory, jobs, testcases)
        asked = frozenset(d.check for d in chosen) if quick else None
        before = copies.judge(None, asked)
        rows = []
        for defect in chosen:
            if progress is not None:
                progress(defect.id)
            named = frozenset({defect.check})
            after = copies.judge(defect.plant, named if quick else None)
            faint = copies.judge(defect.faint, named) if defect.faint else None
            rows.append(_row(defect, before, after, faint))
    expected = {d.check for d in chosen}
    unharmed = sorted(p for p in expected if before.get(p, Verdict.ERROR) not in _GOOD)
    return sealed(
        {
            "unharmed": {"caught_by": unharmed},
            "defects": rows,
            "survivors": [r["id"] for r in rows if not r["caught"]],
            "idle": [] if quick else _idle(rows, copies.must),
            "spec_hash": spec.hash,
            "catalogue": file_hash(origin.catalog),
            "software": software_version(),
        }
    )


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


def _idle(rows: Sequence[Mapping[str, Any]], must: Iterable[str]) -> list[str]:
    """List the checks without which every defect would be caught all the same."""
    needed = {r["caught_by"][0] for r in rows if len(r["caught_by"]) == 1}
    return sorted(set(must) - needed)


def _row(
    defect: Defect,
    before: Mapping[str, Verdict],
    after: Mapping[str, Verdict],
    faint: Mapping[str, Verdict] | None,
) -> dict[str, Any]:
    caught = [p for p, v in after.items() if v not in _GOOD and before.get(p) in _GOOD]
    return {
        "id": defect.id,
        "family": defect.family,
        "text": defect.text,
        "expected_check": defect.check,
        "caught": defect.check in caught,
        "caught_by": caught,
        "faint_caught": None if faint is None else faint[defect.check] not in _GOOD,
    }


class _Copies:
    """Copies of a campaign: made, damaged, judged and deleted."""

    def __init__(
        self,
        origin: Workspace,
        spec: Spec,
        scratch: Path,
        memory: dict[Any, Any],
        jobs: int,
        testcases: Path,
    ) -> None:
        self._origin, self._scratch, self._memory = origin, scratch, memory
        self._jobs, self._testcases = jobs, testcases
        self._known: dict[tuple[str, tuple[Any, ...]], Verdict] = {}
        self._checks = [
            (f"{c.id}/{i.id}/{k.id}", k)
            for c, i, k in spec.checks()
            if k.subject.name not in _UNTOUCHED
        ]
        context = Context(origin, testcases)
        present = {p: self._present(context, p) for p in ("visit_image", "difference")}
        self._units, self._science = present["visit_image"], present["difference"]
        context.close()

    @staticmethod
    def _present(context: Context, product: str) -> tuple[Any, ...]:
        units = context.expected(product)
        return tuple(u for u in units if context.product(product, u).is_file())

    @property
    def must(self) -> list[str]:
        """Paths of the checks that must hold."""
        return [path for path, check in self._checks if check.severity == "must"]

    def judge(
        self, plant: Callable[[Copy], None] | None, asked: frozenset[str] | None
    ) -> dict[str, Verdict]:
        """Judge a fresh copy with a defect in it, by the checks asked for or by all."""
        copy = Copy.of(self._origin, self._scratch / "copy", self._units, self._science)
        try:
            if plant is not None:
                plant(copy)
            return self._verdicts(copy.space, asked)
        finally:
            copy.close()

    def _verdicts(self, space: Workspace, asked: frozenset[str] | None) -> dict[str, Verdict]:
        checks = [(p, k) for p, k in self._checks if asked is None or p in asked]
        shared = {name: self._memory[name] for name in _SHARED}
        context = Context(space, self._testcases, jobs=self._jobs, memory=shared)
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
