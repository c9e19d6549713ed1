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


def test_who_plans_or_reads_loads_no_library_of_images():
    program = """if True:
        import sys, harness.catalog, harness.settings, harness.tasks
        print({"numba", "scipy", "astropy"} & {*sys.modules})
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("set()\n", 0), done.stderr


def test_the_server_of_workers_has_loaded_all_that_stages_give():
    program = """if True:
        import importlib, sys
        from harness.system.processes import _PRELOAD
        from pipeline import alerts, calibrate, diaobject, diasource, io, isr, subtract, template
        for name in _PRELOAD:  # the server itself passes over what it cannot import
            importlib.import_module(name)
        before = {*sys.modules}
        for package in (alerts, calibrate, diaobject, diasource, io, isr, subtract, template):
            for name in package.__all__:
                getattr(package, name)
        print({*sys.modules} - before)
        # A function stands before the module of its name, whichever was asked for first.
        stages = (alerts, calibrate, diaobject, diasource, isr, subtract, template)
        print([stage.__name__ for stage in stages if not callable(stage.run)])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("set()\n[]\n", 0), done.stderr


def test_a_module_is_not_hidden_by_a_function_that_its_package_does_not_give():
    from pipeline.calibrate import detect

    assert detect.__name__ == "pipeline.calibrate.detect"


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="'pipeline' has no attribute 'nobody'"):
        lazy("pipeline", bits="masks")("nobody")
