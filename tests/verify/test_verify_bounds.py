import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.verify.bounds import Bound, judge, smallest_effect
from harness.verify.verdict import Verdict


@pytest.mark.parametrize(
    ("text", "inside", "outside", "unit"),
    [
        ("< 50 mas", 49.9, 50.0, "mas"),
        ("<= 50 mas", 50.0, 50.1, "mas"),
        (">= 0.995", 0.995, 0.9949, ""),
        ("= 0 files", 0.0, 1.0, "files"),
        ("0.98 .. 1.02", 1.02, 1.021, ""),
        ("-1e-2 .. 5 rows per visit", -0.01, -0.02, "rows per visit"),
    ],
)
def test_forms(text, inside, outside, unit):
    bound = Bound.parse(text)

    assert bound.holds(inside)
    assert not bound.holds(outside)
    assert not bound.holds(math.nan)
    assert bound.unit == unit


@pytest.mark.parametrize("text", ["", "5", "about 3", "2 .. 1", "<> 4", "< fifty mas"])
def test_nonsense_is_refused(text):
    with pytest.raises(ValueError, match="bound"):
        Bound.parse(text)


def test_partial_must_be_weaker():
    assert Bound.parse(">= 0.9").weaker_than(Bound.parse(">= 0.99"))
    assert not Bound.parse(">= 0.99").weaker_than(Bound.parse(">= 0.9"))
    assert not Bound.parse(">= 0.9").weaker_than(Bound.parse(">= 0.9"))


def verdict(value, text, **more):
    return judge(value, Bound.parse(text), **more)[0]


def test_partial_pass():
    partial = Bound.parse(">= 0.9")

    assert verdict(0.95, ">= 0.99", partial=partial) == Verdict.PARTIAL
    assert verdict(0.85, ">= 0.99", partial=partial) == Verdict.FAIL


def test_an_estimate_needs_a_sample_that_can_tell():
    assert verdict(1.0, "0.98 .. 1.02", stderr=0.005) == Verdict.PASS
    assert verdict(1.0, "0.98 .. 1.02", stderr=0.010) == Verdict.NOT_RUN
    assert verdict(1.03, "0.98 .. 1.02", stderr=0.005) == Verdict.FAIL
    assert verdict(1.03, "0.98 .. 1.02", stderr=0.010) == Verdict.NOT_RUN
    assert verdict(1.10, "0.98 .. 1.02", stderr=0.010) == Verdict.FAIL


def test_one_sided_estimates_use_the_stated_tolerance():
    assert verdict(0.9, ">= 0.8", stderr=0.1, tolerance=0.2) == Verdict.NOT_RUN
    assert verdict(0.9, ">= 0.8", stderr=0.05, tolerance=0.2) == Verdict.PASS
    assert verdict(0.9, ">= 0.8", stderr=0.1) == Verdict.PASS


def test_a_check_that_cannot_see_its_own_bound_says_so():
    wide = {"tolerance": 10.0}

    assert verdict(0.0, "-5 .. 5 %", stderr=3.0, **wide) == Verdict.PASS
    assert verdict(0.0, "-5 .. 5 %", stderr=3.2, **wide) == Verdict.NOT_RUN
    assert verdict(20.0, "-5 .. 5 %", stderr=3.2, **wide) == Verdict.FAIL
    assert verdict(10.0, "< 50 mas", stderr=30.0) == Verdict.PASS
    assert verdict(10.0, "< 50 mas", stderr=31.0) == Verdict.NOT_RUN
    assert verdict(0.0, "= 0 rows", stderr=1.0) == Verdict.PASS


def test_the_stated_effect_is_found_out_in_nineteen_of_twenty():
    rng = np.random.default_rng(4)
    bound, stderr = Bound.parse("-5 .. 5 %"), 1.0
    values = rng.normal(5.0 + smallest_effect(stderr), stderr, 20_000)

    found = np.mean([not bound.holds(v) for v in values])

    assert found == pytest.approx(0.95, abs=0.01)


def test_not_a_number_fails():
    assert judge(math.nan, Bound.parse("<= 1")) == (
        Verdict.FAIL,
        "the measured value is not a finite number",
    )


@given(st.floats(-10, 10), st.floats(0, 5))
def test_a_pass_is_inside_and_a_failure_outside(value, stderr):
    bound = Bound.parse("-1 .. 1")
    got = judge(value, bound, stderr=stderr)[0]

    if got == Verdict.PASS:
        assert bound.holds(value)
    if got == Verdict.FAIL:
        assert not bound.holds(value)
