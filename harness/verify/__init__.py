"""Judging a campaign: test cases as data, verdicts with an algebra, evidence for every word.

`load_spec` reads the case files, `judge_cases` measures and judges, `pin` fixes the criteria before
a run.  The report is made by `harness.report`.
"""

from harness.verify.context import Context
from harness.verify.engine import judge_cases
from harness.verify.loader import TESTCASES, Spec, load_spec
from harness.verify.nodes import SpecError
from harness.verify.pin import pin
from harness.verify.verdict import Verdict, exit_code, worst

__all__ = [
    "TESTCASES",
    "Context",
    "Spec",
    "SpecError",
    "Verdict",
    "exit_code",
    "judge_cases",
    "load_spec",
    "pin",
    "worst",
]
