"""Names that are loaded late are the same as if they had been there from the start."""

import subprocess
import sys

import pytest

from pipeline import io
from pipeline.io.refcat import read_refcat
from pipeline.lazy import lazy


def test_names_come_from_their_modules():
    assert io.read_refcat is read_refcat
    assert callable(io.read_raw)


@pytest.mark.parametrize("module", ["harness.verify.alerts.check", "harness.alerts.terminal"])
def test_reading_alerts_loads_no_loops_over_pixels(module):
    program = f"import sys, {module}; print('numba' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("False False\n", 0)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="'pipeline' has no attribute 'nobody'"):
        lazy("pipeline", bits="masks")("nobody")
