"""Deriving the verdicts of a published test report anew from its item results and deviations.

If the algebra is right, the published summary must follow from the published details.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.verify.documents import read_model
from harness.verify.paths import TESTCASES
from harness.verify.verdict import Verdict, worst

__all__ = ["Replay", "derive", "load_replay", "replay"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Finding(_Model):
    """One result that stands behind an item: its outcome, and how it was accepted if it failed."""

    text: str
    outcome: Literal["PASS", "FAIL", "PARTIAL", "N/A", "NOT RUN"]
    severity: Literal["must", "should"] = "must"
    accepted: str = ""


class ReplayItem(_Model):
    """One line of the published details."""

    text: str
    published: str
    findings: list[Finding]


class ReplayCase(_Model):
    """One row of the published summary with its items."""

    id: str
    published: str
    items: list[ReplayItem]


class Edition(_Model):
    """One edition of the report: a draft or the release."""

    name: str
    date: str
    cases: list[ReplayCase]


class Replay(_Model):
    """A published report: its release and its drafts."""

    version: Literal[1] = Field(alias="schema")
    document: str
    source: str
    release: Edition
    drafts: list[Edition] = []


_OUTCOMES = {
    "PASS": Verdict.PASS,
    "FAIL": Verdict.FAIL,
    "PARTIAL": Verdict.PARTIAL,
    "N/A": Verdict.NOT_APPLICABLE,
    "NOT RUN": Verdict.NOT_RUN,
}
_WORDS = {
    Verdict.NOT_APPLICABLE: "N/A",
    Verdict.PASS: "Pass",
    Verdict.DEVIATION: "Pass",
    Verdict.PARTIAL: "Partial Pass",
    Verdict.NOT_RUN: "Not run",
    Verdict.FAIL: "Fail",
    Verdict.ERROR: "Fail",
}


def load_replay(name: str, folder: Path = TESTCASES) -> Replay:
    """Read ``replay/NAME.yaml``.

    Parameters
    ----------
    name : str
        Name of the published report.
    folder : Path
        Folder of the test cases.

    Returns
    -------
    Replay
        All editions.

    Raises
    ------
    SpecError
        With every problem of the file.
    """
    return read_model(folder / "replay" / f"{name}.yaml", Replay)


def _finding(finding: Finding) -> Verdict:
    verdict = _OUTCOMES[finding.outcome]
    if verdict == Verdict.FAIL and finding.severity == "should":
        verdict = Verdict.PARTIAL
    accepted = bool(finding.accepted) and verdict in (Verdict.FAIL, Verdict.PARTIAL)
    return Verdict.DEVIATION if accepted else verdict


def derive(edition: Edition) -> list[dict[str, Any]]:
    """Derive the verdicts of one edition.

    Parameters
    ----------
    edition : Edition
        Results as they were published.

    Returns
    -------
    list of dict
        ``id``, ``published``, ``derived``, ``deviations`` and the items likewise.
    """
    return [_case(case) for case in edition.cases]


def _case(case: ReplayCase) -> dict[str, Any]:
    verdicts = [worst(_finding(f) for f in item.findings) for item in case.items]
    return {
        "id": case.id,
        "published": case.published,
        "derived": _WORDS[worst(verdicts)],
        "deviations": [f.accepted for i in case.items for f in i.findings if f.accepted],
        "items": [
            {"text": i.text, "published": i.published, "derived": _WORDS[v]}
            for i, v in zip(case.items, verdicts, strict=True)
        ],
    }


def replay(name: str, folder: Path = TESTCASES) -> dict[str, Any]:
    """Derive all verdicts of a published report and of its drafts.

    Parameters
    ----------
    name : str
        Such as ``dmtr-53``.
    folder : path-like
        The folder of the test cases.

    Returns
    -------
    dict
        ``{"document", "source", "cases": [...], "drafts": [{"name", "date", "cases"}]}``.
    """
    content = load_replay(name, folder)
    return {
        "document": content.document,
        "source": content.source,
        "cases": derive(content.release),
        "drafts": [{"name": d.name, "date": d.date, "cases": derive(d)} for d in content.drafts],
    }
