from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ids import COUNTER_BITS, pack, unpack


@given(st.integers(0, 10**9), st.integers(0, 99), st.integers(0, 2**COUNTER_BITS - 1))
def test_unpack_inverts_pack(visit: int, detector: int, counter: int) -> None:
    assert unpack(pack(visit, detector, counter)) == (visit, detector, counter)


def test_published_identifier() -> None:
    # Visit 411420, CCD 5 of the HiTS sample: (visit * 100 + detector) * 2**25 + counter.
    assert pack(411420, 5, 7) == (411420 * 100 + 5) * 2**25 + 7


def test_order_is_visit_detector_counter() -> None:
    assert pack(1, 99, 2**25 - 1) < pack(2, 0, 0)


@pytest.mark.parametrize("args", [(-1, 0, 0), (0, 100, 0), (0, 0, 2**25), (2**40, 0, 0)])
def test_overflow_is_refused(args: tuple[int, int, int]) -> None:
    with pytest.raises(OverflowError, match="does not fit an identifier"):
        pack(*args)
