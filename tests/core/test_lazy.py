"""Names that are loaded late are the same as if they had been there from the start."""

import pytest

from pipeline import io
from pipeline.io.refcat import read_refcat
from pipeline.lazy import lazy


def test_names_come_from_their_modules():
    assert io.read_refcat is read_refcat
    assert callable(io.read_raw)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="'pipeline' has no attribute 'nobody'"):
        lazy("pipeline", bits="masks")("nobody")
