"""Compare the verdicts of a campaign with those of ``expected.yaml``.

``python -m harness.verify.expected WORKSPACE`` compares the newest report of a workspace with the
committed verdicts of its profile and exits 1 when they differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.verify.documents import read_model
from harness.verify.paths import TESTCASES

__all__ = ["Expected", "compare", "main"]

_Word = Literal["not_applicable", "pass", "deviation", "partial", "not_run", "fail", "error"]


class Expected(BaseModel):
    """The file ``expected.yaml``.

    Attributes
    ----------
    profiles : mapping of str to mapping of str to str
        Verdict of each case by profile.
    rises_with_evidence : list of str
        Cases that may read better than stated when records of other commands are at hand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1] = Field(alias="schema")
    profiles: dict[str, dict[str, _Word]]
    rises_with_evidence: list[str] = []

    @classmethod
    def load(cls, folder: Path = TESTCASES) -> Expected:
        """Read the file.

        Raises
        ------
        SpecError
            If it cannot be read.
        """
        return read_model(folder / "expected.yaml", cls)


def compare(report: dict[str, Any], expected: Expected) -> list[str]:
    """List the differences between a report and the expectation, one sentence each.

    Parameters
    ----------
    report : dict
        A ``report.json``.
    expected : Expected
        What should be.

    Returns
    -------
    list of str
        Empty when all is as expected.
    """
    profile = report["environment"]["profile"]
    wanted = expected.profiles.get(profile)
    if wanted is None:
        return [f"no verdicts are expected of the profile {profile!r}"]
    got = {c["id"]: c["verdict"] for c in report["cases"]}
    return [
        f"{case}: {got.get(case, 'absent')} instead of {wanted.get(case, 'absent')}"
        for case in sorted(wanted.keys() | got.keys())
        if got.get(case) != wanted.get(case)
        and not (case in expected.rises_with_evidence and got.get(case) == "pass")
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and say so.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of the process by default.

    Returns
    -------
    int
        0 when all verdicts are as expected.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) != 1:
        sys.stderr.write("usage: python -m harness.verify.expected WORKSPACE\n")
        return 2
    path = Path(words[0]) / "reports" / "latest" / "report.json"
    if not path.is_file():
        sys.stderr.write(f"{path}: no such report; run `nightjar verify {words[0]}` first\n")
        return 2
    differences = compare(json.loads(path.read_text(encoding="utf-8")), Expected.load())
    sys.stdout.write("".join(f"{line}\n" for line in differences) or "all verdicts as expected\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
