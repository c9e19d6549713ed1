from __future__ import annotations

import pickle

import pytest

from pipeline.errors import KeywordError, NightjarError, PsfError, UnitError


def test_input_error_is_one_line_that_says_all() -> None:
    error = KeywordError(
        "missing",
        path="a.fits",
        hdu=3,
        key="EXPTIME",
        expected="seconds",
        hint="add it\nto the header",
    )

    assert str(error) == ("a.fits[3] EXPTIME: missing; expected seconds (add it to the header)")


def test_unit_error_survives_pickling_with_its_numbers() -> None:
    error = pickle.loads(pickle.dumps(PsfError("too few stars", found=1, needed=3)))

    assert isinstance(error, PsfError)
    assert error.numbers == {"found": 1, "needed": 3}
    assert str(error) == "too few stars [found=1, needed=3]"


@pytest.mark.parametrize("kind", UnitError.__subclasses__())
def test_every_unit_error_has_its_own_cause(kind: type[UnitError]) -> None:
    causes = [k.cause for k in UnitError.__subclasses__()]

    assert issubclass(kind, NightjarError)
    assert causes.count(kind.cause) == 1
