"""From a workspace to a written report: judge, draw, describe, write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.report.figures import overview_figures
from harness.report.model import build
from harness.report.sheets import contact_sheets
from harness.report.simulation import simulation_page
from harness.report.write import latest_report, next_folder, write_report
from harness.verify.context import Context
from harness.verify.engine import CaseResult, judge_cases
from harness.verify.kinds.command import Command
from harness.verify.loader import load_spec
from harness.verify.measurement import Evidence, NotRun
from harness.verify.model import Check
from harness.verify.paths import TESTCASES
from harness.verify.pin import pin
from harness.verify.replay import replay
from harness.verify.sampling import requests_of, start_measuring
from harness.workspace import Workspace

__all__ = ["Judgement", "judge_workspace"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judged campaign.

    Attributes
    ----------
    report : dict
        The report.
    results : list of CaseResult
        What it was made of.
    path : Path, optional
        ``report.html``; None where nothing was written.
    """

    report: dict[str, Any]
    results: list[CaseResult]
    path: Path | None


def judge_workspace(
    root: Path,
    *,
    testcases: Path = TESTCASES,
    evidence: Path = Path("campaigns/evidence"),
    only: Iterable[str] = (),
    jobs: int = 2,
    write: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Judgement:
    """Judge a campaign and write its report.

    Parameters
    ----------
    root : path-like
        The workspace.
    testcases : path-like
        The specification.
    evidence : path-like
        Records of earlier commands.
    only : iterable of str
        Judge these paths only; nothing is written then.
    jobs : int
        Processes that measure images.
    write : bool
        Whether to write the report.
    progress : callable, optional
        Called with the path of each check before it runs.

    Returns
    -------
    Judgement
        The report and where it was written.

    Raises
    ------
    SpecError
        If the specification has mistakes.
    InputError
        If there is nothing to judge.
    """
    spec = load_spec(testcases)
    space = Workspace.open(root)
    pin(space, testcases, late=True)
    name = root.resolve().name
    folder = next_folder(space, name)
    wanted = tuple(only)
    keep = write and not wanted
    context = Context(space, testcases, evidence, jobs, store=folder / "evidence" if keep else None)
    selected = [
        k
        for c, i, k in spec.checks()
        if not wanted or any(f"{c.id}/{i.id}/{k.id}".startswith(w) for w in wanted)
    ]
    # What takes long goes on in other processes while the figures are drawn here.
    start_measuring(context, requests_of(context, selected))
    _start_commands(context, selected)
    sheets: dict[str, list[dict[str, Any]]] = {}
    overview: tuple[Evidence, ...] = ()
    if keep:
        sheets = contact_sheets(spec, context, folder / "evidence")
        overview = overview_figures(context, folder / "evidence")
    results = judge_cases(spec, context, only=wanted, progress=progress)
    figures = (*_drawn(results), *overview) if keep else ()
    report = build(
        folder.name,
        spec,
        context,
        results,
        previous=latest_report(space),
        sabotage=_sabotage(space),
        replay=replay("dmtr-53", testcases),
        figures=figures,
        sheets=sheets,
        simulation=simulation_page(space),
    )
    path = write_report(report, folder, testcases) if keep else None
    context.close()
    return Judgement(report, results, path)


def _start_commands(context: Context, checks: Iterable[Check]) -> None:
    for check in checks:
        if isinstance(check.subject, Command) and check.applies(context):
            with suppress(NotRun):  # its measurement will say so
                check.subject.start(context)


def _drawn(results: list[CaseResult]) -> list[Evidence]:
    """Figures that checks drew, such as the completeness curve."""
    checks = (c for r in results for i in r.items for c in i.checks)
    found = (e for c in checks if c.measurement for e in c.measurement.evidence)
    return [e for e in found if e.kind == "figure"]


def _sabotage(space: Workspace) -> dict[str, Any] | None:
    """Return the detection matrix of the last `nightjar sabotage` of this workspace."""
    path = space.root / "reports" / "sabotage.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
