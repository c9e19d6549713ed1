"""What holds of verdicts whatever was measured: order, neutrality, monotonicity, no empty pass."""

from __future__ import annotations

import math
from datetime import date
from functools import lru_cache
from types import SimpleNamespace

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.verify.bounds import Bound, judge
from harness.verify.engine import Observation, conclude, judge_check
from harness.verify.loader import Spec
from harness.verify.measurement import Measurement
from harness.verify.metric import Sample
from harness.verify.model import case_model
from harness.verify.sampling import combine
from harness.verify.verdict import Verdict

GOOD = {Verdict.PASS, Verdict.DEVIATION, Verdict.PARTIAL, Verdict.NOT_APPLICABLE}
BOUNDS = ("<= 1", ">= -1", "-1 .. 1", "< 1", "= 0")
BAD = st.sampled_from([math.nan, math.inf, -math.inf])
ERRORS = st.floats(0.0, 2.0)


NUMBER = {"population": "select 1", "value": "select 0", "measured_in": ""}


def case_of(severities, query=NUMBER, bound="-1 .. 1"):
    """A case of one item with these checks."""
    asked = {"text": "t", "sql": query, "bound": bound}
    checks = [{"id": f"c{n}", "severity": s, **asked} for n, s in enumerate(severities)]
    return case_model().model_validate(
        {
            "schema": 1, "id": "AG-00-05", "title": "t", "version": "1.0.0", "purpose": "p",
            "derived_from": {"document": "d", "version": "1", "section": "s"},
            "items": [{"id": "i", "text": "t", "checks": checks}],
        }
    )  # fmt: skip


measured = st.builds(
    lambda value, n, stderr: Observation("measured", Measurement(value, n, stderr), population=n),
    st.one_of(st.floats(-2.0, 2.0), BAD),
    st.integers(0, 3),
    st.one_of(st.none(), ERRORS, BAD),
)
unmeasured = st.sampled_from([Observation(o) for o in ("not_run", "not_applicable", "error")])
seen = st.one_of(measured, unmeasured)
severities = st.sampled_from(["must", "should", "info"])
several = st.lists(st.tuples(severities, seen), min_size=1, max_size=6)


known_case = lru_cache(case_of)


def verdict_of(checks):
    """Verdict of the case whose checks saw these things."""
    case = known_case(tuple(severity for severity, _ in checks))
    found = {f"AG-00-05/i/c{n}": o for n, (_, o) in enumerate(checks)}
    spec = Spec((case,), (), (), "", {})
    (result,) = conclude(spec, lambda path, _: found[path], date(2026, 1, 1))
    return result.verdict


@given(several, st.randoms())
def test_the_order_of_checks_does_not_matter(checks, random):
    shuffled = list(checks)
    random.shuffle(shuffled)

    assert verdict_of(shuffled) == verdict_of(checks)


@given(several, st.lists(severities, max_size=3))
def test_what_does_not_apply_and_what_only_informs_is_neutral(checks, more):
    idle = [(s, Observation("not_applicable")) for s in more]
    known = [c for c in checks if c[0] != "info"]

    assert verdict_of([*checks, *idle]) == verdict_of(checks)
    assert verdict_of(checks) == (verdict_of(known) if known else Verdict.NOT_APPLICABLE)


@given(several, st.data())
def test_a_worse_check_never_makes_a_better_case(checks, data):
    place = data.draw(st.integers(0, len(checks) - 1))
    severity, old = checks[place]
    worse = data.draw(seen)
    if verdict_of([(severity, worse)]) < verdict_of([(severity, old)]):
        old, worse = worse, old
    before, after = ([*checks[:place], (severity, o), *checks[place + 1 :]] for o in (old, worse))

    assert verdict_of(after) >= verdict_of(before)


@given(seen)
def test_a_lighter_severity_never_makes_a_worse_case(observed):
    must, should, info = (verdict_of([(s, observed)]) for s in ("must", "should", "info"))

    assert must >= should >= info


@given(BAD, st.sampled_from(BOUNDS), st.one_of(st.none(), ERRORS))
def test_what_is_no_number_never_passes(value, bound, stderr):
    assert judge(value, Bound.parse(bound), stderr=stderr)[0] not in GOOD


