"""From a workspace to a written report: judge, draw, describe, write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.report.figures import overview_figures, overview_pictures
from harness.report.model import build
from harness.report.sheets import contact_sheets, sheet_pictures
from harness.report.simulation import simulation_page
from harness.report.write import latest_report, next_folder, write_report
from harness.system.scratch import scratch_folder
from harness.system.text import one_line
from harness.verify.adapters import ADAPTERS
from harness.verify.context import Context
from harness.verify.engine import CaseResult, judge_cases
from harness.verify.kinds.command import Command
from harness.verify.loader import Spec, load_spec
from harness.verify.measurement import Evidence, NotRun
from harness.verify.model import Check
from harness.verify.paths import TESTCASES
from harness.verify.pin import pin
from harness.verify.replay import replay
from harness.verify.sabotage import matrix_fault
from harness.verify.sampling import Picture, requests_of, start_measuring
from harness.workspace import Workspace
from pipeline.errors import FileFormatError

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
    output: Path | None = None,
    adapter: str = "",
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
    output : path-like, optional
        Folder of reports; that of the workspace by default.
    adapter : str
        Layout of products that were made elsewhere, see `harness.verify.adapters`; the folder is
        then no workspace.
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
        If there is nothing to judge, or the report cannot be written.
    """
    spec = load_spec(testcases)
    wanted = tuple(only)
    chosen: dict[str, Any] = {"testcases": testcases, "evidence_folder": evidence, "jobs": jobs}
    with _opened(root, adapter, chosen) as context:
        context.catalog  # noqa: B018 - without one there is nothing to judge
        folder = None
        if write and not wanted:
            folder = next_folder(output or root / "reports", root.resolve().name)
            context.store = folder / "evidence"
        with suppress(FileFormatError):  # one may judge what one may not write
            pin(context.space, testcases, late=True)
        return _judged(spec, context, wanted, folder, progress)


@contextmanager
def _opened(root: Path, adapter: str, chosen: dict[str, Any]) -> Iterator[Context]:
    """Open a workspace, or make one of products that were made elsewhere, for a while."""
    if not adapter:
        space = Workspace.open(root)
        with space.reading("verify"), closing(Context(space, **chosen)) as context:
            yield context
        return
    with (
        scratch_folder() as scratch,
        closing(ADAPTERS[adapter](root, scratch / "campaign", **chosen)) as context,
    ):
        yield context


def _judged(
    spec: Spec,
    context: Context,
    wanted: tuple[str, ...],
    folder: Path | None,
    progress: Callable[[str], None] | None,
) -> Judgement:
    checks = [
        k
        for c, i, k in spec.checks()
        if not wanted or any(f"{c.id}/{i.id}/{k.id}".startswith(w) for w in wanted)
    ]
    # What takes long goes on in other processes while the tables are judged here.
    pictures = _pictures(spec, context) if folder is not None else []
    start_measuring(context, requests_of(context, checks), pictures)
    _start_commands(context, checks)
    results = judge_cases(spec, context, only=wanted, progress=progress)
    sheets: dict[str, list[dict[str, Any]]] = {}
    figures: tuple[Evidence, ...] = ()
    if folder is not None:
        sheets = contact_sheets(spec, context, folder / "evidence")
        figures = overview_figures(context, folder / "evidence")
    report = build(
        folder.name if folder is not None else context.space.root.resolve().name,
        spec,
        context,
        results,
        previous=latest_report(context.space),
        sabotage=_sabotage(context.space, spec),
        replay=replay("dmtr-53", context.testcases),
        figures=(*_drawn(results), *figures) if folder is not None else (),
        sheets=sheets,
        simulation=simulation_page(context.space),
    )
    path = None
    if folder is not None:
        path = write_report(report, folder, context.testcases, context.space.specification)
    return Judgement(report, results, path)


def _pictures(spec: Spec, context: Context) -> list[Picture]:
    """List every drawing of the report that needs pixels."""
    sheets = sheet_pictures(spec, context).values()
    return [*(picture for sheet in sheets for picture in sheet), *overview_pictures(context)]


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


def _sabotage(space: Workspace, spec: Spec) -> dict[str, Any] | None:
    """Return the detection matrix of this state of the workspace, or why it does not count."""
    path = space.root / "reports" / "sabotage.json"
    if not path.is_file():
        return None
    try:
        matrix = json.loads(path.read_text(encoding="utf-8"))
        fault = matrix_fault(matrix, space, spec)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        return {"fault": f"cannot be read: {one_line(err)}"}
    return {"fault": fault} if fault else dict(matrix)
