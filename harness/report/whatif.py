"""What if: a campaign made again with other settings in a copy, and its verdicts beside the old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.campaign.run import run_campaign
from harness.campaign.staleness import CACHED
from harness.report.diff import diff_reports
from harness.report.judge import judge_workspace
from harness.report.write import latest_report
from harness.settings import Settings
from harness.system.scratch import scratch_folder
from harness.verify.copy import Copy
from harness.verify.loader import load_spec
from harness.verify.paths import TESTCASES
from harness.workspace import Workspace
from pipeline.errors import ConfigError

__all__ = ["what_if"]


def what_if(
    root: Path,
    overrides: Sequence[str],
    *,
    testcases: Path = TESTCASES,
    evidence: Path = Path("campaigns/evidence"),
    jobs: int = 2,
) -> dict[str, Any]:
    """Make again what settings touch, in a copy by links, and judge the copy.

    The workspace is only read.  A study is not made again: where a product has changed, the
    copy has none, and its checks read `NOT_RUN`.

    Parameters
    ----------
    root : path-like
        The workspace; its newest report is what the copy is compared with.
    overrides : sequence of str
        ``section.key=value`` in place of the file's.
    testcases, evidence : path-like
        The specification, and records of earlier commands.
    jobs : int
        Processes.

    Returns
    -------
    dict
        Result of `harness.report.diff.diff_reports`, with ``verdicts`` (every case before and
        after), ``made`` (work done in the copy by its phase), ``troubles`` (units that failed
        there) and ``exit_code`` (that of the copy).

    Raises
    ------
    ConfigError
        If the workspace was not judged yet by this specification, or a setting is wrong.
    """
    space = Workspace.open(root)
    settings = Settings.load(space.config, overrides)
    before = latest_report(space)
    if before is None or before["spec_hash"] != load_spec(testcases).hash:
        raise ConfigError(
            "has no report by this specification to compare with",
            path=root,
            hint=f"nightjar verify {root}",
        )
    with scratch_folder() as scratch:
        with space.reading("verify --compare"):
            copy = Copy.of(space, scratch / space.root.resolve().name, (), ())
        settings.save(copy.space.config)
        summary = run_campaign(copy.space.root, jobs=jobs, quiet=True)
        made = _made(summary.counts)
        if made:
            copy.forget_studies()
        done = judge_workspace(
            copy.space.root, testcases=testcases, evidence=evidence, jobs=jobs, write=False
        )
    after = {**done.report, "campaign": ", ".join(overrides)}
    old, new = ({c["id"]: c["verdict"] for c in r["cases"]} for r in (before, after))
    return {
        **diff_reports(before, after),
        "verdicts": [
            {"case": c, "before": old.get(c), "after": new.get(c)}
            for c in sorted(old.keys() | new.keys())
        ],
        "made": made,
        "troubles": [t.row() for t in summary.troubles],
        "exit_code": done.report["exit_code"],
    }


def _made(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Work that was done, by phase and outcome; what stood already left out."""
    worked = {
        label: {outcome: n for outcome, n in of.items() if outcome != CACHED}
        for label, of in counts.items()
    }
    return {label: of for label, of in worked.items() if of}