@given(
    st.floats(-2.0, 2.0),
    st.sampled_from(BOUNDS),
    st.one_of(BAD, st.floats(max_value=-1e-9, allow_nan=False)),
    st.one_of(st.none(), st.floats(0.1, 10.0)),
)
def test_an_estimate_without_an_error_never_passes(value, bound, stderr, tolerance):
    assert judge(value, Bound.parse(bound), stderr=stderr, tolerance=tolerance)[0] not in GOOD


@given(st.floats(-2.0, 2.0), st.sampled_from(BOUNDS), ERRORS, ERRORS)
def test_a_smaller_sample_never_passes_where_a_larger_one_does_not(value, bound, one, other):
    small, large = max(one, other), min(one, other)
    parsed = Bound.parse(bound)

    if judge(value, parsed, stderr=small)[0] in GOOD:
        assert judge(value, parsed, stderr=large)[0] in GOOD


@given(st.floats(-1.0, 1.0), st.floats(0.0, 0.1))
def test_an_estimate_from_one_subject_or_none_never_passes(value, stderr):
    for n in (0, 1):
        alone = Observation("measured", Measurement(value, n, stderr), population=n)
        assert verdict_of([("must", alone)]) not in GOOD
    two = Observation("measured", Measurement(value, 2, stderr), population=2)
    assert verdict_of([("must", two)]) in GOOD


rows = st.lists(st.one_of(st.none(), st.just(math.nan), st.floats(-0.5, 0.5)), max_size=6)
QUERIES = (
    {"rows": "select x from t where abs(x) > 1"},
    {"value": "select avg(x) from t", "measured_in": ""},
    {"value": "select median(x), stddev(x) / sqrt(count(*)) from t", "measured_in": ""},
    {"value": "select count(*) filter (abs(x) > 1) from t", "measured_in": ""},
)


@pytest.fixture(scope="module")
def ask():
    """Judge a query of a table of values, which stands in the place of a campaign."""
    with duckdb.connect() as connection:
        connection.execute("create table t (x double)")
        context = SimpleNamespace(
            fetch=lambda sql: connection.execute(sql).fetchall(),
            query=lambda sql: connection.execute(sql).to_arrow_table(),
            unanswerable=lambda err: "", store=None, foreign=False,
        )  # fmt: skip

        def judged(check, values):
            connection.execute("delete from t")
            for value in values:
                connection.execute("insert into t values (?)", [value])
            return judge_check("AG-00-05/i/c0", check, context).verdict

        yield judged


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: next(iter(q.values())))
@settings(max_examples=40)
@given(values=rows)
def test_missing_values_and_empty_tables_never_pass(ask, query, values):
    bound = "= 0 rows" if "rows" in query else "-1 .. 1"
    asked = {"population": "select x from t", **query}
    check = case_of(["must"], asked, bound).items[0].checks[0]

    verdict = ask(check, values)

    clean = bool(values) and all(v is not None and math.isfinite(v) for v in values)
    assert clean or verdict not in GOOD
    assert len(values) > 1 or "stddev" not in str(query) or verdict not in GOOD


samples = st.lists(
    st.one_of(
        st.builds(Sample, st.floats(-0.5, 0.5), st.integers(2, 9), ERRORS.map(lambda e: e / 50)),
        st.builds(Sample, BAD, st.integers(1, 9)),
        st.builds(Sample, st.floats(-0.5, 0.5), st.just(0)),
        st.just("ValueError: it broke"),
    ),
    max_size=5,
)


@pytest.mark.parametrize("reduce", ["worst", "sum", "mean", "median", "pooled"])
@given(found=samples, text=st.sampled_from(["-1e9 .. 1e9", "<= 1e9", ">= -1e9"]))
def test_a_broken_frame_or_one_without_a_number_never_passes(reduce, found, text):
    bound = Bound.parse(text)
    outcomes = {(n, 1): s for n, s in enumerate(found)}

    seen = Observation("measured", combine(outcomes, reduce, bound))

    known = [s for s in found if isinstance(s, Sample) and s.n > 0]
    whole = not any(isinstance(s, str) for s in found)
    if not (known and whole and all(math.isfinite(s.value) for s in known)):
        assert verdict_of([("must", seen)]) not in GOOD
