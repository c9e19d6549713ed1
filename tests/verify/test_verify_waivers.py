from datetime import date

import pytest

from harness.verify.model import Waiver
from harness.verify.verdict import Verdict
from harness.verify.waivers import apply_waiver

TODAY = date(2026, 6, 1)
SUBJECT = {"visit": 411657, "detector": 47}


def waiver(**changes):
    values = {
        "id": "W-0007", "check": "AG-00-05/one/first", "ticket": "T-41", "approved_by": "a.person",
        "reason": "no stars on this chip", "approved_on": "2026-05-01", "expires": "2027-03-31",
        "no_worse_than": "<= 1 files",
        "scope": {"visit": [411657], "detector": [47]}, **changes,
    }  # fmt: skip
    return Waiver.model_validate(values)


def ruling(verdict=Verdict.FAIL, value=1.0, failing=(SUBJECT,), today=TODAY, **changes):
    return apply_waiver(waiver(**changes), verdict, value, failing, today)


def test_a_covered_failure_becomes_a_deviation():
    got = ruling()

    assert got.verdict == Verdict.DEVIATION
    assert "T-41" in got.sentence


def test_its_last_day_still_counts():
    assert ruling(today=date(2027, 3, 31)).verdict == Verdict.DEVIATION


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"today": date(2027, 4, 1)}, "expired"),
        ({"value": 2.0}, "exceeded"),
        ({"failing": (SUBJECT, {"visit": 1, "detector": 47})}, "out of scope"),
        ({"failing": ()}, "out of scope"),
    ],
)
def test_what_it_does_not_cover_stays_a_failure(changes, state):
    got = ruling(**changes)

    assert got.verdict == Verdict.FAIL
    assert got.state == state


def test_the_expiry_names_its_date():
    assert "2027-03-31" in ruling(today=date(2027, 4, 1)).sentence


def test_an_error_cannot_be_waived():
    assert ruling(verdict=Verdict.ERROR).verdict == Verdict.ERROR


def test_a_waiver_whose_check_passes_is_stale():
    got = ruling(verdict=Verdict.PASS, failing=())

    assert (got.verdict, got.state) == (Verdict.PASS, "stale")


def test_without_scope_everything_is_covered():
    assert ruling(scope={}, failing=()).verdict == Verdict.DEVIATION
