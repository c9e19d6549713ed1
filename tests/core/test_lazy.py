"""Names that are loaded late are the same as if they had been there from the start."""

import pytest

from pipeline import calibrate, io
from pipeline.calibrate.stage import run
from pipeline.lazy import lazy


def test_names_come_from_their_modules():
    assert calibrate.run is run
    assert callable(io.read_refcat)
    assert callable(calibrate.align)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="'pipeline' has no attribute 'nobody'"):
        lazy("pipeline", bits="masks")("nobody")
