from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ids import COUNTER_BITS, pack, unpack

VISITS = st.integers(0, (2**38 - 1) // 100 - 1)
UNITS = st.tuples(VISITS, st.integers(0, 999), st.integers(0, 2**COUNTER_BITS - 1))


@given(UNITS)
def test_unpack_inverts_pack(unit: tuple[int, int, int]) -> None:
    assert unpack(pack(*unit)) == unit


@given(UNITS)
def test_identifiers_fit_a_positive_int64(unit: tuple[int, int, int]) -> None:
    assert 0 <= pack(*unit) <= np.iinfo(np.int64).max


@given(VISITS, st.integers(0, 99), st.integers(0, 2**COUNTER_BITS - 1))
def test_two_digits_of_a_detector_stand_as_they_are(
    visit: int, detector: int, counter: int
) -> None:
    assert pack(visit, detector, counter) == (visit * 100 + detector) * 2**25 + counter


def test_identifiers_of_189_detectors_are_unique() -> None:
    edges = (0, 1, 2**COUNTER_BITS - 1)
    units = [(v, d, k) for v in (411420, 411421) for d in range(189) for k in edges]

    assert len({pack(*unit) for unit in units}) == len(units)


def test_published_identifier() -> None:
    # Visit 411420, CCD 5 of the HiTS sample: (visit * 100 + detector) * 2**25 + counter.
    assert pack(411420, 5, 7) == (411420 * 100 + 5) * 2**25 + 7


def test_order_is_visit_detector_counter() -> None:
    assert pack(1, 999, 2**COUNTER_BITS - 1) < pack(2, 0, 0)
    assert pack(1, 8, 2**COUNTER_BITS - 1) < pack(1, 9, 0)


@pytest.mark.parametrize("args", [(-1, 0, 0), (0, 1000, 0), (0, 0, 2**21), (2**40, 0, 0)])
def test_overflow_is_refused(args: tuple[int, int, int]) -> None:
    with pytest.raises(OverflowError, match="does not fit an identifier"):
        pack(*args)
