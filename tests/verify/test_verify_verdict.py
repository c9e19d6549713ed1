from hypothesis import given
from hypothesis import strategies as st

from harness.verify.verdict import Verdict, exit_code, worst

verdicts = st.sampled_from(list(Verdict))
several = st.lists(verdicts, min_size=1, max_size=8)


@given(several, st.randoms())
def test_order_does_not_matter(parts, random):
    shuffled = list(parts)
    random.shuffle(shuffled)

    assert worst(shuffled) == worst(parts)


@given(several, st.integers(0, 4))
def test_not_applicable_is_neutral(parts, n):
    assert worst([*parts, *[Verdict.NOT_APPLICABLE] * n]) == worst(parts)


@given(several, st.data())
def test_making_a_part_worse_never_improves_the_whole(parts, data):
    index = data.draw(st.integers(0, len(parts) - 1))
    worse = data.draw(st.sampled_from([v for v in Verdict if v >= parts[index]]))
    changed = [*parts[:index], worse, *parts[index + 1 :]]

    assert worst(changed) >= worst(parts)


@given(several, several)
def test_grouping_does_not_matter(a, b):
    assert worst([worst(a), worst(b)]) == worst([*a, *b])


def test_nothing_shown_is_not_a_pass():
    assert worst([]) == Verdict.NOT_RUN


def test_the_order_of_the_words():
    words = ["not_applicable", "pass", "deviation", "partial", "not_run", "fail", "error"]

    assert [v.word for v in sorted(Verdict)] == words


def test_exit_codes():
    P = Verdict
    table = {
        (): 0,
        (P.PASS, P.DEVIATION, P.NOT_APPLICABLE): 0,
        (P.PASS, P.PARTIAL): 3,
        (P.PARTIAL, P.NOT_RUN): 4,
        (P.NOT_RUN, P.FAIL): 1,
        (P.ERROR,): 1,
    }

    assert {k: exit_code(k) for k in table} == table


def test_every_verdict_has_a_shape_of_its_own():
    assert len({v.shape for v in Verdict}) == len(Verdict)
